"""A training's log, bounded: the first bytes and the last ones stay, however much is printed."""

from pathlib import Path

HEAD = 4 * 1024 * 1024
TAIL = 1024 * 1024


class BoundedLog:
    """Writes a stream of bytes to a file that grows to `HEAD + TAIL` bytes at most, whatever the speed of the stream.

    The head is written as it comes, the tail by `flush`. A full disk loses the head, never the tail, which stays in
    memory: a summary ends a log.
    """

    def __init__(self, path: Path, head: int = HEAD, tail: int = TAIL) -> None:
        """Begin the log at `path`, replacing what was there."""
        self._file = path.open("w+b", buffering=0)
        self._room = head
        self._limit = tail
        self._tail = bytearray()
        self._written = self._dropped = 0
        self._stale = False

    def write(self, data: bytes) -> None:
        """Add to the log; never raises."""
        if self._room:
            written = self._put(data[: self._room])
            self._written += written
            self._room = self._room - written if written == min(len(data), self._room) else 0
            data = data[written:]
        if data:
            self._tail += data
            self._stale = True
            if len(self._tail) > 2 * self._limit:
                self._cut()

    def flush(self) -> None:
        """Bring the file up to date; never raises."""
        if self._stale:
            self._stale = False
            try:
                self._file.truncate(self._written)
            except OSError:
                return
            self._file.seek(self._written)
            self._put(self._end())

    def text(self) -> str:
        """All that is kept; bytes that are not UTF-8 become U+FFFD."""
        self._file.seek(0)
        head = self._file.read(self._written) or b""
        self._file.seek(0, 2)
        return (head + self._end()).decode("utf-8", "replace")

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._file.close()

    def _end(self) -> bytes:
        self._cut()
        if not self._dropped:
            return bytes(self._tail)
        return f"\n[... {self._dropped:,} bytes left out ...]\n".encode() + self._tail

    def _cut(self) -> None:
        """Shorten the tail to its limit, and to a whole line if it has one."""
        if len(self._tail) > self._limit:
            start = len(self._tail) - self._limit
            start = self._tail.find(b"\n", start) + 1 or start
            self._dropped += start
            del self._tail[:start]

    def _put(self, data: bytes) -> int:
        """Write to the file; returns how many bytes found room on the disk."""
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError:
            pass
        return written
