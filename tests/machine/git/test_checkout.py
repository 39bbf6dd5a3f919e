"""Trial checkouts: exact, without git, with the inputs linked in."""

import os
from pathlib import Path

import pytest

from mcp_server.errors import NotReady, WrongState
from mcp_server.machine.git import Repository, check_out
from tests.machine.git.helpers import commit_files, run_git


def test_a_checkout_holds_the_commit_and_the_inputs(
    repository: Repository, folder: Path, base: str, tmp_path: Path
) -> None:
    commit = commit_files(repository, base, train_py="LR = 1\r\n", src__new_py="")
    trial = tmp_path / "trials" / "1"
    check_out(repository, commit, trial, ["data"])
    assert sorted(path.name for path in trial.iterdir()) == [".gitignore", "data", "prepare.py", "src", "train.py"]
    assert (trial / "train.py").read_bytes() == b"LR = 1\r\n"
    assert (trial / "data").readlink() == folder / "data"
    assert run_git(folder, "status", "--porcelain") == ""
    assert run_git(folder, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert not list((folder / ".git").glob("index?*"))


def test_attributes_do_not_rewrite_files(repository: Repository, folder: Path, tmp_path: Path) -> None:
    (folder / ".gitattributes").write_text("*.py export-subst\nprepare.py export-ignore\n")
    (folder / "version.py").write_text("COMMIT = '$Format:%H$'\n")
    (folder / "run me.sh").write_text("#!/bin/sh\n")
    (folder / "run me.sh").chmod(0o755)
    (folder / "link.py").symlink_to("train.py")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "More")
    trial = tmp_path / "trial"
    check_out(repository, repository.resolve("HEAD"), trial)
    assert (trial / "version.py").read_text() == "COMMIT = '$Format:%H$'\n"
    assert (trial / "prepare.py").exists()
    assert os.access(trial / "run me.sh", os.X_OK)
    assert (trial / "link.py").readlink() == Path("train.py")


def test_checkouts_that_are_refused_leave_nothing(repository: Repository, base: str, tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    with pytest.raises(NotReady, match="the input 'corpus' is gone"):
        check_out(repository, base, trial, ["corpus"])
    assert not trial.exists()
    trial.mkdir()
    (trial / "old").touch()
    with pytest.raises(WrongState, match="is not empty"):
        check_out(repository, base, trial)
    assert (trial / "old").exists()


def test_a_tracked_link_never_leads_an_input_outside(repository: Repository, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (folder / "stuff").mkdir()
    (folder / "stuff" / "x.bin").write_bytes(b"x")
    tree = repository.main.git(
        "mktree",
        stdin=f"120000 blob {repository.main.git('hash-object', '-w', '--stdin', stdin=b'../victim').strip()}"
        "\tstuff\n".encode(),
    ).strip()
    commit = repository.commit_tree(tree, [], "A link where the input goes", 0)
    with pytest.raises(NotReady, match="lies behind a link"):
        check_out(repository, commit, tmp_path / "trial", ["stuff/x.bin"])
    assert not any((tmp_path / "victim").iterdir())


def test_an_unusable_filter_is_explained(repository: Repository, folder: Path, tmp_path: Path) -> None:
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
    (folder / "weights.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "A pointer")
    check_out(repository, repository.resolve("HEAD"), tmp_path / "pointers")
    assert "git-lfs" in (tmp_path / "pointers" / "weights.bin").read_text()
    run_git(folder, "config", "filter.lfs.smudge", "false")
    run_git(folder, "config", "filter.lfs.required", "true")
    with pytest.raises(NotReady, match=r"Mend the filter that .gitattributes names"):
        check_out(repository, repository.resolve("HEAD"), tmp_path / "failing")
