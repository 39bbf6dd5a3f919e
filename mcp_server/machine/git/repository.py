"""The user's repository: its commits, branches and refs. Nothing here touches the user's files, index or branches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import InvalidInput, NotReady, WrongState
from mcp_server.machine.git.command import GitFailed, WorkTree, check_installed, git
from mcp_server.machine.git.locks import cleared, git_works_in, when_free
from mcp_server.research.guard import FOLDER, SUBMODULE, Change

MARKER = "autoresearch"
"""A file in the git directory of each of our workspaces; it holds the root of the repository that made it."""

_REVISION = re.compile(r"(?!.*\^\{/)[^-:^\x00-\x20\x7f\ud800-\udfff][^:\x00-\x20\x7f\ud800-\udfff]{0,254}")
"""What is given to git as the name of a commit: no option, exclusion or search through messages, nothing over-long."""

UNCOMMITTED_SHOWN = 100
DIFF_LIMIT = 60_000
"""Characters of a diff."""


@dataclass(frozen=True)
class Entry:
    """A path in a commit: git's octal mode and the id of its blob, tree or commit."""

    mode: str
    oid: str


@dataclass(frozen=True)
class Repository:
    """A git repository with a work tree.

    Attributes:
        root: the top folder of the main work tree.
        common_dir: the git directory that all its work trees share.
        main: the main work tree.
        here: the work tree that the user stands in, whose HEAD and uncommitted changes count: `main`, or a linked one.
    """

    root: Path
    common_dir: Path
    main: WorkTree
    here: WorkTree

    @classmethod
    def discover(cls, path: Path) -> "Repository":
        """The repository around `path`; from inside one of our workspaces, the one that it was made for.

        Raises:
            NotReady: git is missing or too old, or there is no work tree around `path`.
        """
        check_installed()
        top, git_dir, common = locate(path)
        marker = git_dir / MARKER
        if git_dir != common and marker.is_file():
            home = Path(marker.read_text(encoding="utf-8"))
            if home.is_dir() and locate(home)[2] == common:
                return cls.discover(home)
        here = WorkTree(top, git_dir)
        root = top if git_dir == common else _main_root(common)
        if root is None or not root.is_dir():
            return cls(top, common, here, here)
        main = WorkTree(root, common)
        return cls(root, common, main, main if marker.is_file() else here)

    # Commits and what they hold

    def resolve(self, rev: str) -> str:
        """The full id of the commit that `rev` names (a branch, tag, id, `HEAD~1`, ...).

        Raises:
            InvalidInput: it names no commit.
            NotReady: the repository has no commit yet.
        """
        if _REVISION.fullmatch(rev):
            try:
                return self.here.git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}").strip()
            except GitFailed as error:
                if error.status not in (1, 128):
                    raise
        if rev == "HEAD":
            raise NotReady(
                f"the repository {str(self.root)!r} has no commit yet",
                "Commit the training code: git add the files, then git commit",
            )
        raise InvalidInput(f"{rev[:200]!r} is not a commit of this repository", "Give a branch, tag or commit id")

    def tree_of(self, commit: str) -> str:
        """The id of the commit's tree."""
        return self.main.git("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}").strip()

    def entries(self, commit: str) -> dict[str, Entry]:
        """Every path of the commit, folders and submodules included."""
        listing = self.main.git("ls-tree", "-r", "-t", "-z", "--full-tree", commit)
        entries = {}
        for line in listing.split("\0")[:-1]:
            about, path = line.split("\t", 1)
            mode, _, oid = about.split(" ")
            entries[path] = Entry(mode, oid)
        return entries

    def files(self, commit: str) -> list[str]:
        """The paths of the commit's files, links and submodules, in git's order."""
        return self.main.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split("\0")[:-1]

    def read_file(self, commit: str, path: str) -> str | None:
        """The text of a file in a commit, its line ends untouched, or None when the commit has no such file.

        Raises:
            InvalidInput: it is not UTF-8 text.
        """
        try:
            raw = self.main.git("cat-file", "blob", f"{commit}:{path}")
        except GitFailed:
            entry = self.entries(commit).get(path)
            if entry and entry.mode not in (FOLDER, SUBMODULE):  # it is the object that is missing
                raise
            return None
        return as_text(raw, path)

    def diff(self, a: str, b: str, limit: int = DIFF_LIMIT) -> str:
        """The unified diff from commit (or tree) `a` to `b`, cut after `limit` characters with a note."""
        text = self._diff_tree(a, b, "-p", "--src-prefix=a/", "--dst-prefix=b/")
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if len(text) <= limit:
            return text
        return f"{text[:limit]}\n[{len(text) - limit} more characters]\n"

    def changed(self, a: str, b: str) -> list[Change]:
        """Every path that differs between commits (or trees) `a` and `b`; a renamed file counts as two."""
        fields = iter(self._diff_tree(a, b, "--raw", "--numstat", "-z").split("\0")[:-1])
        status: dict[str, tuple[str, str, str]] = {}
        changes = []
        for field in fields:
            if field.startswith(":"):
                old_mode, new_mode, _, _, letter = field[1:].split(" ")
                status[next(fields)] = (letter, old_mode, new_mode)
            else:
                added, removed, path = field.split("\t", 2)
                changes.append(Change(path, *status[path], _count(added), _count(removed)))
        return changes

    def _diff_tree(self, a: str, b: str, *options: str) -> str:
        return self.main.git(
            "diff-tree", "-r", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", *options, a, b, "--"
        )

    def commit_tree(self, tree: str, parents: Sequence[str], message: str, when: float) -> str:
        """Make a commit and return its id; equal arguments give the same one. No branch moves.

        Args:
            when: seconds since the epoch, for both of its dates.
        """
        date = f"@{int(when)} +0000"
        return self.main.git(
            "commit-tree",
            tree,
            *(word for parent in parents for word in ("-p", parent)),
            "-F",
            "-",
            environment={"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date},
            stdin=message.replace("\0", "").encode("utf-8", "replace"),
        ).strip()

    def adopt(self, incumbent: str, candidate: str, when: float) -> str:
        """A commit with the candidate's tree and both as parents: for a keep that was judged against a stale base."""
        message = (
            f"Keep {candidate[:12]} on top of {incumbent[:12]}\n\nThe tree is that of the former, as it was measured.\n"
        )
        return self.commit_tree(self.tree_of(candidate), [incumbent, candidate], message, when)

    # Branches and refs

    def branch_tip(self, branch: str) -> str | None:
        """The commit that the branch is at, or None when there is no such branch."""
        return self._about(branch, "objectname") or None

    def create_branch(self, branch: str, commit: str) -> None:
        """Make a branch at `commit`, if it is not there already.

        Raises:
            WrongState: it exists elsewhere, or a branch's name is the beginning of this one's.
        """
        try:
            self._update_ref(f"refs/heads/{branch}", commit, "")  # "": it must not exist
        except GitFailed:
            tip = self.branch_tip(branch)
            if tip == commit:
                return
            if tip:
                raise WrongState(
                    f"branch {branch!r} exists, at {tip[:12]}",
                    f"Choose another name, or delete it: git branch -D {branch}",
                ) from None
            for shorter in _beginnings(branch):
                if self.branch_tip(shorter):
                    raise WrongState(
                        f"branch {shorter!r} exists, so that git cannot make {branch!r}",
                        f"Rename it: git branch -m {shorter} {shorter}-old",
                    ) from None
            raise

    def create_branches(self, branches: Mapping[str, str]) -> None:
        """Make new branches, by name, all of them or none; one that is there at its commit already stays.

        Raises:
            WrongState: one exists elsewhere.
        """
        new = {name: commit for name, commit in branches.items() if self.branch_tip(name) != commit}
        for name in new:
            if tip := self.branch_tip(name):
                raise WrongState(
                    f"Branch {name!r} exists, at {tip[:12]}", f"Rename it: git branch -m {name} {name}-old"
                )
        lines = "".join(f"create refs/heads/{name} {commit}\n" for name, commit in new.items())
        self.main.git("update-ref", "--stdin", stdin=lines.encode())

    def main_branch(self) -> str | None:
        """The branch that others build on: the remote's default, main, master, or the one checked out."""
        names = ["main", "master"]
        for ref, first in (("refs/remotes/origin/HEAD", True), ("HEAD", False)):
            try:
                name = self.here.git("symbolic-ref", "--quiet", "--short", ref).strip().removeprefix("origin/")
            except GitFailed:  # there is no remote, or HEAD is detached
                continue
            names = [name, *names] if first else [*names, name]
        return next((name for name in names if self.branch_tip(name)), None)

    def move_branch(self, branch: str, old: str, new: str) -> bool:
        """Move a branch from commit `old` to `new`; False, and nothing moved, when it is at neither of them."""
        try:
            self._update_ref(f"refs/heads/{branch}", new, old)
        except GitFailed:
            tip = self.branch_tip(branch)
            if tip == old:
                raise
            return tip == new
        return True

    def checked_out(self, branch: str) -> Path | None:
        """The folder of a work tree that has the branch checked out, if there is one."""
        place = self._about(branch, "worktreepath")
        return Path(place) if place else None

    def _about(self, branch: str, field: str) -> str:
        name = f"refs/heads/{branch}"
        line = self.main.git("for-each-ref", f"--format=%(refname) %({field})", name).rstrip("\n")
        return line.removeprefix(f"{name} ") if line.startswith(f"{name} ") else ""

    def keep_ref(self, tag: str, experiment_id: str, commit: str, new: bool = False) -> bool:
        """Keep an experiment's commit reachable for ever, under `refs/autoresearch/<tag>/<id>`.

        Args:
            new: whether the id has no commit yet; if it has, the answer is False and nothing changes.
        """
        name = f"refs/autoresearch/{tag}/{experiment_id}"
        try:
            self._update_ref(name, commit, *([""] if new else []))
        except GitFailed:
            if not new or not self.main.git("for-each-ref", name):
                raise
            return False
        return True

    def _update_ref(self, *words: str) -> None:
        """Run `git update-ref` on refs of ours, whatever locks a killed git left on them."""

        def ours(lock: Path) -> bool:
            name = lock.as_posix().removeprefix(f"{self.common_dir.as_posix()}/")
            return name.startswith(("refs/autoresearch/", "refs/heads/autoresearch/"))

        name = next(word for word in words if word.startswith("refs/"))
        cleared(self.common_dir / f"{name}.lock", self._in_use)
        when_free(lambda: self.main.git("update-ref", *words), 0.0, ours, self._in_use)

    def _in_use(self) -> bool:
        return git_works_in(self.root)

    def experiment_at(self, tag: str, commit: str) -> str:
        """The id of the experiment of a tag that was registered as this very commit; empty where there is none."""
        said = self.main.git("log", "-1", "--format=%(trailers:key=Experiment,valueonly)", commit).split()
        name = f"refs/autoresearch/{tag}/{said[0]}" if said else ""
        listed = self.main.git("for-each-ref", "--format=%(objectname) %(refname)", name) if name else ""
        return said[0] if listed.strip() == f"{commit} {name}" else ""

    def last_number(self, tag: str) -> int:
        """The highest number of an experiment of a tag that has a ref. Slow: it looks at them all."""
        names = self.main.git("for-each-ref", "--format=%(refname)", f"refs/autoresearch/{tag}/").split()
        numbers = [name.rpartition("-")[2] for name in names]
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def drop_ref(self, tag: str, experiment_id: str) -> None:
        """Undo `keep_ref`; nothing happens when it is not there."""
        self._update_ref("-d", f"refs/autoresearch/{tag}/{experiment_id}")

    # The user's work tree

    def uncommitted(self) -> list[str]:
        """Paths that differ from HEAD and untracked ones that are not ignored, folders collapsed, at most 100 named."""
        listing = self.here.git(
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=normal",
            "--no-renames",
            "--ignore-submodules=dirty",
        )
        paths = [line[3:] for line in listing.split("\0")[:-1]]
        more = len(paths) - UNCOMMITTED_SHOWN
        return [*paths[:UNCOMMITTED_SHOWN], f"... and {more} more"] if more > 0 else paths


def locate(path: Path) -> tuple[Path, Path, Path]:
    """The top folder, the git directory and the shared git directory of the work tree around `path`.

    Raises:
        NotReady: there is none.
    """
    folder = path if path.is_dir() else path.parent
    todo = "Run `git init` and commit the training code, or name a repository with --repo"
    if not folder.is_dir():
        raise NotReady(f"folder {str(path)!r} does not exist", "Name an existing git repository with --repo")
    try:
        inside = git(folder, "rev-parse", "--is-inside-work-tree").strip()
    except GitFailed as error:
        if "not a git repository" in error.stderr:
            raise NotReady(f"{str(path)!r} is not in a git repository", todo) from None
        raise
    if inside != "true":
        raise NotReady(
            f"{str(path)!r} is a bare repository or inside a .git folder",
            "Name a work tree: a clone, or a git worktree",
        )
    top, git_dir, common = git(
        folder, "rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-common-dir"
    ).splitlines()
    return Path(top), Path(git_dir).resolve(), (folder / common).resolve()


def as_text(raw: str, path: str) -> str:
    """What `git` returned for a blob, as text; raises InvalidInput where its bytes are not UTF-8."""
    try:
        return raw.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path!r} is not UTF-8 text", "Choose a text file") from None


def _main_root(common: Path) -> Path | None:
    """The top of the main work tree, or None when it is bare or kept where nothing tells."""
    environment = {"GIT_DIR": str(common)}
    try:
        lines = git(common, "config", "--get-regexp", r"^core\.(bare|worktree)$", environment=environment).splitlines()
    except GitFailed:  # neither is set
        lines = []
    config = dict(line.split(" ", 1) for line in lines if " " in line)
    if "core.worktree" in config:  # submodules
        return (common / config["core.worktree"]).resolve()
    bare = config.get("core.bare", "false").lower() in ("true", "yes", "on", "1")
    return common.parent if common.name == ".git" and not bare else None


def _beginnings(branch: str) -> list[str]:
    parts = branch.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _count(number: str) -> int:
    return int(number) if number.isdigit() else 0
