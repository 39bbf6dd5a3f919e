"""Trial checkouts: plain folders with a commit's files, sharing nothing with the repository that they came from."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mcp_server.errors import WrongState
from mcp_server.machine.git.command import LONG_TIMEOUT, WorkTree, temporary_index
from mcp_server.machine.git.links import link_inputs
from mcp_server.machine.git.repository import Repository


def restore(repository: Repository, commit: str, folder: Path) -> None:
    """Write a commit's files into `folder` again, over what became of them; what else lies there stays.

    Raises:
        NotReady: the disk is full, or a filter of .gitattributes fails.
    """
    with temporary_index() as index:
        tree = WorkTree(folder, repository.common_dir)
        tree.git("read-tree", commit, index=index)
        tree.git("checkout-index", "--all", "--force", "--quiet", index=index, timeout=LONG_TIMEOUT)


def check_out(repository: Repository, commit: str, folder: Path, inputs: Sequence[str] = ()) -> None:
    """Write a commit's files into `folder`, which must be empty or absent, and link the inputs into it.

    It is no worktree: git knows nothing of it. Submodules are left as empty folders.

    Raises:
        WrongState: `folder` is not empty.
        NotReady: an input is gone, the disk is full, or a filter of .gitattributes fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise WrongState(f"the trial folder {str(folder)!r} is not empty", "Delete it")
    try:
        with temporary_index() as index:
            tree = WorkTree(folder, repository.common_dir)
            tree.git("read-tree", "--reset", "-u", commit, index=index, timeout=LONG_TIMEOUT)
        link_inputs(repository.root, folder, inputs)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
