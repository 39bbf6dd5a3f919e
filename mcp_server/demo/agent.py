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

OWN_EVERY = 3
"""An own idea after so many trainings; the rest follow what is suggested."""
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
        trainings: how many were asked for.
    """

    def __init__(self, client: Client, board: Board) -> None:
        self._client = client
        self._board = board
        self._workspace = Path()
        self.open: str | None = None
        self.trainings = 0

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured result; raises Refused."""
        result = await self._client.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            raise Refused(tool, " ".join(getattr(part, "text", "") for part in result.content))
        return dict(result.structured_content)

    async def research(self, ideas: Sequence[Idea], trainings: int, seconds: float) -> None:
        """Set a run up and use so many trainings: for what the server suggests, and now and then for an own idea."""
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
        await self._experiment("other", "The script as it is: the baseline", {})
        own = list(ideas)
        while self.trainings < trainings:
            suggested = await self.ask("suggest", tag=TAG)
            if suggested["pending_confirmations"] or not own or self.trainings % OWN_EVERY:
                if not suggested["proposals"]:
                    break
                await self._follow(suggested["proposals"][0])
            else:
                idea = own.pop(0)
                await self._experiment(idea.category, idea.hypothesis, self._changed(idea), idea.lesson)
        self._board.say("")

    def _changed(self, idea: Idea) -> dict[str, Any]:
        """The arguments of `register` that carry the change; what is made in the workspace needs none."""
        if idea.source == "edits":
            return {"edits": [{"path": SCRIPT, "old": old, "new": new} for old, new in idea.replacements]}
        script = self._workspace / SCRIPT
        script.write_text(idea.applied(script.read_text()))
        return {}

    async def _follow(self, proposal: dict[str, Any]) -> None:
        """Do what the server suggests first."""
        self._board.think(proposal["text"])
        arguments = dict(proposal["arguments"])
        if proposal["tool"] == "register":
            change = {name: value for name, value in arguments.items() if name not in ("tag", "category", "hypothesis")}
            await self._experiment(arguments["category"], arguments["hypothesis"], change)
            return
        name = arguments.pop("experiment_id")
        if proposal["tool"] == "train":
            await self._measure(name, **arguments)
        else:
            await self._judge(name)

    async def _experiment(self, category: str, hypothesis: str, change: dict[str, Any], lesson: str = "") -> None:
        """One round of the loop."""
        row = Row(category, hypothesis)
        try:
            registered = await self.ask("register", tag=TAG, hypothesis=hypothesis, category=category, **change)
        except Refused as refusal:  # a script that the user has changed may not have what an idea changes
            self.trainings += 1
            self._board.add(str(len(self._board.rows)), row)
            self._board.decided(str(len(self._board.rows) - 1), "refused", None, None, str(refusal))
            return
        name = registered["experiment_id"]
        row.change = registered["diff_summary"].split(f", {SCRIPT}")[0]
        self._board.add(name, row)
        await self._measure(name, lesson)

    async def _measure(self, name: str, lesson: str = "", **arguments: Any) -> None:
        """Train an experiment, for the first time or again, and ask for the verdict."""
        self.open = name
        self.trainings += 1
        self._board.turn_to(name)
        trained = await self._train(name, **arguments)
        self.open = None
        if trained["status"] == "crash":
            crash = await self.ask("crash", experiment_id=name, error=trained.get("error") or "")
            self._board.decided(name, "crash", None, None, crash["reason"])
        else:
            await self._judge(name, lesson)

    async def _judge(self, name: str, lesson: str = "") -> None:
        given = {"lesson": lesson} if lesson else {}
        verdict = await self.ask("complete", experiment_id=name, **given)
        self._board.decided(name, verdict["status"], verdict["value"], verdict["delta"], verdict["reason"])

    async def _train(self, name: str, **arguments: Any) -> dict[str, Any]:
        while True:
            answer = await self.ask("train", experiment_id=name, wait_seconds=POLL_SECONDS, **arguments)
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
