"""What a night shows: lines of what happened, and below them, on a terminal, how it stands."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mcp_server.interfaces.tables import COLOURS
from mcp_server.lab.results import ExperimentView
from mcp_server.night.record import Standing

REFRESHES = 2
"""Times a second at which the status is drawn."""
LONGEST_LINE = 160
WORDS = {"baseline": "baseline", "keep": "kept", "discard": "discarded", "crash": "crashed"}


@dataclass
class Screen:
    """The state of the display.

    Attributes:
        title: tag and agent.
        limits: what ends the night, in words.
        agent: what the agent does, in words.
        saying: its last line of output.
    """

    console: Console
    title: str
    limits: str
    began: Standing = field(default_factory=Standing)
    now: Standing = field(default_factory=Standing)
    agent: str = "starts"
    saying: str = ""
    _since: float = field(default_factory=time.monotonic)
    _live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw the status while the block runs; without a terminal there are only lines."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=REFRESHES, transient=True) as self._live:
            yield

    def say(self, line: str, style: str = "") -> None:
        """Something happened."""
        now = time.strftime("%H:%M:%S")
        text = Text.assemble((f"{now}  ", "bright_black"), (" ".join(line.split()), style))
        self.console.print(text, soft_wrap=True)

    def verdict(self, experiment: ExperimentView) -> None:
        """An experiment was decided."""
        value = "" if experiment.value is None else f" {experiment.value:.6g}"
        delta = "" if experiment.delta is None else f" ({experiment.delta:+.3g})"
        line = f"{experiment.experiment_id} {experiment.status}{value}{delta}: {experiment.hypothesis}"
        self.say(line[:LONGEST_LINE], COLOURS.get(experiment.status, ""))

    def __rich__(self) -> RenderableType:
        """The status."""
        heading = Text.assemble(
            ("autoresearch night", "bold"), f"   {self.title}", (f"   {self._spent()}   {self.limits}", "bright_black")
        )
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bright_black", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row("experiments", self._experiments())
        if best := self._best():
            grid.add_row("best", best)
        grid.add_row("training", self._training())
        grid.add_row("agent", self.agent)
        if self.saying:
            grid.add_row("", Text(self.saying[:LONGEST_LINE], "bright_black"))
        return Padding(Group(heading, grid), (1, 1))

    def outcome(self) -> str:
        """The night in a line."""
        parts = [self._experiments().plain, best.plain if (best := self._best()) else "", self._training_time()]
        return "; ".join(part for part in parts if part)

    def _experiments(self) -> Text:
        done = self.now.decided - self.began.decided
        news = [
            f"{count} {word}"
            for status, word in WORDS.items()
            if (count := self.now.count(status) - self.began.count(status)) > 0
        ]
        which = f" ({', '.join(news)})" if news else ""
        return Text(f"{done} tonight{which}, {self.now.experiments} in all")

    def _best(self) -> Text | None:
        best = self.now.best
        if best is None or best.value is None:
            return None
        gain = f", {self.now.told}" if self.now.told else ""
        return Text(f"{self.now.metric} {best.value:.6g} by {best.experiment_id}{gain}", "green" if gain else "")

    def _training(self) -> str:
        return f"{', '.join(self.now.training) or 'none'}; {self._training_time()}"

    def _training_time(self) -> str:
        seconds = self.now.training_seconds - self.began.training_seconds
        return (
            f"{seconds / 3600:.2f} hours of training" if seconds >= 3600 else f"{seconds / 60:.1f} minutes of training"
        )

    def _spent(self) -> str:
        return str(timedelta(seconds=int(time.monotonic() - self._since)))
