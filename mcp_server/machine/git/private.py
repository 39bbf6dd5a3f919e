"""A private repository for a folder of artifacts: its snapshots, and the way back of what was accepted."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mcp_server.errors import WrongState
from mcp_server.machine.git.command import LONG_TIMEOUT, WorkTree, git, temporary_index
from mcp_server.machine.git.repository import Repository

NEVER = (".venv/", "__pycache__/", ".autoresearch/", ".ipynb_checkpoints/", ".DS_Store")
"""Never part of a snapshot."""


class Snapshots:
    """A folder, and a repository elsewhere that remembers states of it. The folder needs no git, and learns of none.

    Attributes:
        repository: the private repository, in which research goes on.
        view: the same history over the folder itself.
    """

    def __init__(self, folder: Path, place: Path, left_out: Iterable[str] = ()) -> None:
        """Open the private repository at `place`, made if it is new.

        Args:
            left_out: further patterns, as in a .gitignore, of what is no part of a snapshot.
        """
        place.mkdir(parents=True, exist_ok=True)
        if not (place / ".git" / "HEAD").is_file():
            git(place, "init", "--quiet", "--initial-branch", "main")
        exclude = place / ".git" / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("".join(f"{pattern}\n" for pattern in (*NEVER, *left_out)), encoding="utf-8")
        self.folder = folder
        self.repository = Repository.discover(place)
        tree = WorkTree(folder, self.repository.common_dir)
        self.view = Repository(folder, self.repository.common_dir, tree, tree)

    def take(self) -> str:
        """The id of the tree of the folder as it is."""
        with temporary_index() as index:
            self.view.main.git("add", "--all", "--", ".", index=index, timeout=LONG_TIMEOUT)
            return self.view.main.git("write-tree", index=index).strip()

    def commit(self, tree: str, message: str, when: float) -> str:
        """Commit a tree on the private main branch, and bring the private files to it; returns the commit."""
        before = self.repository.branch_tip("main")
        commit = self.repository.commit_tree(tree, [before] if before else [], message, when)
        self.repository.main.git("update-ref", "refs/heads/main", commit)
        self.repository.main.git("read-tree", "--reset", "-u", commit, timeout=LONG_TIMEOUT)
        return commit

    def strangers(self, tree: str, old: str, new: str) -> list[str]:
        """The paths in which a tree of the folder is neither as in `old` nor as in `new`, both commits."""
        differing = {change.path for change in self.repository.changed(new, tree)}
        return sorted(differing & {change.path for change in self.repository.changed(old, tree)})

    def deliver(self, old: str, new: str) -> list[str]:
        """Bring the folder from commit `old` to `new`, file by file; may be repeated. Returns the paths that differ.

        Raises:
            WrongState: somebody changed one of these files meanwhile; nothing is written.
        """
        changes = self.repository.changed(old, new)
        touched = {change.path for change in changes}
        if strange := touched.intersection(self.strangers(self.take(), old, new)):
            raise WrongState(
                f"{', '.join(sorted(strange))} in {str(self.folder)!r} changed meanwhile, so that nothing was written",
                f"The accepted change is commit {new[:12]} of {str(self.repository.root)!r}: apply it by hand",
            )
        written = [change.path for change in changes if change.status != "D"]
        with temporary_index() as index, tempfile.TemporaryDirectory(dir=self.repository.common_dir) as incoming:
            tree = WorkTree(Path(incoming), self.repository.common_dir)
            tree.git("read-tree", new, index=index)
            names = "".join(f"{path}\0" for path in written).encode("utf-8", "surrogateescape")
            tree.git("checkout-index", "--force", "-z", "--stdin", index=index, stdin=names)
            for path in written:  # each appears whole or not at all
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(incoming) / path).replace(self.folder / path)
        for change in changes:
            if change.status == "D":
                (self.folder / change.path).unlink(missing_ok=True)
        return sorted(touched)


def link_environment(folder: Path, place: Path) -> None:
    """Link the nearest virtual environment of a folder, up to the repository around it, into the private one."""
    link = place / ".venv"
    for parent in (folder, *folder.parents):
        if os.access(parent / ".venv" / "bin" / "python", os.X_OK):
            if link.is_symlink():
                link.unlink()
            if not link.exists():
                link.symlink_to(parent / ".venv")
            return
        if (parent / ".git").exists():
            return


def paths_of(patterns: Sequence[str]) -> list[str]:
    """Patterns of paths from the top of a folder as a .gitignore has them."""
    return [f"/{pattern.removeprefix('./').strip('/')}" for pattern in patterns]
