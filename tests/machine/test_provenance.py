"""Whose the files of a commit are, in real repositories with the commits of a user and of this server."""

import subprocess
import time
from pathlib import Path

import pytest

from mcp_server.machine.git import Repository, tree_with_files
from mcp_server.machine.provenance import provenance
from mcp_server.machine.starter import starter_files
from tests.project import Project


class Place:
    """A repository, and what is done to it by its user, by agents through the server, and by agents with a shell."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.repository = Repository.discover(project.root)
        self.head = project.git("rev-parse", "HEAD")

    def user(self, **files: str) -> str:
        self.head = self.project.commit("mine", {f"{name}.py": text for name, text in files.items()})
        return self.head

    def agent(self, base: str, **files: str | None) -> str:
        """A commit that the server makes of an agent's change, kept by a ref of ours."""
        texts = {f"{name}.py": text for name, text in files.items()}
        tree = tree_with_files(self.repository, base, texts)
        commit = self.repository.commit_tree(tree, [base], "an experiment", time.time())
        self.repository.keep_ref("mar8", f"mar8-{commit[:6]}", commit)
        return commit

    def shell(self, base: str, **files: str) -> str:
        """A commit that an agent makes by itself in its workspace, under the user's name."""
        commit = self.agent(base, **files)
        tree = self.project.git("rev-parse", f"{commit}^{{tree}}")
        made = self.project.git("commit-tree", tree, "-p", base, "-m", "by hand")
        self.repository.keep_ref("mar8", f"mar8-{made[:6]}", made)
        return made

    def brought(self, commit: str) -> tuple[set[str], set[str]]:
        found = provenance(self.repository, commit)
        return set(found.brought), set(found.replaced)


@pytest.fixture
def place(project: Project) -> Place:
    return Place(project)


def test_all_that_the_user_committed_is_the_users(place: Place) -> None:
    place.user(judge="1")
    assert place.brought(place.user(judge="2")) == (set(), set())
    place.project.git("checkout", "--quiet", "--detach")
    assert place.brought(place.user(judge="3")) == (set(), set()), "HEAD is the user's, on a branch or not"


@pytest.mark.parametrize("way", ["agent", "shell"])
def test_what_an_experiment_brought_is_the_agents(place: Place, way: str) -> None:
    base = place.user(judge="1", train="1")
    commit = getattr(place, way)(base, numpy="evil", judge="2")
    assert place.brought(commit) == ({"numpy.py", "judge.py"}, {"judge.py"})
    assert provenance(place.repository, place.agent(commit, train=None)).deleted == {"train.py"}
    later = place.agent(commit, train="2")
    assert place.brought(later) == ({"numpy.py", "judge.py", "train.py"}, {"judge.py", "train.py"})
    back = place.agent(later, judge="1", numpy=None)
    assert place.brought(back) == ({"train.py"}, {"train.py"}), "what is put back is the user's again"


def test_it_stays_the_agents_when_the_user_goes_on_from_it(place: Place) -> None:
    base = place.user(judge="1")
    commit = place.agent(base, numpy="evil")
    place.project.git("merge", "--quiet", "--ff-only", commit)
    assert place.brought(place.user(other="mine")) == ({"numpy.py"}, set())
    assert place.brought(place.user(numpy="looked at, and made my own")) == (set(), set())


def test_a_merge_brings_what_neither_side_has(place: Place) -> None:
    base = place.user(judge="1", train="1")
    one, two = place.agent(base, train="2"), place.agent(base, other="2")
    merged = place.repository.adopt(two, one, time.time())
    assert place.brought(merged) == ({"train.py"}, {"train.py"})
    tree = tree_with_files(place.repository, one, {"numpy.py": "evil"})
    assert "numpy.py" in place.brought(place.repository.commit_tree(tree, [one, two], "merge", time.time()))[0]


def test_branches_of_runs_are_not_the_users_and_other_refs_are(place: Place) -> None:
    made = place.shell(place.user(judge="1"), numpy="evil")
    for ref in ("heads/autoresearch/mar8", "remotes/origin/autoresearch/mar8", "autoresearch/mar8/mar8-9"):
        place.project.git("update-ref", f"refs/{ref}", made)
        assert place.brought(made)[0] == {"numpy.py"}, ref
    place.project.git("checkout", "--quiet", "autoresearch/mar8")
    assert place.brought(made)[0] == {"numpy.py"}, "HEAD on the branch of a run"
    place.project.git("update-ref", "refs/tags/looked-at", made)
    assert place.brought(made)[0] == set()


def test_a_folder_as_the_server_found_it_is_the_users(tmp_path: Path) -> None:
    place = Place(Project.make(tmp_path / "other"))
    tree = tree_with_files(place.repository, place.head, {"judge.py": "1"})
    root = place.repository.commit_tree(tree, [], "as it was found", time.time())
    assert place.brought(root) == (set(), set())
    assert place.brought(place.agent(root, train="2"))[0] == {"train.py"}


def test_our_harness_as_it_is_installed_is_ours_whoever_brought_it(place: Place) -> None:
    files = {path.stem: path.read_text() for name, path in starter_files().items() if name.endswith(".py")}
    commit = place.agent(place.head, **files)
    assert place.brought(commit)[0] == {"train.py"}
    assert "prepare.py" in place.brought(place.agent(commit, prepare=files["prepare"] + "# easier\n"))[0]


def test_replaced_objects_and_grafts_are_not_looked_at(place: Place) -> None:
    base = place.user(judge="honest")
    commit = place.agent(base, judge="evil")
    for path in ("judge.py",):
        blobs = [place.project.git("rev-parse", f"{each}:{path}") for each in (base, commit)]
        place.project.git("replace", *blobs)
    place.project.git("replace", base, commit)
    assert subprocess.check_output(["git", "show", f"{base}:judge.py"], cwd=place.project.root) == b"evil"
    assert place.repository.read_file(base, "judge.py") == "honest"
    assert place.repository.entries(base)["judge.py"].oid == blobs[0]
    (place.project.root / ".git" / "info" / "grafts").write_text(f"{commit}\n")  # as if it had no parent
    assert place.brought(commit)[0] == {"judge.py"}
