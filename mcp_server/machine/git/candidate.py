"""Trees made from a commit and some new texts, without touching any work tree."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from mcp_server.errors import InvalidInput
from mcp_server.machine.git.command import temporary_index
from mcp_server.machine.git.repository import Entry, Repository
from mcp_server.research.guard import FOLDER, SUBMODULE, SYMLINK, check_path

MOST_PLACES = 100
"""Of an old text that occurs more often, no more are counted."""

_PLAIN = "100644"
_KINDS = {SYMLINK: "a symbolic link", SUBMODULE: "a submodule", FOLDER: "a folder"}


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which must occur exactly once in the file, by `new`; an empty `old` makes a new file."""

    path: str
    old: str
    new: str


def apply_edits(repository: Repository, base_commit: str, edits: Sequence[Edit]) -> dict[str, str]:
    """The new text of every file that the edits change, applied in order to the base commit's files.

    Line ends and a missing last newline stay as they are.

    Raises:
        InvalidInput: a path cannot be edited, or `old` is absent or occurs more than once.
    """
    _check_places(repository.entries(base_commit), [edit.path for edit in edits])
    texts: dict[str, str] = {}
    for edit in edits:
        text = texts[edit.path] if edit.path in texts else repository.read_file(base_commit, edit.path)
        texts[edit.path] = _apply(edit, text)
    return texts


def _apply(edit: Edit, text: str | None) -> str:
    if not edit.old:
        if text is not None:
            raise InvalidInput(
                f"{edit.path!r} exists, and the edit has an empty old text", "Give the text that the edit replaces"
            )
        return edit.new
    if text is None:
        raise InvalidInput(f"file {edit.path!r} does not exist", "Name an existing file, or make one with an empty old")
    places = list(islice(_places(edit.old, text), MOST_PLACES))
    if not places:
        shown = edit.old if len(edit.old) <= 200 else f"{edit.old[:200]}..."
        crlf = "\r\n" in text and "\r\n" not in edit.old and edit.old.replace("\n", "\r\n") in text
        raise InvalidInput(
            f"the old text {shown!r} is absent from {edit.path!r}",
            "Write its line ends as \\r\\n, as the file does" if crlf else "Copy it exactly, indentation included",
        )
    if len(places) > 1:
        lines = ", ".join(str(text.count("\n", 0, place) + 1) for place in places[:10])
        count = f"{len(places)}{' or more' if len(places) == MOST_PLACES else ''}"
        raise InvalidInput(
            f"the old text occurs {count} times in {edit.path!r}, on lines {lines}",
            "Give more of the text around the one that you mean",
        )
    return text[: places[0]] + edit.new + text[places[0] + len(edit.old) :]


def _places(old: str, text: str) -> Iterator[int]:
    """Where a text begins in another, overlaps included."""
    place = text.find(old)
    while place >= 0:
        yield place
        place = text.find(old, place + 1)


def tree_with_files(repository: Repository, base_commit: str, files: Mapping[str, str | None]) -> str:
    """The id of a tree that is the base commit's with these texts; None deletes a file. File modes stay.

    Raises:
        InvalidInput: a path cannot be written (see `check_path`), leads through a symbolic link or a submodule, differs
            from an existing one only in case, or is to be deleted and does not exist; a text is not UTF-8.
    """
    entries = repository.entries(base_commit)
    _check_places(entries, files)
    for path, text in files.items():
        if text is None and path not in entries:
            raise InvalidInput(f"file {path!r} does not exist", "Name an existing file to delete")
    written = {path: text for path, text in files.items() if text is not None}
    oids = dict(zip(written, _write_blobs(repository, written), strict=True))
    modes = {path: entries[path].mode if path in entries else _PLAIN for path in files}
    placed = {path: Entry(modes[path], oids[path]) if path in oids else None for path in files}
    return tree_with_entries(repository, base_commit, placed)


def tree_with_entries(repository: Repository, base_commit: str, entries: Mapping[str, Entry | None]) -> str:
    """The id of a tree that is the base commit's with these entries; None takes a path out. Nothing is checked."""
    absent = Entry("0", "0" * len(repository.tree_of(base_commit)))
    lines = [f"{(entry or absent).mode} {(entry or absent).oid}\t{path}\0" for path, entry in entries.items()]
    update = "".join(lines).encode("utf-8", "surrogateescape")
    with temporary_index() as index:
        repository.main.git("read-tree", base_commit, index=index)
        repository.main.git("update-index", "-z", "--index-info", index=index, stdin=update)
        return repository.main.git("write-tree", index=index).strip()


def _write_blobs(repository: Repository, files: Mapping[str, str]) -> list[str]:
    """Store the texts, in one command, without any filter; returns their ids."""
    if not files:
        return []
    with tempfile.TemporaryDirectory(prefix="autoresearch-texts-") as folder:
        names = []
        for number, (path, text) in enumerate(files.items()):
            name = Path(folder) / str(number)
            try:
                name.write_bytes(text.encode())
            except UnicodeEncodeError:
                raise InvalidInput(f"the text for {path!r} is not UTF-8", "Leave lone surrogates out") from None
            names.append(f"{name}\n")
        written = repository.main.git(
            "hash-object", "-w", "--no-filters", "--stdin-paths", stdin="".join(names).encode()
        )
    return written.split()


def _check_places(entries: Mapping[str, Entry], paths: Collection[str]) -> None:
    """Raise InvalidInput where one of `paths` cannot lie in the tree of `entries` as a plain file."""
    todo = "Edit a plain file, or choose another path"
    parents = {path: [str(parent) for parent in PurePosixPath(check_path(path)).parents][:-1] for path in paths}
    by_case = {name.casefold(): name for name in (*chain.from_iterable(parents.values()), *paths, *entries)}
    for path in paths:
        if path in entries and entries[path].mode in _KINDS:
            raise InvalidInput(f"{path!r} is {_KINDS[entries[path].mode]}", todo)
        for parent in parents[path]:
            if parent in paths or (parent in entries and entries[parent].mode != FOLDER):
                raise InvalidInput(f"{path!r} leads through {parent!r}, which is not a folder", todo)
        for part in (path, *parents[path]):
            twin = by_case[part.casefold()]
            if part not in entries and twin != part:
                raise InvalidInput(f"{path!r} differs from {twin!r} only in case", f"Use {twin!r}, or another name")
