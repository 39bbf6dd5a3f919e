"""Trial checkouts: plain folders with a commit's files, sharing nothing with the repository that they came from."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mcp_server.errors import WrongState
from mcp_server.machine.git.command import LONG_TIMEOUT, WorkTree, temporary_index
from mcp_server.machine.git.links import link_inputs
from mcp_server.machine.git.repository import Repository
from mcp_server.research.guard import matches


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


def verify(repository: Repository, commit: str, folder: Path, ignore: Sequence[str] = ()) -> list[str]:
    """The commit's files that are changed or missing in a trial checkout.

    Args:
        ignore: globs of paths that may change.
    """
    with temporary_index() as index:
        tree = WorkTree(folder, repository.common_dir)
        tree.git("read-tree", commit, index=index)
        tree.refresh(index)
        listing = tree.git("diff-files", "--name-only", "--ignore-submodules", "-z", index=index)
    return [path for path in listing.split("\0")[:-1] if not matches(ignore, path)]
