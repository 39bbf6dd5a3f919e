"""Data that travels: files by the fingerprint of their content, sent to a machine once and kept there."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mcp_server.errors import NotReady
from mcp_server.machine.git import state_of

CHUNK = 8 * 1024 * 1024
"""Bytes that are sent at a time."""

MOST_FILES = 100_000
SHORT = 16
"""Characters of a fingerprint in the name of a folder."""

ParcelKind = Literal["inputs", "data"]
"""What the repository leaves untracked, or what prepare.py made. It is also the folder of the cache where it goes."""


@dataclass(frozen=True)
class Item:
    """A file of a parcel: its path in it, its size in bytes, when it was changed (ns) and the digest of its content."""

    path: str
    size: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """Files that belong together.

    Attributes:
        name: of an input, its path in the repository; of prepared data, its folder in the cache.
        fingerprint: the digest of all paths and contents: equal data has the same on every machine.
    """

    kind: ParcelKind
    name: str
    fingerprint: str
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(item.size for item in self.items)


class Packer:
    """Makes parcels of folders and files. Content is read only where names, sizes or times have changed since."""

    def __init__(self, notes: Path) -> None:
        """Args: notes: a file for what is known of earlier parcels."""
        self._notes = notes

    def pack(self, kind: ParcelKind, top: Path, name: str) -> Parcel:
        """The parcel of a file or folder; reads all of it at the first time.

        Raises:
            NotReady: it is gone, cannot be read, or has too many files.
        """
        state = state_of(top.parent, [top.name])[top.name]
        known = self._known()
        about = known.get(f"{kind}:{name}")
        if about and about["state"] == state:
            return Parcel(kind, name, about["fingerprint"], tuple(Item(**item) for item in about["items"]))
        try:
            items = tuple(_items(top, "" if kind == "data" else top.name))
        except OSError as error:
            raise NotReady(f"the input {name!r} cannot be read: {error}", "Mend it, then train again") from None
        listed = json.dumps([(item.path, item.sha256) for item in items])
        parcel = Parcel(kind, name, hashlib.sha256(listed.encode()).hexdigest(), items)
        known[f"{kind}:{name}"] = {"state": state, **asdict(parcel)}
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        part = self._notes.with_suffix(".part")
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(self._notes)
        return parcel

    def _known(self) -> dict[str, dict]:  # type: ignore[type-arg] # as it stands in the file
        try:
            known: dict[str, dict] = json.loads(self._notes.read_text(encoding="utf-8"))  # type: ignore[type-arg]
        except (OSError, ValueError):
            return {}
        return known


def chunks(top: Path, parcel: Parcel) -> Iterator[tuple[int, int, bytes]]:
    """The content of a parcel made of `top`: number of the file, offset, bytes. Raises OSError if a file is gone."""
    folder = top if parcel.kind == "data" else top.parent
    for number, item in enumerate(parcel.items):
        with (folder / item.path).open("rb") as file:
            offset = 0
            while data := file.read(CHUNK):
                yield number, offset, data
                offset += len(data)


class Shelf:
    """The parcels that a machine has, in its cache. Prepared data that is equal to a parcel counts as that parcel."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def find(self, parcel: Parcel) -> Path | None:
        """Where the content of a parcel is, if this machine has it as it was received or prepared."""
        if parcel.kind == "data":
            ours = self._cache / "data" / parcel.name
            if _same_manifest(ours, parcel):
                return ours
        folder = self._folder(parcel)
        try:
            if self._stamp(parcel).read_text() == _state(folder):
                return folder if parcel.kind == "data" else folder / Path(parcel.name).name
        except OSError:
            pass
        return None

    def clear(self, parcel: Parcel) -> None:
        """Make room for a parcel that is not here, or not as it was. Only one may receive it at a time."""
        for folder in (self._folder(parcel), self._partial(parcel)):
            shutil.rmtree(folder, ignore_errors=True)
        self._partial(parcel).mkdir(parents=True)

    def receive(self, parcel: Parcel, number: int, offset: int, data: bytes) -> None:
        """Write a part of a file."""
        place = self._partial(parcel) / parcel.items[number].path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("r+b" if place.exists() else "w+b") as file:
            file.seek(offset)
            file.write(data)

    def settle(self, parcel: Parcel) -> None:
        """Check all that was received, and put it in its place; raises NotReady where a file is not as it was sent."""
        partial, folder = self._partial(parcel), self._folder(parcel)
        for item in parcel.items:
            place = partial / item.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()  # an empty file comes in no part
            if place.stat().st_size != item.size or _digest(place) != item.sha256:
                raise NotReady(f"{item.path} of {parcel.name!r} arrived damaged", "Train again: it changed meanwhile")
            os.utime(place, ns=(item.changed, item.changed))
        partial.rename(folder)
        self._stamp(parcel).write_text(_state(folder))

    def _folder(self, parcel: Parcel) -> Path:
        return self._cache / parcel.kind / parcel.fingerprint[:SHORT]

    def _partial(self, parcel: Parcel) -> Path:
        return self._cache / parcel.kind / f"{parcel.fingerprint[:SHORT]}.part"

    def _stamp(self, parcel: Parcel) -> Path:
        return self._cache / parcel.kind / f"{parcel.fingerprint[:SHORT]}.stamp"


def _state(folder: Path) -> str:
    return state_of(folder.parent, [folder.name])[folder.name]


def _same_manifest(folder: Path, parcel: Parcel) -> bool:
    """Whether a prepared folder holds the parcel: its manifest tells the digest of each file."""
    items = {item.path: item for item in parcel.items}
    try:
        sizes = {path: (folder / path).stat().st_size for path in items}
        return _digest(folder / "manifest.json") == items["manifest.json"].sha256 and all(
            sizes[path] == item.size for path, item in items.items()
        )
    except (OSError, KeyError):
        return False


def _items(top: Path, name: str) -> Iterator[Item]:
    """The files of a folder, or the one file, in a fixed order; links are followed."""
    if top.is_file():
        yield _item(top, name)
        return
    found, seen = [], {top.resolve()}
    for folder, folders, files in os.walk(top, followlinks=True):
        found += [Path(folder, file) for file in files if Path(folder, file).exists()]
        kept = [each for each in folders if each != ".git" and Path(folder, each).resolve() not in seen]
        seen |= {Path(folder, each).resolve() for each in kept}  # a link to a folder above would never end
        folders[:] = kept
        if len(found) > MOST_FILES:
            raise NotReady(
                f"the input {str(top)!r} has more than {MOST_FILES:,} files", "Pack them, e.g. as a tar file or shards"
            )
    for path in sorted(found):
        yield _item(path, str(Path(name, path.relative_to(top))))


def _item(path: Path, name: str) -> Item:
    status = path.stat()
    return Item(name, status.st_size, status.st_mtime_ns, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
