"""A training's log, followed from another machine: what was not seen yet, and little else, goes over the wire.

The head of a `BoundedLog` only grows, so that an offset says what is missing. Its tail is rewritten, and sent whole.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine.logfile import HEAD

MOST = 1024 * 1024
"""Bytes of the head that are sent at a time."""


@dataclass(frozen=True)
class Piece:
    """A part of a log.

    Attributes:
        offset: where it goes; the log ends after it.
        size: how long the whole log was.
        token: changes with the tail.
    """

    offset: int
    data: bytes
    size: int
    token: int = 0

    @property
    def last(self) -> bool:
        """Whether nothing was left behind it."""
        return self.offset + len(self.data) == self.size


def piece_of(log: Path, offset: int, token: int = 0) -> Piece | None:
    """What follows `offset` in a log; None where that is nothing new.

    Args:
        offset: the end of what was seen of the head.
        token: that of the tail that was seen.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            if offset < min(size, HEAD):
                file.seek(offset)
                return Piece(offset, file.read(min(MOST, HEAD - offset)), size)
            file.seek(HEAD)
            tail = file.read()
    except OSError:
        return None
    seen = zlib.crc32(tail)
    return Piece(HEAD, tail, size, seen) if tail and seen != token else None


def whole(log: Path) -> tuple[int, int]:
    """The size and checksum of a log, by which two copies are compared."""
    try:
        content = log.read_bytes()
    except OSError:
        return 0, 0
    return len(content), zlib.crc32(content)


class Mirror:
    """The copy of a log."""

    def __init__(self, log: Path) -> None:
        """Begin anew: what the file held is gone."""
        self._log = log
        self._file = log.open("w+b", buffering=0)
        self.offset = self.token = 0

    def add(self, piece: Piece) -> None:
        """Put a piece where it belongs; a full disk loses it."""
        try:
            self._file.seek(piece.offset)
            self._file.write(piece.data)
            self._file.truncate()
        except OSError:
            return
        self.offset = min(HEAD, max(self.offset, piece.offset + len(piece.data)))
        self.token = piece.token

    def say(self, text: str) -> None:
        """Show a line until the log begins."""
        self.add(Piece(0, f"{text}\n".encode(), 0))
        self.offset = 0

    def restart(self) -> None:
        """Forget what was copied, which was not what the log holds."""
        self.offset = self.token = 0

    def agrees(self, size: int, checksum: int) -> bool:
        """Whether the copy is the log with this size and checksum."""
        return whole(self._log) == (size, checksum)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
