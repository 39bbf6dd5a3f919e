"""Code that travels: bundles of commits from the user's repository, and copies of it on other machines."""

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.machine.git.command import LONG_TIMEOUT, GitFailed, WorkTree, git
from mcp_server.machine.git.repository import Repository

BRANCH = "refs/heads/code"
MOST_KNOWN = 50
"""Commits that are named as known to the receiver; the newest of them suffice."""


class Depot:
    """Where bundles are made: a bare repository that borrows all objects of the user's, and leaves that one alone."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        """Make it anew in `folder`; raises NotReady if that cannot be written."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.object_format = repository.main.git("rev-parse", "--show-object-format").strip()
        git(folder, "init", "--bare", "--quiet", f"--object-format={self.object_format}")
        (folder / "objects" / "info" / "alternates").write_text(f"{repository.common_dir / 'objects'}\n")
        self._tree = WorkTree(folder, folder)
        self._shallow = repository.common_dir / "shallow"

    def shallow(self) -> bytes:
        """Where the user's history was cut off, as git notes it; empty for a whole history."""
        return self._shallow.read_bytes() if self._shallow.is_file() else b""

    def bundle(self, commit: str, known: Collection[str] = ()) -> bytes:
        """A bundle of a commit with its history, less what a receiver has who knows some commits.

        Raises:
            NotReady: the commit is not in the user's repository, part of it is missing, or the receiver has all of it.
        """
        folder = self._tree.folder
        if cut := self.shallow():
            (folder / "shallow").write_bytes(cut)
        self._tree.git("update-ref", BRANCH, commit)
        have = [f"^{each}" for each in list(known)[-MOST_KNOWN:] if each != commit]
        with tempfile.TemporaryDirectory(prefix="autoresearch-bundle-") as place:
            file = Path(place) / "code"
            self._tree.git("bundle", "create", "--quiet", str(file), BRANCH, *have, timeout=LONG_TIMEOUT)
            return file.read_bytes()


def open_copy(folder: Path, object_format: str = "sha1") -> Repository:
    """The copy of a repository in `folder`, made empty if there is none; its work tree holds no files.

    Not to be called for one folder by two at once.
    """
    if not (folder / ".git" / "HEAD").exists():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "--quiet", f"--object-format={object_format}")
    return Repository.discover(folder)


def has_commit(copy: Repository, commit: str) -> bool:
    """Whether a copy has this commit, by itself or as part of the history of a later one."""
    try:
        copy.main.git("cat-file", "-e", f"{commit}^{{commit}}")
    except GitFailed:
        return False
    return True


def take_bundle(copy: Repository, commit: str, bundle: bytes, shallow: bytes = b"") -> None:
    """Add a commit to a copy from a bundle, see `Depot.bundle`.

    Raises:
        NotReady: the bundle is damaged, rests on what the copy lacks, or does not hold the commit.
    """
    if shallow:
        (copy.common_dir / "shallow").write_bytes(shallow)
    with tempfile.TemporaryDirectory(prefix="autoresearch-bundle-") as place:
        file = Path(place) / "code"
        file.write_bytes(bundle)
        told = copy.main.git("bundle", "unbundle", str(file), timeout=LONG_TIMEOUT)
    if commit not in told:
        raise NotReady(f"The bundle holds {told[:80]!r} and not {commit}", "Repeat the call")
    copy.main.git("update-ref", _ref(commit), commit)


def _ref(commit: str) -> str:
    """The ref that keeps a commit in a copy, and without which a later bundle could not rest on it."""
    return f"refs/autoresearch/{commit}"
