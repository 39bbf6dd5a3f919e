"""Putting changes together: a three-way merge of each on the present best, without touching any work tree."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath

from mcp_server.errors import InvalidInput
from mcp_server.machine.git.candidate import tree_with_entries
from mcp_server.machine.git.command import GitFailed
from mcp_server.machine.git.repository import Entry, Repository
from mcp_server.research.experiment import KnobValue
from mcp_server.research.guard import FOLDER, SUBMODULE, SYMLINK
from mcp_server.research.knobs import changed_knobs, read_knobs, write_knobs

_MARKS = 61
"""Characters of a conflict marker; no line of a script begins with so many of them."""
_SHOWN = 2000
"""The most characters of one side of a conflict."""
_HUNK = re.compile(
    rf"^<{{{_MARKS}}}[^\n]*\n(?P<ours>.*?)^\|{{{_MARKS}}}[^\n]*\n.*?"
    rf"^={{{_MARKS}}}\r?\n(?P<theirs>.*?)^>{{{_MARKS}}}[^\n]*\n?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Conflict:
    """A place where a change does not fit.

    Attributes:
        commit: whose change it is.
        start: the first line, counted from 1, of the present text (the best's, with the earlier changes in); 0 where
            the file as a whole is meant.
        end: the last line; below `start` where the present text has nothing there.
        present: what stands there.
        change: what the change would put there.
        reason: what is in the way, in a few words.
    """

    commit: str
    path: str
    start: int
    end: int
    present: str
    change: str
    reason: str


@dataclass(frozen=True)
class Combined:
    """The tree that has all changes, or the conflicts because of which there is none."""

    tree: str | None
    conflicts: tuple[Conflict, ...] = ()


def combine(repository: Repository, best: str, changes: Sequence[tuple[str, str]]) -> Combined:
    """Apply changes, each the difference between a base commit and a commit, to the commit `best`, in turn.

    Nothing but objects is written. A change that `best` already has changes nothing.
    """
    before = _files(repository, best)
    present, conflicts = dict(before), list[Conflict]()
    for base, commit in changes:
        old, new = _files(repository, base), _files(repository, commit)
        changed = [path for path in old.keys() | new.keys() if old.get(path) != new.get(path)]
        for path in sorted(changed, key=lambda path: (path in new, path)):  # what goes makes room for what comes
            conflicts += _Merge(repository, commit, path, old.get(path), new.get(path), present).apply()
    if conflicts:
        return Combined(None, tuple(conflicts))
    paths = sorted(path for path in before.keys() | present.keys() if before.get(path) != present.get(path))
    return Combined(tree_with_entries(repository, best, {path: present.get(path) for path in paths}))


def _files(repository: Repository, commit: str) -> dict[str, Entry]:
    return {path: entry for path, entry in repository.entries(commit).items() if entry.mode != FOLDER}


@dataclass(frozen=True)
class _Merge:
    """One path of one change, to be put into the entries of the present tree."""

    repository: Repository
    commit: str
    path: str
    old: Entry | None
    new: Entry | None
    present: dict[str, Entry]

    def apply(self) -> Sequence[Conflict]:
        """Change `present`, or return what is in the way."""
        ours = self.present.get(self.path)
        if ours == self.new:
            return ()
        if ours == self.old:
            return self._take()
        if ours is None:
            return [self._whole("the present best has deleted this file")]
        if self.new is None:
            return [self._whole("the change deletes this file, and the present best has another version of it")]
        if {ours.mode, self.new.mode} & {SYMLINK, SUBMODULE}:
            return [self._whole("a symbolic link or a submodule cannot be merged")]
        return self._merge(ours, self.new)

    def _take(self) -> Sequence[Conflict]:
        if self.new is None:
            del self.present[self.path]
            return ()
        above = [str(parent) for parent in PurePosixPath(self.path).parents]
        if any(parent in self.present for parent in above):
            return [self._whole("the present best has a file where the change needs a folder")]
        if any(path.startswith(f"{self.path}/") for path in self.present):
            return [self._whole("the present best has a folder of this name")]
        self.present[self.path] = self.new
        return ()

    def _merge(self, ours: Entry, theirs: Entry) -> Sequence[Conflict]:
        """Merge three texts line by line."""
        mode = theirs.mode if self.old is None or ours.mode == self.old.mode else ours.mode
        texts = [self._text(entry) for entry in (ours, self.old, theirs)]
        texts[2], knobs = _without_knobs(*texts)
        if any(b"\0" in text for text in texts):
            return [self._whole("it is not text, and both changed it")]
        with tempfile.TemporaryDirectory(prefix="autoresearch-merge-") as folder:
            files = [Path(folder) / name for name in ("ours", "base", "theirs")]
            for file, text in zip(files, texts, strict=True):
                file.write_bytes(text)
            try:
                words = ("merge-file", "--quiet", "--diff3", f"--marker-size={_MARKS}")
                self.repository.main.git(*words, *map(str, files))
            except GitFailed as failure:
                if not 0 < failure.status < 128:  # below, it is the number of conflicts
                    raise
                merged = files[0].read_bytes().decode("utf-8", "replace")
                return list(self._hunks(texts[0].decode("utf-8", "replace"), merged))
            if knobs:
                files[0].write_bytes(write_knobs(files[0].read_bytes().decode(), knobs).encode())
            oid = self.repository.main.git("hash-object", "-w", "--no-filters", str(files[0])).strip()
        self.present[self.path] = Entry(mode, oid)
        return ()

    def _text(self, entry: Entry | None) -> bytes:
        if entry is None:
            return b""
        return self.repository.main.git("cat-file", "blob", entry.oid).encode("utf-8", "surrogateescape")

    def _hunks(self, ours: str, merged: str) -> Iterator[Conflict]:
        """The conflicts that git marked in a merged text, with their lines in ours."""
        solved = _HUNK.sub(lambda found: found["ours"], merged)
        line_of = _lines_of(solved.split("\n"), ours.split("\n"))
        passed = place = 0
        for found in _HUNK.finditer(merged):
            passed += merged.count("\n", place, found.start())
            count = found["ours"].count("\n")
            start = line_of(passed)
            sides = (found["ours"][:_SHOWN], found["theirs"][:_SHOWN])
            yield Conflict(self.commit, self.path, start, start + count - 1, *sides, "both changed these lines")
            passed += count
            place = found.end()

    def _whole(self, reason: str) -> Conflict:
        return Conflict(self.commit, self.path, 0, 0, "", "", reason)


def _without_knobs(ours: bytes, old: bytes, theirs: bytes) -> tuple[bytes, Mapping[str, KnobValue]]:
    """`theirs` without the knobs that it alone set or that both set alike, and those that it alone set.

    Knobs stand line under line, where a merge by lines takes any two changes for a conflict.
    """
    try:
        before, after, present = (text.decode("utf-8") for text in (old, theirs, ours))
        changed, mine = changed_knobs(before, after), changed_knobs(before, present)
        own = {name: pair for name, pair in changed.items() if name not in mine and name in read_knobs(present)}
        agreed = {name: pair for name, pair in changed.items() if repr(mine.get(name)) == repr(pair)}
        if not own and not agreed:
            return theirs, {}
        plain = write_knobs(after, {name: value for name, (value, _) in (own | agreed).items()})
        return plain.encode(), {name: value for name, (_, value) in own.items()}
    except (InvalidInput, UnicodeDecodeError, RecursionError):
        return theirs, {}


def _lines_of(solved: Sequence[str], ours: Sequence[str]) -> Callable[[int], int]:
    """From how many lines of `solved` come before, to the line of `ours`, counted from 1."""
    blocks = SequenceMatcher(None, ours, solved).get_matching_blocks()

    def line_of(passed: int) -> int:
        block = next(block for block in blocks if passed < block.b + block.size or block.size == 0)
        return block.a + max(0, passed - block.b) + 1

    return line_of
