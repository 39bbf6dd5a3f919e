"""The scripted agent: it goes round the loop as a language model would, through the tools of an MCP client alone."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp import Client

from mcp_server.demo.board import Board, Row
from mcp_server.demo.ideas import Idea
from mcp_server.errors import ResearchError

TAG = "demo"
SCRIPT = "train.py"
METRIC = "val_bpb"
POLL_SECONDS = 1.0
"""How long one call of `train` waits; calling it again re-attaches, and its answer feeds the display."""

PATIENCE = 150
"""Tenths of a second for a stopped training to end."""


class Refused(ResearchError):  # noqa: N818
    """A tool answered with an error."""

    def __init__(self, tool: str, text: str) -> None:
        super().__init__(f"{tool}: {text}", "Look into server.log beside the scratch repository")


class Agent:
    """Researches one script.

    Attributes:
        open: the experiment that may be training now.
    """

    def __init__(self, client: Client, board: Board) -> None:
        self._client = client
        self._board = board
        self._workspace = Path()
        self.open: str | None = None

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured result; raises Refused."""
        result = await self._client.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            raise Refused(tool, " ".join(getattr(part, "text", "") for part in result.content))
        return dict(result.structured_content)

    async def research(self, ideas: Sequence[Idea], seconds: float) -> None:
        """Set a run up, measure the script as it is, then try every idea."""
        self._board.say("setting up")
        run = await self.ask(
            "setup_run",
            tag=TAG,
            agent="scripted",
            metric=METRIC,
            direction="minimize",
            train_script=SCRIPT,
            time_budget_seconds=seconds,
            readonly=["prepare.py"],
        )
        self._workspace = Path(run["workspace"])
        await self._experiment(Row(1, "other", "The script as it is: the baseline"), {})
        for number, idea in enumerate(ideas, 2):
            suggested = await self.ask("suggest", tag=TAG)
            if suggested["suggestions"]:
                self._board.think(suggested["suggestions"][0])
            change = self._changed(idea)
            await self._experiment(Row(number, idea.category, idea.hypothesis), change, idea.lesson)
        self._board.say("")

    def _changed(self, idea: Idea) -> dict[str, Any]:
        """The arguments of `register` that carry the change; what is made in the workspace needs none."""
        if idea.source == "knobs":
            return {"knobs": dict(idea.knobs)}
        if idea.source == "edits":
            return {"edits": [{"path": SCRIPT, "old": old, "new": new} for old, new in idea.replacements]}
        script = self._workspace / SCRIPT
        text = idea.applied(script.read_text())
        if idea.source == "files":
            return {"files": {SCRIPT: text}}
        script.write_text(text)
        return {}

    async def _experiment(self, row: Row, change: dict[str, Any], lesson: str = "") -> None:
        """One round of the loop."""
        try:
            registered = await self.ask("register", tag=TAG, hypothesis=row.idea, category=row.category, **change)
        except Refused as refusal:  # a script that the user has changed may not have what an idea changes
            self._board.add(row)
            self._board.decided("refused", None, None, str(refusal))
            return
        self.open = name = registered["experiment_id"]
        row.change = registered["diff_summary"].split(f", {SCRIPT}")[0]
        self._board.add(row)
        trained = await self._train(name)
        if trained["status"] == "crash":
            crash = await self.ask("crash", experiment_id=name, error=trained.get("error") or "")
            self._board.decided("crash", None, None, crash["reason"])
        else:
            given = {"lesson": lesson} if lesson else {}
            verdict = await self.ask("complete", experiment_id=name, **given)
            self._board.decided(verdict["status"], verdict["value"], verdict["delta"], verdict["reason"])
        self.open = None

    async def _train(self, name: str) -> dict[str, Any]:
        while True:
            answer = await self.ask("train", experiment_id=name, wait_seconds=POLL_SECONDS)
            if answer["status"] not in ("queued", "training"):
                return answer
            self._board.training(answer)

    async def leave(self) -> None:
        """End what still trains, and wait until it has ended."""
        if self.open is None:
            return
        self._board.say("stopping the training")
        await self.ask("stop", experiment_id=self.open)
        for _ in range(PATIENCE):
            if all(device["status"] == "idle" for device in (await self.ask("devices"))["devices"]):
                return
            await asyncio.sleep(0.1)
