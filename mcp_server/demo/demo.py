"""`autoresearch demo`: prepare data, start the server, let the scripted agent research, show what came of it."""

import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from mcp import Client, StdioServerParameters, stdio_client
from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from mcp_server.demo import scratch
from mcp_server.demo.agent import METRIC, TAG, Agent
from mcp_server.demo.board import Board
from mcp_server.demo.ideas import IDEAS, Idea
from mcp_server.demo.scratch import Scratch
from mcp_server.interfaces.chart import draw_progress
from mcp_server.machine.starter import starter_files
from mcp_server.research.marking import unmarked
from mcp_server.settings import Settings

FONT_FACE = re.compile(r"\s*@font-face \{.*?\n    \}", re.DOTALL)
"""Where a picture by rich would have its reader's browser fetch fonts from."""


@dataclass(frozen=True)
class Demo:
    """One demo.

    Attributes:
        seconds: the budget of each training.
        trainings: how many of them.
        picture: where to write the final screen as an SVG image.
    """

    folder: Path
    seconds: float = 5.0
    trainings: int = 13
    devices: str = "cpu:1"
    picture: Path | None = None
    files: Mapping[str, Path] = field(default_factory=starter_files)
    ideas: Sequence[Idea] = IDEAS

    async def run(self, console: Console) -> None:
        """Run it; raises ResearchError where something is missing or refused."""
        scratch.check_packages()
        settings = Settings.load()
        board = Board(console, METRIC, self.trainings)
        with scratch.fresh(self.folder, self.files) as place:
            with board.live():
                board.say("preparing the sources of Python's standard library as training text")
                data, ready = await scratch.prepare_data(place, settings)
                board.say(ready)
                with place.server_log.open("w") as log:
                    found = await self._research(board, place, scratch.server_environment(data, settings), log)
            self._leave(place, found)
            self._show(console, board, place, found)

    async def _research(self, board: Board, place: Scratch, environment: dict[str, str], log: TextIO) -> dict[str, Any]:
        """Drive the real server over stdio; returns what it says about the run at the end."""
        words = ["-m", "mcp_server", "serve", "--repo", str(place.repository), "--devices", self.devices]
        server = StdioServerParameters(command=sys.executable, args=words, env=environment, cwd=place.folder)
        try:
            async with Client(stdio_client(server, log)) as client:
                agent = Agent(client, board)
                try:
                    await agent.research(self.ideas, self.trainings, self.seconds)
                except BaseException:  # Ctrl-C arrives as a cancellation
                    await agent.leave()
                    raise
                ask = agent.follower.ask
                return {
                    "summary": await ask("summary", tag=TAG),
                    "history": (await ask("history", tag=TAG, limit=200))["experiments"],
                    "table": (await ask("export", tag=TAG, format="tsv"))["text"],
                }
        except BaseExceptionGroup as group:  # the SDK's task groups wrap what is raised between them
            raise _innermost(group) from group

    def _leave(self, place: Scratch, found: dict[str, Any]) -> None:
        """Write what the demo leaves behind."""
        place.results.write_text(unmarked(found["table"]) + "\n")
        history = [each | {"hypothesis": unmarked(each["hypothesis"])} for each in found["history"]]
        draw_progress(history, METRIC, "minimize", place.chart)

    def _show(self, console: Console, board: Board, place: Scratch, found: dict[str, Any]) -> None:
        """The final screen."""
        screen = Padding(Group(board.heading(), "", board.table(), "", *_outcome(found["summary"], place)), (1, 1))
        console.print(screen)
        if self.picture:
            recorder = Console(record=True, width=120, file=io.StringIO(), force_terminal=True)
            recorder.print(screen)
            self.picture.write_text(FONT_FACE.sub("", recorder.export_svg(title="autoresearch demo")))


def _innermost(error: BaseException) -> BaseException:
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _outcome(summary: dict[str, Any], place: Scratch) -> list[Text]:
    best = summary["best"]
    change = unmarked(best["hypothesis"]).split(": ", 1)[0]
    changes = summary["counts"] | {"keep": summary["counts"]["keep"] - 1}  # the baseline is no change
    counts = ", ".join(f"{count} {name}" for name, count in changes.items() if name != "total" and count)
    near, paths = Path.cwd(), (place.results, place.chart, place.repository)
    results, chart, repository = (path.relative_to(near) if path.is_relative_to(near) else path for path in paths)
    return [
        Text.assemble(
            (f"{METRIC} {summary['baseline']:.4f} → {best['value']:.4f}", "bold green"),
            f"   by {best['experiment_id']}: {change}",
        ),
        Text(summary["told"] or "Nothing was kept but the baseline."),
        Text(summary["noise"], style="bright_black"),
        Text(f"{counts}; {summary['training_minutes']:.1f} minutes of training", style="bright_black"),
        Text.assemble("results  ", (str(results), "cyan")),
        Text.assemble("chart    ", (str(chart), "cyan")),
        Text.assemble("record   ", (f"autoresearch history --repo {repository}", "cyan")),
    ]
