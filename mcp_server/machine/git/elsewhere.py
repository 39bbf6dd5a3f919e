"""What a commit names and does not hold: submodules, and the files that Git LFS keeps."""

from mcp_server.machine.git.command import GitFailed
from mcp_server.machine.git.repository import Repository
from mcp_server.research.guard import SUBMODULE

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""A larger file is no pointer."""


def submodules(repository: Repository, commit: str) -> dict[str, bool]:
    """The paths of a commit's submodules, and whether the user's repository holds their files."""
    paths = [path for path, entry in repository.entries(commit).items() if entry.mode == SUBMODULE]
    return {path: _is_filled(repository, path) for path in paths}


def pointers(repository: Repository) -> list[str]:
    """The files of the user's repository that are still pointers of Git LFS, in place of what they stand for."""
    try:
        listing = repository.main.git("ls-files", "-z", "--", ":(attr:filter=lfs)")
    except GitFailed:  # a broken .gitattributes
        return []
    return [path for path in listing.split("\0")[:-1] if is_pointer(repository, path)]


def is_pointer(repository: Repository, path: str) -> bool:
    """Whether a file of the user's repository is a pointer of Git LFS."""
    file = repository.root / path
    try:
        if file.stat().st_size > _POINTER_BYTES:
            return False
        with file.open("rb") as opened:
            return opened.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def _is_filled(repository: Repository, path: str) -> bool:
    try:
        return any(entry.name != ".git" for entry in (repository.root / path).iterdir())
    except OSError:
        return False
