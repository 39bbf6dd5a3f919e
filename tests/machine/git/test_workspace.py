"""Workspaces through an agent's day: made, edited, registered, moved, killed, deleted, shared."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_server.errors import NotReady, WrongState
from mcp_server.machine.git import GitFailed, Repository, Workspace, ensure_state_folder, hold_workspace
from mcp_server.machine.git import workspace as workspace_module
from tests.machine.git.helpers import commit_files, run_git


def register(workspace: Workspace, when: int = 1_700_000_000) -> str:
    """What the lab does: commit the files as they are."""
    commit = workspace.repository.commit_tree(workspace.snapshot(), [workspace.head()], "Try", when)
    workspace.adopt(commit)
    return commit


def test_an_agents_loop(workspace: Workspace, repository: Repository, folder: Path, base: str) -> None:
    assert workspace.head() == base
    assert workspace.is_clean()
    assert workspace.snapshot() == repository.tree_of(base)
    assert (workspace.path / "data" / "tokens.bin").read_bytes() == b"\0" * 1000

    (workspace.path / "train.py").write_text("LR = 0.2\n")
    (workspace.path / "new").mkdir()
    (workspace.path / "new" / "block.py").write_text("X = 1\n")
    (workspace.path / "noise.log").write_text("ignored")
    (workspace.path / "src" / "__pycache__").mkdir()
    (workspace.path / "src" / "__pycache__" / "model.pyc").write_bytes(b"x")
    assert not workspace.is_clean()
    commit = register(workspace)
    assert workspace.head() == commit
    assert workspace.is_clean()
    assert [change.path for change in repository.changed(base, commit)] == ["new/block.py", "train.py"]

    assert workspace.move_to(base)  # discarded
    assert workspace.head() == base
    assert workspace.is_clean()
    assert not (workspace.path / "new").exists()
    assert (workspace.path / "noise.log").exists()
    assert run_git(folder, "status", "--porcelain") == ""
    assert run_git(folder, "branch", "--list") == "* main"


def test_same_size_edits_in_the_same_moment_are_seen(workspace: Workspace, repository: Repository) -> None:
    trees = set()
    for number in range(10):
        (workspace.path / "train.py").write_text(f"LR = {number}\n")
        trees.add(workspace.snapshot())
        register(workspace)
    assert len(trees) == 10


def test_edits_made_meanwhile_are_never_overwritten(workspace: Workspace, repository: Repository, base: str) -> None:
    best = commit_files(repository, base, train_py="LR = 0.5\n", new_py="A = 1\n")
    train = workspace.path / "train.py"

    train.write_text("my edit\n")
    assert not workspace.move_to(best)
    assert (train.read_text(), workspace.head()) == ("my edit\n", base)
    train.write_text("LR = 0.1\nSTEPS = 10\nprint('loss: 1.0')\n")

    (workspace.path / "new.py").write_text("mine, untracked\n")
    assert not workspace.move_to(best)
    assert (workspace.path / "new.py").read_text() == "mine, untracked\n"
    (workspace.path / "new.py").unlink()

    (workspace.path / "src" / "model.py").write_text("WIDTH = 128\n")  # the same file in both commits
    assert workspace.move_to(best)
    assert workspace.head() == best
    assert (train.read_text(), (workspace.path / "src" / "model.py").read_text()) == ("LR = 0.5\n", "WIDTH = 128\n")
    assert not workspace.is_clean()


def test_an_edit_between_snapshot_and_adopt_stays(workspace: Workspace, repository: Repository, base: str) -> None:
    (workspace.path / "train.py").write_text("LR = 0.2\n")
    commit = repository.commit_tree(workspace.snapshot(), [base], "Try", 1_700_000_000)
    (workspace.path / "train.py").write_text("LR = 0.3\n")
    workspace.adopt(commit)
    assert (workspace.path / "train.py").read_text() == "LR = 0.3\n"
    assert not workspace.is_clean()
    assert not workspace.move_to(base)


def test_what_an_agent_does_with_git_does_no_harm(workspace: Workspace, repository: Repository, base: str) -> None:
    run_git(workspace.path, "checkout", "--quiet", "-b", "agents-own")
    (workspace.path / "train.py").write_text("LR = 0.2\n")
    run_git(workspace.path, "add", "--all")
    assert not workspace.is_clean()
    commit = register(workspace)
    assert repository.branch_tip("agents-own") == base
    assert run_git(workspace.path, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert "data" not in repository.files(commit)


def test_a_reopened_workspace_keeps_its_edits(workspace: Workspace, repository: Repository, base: str) -> None:
    (workspace.path / "train.py").write_text("LR = 0.2\n")
    commit = register(workspace)
    (workspace.path / "train.py").write_text("LR = 0.3\n")
    again = Workspace.open_or_create(repository, workspace.path, base, ["data"])
    assert (again.head(), again.links) == (commit, ("data",))
    assert (again.path / "train.py").read_text() == "LR = 0.3\n"


def test_a_deleted_workspace_is_made_anew(workspace: Workspace, repository: Repository, base: str) -> None:
    shutil.rmtree(workspace.path)
    with pytest.raises(NotReady, match="is gone"):
        workspace.is_clean()
    other = commit_files(repository, base, train_py="LR = 0.5\n")
    again = Workspace.open_or_create(repository, workspace.path, other, ["data"])
    assert (again.head(), again.is_clean()) == (other, True)


def test_users_worktrees_on_an_unmounted_disk_stay_registered(
    workspace: Workspace, repository: Repository, folder: Path, base: str, tmp_path: Path
) -> None:
    run_git(folder, "worktree", "add", "--quiet", "--detach", str(tmp_path / "disk"))
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    shutil.rmtree(workspace.path)
    Workspace.open_or_create(repository, workspace.path, base)
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    assert run_git(tmp_path / "disk", "rev-parse", "HEAD") == base


def test_a_deleted_git_file_never_exposes_the_users_repository(
    workspace: Workspace, repository: Repository, folder: Path, base: str
) -> None:
    (workspace.path / "train.py").write_text("LR = 0.2\n")
    (workspace.path / ".git").unlink()
    commit = register(workspace)
    assert workspace.head() == commit
    assert run_git(folder, "status", "--porcelain") == ""
    assert repository.resolve("HEAD") == base
    again = Workspace.open_or_create(repository, workspace.path, base)
    assert (again.head(), (workspace.path / ".git").is_file()) == (commit, True)


def test_a_moved_repository_takes_its_workspaces_along(workspace: Workspace, folder: Path, base: str) -> None:
    (workspace.path / "train.py").write_text("LR = 0.2\n")
    moved = folder.with_name("moved")
    inside = workspace.path.relative_to(folder)
    folder.rename(moved)
    repository = Repository.discover(moved)
    again = Workspace.open_or_create(repository, moved / inside, base, ["data"])
    assert (again.path / "train.py").read_text() == "LR = 0.2\n"
    assert (again.path / "data" / "tokens.bin").exists()
    assert Repository.discover(again.path).root == moved


def test_a_folder_that_is_something_else_is_refused(repository: Repository, workspaces: Path, base: str) -> None:
    (workspaces / "ada").mkdir(parents=True)
    (workspaces / "ada" / "thesis.txt").write_text("precious")
    with pytest.raises(WrongState, match=r"is not a workspace of this repository. Move that folder away"):
        Workspace.open_or_create(repository, workspaces / "ada", base)
    assert (workspaces / "ada" / "thesis.txt").read_text() == "precious"


def test_a_maker_that_was_killed_before_filling(repository: Repository, workspaces: Path, base: str) -> None:
    run_git(repository.root, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(workspaces / "ada"))
    workspace = Workspace.open_or_create(repository, workspaces / "ada", base)
    assert workspace.is_clean()
    assert (workspace.path / "train.py").exists()


def test_many_workspaces_at_once_from_threads(repository: Repository, workspaces: Path, base: str) -> None:
    def make(number: int) -> str:
        return Workspace.open_or_create(repository, workspaces / f"agent{number}", base, ["data"]).head()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(12))) == [base] * 12


def _make_in_process(root: Path, path: Path, commit: str) -> str:
    return Workspace.open_or_create(Repository.discover(root), path, commit).head()


def test_many_workspaces_at_once_from_processes(repository: Repository, workspaces: Path, base: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [(repository.root, workspaces / f"agent{number % 4}", base) for number in range(8)]
        assert pool.starmap(_make_in_process, jobs) == [base] * 8
        pool.close()
        pool.join()


def test_a_lock_of_a_killed_git_is_cleared_and_a_live_one_respected(
    workspace: Workspace, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Path(run_git(workspace.path, "rev-parse", "--absolute-git-dir")) / "index.lock"
    lock.touch()
    os.utime(lock, (1_000_000_000, 1_000_000_000))
    assert workspace.move_to(base)
    assert not lock.exists()

    monkeypatch.setattr(workspace_module, "_WAIT_SECONDS", 0.1)
    lock.touch()
    with pytest.raises(GitFailed, match=r"index.lock.*Wait for other git commands to end"):
        workspace.adopt(base)
    assert lock.exists()
    assert workspace.is_clean()  # reading needs no lock

    os.utime(lock, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(Workspace, "_in_use_by_git", lambda self: True)
    with pytest.raises(GitFailed, match=r"index.lock"):
        workspace.adopt(base)


def test_a_held_workspace_is_not_given_twice(workspace: Workspace) -> None:
    with (
        hold_workspace(workspace.path),
        pytest.raises(WrongState, match=r"in use by a live server. Choose another agent name"),
    ):
        hold_workspace(workspace.path)
    hold = hold_workspace(workspace.path)
    hold.close()
    hold.close()


def test_a_hold_ends_with_its_process(workspace: Workspace) -> None:
    code = (
        "import pathlib, sys; from mcp_server.machine.git import hold_workspace; "
        "held = hold_workspace(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WrongState):
            hold_workspace(workspace.path)
        holder.kill()
    hold_workspace(workspace.path).close()


def test_inputs_in_a_partly_tracked_folder(repository: Repository, folder: Path, workspaces: Path) -> None:
    (folder / "data" / "README.md").write_text("tracked")
    run_git(folder, "add", "--force", "data/README.md")
    run_git(folder, "commit", "--quiet", "-m", "Describe the data")
    workspace = Workspace.open_or_create(repository, workspaces / "ada", repository.resolve("HEAD"), ["data"])
    assert workspace.links == ("data/tokens.bin",)
    (workspace.path / "data" / "README.md").write_text("edited")
    commit = register(workspace)
    assert [change.path for change in repository.changed("main", commit)] == ["data/README.md"]
    assert (folder / "data" / "README.md").read_text() == "tracked"


def test_an_input_that_is_gone_is_named(repository: Repository, workspaces: Path, base: str) -> None:
    with pytest.raises(NotReady, match="the input 'corpus' is gone"):
        Workspace.open_or_create(repository, workspaces / "ada", base, ["corpus"])


def test_ignored_paths_of_the_lab_stay_out(repository: Repository, workspaces: Path, base: str) -> None:
    workspace = Workspace.open_or_create(repository, workspaces / "ada", base, [], ["results.tsv"])
    (workspace.path / "results.tsv").write_text("commit\tval\n")
    assert workspace.is_clean()
    assert workspace.snapshot() == repository.tree_of(base)


def test_large_new_files_are_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, "UNTRACKED_LIMIT", 1000)
    (workspace.path / "model.ckpt").write_bytes(b"x" * 2000)
    with pytest.raises(WrongState, match=r"new files, the largest being 'model.ckpt'. Delete them, or add"):
        workspace.snapshot()


def test_links_and_nested_repositories_appear_as_such(workspace: Workspace, repository: Repository, base: str) -> None:
    (workspace.path / "link.py").symlink_to("/etc/passwd")
    shutil.copytree(workspace.path / "src", workspace.path / "nested")
    run_git(workspace.path / "nested", "init", "--quiet")
    run_git(workspace.path / "nested", "commit", "--quiet", "--allow-empty", "-m", "Nested")
    modes = {change.path: change.new_mode for change in repository.changed(base, workspace.snapshot())}
    assert modes == {"link.py": "120000", "nested": "160000"}


def test_a_link_in_place_of_a_folder_leads_nowhere(
    workspace: Workspace, repository: Repository, base: str, tmp_path: Path
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "model.py").write_text("WIDTH = 64\n")
    shutil.rmtree(workspace.path / "src")
    (workspace.path / "src").symlink_to(tmp_path / "victim")
    changes = {change.path: change.new_mode for change in repository.changed(base, workspace.snapshot())}
    assert changes == {"src": "120000", "src/model.py": "000000"}
    workspace.move_to(commit_files(repository, base, src__model_py="WIDTH = 128\n"))
    assert (tmp_path / "victim" / "model.py").read_text() == "WIDTH = 64\n"


def test_submodules_and_sparse_checkouts_do_not_get_in_the_way(
    repository: Repository, folder: Path, workspaces: Path, tmp_path: Path
) -> None:
    run_git(tmp_path, "clone", "--quiet", str(folder), "library")
    run_git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"))
    run_git(folder, "commit", "--quiet", "-m", "Add a submodule")
    run_git(folder, "sparse-checkout", "set", "src")
    head = repository.resolve("HEAD")
    workspace = Workspace.open_or_create(repository, workspaces / "ada", head, ["data"])
    assert not any((workspace.path / "library").iterdir())
    assert (workspace.path / "src" / "model.py").exists()
    assert workspace.is_clean()
    assert workspace.snapshot() == repository.tree_of(head)


def test_the_state_folder_is_invisible_to_git(folder: Path, tmp_path: Path) -> None:
    state = ensure_state_folder(folder / ".autoresearch")
    (state / "store.db").write_text("x")
    assert ensure_state_folder(state) == state
    assert run_git(folder, "status", "--porcelain") == ""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match=r"cannot be made.*AUTORESEARCH_STATE"):
        ensure_state_folder(tmp_path / "file")
