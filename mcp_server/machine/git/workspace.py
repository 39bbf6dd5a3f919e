"""Workspaces: the folders in which agents edit. Each is a detached worktree with the task's inputs linked in."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mcp_server.errors import NotReady, WrongState
from mcp_server.machine.git.command import LONG_TIMEOUT, TIMEOUT, GitFailed, WorkTree, git, temporary_index
from mcp_server.machine.git.links import link_inputs
from mcp_server.machine.git.locks import Hold, cleared, git_works_in, locked, when_free
from mcp_server.machine.git.repository import MARKER, Repository, locate

LITTER = ("**/__pycache__/**", "**/.ipynb_checkpoints/**", "**/.DS_Store")
"""What tools leave beside the code; never part of an experiment, ignored by the user's repository or not."""

UNTRACKED_LIMIT = 100_000_000
"""Bytes of new files that one experiment may bring; more is a checkpoint or a data set left in the workspace."""

_WAIT_SECONDS = 3.0
_WOULD_LOSE = re.compile(r"Cannot merge|would be (overwritten|removed)|would lose")

T = TypeVar("T")


class Workspace:
    """A detached worktree that one agent edits.

    Attributes:
        path: its folder.
        links: the paths in it that are links to inputs, and no part of any snapshot.
    """

    def __init__(
        self, repository: Repository, tree: WorkTree, links: Sequence[str], ignore: Sequence[str] = ()
    ) -> None:
        """Use `open_or_create`."""
        self.repository = repository
        self.path = tree.folder
        self.links = tuple(links)
        self._tree = tree
        excluded = [f":(exclude,top,literal){path}" for path in (*links, *ignore)]
        self._scope = ["--", ":(top)", *excluded, *(f":(exclude,top,glob){glob}" for glob in LITTER)]

    @classmethod
    def open_or_create(
        cls, repository: Repository, path: Path, commit: str, inputs: Sequence[str] = (), ignore: Sequence[str] = ()
    ) -> "Workspace":
        """The workspace at `path`, made at `commit` if there is none; an existing one keeps its HEAD and its edits.

        A workspace whose folder was deleted is made anew, and one that was moved with its repository is mended.

        Args:
            inputs: paths of untracked data in the repository, linked in.
            ignore: paths that are never part of a snapshot, such as a results file.

        Raises:
            WrongState: `path` holds something else.
            NotReady: an input is gone.
        """
        with locked(repository.common_dir / f"{MARKER}.lock", TIMEOUT):
            tree = _existing(repository, path) or _mended(repository, path) or _created(repository, path, commit)
        if not (
            tree.git_dir / "index"
        ).exists():  # new, or its maker was killed: filling is slow, so not under the lock
            tree.git("read-tree", "--reset", "-u", "HEAD", timeout=LONG_TIMEOUT)
        return cls(repository, tree, link_inputs(repository.root, path, inputs), ignore)

    def head(self) -> str:
        """The commit that the workspace is based on."""
        return self._tree.git("rev-parse", "--verify", "HEAD^{commit}").strip()

    def is_clean(self) -> bool:
        """Whether its files, staged or not, are those of its HEAD, with no new ones."""
        status = ("status", "--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames")
        return not self._tree.git(*status, "--ignore-submodules=dirty", *self._scope, timeout=LONG_TIMEOUT)

    def snapshot(self) -> str:
        """The id of the tree of all its files as they are, new ones included, ignored ones and links to inputs not.

        Raises:
            WrongState: the new files are larger than 100 MB together.
        """
        with temporary_index() as index:
            # The times of the copy must be those of the original: git takes files that are as new as their index for
            # possibly changed, and would miss a change if the index seemed newer.
            shutil.copy2(self._tree.git_dir / "index", index)
            self._tree.git("read-tree", "--reset", "HEAD", index=index)  # forget what was staged by hand
            new = self._untracked(index)
            self._tree.git("add", "--update", *self._scope, index=index, timeout=LONG_TIMEOUT)
            if new:  # not by `git add --all`: that fails where an excluded path is also an ignored one
                names = "".join(f"{path}\0" for path in new).encode("utf-8", "surrogateescape")
                update = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
                self._tree.git(*update, index=index, stdin=names, timeout=LONG_TIMEOUT)
            return self._tree.git("write-tree", index=index).strip()

    def _untracked(self, index: Path) -> list[str]:
        """The new files; a nested repository is one of them."""
        others = ("ls-files", "--others", "--exclude-standard", "-z")
        listing = self._tree.git(*others, *self._scope, index=index, timeout=LONG_TIMEOUT)
        paths = [path.rstrip("/") for path in listing.split("\0")[:-1]]
        sizes = {path: (self.path / path).lstat().st_size for path in paths if os.path.lexists(self.path / path)}
        total = sum(sizes.values())
        if total > UNTRACKED_LIMIT:
            largest = max(sizes, key=lambda path: sizes[path])
            raise WrongState(
                f"the workspace holds {total / 1e6:.0f} MB of new files, the largest being {largest!r}",
                "Delete them, or add them to .gitignore in the repository",
            )
        return paths

    def restore(self) -> None:
        """Throw away every edit and every new file: back to what its HEAD has. Ignored files and links stay."""
        self._when_free(lambda: self._tree.git("read-tree", "--reset", "-u", "HEAD", timeout=LONG_TIMEOUT))
        self._tree.git("clean", "--force", "-d", "--quiet", *self._scope, timeout=LONG_TIMEOUT)

    def adopt(self, commit: str) -> None:
        """Base the workspace on `commit` without touching its files: for a commit that was made of its snapshot."""
        self._when_free(lambda: self._tree.git("read-tree", "--reset", commit))
        self._when_free(lambda: self._tree.git("update-ref", "--no-deref", "HEAD", commit))

    def move_to(self, commit: str) -> bool:
        """Bring its files to `commit`, keeping edits of files that are the same in both; False, and nothing changed,
        when an edit or a new file would be overwritten."""
        head = self.head()
        self._when_free(self._tree.refresh)  # `adopt` leaves changed files without their times in the index
        try:
            self._when_free(lambda: self._tree.git("read-tree", "-m", "-u", head, commit, timeout=LONG_TIMEOUT))
        except GitFailed as error:
            if _WOULD_LOSE.search(error.stderr):
                return False
            raise
        self._when_free(lambda: self._tree.git("update-ref", "--no-deref", "HEAD", commit, head))
        return True

    def _when_free(self, action: Callable[[], T]) -> T:
        """Run an action that writes the index or HEAD, whatever a killed git left."""
        ours = self._tree.git_dir
        cleared(ours / "HEAD.lock", self._in_use_by_git)
        return when_free(action, _WAIT_SECONDS, lambda lock: lock.is_relative_to(ours), self._in_use_by_git)

    def _in_use_by_git(self) -> bool:
        return git_works_in(self.path)


def hold_workspace(path: Path) -> Hold:
    """Hold the workspace at `path`, which need not exist yet, so that no other agent is given it.

    It is held until the handle is closed or this process ends.

    Raises:
        WrongState: it is held, by another process or another handle of this one.
    """
    try:
        return Hold(path.with_name(f"{path.name}.lock"))
    except BlockingIOError:
        raise WrongState(
            f"workspace {str(path)!r} is in use by a live server", "Choose another agent name, or stop that server"
        ) from None


def ensure_state_folder(path: Path) -> Path:
    """Make the state folder, invisible to git, so that the user's repository stays clean; returns it.

    Raises:
        NotReady: it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        ignore = path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise NotReady(
            f"the state folder {str(path)!r} cannot be made: {error.strerror}",
            "Make its place writable, or name another folder in AUTORESEARCH_STATE",
        ) from None
    return path


def _existing(repository: Repository, path: Path) -> WorkTree | None:
    if not (path / ".git").is_file():
        return None
    try:
        top, git_dir, common = locate(path)
    except NotReady:
        return None
    ours = top == path.resolve() and common == repository.common_dir and git_dir != common
    return WorkTree(path, git_dir) if ours else None


def _mended(repository: Repository, path: Path) -> WorkTree | None:
    """Its `.git` file was deleted, or the repository was moved together with it."""
    if not path.is_dir() or not any(path.iterdir()):
        return None
    with suppress(GitFailed):  # it mends one fault and fails over the other
        git(repository.common_dir, "worktree", "repair", str(path), environment={"GIT_DIR": str(repository.common_dir)})
    tree = _existing(repository, path)
    if tree is None:
        raise WrongState(f"{str(path)!r} is not a workspace of this repository", "Move that folder away")
    (tree.git_dir / MARKER).write_text(str(repository.root), encoding="utf-8")
    return tree


def _created(repository: Repository, path: Path, commit: str) -> WorkTree:
    path.parent.mkdir(parents=True, exist_ok=True)
    # --force: a workspace whose folder was deleted is still registered. `git worktree prune` would forget the user's
    # own worktrees on disks that are not mounted just now.
    repository.main.git("worktree", "add", "--force", "--detach", "--no-checkout", str(path), commit)
    git_dir = locate(path)[1]
    (git_dir / MARKER).write_text(str(repository.root), encoding="utf-8")
    return WorkTree(path, git_dir)
