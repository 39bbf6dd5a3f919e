"""Folders in which a program may have left anything: walked, read and deleted whatever their depth and kinds of files.

`os.walk` and `shutil.rmtree` call themselves for every level, and end in RecursionError where there are a thousand; to
open a pipe with a name waits for ever, and so does reading a device or the holes of a file that is said to be huge.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DEEPEST = 64
"""Levels of folders that are looked into; what lies deeper is left by nobody who means well."""
LONGEST = (1024 if sys.platform == "darwin" else 4096) - 256 - 2
"""Bytes of a folder's path up to which the system takes the paths of all that lies in it."""
STEP = 8
"""Levels of folders that are moved at once where a tree is too deep to be deleted as it is."""
BLOCK = 1 << 20


def walk(folder: Path | str, deepest: float = DEEPEST) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder, the outer ones first, with the names of the folders and of all else in it, also of links to folders.

    Links are not followed, what cannot be read is left out, and folders below so many levels, or with a path too long
    for the system, are named and no more.
    Names that are taken out of the list of folders are not entered.
    """
    waiting = [(str(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        folders: list[str] = []
        others: list[str] = []
        with contextlib.suppress(OSError), os.scandir(place) as found:
            for entry in found:
                (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        yield place, folders, others
        if depth < deepest:
            inner = (f"{place}/{name}" for name in reversed(folders))
            waiting += [(path, depth + 1) for path in inner if _is_short(path)]


def too_deep(folder: Path) -> bool:
    """Whether there are folders that `walk` does not enter, or that cannot be read."""
    top = str(folder).count("/")
    return any(
        not os.access(place, os.R_OK | os.X_OK)
        or any(place.count("/") - top >= DEEPEST or not _is_short(f"{place}/{name}") for name in folders)
        for place, folders, _ in walk(folder)
    )


def _is_short(path: str) -> bool:
    return len(os.fsencode(path)) <= LONGEST


def remove(folder: Path) -> None:
    """Delete a folder as far as that is possible; a program may have left parts of it read-only, or very deep.

    No program may be at work in it.
    """
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_symlink() or not folder.is_dir():
        return
    waiting = [str(folder)]
    while waiting:
        waiting += _made_shallow(waiting.pop(), str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _made_shallow(place: str, top: str) -> list[str]:
    """Make the folders of a tree writable, and move those that lie `STEP` levels deep to the top, so that no path grows
    long; where they are then.
    """
    moved = []
    waiting = [(place, 0)]
    while waiting:
        place, depth = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)  # noqa: PTH101 - many files
            folders = [entry.path for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False)]
            waiting += [(path, depth + 1) for path in folders if depth < STEP]
            for path in folders if depth >= STEP else ():
                os.chmod(path, 0o700)  # noqa: PTH101 - to move a folder is to write in it
                os.rename(path, new := f"{top}/{uuid.uuid4().hex}")  # noqa: PTH104
                moved.append(new)
    return moved


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file to be read; raises OSError where it is a link or no regular file, and never waits for anybody."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{str(path)!r} is no regular file")
    return os.fdopen(descriptor, "rb")


def content_digest(path: Path | str) -> bytes:
    """Of a file's length and of what lies in it; holes, of which there may be more than any disk has, are not read.

    Raises:
        OSError: it is gone, cannot be read, or is no regular file.
    """
    total = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        total.update(f"{size}".encode())
        for begin, end in _stretches(file.fileno(), size):
            total.update(f"{begin} {end}".encode())
            os.lseek(file.fileno(), begin, os.SEEK_SET)
            while begin < end and (block := os.read(file.fileno(), min(BLOCK, end - begin))):
                total.update(block)
                begin += len(block)
    return total.digest()


def _stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: begin and end of each stretch; all the rest where the system does not tell of holes."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    begin = end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
            after = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            begin, after = end, size
        yield begin, after
        end = after
