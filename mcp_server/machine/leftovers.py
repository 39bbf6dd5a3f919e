"""What lies in folders, and how much of it changed between two moments, whatever form it has."""

import contextlib
import hashlib
import itertools
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine.removing import levels

UNKNOWN = 2**40
"""Bytes for which a folder counts that cannot be read."""


@dataclass(frozen=True)
class Entry:
    """A file, a folder or a link.

    Attributes:
        digest: of its contents, mode, time and extended attributes.
        size: bytes of all these and of its name.
    """

    digest: bytes
    size: int


def entries(folders: Iterable[Path], without: Iterable[Path] = ()) -> dict[str, Entry]:
    """All that lies in folders, by path. Contents are read, since a file that is mapped into memory may change while
    its times do not. What lies in a folder that cannot be read may always have changed, and hold anything.
    """
    left_out = set(map(str, without))
    found: dict[str, Entry] = {}
    for folder, lying in itertools.chain.from_iterable(map(levels, folders)):
        if lying is None:
            found[folder] = Entry(secrets.token_bytes(16), UNKNOWN)
        for path in (each.path for each in lying or () if each.path not in left_out):
            if (entry := _entry(path)) is not None:
                found[path] = entry
    return found


def changed_bytes(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> int:
    """The bytes of all that is new, or another than before."""
    return sum(entry.size for path, entry in now.items() if before.get(path) != entry)


def _entry(path: str) -> Entry | None:
    """One of them; None where it is gone or cannot be read. Links are not followed."""
    total = hashlib.blake2b(digest_size=16)
    size = len(os.path.basename(path))  # noqa: PTH119 - many files
    try:
        status = os.lstat(path)
        total.update(f"{status.st_mode} {0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns}".encode())
        if stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(path))  # noqa: PTH115
            total.update(target)
            size += len(target)
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:  # noqa: PTH123
                total.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
            size += status.st_size
    except OSError:
        return None
    for name, value in _attributes(path):
        total.update(f"{name} {len(value)} ".encode() + value)
        size += len(name) + len(value)
    return Entry(total.digest(), size)


def _attributes(path: str) -> list[tuple[str, bytes]]:
    """The extended attributes, as far as the system has any."""
    if not hasattr(os, "listxattr"):
        return []
    with contextlib.suppress(OSError):
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    return []
