"""Code that goes to another machine in bundles, and what arrives."""

import subprocess
from pathlib import Path

import pytest

from mcp_server.errors import NotReady
from mcp_server.machine.git import Depot, Repository, check_out, has_commit, open_copy, take_bundle
from tests.project import Project


def send(depot: Depot, copy: Repository, commit: str, known: list[str]) -> int:
    """Send a commit; the size of the bundle."""
    bundle = depot.bundle(commit, known)
    take_bundle(copy, commit, bundle, depot.shallow())
    return len(bundle)


def test_what_arrives_is_what_was_committed_and_later_commits_cost_little(project: Project, tmp_path: Path) -> None:
    project.commit("Much", {"big.txt": "".join(f"line {number}\n" for number in range(50_000))})
    first = project.git("rev-parse", "HEAD")
    second = project.commit("Little", {"train.py": "print('loss: 1')\n"})
    before = project.git("for-each-ref"), project.git("status", "--porcelain")
    depot = Depot(tmp_path / "depot", Repository.discover(project.root))
    copy = open_copy(tmp_path / "copy")
    assert not has_commit(copy, first)
    whole = send(depot, copy, first, [])
    assert send(depot, copy, second, [first]) < whole / 20
    assert has_commit(open_copy(tmp_path / "copy"), second)
    check_out(copy, second, tmp_path / "checkout")
    assert (tmp_path / "checkout" / "train.py").read_text() == "print('loss: 1')\n"
    assert (tmp_path / "checkout" / "big.txt").read_text().endswith("line 49999\n")
    assert (project.git("for-each-ref"), project.git("status", "--porcelain")) == before


def test_a_commit_that_came_with_a_later_one_is_there(project: Project, tmp_path: Path) -> None:
    first, second = project.git("rev-parse", "HEAD"), project.commit("More", {"a.py": "A = 1\n"})
    depot = Depot(tmp_path / "depot", Repository.discover(project.root))
    copy = open_copy(tmp_path / "copy")
    send(depot, copy, second, [])
    assert has_commit(copy, first)


def test_a_history_that_was_cut_off_travels_too(project: Project, tmp_path: Path) -> None:
    for number in range(3):
        project.commit("More", {"a.py": f"A = {number}\n"})
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", f"file://{project.root}", str(tmp_path / "clone")], check=True
    )
    clone = Project(tmp_path / "clone")
    first, second = clone.git("rev-parse", "HEAD"), clone.commit("Last", {"a.py": "A = 9\n"})
    depot = Depot(tmp_path / "depot", Repository.discover(clone.root))
    copy = open_copy(tmp_path / "copy")
    send(depot, copy, first, [])
    send(depot, copy, second, [first])
    check_out(copy, second, tmp_path / "checkout")
    assert (tmp_path / "checkout" / "a.py").read_text() == "A = 9\n"


def test_what_is_missing_or_damaged_is_refused(project: Project, tmp_path: Path) -> None:
    depot = Depot(tmp_path / "depot", Repository.discover(project.root))
    copy = open_copy(tmp_path / "copy")
    with pytest.raises(NotReady, match="update-ref"):
        depot.bundle("1" * 40)
    commit = project.git("rev-parse", "HEAD")
    bundle = depot.bundle(commit)
    with pytest.raises(NotReady, match="bundle unbundle"):
        take_bundle(copy, commit, bundle[:-30])
    with pytest.raises(NotReady, match="and not 1111"):
        take_bundle(copy, "1" * 40, bundle)
    later = project.commit("More", {"a.py": "A = 1\n"})
    with pytest.raises(NotReady, match="lacks these prerequisite"):
        take_bundle(open_copy(tmp_path / "empty"), later, depot.bundle(later, [commit]))
