"""Finding the repository, reading it, and moving branches, whatever the user's configuration says."""

import os
import stat
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput, NotReady, WrongState
from mcp_server.machine.git import GitFailed, Repository, Workspace, apply_edits, tree_with_files
from mcp_server.machine.git.candidate import Edit
from mcp_server.machine.git.command import git
from tests.machine.git.helpers import commit_files, run_git

HOSTILE = """
[user]
    useConfigOnly = true
[commit]
    gpgSign = true
    template = /nonexistent/template
[tag]
    gpgSign = true
[gpg]
    program = /bin/false
[core]
    autocrlf = true
    safecrlf = true
    quotePath = true
    splitIndex = true
    hooksPath = HOOKS
    pager = /bin/false
    editor = /bin/false
[color]
    ui = always
[diff]
    external = /bin/false
    noprefix = true
    renames = copies
    mnemonicPrefix = true
[status]
    showUntrackedFiles = no
    short = true
    branch = true
[i18n]
    commitEncoding = ISO-8859-1
[submodule]
    recurse = true
[init]
    defaultBranch = trunk
"""


def snapshot_of(folder: Path) -> dict[str, bytes]:
    """All that is the user's: files, index, configuration, HEAD and branches."""
    kept = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts[:-1]]
    kept = [path for path in kept if ".autoresearch" not in path.parts]
    own = [folder / ".git" / name for name in ("index", "config", "HEAD", "packed-refs", "info/exclude")]
    heads = [path for path in (folder / ".git" / "refs" / "heads").rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in [*kept, *own, *heads] if path.exists()}


def test_a_whole_experiment_under_a_hostile_configuration(folder: Path, home: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text("#!/bin/sh\necho failing hook >&2\nexit 1\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(HOSTILE.replace("HOOKS", str(hooks)))
    before = snapshot_of(folder)

    repository = Repository.discover(folder)
    base = repository.resolve("HEAD")
    repository.create_branch("autoresearch/mar8", base)
    workspace = Workspace.open_or_create(repository, folder / ".autoresearch" / "w" / "ada", base, ["data"])
    (workspace.path / "train.py").write_text("LR = 0.2\r\n")
    (workspace.path / "né w.py").write_text("X = 1\n")
    commit = repository.commit_tree(workspace.snapshot(), [base], "Ünïcode", 1_700_000_000)
    workspace.adopt(commit)

    assert workspace.is_clean()
    assert [(change.path, change.status, change.added) for change in repository.changed(base, commit)] == [
        ("né w.py", "A", 1),
        ("train.py", "M", 1),
    ]
    assert repository.read_file(commit, "train.py") == "LR = 0.2\r\n"
    assert "\x1b" not in repository.diff(base, commit)
    assert "--- a/train.py\n+++ b/train.py" in repository.diff(base, commit)
    assert "encoding" not in repository.main.git("cat-file", "commit", commit)
    assert workspace.move_to(base)
    assert (workspace.path / "train.py").read_bytes() == (folder / "train.py").read_bytes()
    assert repository.move_branch("autoresearch/mar8", base, commit)
    (folder / "new file.txt").write_text("new")
    assert repository.uncommitted() == [".autoresearch/", "new file.txt"]  # no state folder was made here, so no ignore
    (folder / "new file.txt").unlink()
    after = snapshot_of(folder)
    after.pop(str(folder / ".git/refs/heads/autoresearch/mar8"))
    assert after == before


def test_inherited_git_variables_are_dropped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = tmp_path / "hostile"
    hostile.write_text("[core]\n bare = true\n[broken\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(hostile))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Mallory")
    repository = Repository.discover(folder)
    commit = repository.commit_tree(repository.tree_of("HEAD"), [], "Try", 1_700_000_000)
    assert "author autoresearch <autoresearch@localhost> 1700000000 +0000" in repository.main.git(
        "cat-file", "commit", commit
    )
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("place", ["", "src", "train.py", ".autoresearch/workspaces/mar8/ada/src"])
def test_discover_finds_the_users_repository(repository: Repository, workspace: Workspace, place: str) -> None:
    found = Repository.discover(repository.root / place)
    assert found == repository
    assert found.resolve("HEAD") == repository.resolve("main")


def test_discover_in_a_users_linked_worktree_takes_head_from_there(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    run_git(folder, "worktree", "add", "--quiet", "-b", "feature", str(linked))
    (linked / "train.py").write_text("LR = 5\n")
    run_git(linked, "commit", "--quiet", "-am", "Feature")
    (linked / "notes.txt").write_text("uncommitted")
    repository = Repository.discover(linked)
    assert repository.root == folder
    assert repository.resolve("HEAD") == run_git(linked, "rev-parse", "HEAD") != run_git(folder, "rev-parse", "HEAD")
    assert repository.uncommitted() == ["notes.txt"]
    workspace = Workspace.open_or_create(repository, folder / ".autoresearch" / "ada", repository.resolve("HEAD"))
    assert Repository.discover(workspace.path).root == folder


def test_discover_with_worktrees_of_a_bare_repository(folder: Path, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--bare", str(folder), "project.git")
    run_git(tmp_path / "project.git", "worktree", "add", "--quiet", str(tmp_path / "tree"), "main")
    repository = Repository.discover(tmp_path / "tree")
    assert repository.root == tmp_path / "tree"
    workspace = Workspace.open_or_create(repository, tmp_path / "state" / "ada", repository.resolve("HEAD"))
    assert Repository.discover(workspace.path).root == tmp_path / "tree"
    with pytest.raises(NotReady, match=r"bare repository.*Name a work tree"):
        Repository.discover(tmp_path / "project.git")


def test_discover_in_a_submodule(folder: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    run_git(outer, "init", "--quiet")
    run_git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder), "inner")
    repository = Repository.discover(outer / "inner" / "src")
    assert repository.root == outer / "inner"
    workspace = Workspace.open_or_create(repository, tmp_path / "state" / "ada", repository.resolve("HEAD"))
    (workspace.path / "train.py").write_text("LR = 9\n")
    assert not workspace.is_clean()
    assert Repository.discover(workspace.path).root == outer / "inner"


def test_discover_refuses_what_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    with pytest.raises(NotReady, match=r"plain' is not in a git repository. Run `git init`"):
        Repository.discover(tmp_path / "plain")
    with pytest.raises(NotReady, match="gone' does not exist"):
        Repository.discover(tmp_path / "gone" / "gone")


def test_a_repository_without_a_commit_says_so(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet")
    repository = Repository.discover(tmp_path)
    with pytest.raises(NotReady, match=r"has no commit yet. Commit the training code"):
        repository.resolve("HEAD")


def test_missing_git_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_server.machine.git.command import check_installed

    check_installed.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotReady, match="Install git 2"):
        Repository.discover(folder)


def test_resolve(repository: Repository, folder: Path, base: str) -> None:
    run_git(folder, "tag", "-a", "-m", "One", "v1")
    run_git(folder, "checkout", "--quiet", "--detach")
    for rev in ("HEAD", "main", "v1", base, base[:10], "main@{0}"):
        assert repository.resolve(rev) == base
    for rev in (
        "",
        "nothing",
        "--all",
        "-n1",
        "main:train.py",
        "main..main",
        "HEAD~5",
        "a\nb",
        "\0",
        "0" * 40,
        "^HEAD",
        "HEAD^{/O}",
    ):
        with pytest.raises(InvalidInput, match="is not a commit of this repository"):
            repository.resolve(rev)


def test_reading_a_commit_not_the_work_tree(repository: Repository, folder: Path) -> None:
    odd = ["a b.py", "ünï.py", "new\nline.py", "tab\there.py", 'quote".py', "dir with space/x.py", "[x]*.py"]
    for name in odd:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2")
    (folder / "image.bin").write_bytes(b"\xff\xfe\x00")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "Odd")
    head, parent = repository.resolve("HEAD"), repository.resolve("HEAD~")
    (folder / "train.py").write_text("changed since")

    assert set(odd) < set(repository.files(head))
    assert {change.path for change in repository.changed(parent, head)} == {*odd, "image.bin"}
    for name in odd:
        assert repository.read_file(head, name) == "\ufeffx = 1\r\ny = 2"
    assert repository.read_file(head, "absent.py") is None
    assert repository.read_file(head, "src") is None
    assert repository.read_file(head, "../project/train.py") is None
    assert repository.read_file(head, "train.py") != "changed since"
    with pytest.raises(InvalidInput, match="not UTF-8"):
        repository.read_file(head, "image.bin")
    assert repository.uncommitted() == ["train.py"]


def test_diff_is_bounded(repository: Repository, base: str) -> None:
    commit = commit_files(repository, base, train_py="LR = 0.2\n" * 10_000)
    assert repository.diff(base, commit, limit=100).endswith("more characters]\n")
    assert len(repository.diff(base, commit, limit=100)) < 150
    assert repository.diff(base, base) == ""


def test_commits_are_deterministic(repository: Repository, base: str) -> None:
    tree = repository.tree_of(base)
    first = repository.commit_tree(tree, [base], "Try -- \n\nbody", 1_700_000_000.7)
    assert first == repository.commit_tree(tree, [base], "Try -- \n\nbody", 1_700_000_000.2)
    assert first != repository.commit_tree(tree, [base], "Try", 1_700_000_000)
    assert repository.commit_tree(tree, [], "", 5)  # an empty message and an early date are fine


def test_a_branch_moves_only_from_where_it_was(repository: Repository, base: str) -> None:
    one, two = commit_files(repository, base, train_py="1"), commit_files(repository, base, train_py="2")
    branch = "autoresearch/mar8"
    assert repository.branch_tip(branch) is None
    assert not repository.move_branch(branch, base, one)
    repository.create_branch(branch, base)
    repository.create_branch(branch, base)
    assert repository.branch_tip(branch) == base
    assert repository.branch_tip("autoresearch") is None
    assert repository.move_branch(branch, base, one)
    assert repository.move_branch(branch, base, one)  # repeated: it is there
    assert not repository.move_branch(branch, base, two)
    assert repository.branch_tip(branch) == one
    with pytest.raises(WrongState, match=r"exists, at .*git branch -D"):
        repository.create_branch(branch, base)
    with pytest.raises(WrongState, match="'autoresearch/mar8' exists, so that git cannot"):
        repository.create_branch(f"{branch}/deeper", base)
    with pytest.raises(GitFailed):
        repository.create_branch("bad..name", base)


def test_checked_out(repository: Repository, folder: Path, base: str) -> None:
    repository.create_branch("autoresearch/mar8", base)
    assert repository.checked_out("main") == folder
    assert repository.checked_out("autoresearch/mar8") is None
    assert repository.checked_out("autoresearch") is None


def test_adopt_joins_incumbent_and_candidate(repository: Repository, base: str) -> None:
    incumbent = commit_files(repository, base, train_py="1")
    candidate = commit_files(repository, base, src__model_py="2")
    joined = repository.adopt(incumbent, candidate, 1_700_000_000)
    assert joined == repository.adopt(incumbent, candidate, 1_700_000_000)
    assert repository.tree_of(joined) == repository.tree_of(candidate)
    assert repository.resolve(f"{joined}^1") == incumbent
    assert repository.resolve(f"{joined}^2") == candidate


def test_kept_experiments_survive_garbage_collection(repository: Repository, folder: Path, base: str) -> None:
    kept, lost = commit_files(repository, base, train_py="1"), commit_files(repository, base, train_py="2")
    repository.keep_ref("mar8", "mar8-1", kept)
    repository.keep_ref("mar8", "mar8-2", lost)
    repository.drop_ref("mar8", "mar8-2")
    repository.drop_ref("mar8", "mar8-3")
    run_git(folder, "gc", "--quiet", "--prune=now")
    assert repository.resolve(kept) == kept
    with pytest.raises(InvalidInput):
        repository.resolve(lost)


def test_uncommitted_collapses_and_bounds(repository: Repository, folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(150):
        (folder / "many" / f"{number}.txt").write_text("x")
        (folder / f"{number:03}.txt").write_text("x")
    (folder / "src" / "model.py").unlink()
    listed = repository.uncommitted()
    assert listed[0] == "src/model.py"
    assert len(listed) == 101
    assert listed[-1] == "... and 52 more"  # the deleted file + 150 files + the folder - 100


def test_failures_carry_gits_words_and_what_to_do(folder: Path) -> None:
    with pytest.raises(GitFailed, match=r"`git cat-file -t` failed with status 128: .*Mend what git complains about"):
        git(folder, "cat-file", "-t", "0123")
    with pytest.raises(GitFailed, match="did not complete"):
        git(folder, "-c", "alias.hang=!sleep 30", "hang", timeout=0.1)
    with pytest.raises(NotReady, match="is gone"):
        git(folder / "none", "version")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_repository(repository: Repository, folder: Path, base: str) -> None:
    objects = folder / ".git" / "objects"
    objects.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(NotReady, match="Make the repository writable"):
            tree_with_files(repository, base, apply_edits(repository, base, [Edit("train.py", "0.1", "0.7")]))
    finally:
        objects.chmod(0o755)
