"""What the demo shows: experiments with their verdicts, and the training that is going on."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mcp_server.interfaces.tables import COLOURS

WORDS = {"needs_confirmation": "confirm"}
SCRIPT_LINES = re.compile(r", \S+ \+\d+ -\d+$")
"""The end of a summary of a change that names the lines of the one script, which is always the same."""
REFRESHES = 8
"""Times a second at which the live picture is drawn."""


@dataclass
class Row:
    """One experiment as the table shows it; `runs` is how often it was trained."""

    category: str
    idea: str
    change: str = ""
    verdict: str = ""
    value: float | None = None
    delta: float | None = None
    runs: int = 0


@dataclass
class Board:
    """The state of the display; the agent changes it, rich draws it."""

    console: Console
    metric: str
    trainings: int
    stage: str = ""
    thought: str = ""
    rows: dict[str, Row] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw the board while the block runs; where there is no terminal, `say` prints plain lines instead."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=REFRESHES, transient=True):
            yield

    def say(self, stage: str) -> None:
        """What is going on now."""
        self.stage, self.progress = stage, {}
        self._plain(stage)

    def think(self, thought: str) -> None:
        """What the server suggests."""
        if thought != self.thought:
            self._plain(f"suggested: {thought}")
        self.thought = thought

    def add(self, name: str, category: str, idea: str, change: str) -> None:
        """A new experiment."""
        row = self.rows[name] = Row(category, idea, SCRIPT_LINES.sub("", change))
        self._plain(f"{len(self.rows)}. {category}: {idea} ({row.change})")

    def refuse(self, category: str, idea: str, why: str) -> None:
        """An idea that does not fit the script as the user has it."""
        name = f"refused {len(self.rows)}"
        self.add(name, category, idea, "")
        self.decided(name, "refused", None, None, why)

    def turn_to(self, name: str) -> None:
        """An experiment is trained, for the first time or again."""
        row = self.rows[name]
        row.runs += 1
        row.verdict = ""
        if row.runs > 1:
            self._plain(f"   {name} again, run {row.runs}")

    def training(self, answer: Mapping[str, Any]) -> None:
        """How the present training is going, as `train` answered."""
        self.progress = answer
        if not self.console.is_terminal:
            return
        self.stage = "waits for a free device" if answer["status"] == "queued" else f"trains on {answer['device']}"

    def decided(self, name: str, verdict: str, value: float | None, delta: float | None, reason: str) -> None:
        """The verdict on an experiment."""
        row = self.rows[name]
        row.verdict, row.value, row.delta = verdict, value, delta
        self.progress = {}
        self._plain(f"   {verdict}: {reason}")

    def _plain(self, line: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"{time.monotonic() - self.began:6.1f} s  {line}", markup=False, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        """The whole picture."""
        parts: list[RenderableType] = [self.heading(), "", self.table()]
        if self.stage:
            parts += ["", self._now()]
        if self.thought:
            parts.append(
                Text(f"  suggested next: {self.thought}", style="bright_black", overflow="ellipsis", no_wrap=True)
            )
        return Padding(Group(*parts), (1, 1))

    def heading(self) -> Text:
        """The title, and how far the demo is."""
        done = sum(row.runs for row in self.rows.values()) - any(not row.verdict for row in self.rows.values())
        spent = time.monotonic() - self.began
        return Text.assemble(
            ("autoresearch demo", "bold"),
            (f"   training {done} of {self.trainings}   {spent // 60:.0f}:{spent % 60:02.0f}", "bright_black"),
        )

    def table(self) -> Table:
        """The experiments so far."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
        table.add_column("#", justify="right")
        table.add_column("category", no_wrap=True)
        table.add_column("idea", ratio=3)
        table.add_column("change", ratio=2, style="bright_black")
        table.add_column("runs", justify="right", no_wrap=True)
        table.add_column(self.metric, justify="right", no_wrap=True)
        table.add_column("better by", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        kept = [row for row in self.rows.values() if row.verdict == "keep" and row.value is not None]
        for number, row in enumerate(self.rows.values(), 1):
            value = "" if row.value is None else f"{row.value:.4f}"
            delta = "" if row.delta is None else f"{row.delta:+.4f}"
            bold = "bold green" if kept and row is kept[-1] else ""
            colour = COLOURS.get(row.verdict, "")
            verdict = Text(WORDS.get(row.verdict, row.verdict) or "…", style=colour)
            times = str(row.runs) if row.runs > 1 else ""
            cells = (str(number), row.category, _short(row.idea), row.change, times)
            table.add_row(*cells, Text(value, bold), Text(delta, colour), verdict)
        return table

    def _now(self) -> RenderableType:
        """The line about what is going on: loss, time left, and a bar."""
        self._spinner.update(text=Text(f" {self.stage}"))
        line = Table.grid(padding=(0, 2))
        cells: list[RenderableType] = [self._spinner]
        seen = self.progress.get("progress") or {}
        if (percent := seen.get("percent")) is not None:
            cells.append(ProgressBar(total=100, completed=percent, width=24, complete_style="cyan"))
        if (loss := seen.get("loss")) is not None:
            cells.append(Text(f"loss {loss:.3f}" if isinstance(loss, float) else f"loss {loss}"))
        left = seen.get("remaining_seconds")
        if left is not None:
            cells.append(Text(f"{left:.0f} s left" if left > 0.5 else "scoring", style="bright_black"))
        line.add_row(*cells)
        return line


def _short(idea: str) -> str:
    """What a person wants to read of a hypothesis: of a suggestion, why this value."""
    why = re.split(r"\. Compare|; the estimator|: if the score|\): that was|\. Never", idea, maxsplit=1)[0]
    return why.split(": ", 1)[-1]
