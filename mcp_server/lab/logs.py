"""Reading logs of trainings: bounded, however large the file is."""

import io
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine.trees import open_regular
from mcp_server.research.metrics import clean

END_BYTES = 32_000
KEPT_LINES = 20_000


@dataclass(frozen=True)
class LogText:
    """Text of a log, and how many lines there were in all."""

    text: str
    total: int

    def last(self, lines: int, characters: int) -> str:
        """Its last lines, cleaned of control sequences and at most so many characters."""
        cleaned = clean(self.text, len(self.text) + 1)
        return clean("\n".join(cleaned.rstrip("\n").split("\n")[-lines:]), characters)


def read_end(path: Path) -> LogText:
    """The last 32 kB of a log; empty if there is none yet."""
    try:
        with open_regular(path) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - END_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        text = f"the log cannot be read: {error}"
    return LogText(text, text.count("\n"))


def read_whole(path: Path, grep: str | None) -> LogText:
    """The lines of a log that contain `grep` (all by default), of which the last 20,000 are kept; all are counted."""
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    total = 0
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8", "replace", newline=None) as file:
            for line in file:
                if grep is None or grep in line:
                    kept.append(line)
                    total += 1
    except FileNotFoundError:
        pass
    except OSError as error:
        kept, total = deque([f"the log cannot be read: {error}"]), 1
    return LogText("".join(kept), total)
