"""Going round the loop without a mind: what the server proposes is done, through the tools of an MCP client alone."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mcp import Client

from mcp_server.errors import ResearchError

PATIENCE = 150
"""Tenths of a second for stopped trainings to end."""


class Refused(ResearchError):  # noqa: N818
    """A tool answered with an error."""

    def __init__(self, tool: str, text: str) -> None:
        super().__init__(f"{tool}: {text}", "Do what it says, or look into the log of the server")


class Watcher(Protocol):
    """Is told what a follower does."""

    def think(self, thought: str) -> None:
        """What the server proposes, and will now be done."""

    def add(self, name: str, category: str, idea: str, change: str) -> None:
        """A new experiment was registered; `change` says in short what it changes."""

    def refuse(self, category: str, idea: str, why: str) -> None:
        """An experiment was not accepted."""

    def turn_to(self, name: str) -> None:
        """An experiment is trained, for the first time or again."""

    def training(self, answer: Mapping[str, Any]) -> None:
        """How the present training is going, as `train` answered."""

    def decided(self, name: str, verdict: str, value: float | None, delta: float | None, reason: str) -> None:
        """The verdict on an experiment."""


class Follower:
    """Takes experiments of one run round the loop.

    Attributes:
        open: the experiment that may be training now.
        trainings: how many were asked for.
    """

    def __init__(self, client: Client, tag: str, watcher: Watcher, poll_seconds: float) -> None:
        """`poll_seconds` is how long one call of `train` waits; another re-attaches, and each answer is shown."""
        self._client = client
        self._tag = tag
        self._watcher = watcher
        self._poll_seconds = poll_seconds
        self.open: str | None = None
        self.trainings = 0

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured result; raises Refused."""
        result = await self._client.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            raise Refused(tool, " ".join(getattr(part, "text", "") for part in result.content))
        return dict(result.structured_content)

    async def follow(self, proposals: Sequence[Mapping[str, Any]]) -> bool:
        """Carry out the first of the server's proposals that it accepts; False if there is none."""
        for proposal in proposals:
            if await self._carry_out(proposal):
                return True
        return False

    async def experiment(self, category: str, hypothesis: str, change: Mapping[str, Any], lesson: str = "") -> bool:
        """One round of the loop: register a change, train, judge; False if the server does not accept it."""
        try:
            registered = await self.ask("register", tag=self._tag, hypothesis=hypothesis, category=category, **change)
        except Refused as refusal:  # a change may be known already, or not fit the script as it is now
            self._watcher.refuse(category, hypothesis, str(refusal))
            return False
        name = registered["experiment_id"]
        self._watcher.add(name, category, hypothesis, registered["diff_summary"])
        await self.measure(name, lesson)
        return True

    async def measure(self, name: str, lesson: str = "", **arguments: Any) -> None:
        """Train an experiment, for the first time or again, and ask for the verdict."""
        self.open = name
        self.trainings += 1
        self._watcher.turn_to(name)
        trained = await self._train(name, **arguments)
        self.open = None
        if trained["status"] == "crash":
            crash = await self.ask("crash", experiment_id=name, error=trained.get("error") or "")
            self._watcher.decided(name, "crash", None, None, crash["reason"])
        else:
            await self.judge(name, lesson)

    async def judge(self, name: str, lesson: str = "") -> None:
        """Ask for the verdict on a trained experiment."""
        given = {"lesson": lesson} if lesson else {}
        verdict = await self.ask("complete", experiment_id=name, **given)
        self._watcher.decided(name, verdict["status"], verdict["value"], verdict["delta"], verdict["reason"])

    async def leave(self) -> None:
        """End what still trains, and wait until it has ended."""
        if self.open is None:
            return
        await self.ask("stop", experiment_id=self.open)
        for _ in range(PATIENCE):
            if all(device["status"] == "idle" for device in (await self.ask("devices"))["devices"]):
                return
            await asyncio.sleep(0.1)

    async def _carry_out(self, proposal: Mapping[str, Any]) -> bool:
        self._watcher.think(proposal["text"])
        arguments = dict(proposal["arguments"])
        if proposal["tool"] == "register":
            change = {name: value for name, value in arguments.items() if name not in ("tag", "category", "hypothesis")}
            return await self.experiment(arguments["category"], arguments["hypothesis"], change)
        name = arguments.pop("experiment_id")
        if proposal["tool"] == "train":
            await self.measure(name, **arguments)
        else:
            await self.judge(name)
        return True

    async def _train(self, name: str, **arguments: Any) -> dict[str, Any]:
        while True:
            answer = await self.ask("train", experiment_id=name, wait_seconds=self._poll_seconds, **arguments)
            if answer["status"] not in ("queued", "training"):
                return answer
            self._watcher.training(answer)
