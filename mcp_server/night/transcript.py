"""What an agent says: kept in a bounded log, and its last words at hand."""

import json
import re
from pathlib import Path

from mcp_server.machine.logfile import BoundedLog
from mcp_server.research.metrics import clean

HEAD = 2 * 1024 * 1024
TAIL = 2 * 1024 * 1024
"""Bytes: the log of a night never grows beyond the two."""
RECENT = 64 * 1024
"""Bytes at hand, in which the last words are looked for."""
WORDS = 4000
LINE = 1000

SAYING = ("result", "text", "message", "content")
"""Where the programs that print a JSON object for each event have what the agent says."""


class Transcript(BoundedLog):
    """The output of an agent through a night.

    Attributes:
        heard: bytes so far.
    """

    def __init__(self, path: Path) -> None:
        """Begin it at `path`; what an earlier night left there stays beside it, with `.1` at its end."""
        if path.exists():
            path.replace(path.with_name(f"{path.name}.1"))
        super().__init__(path, HEAD, TAIL)
        self.heard = 0
        self._recent = b""

    def write(self, data: bytes) -> None:
        """Add to the log; never raises."""
        super().write(data)
        self.heard += len(data)
        self._recent = (self._recent + data)[-RECENT:]

    def note(self, line: str) -> None:
        """A line of the night's own between what agents say; the last words begin anew."""
        super().write(f"=== {line} ===\n".encode())
        self._recent = b""

    def last_line(self) -> str:
        """The last line of output that is not empty, stripped of control sequences."""
        lines = clean(self._recent[-LINE:].decode("utf-8", "replace"), LINE).split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def last_words(self) -> str:
        """The last thing that the present agent said, stripped of control sequences; empty if it said nothing."""
        lines = clean(self._recent.decode("utf-8", "replace"), RECENT).strip().splitlines()
        for number in range(len(lines) - 1, -1, -1):
            if not lines[number].startswith("{"):
                return re.split(r"\n\s*\n", "\n".join(lines[: number + 1]))[-1].strip()[-WORDS:]
            if said := _said(lines[number]):
                return said[-WORDS:]
        return ""


def _said(line: str) -> str:
    """What an event in JSON says, if it is something said."""
    try:
        event = json.loads(line)
    except ValueError:
        return ""
    return _text(event)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return _text(value[-1]) if value else ""
    if isinstance(value, dict):
        inner = value.get("item", value)
        if isinstance(inner, dict):
            found = (_text(inner[name]) for name in SAYING if name in inner)
            return next((text for text in found if text), "")
    return ""
