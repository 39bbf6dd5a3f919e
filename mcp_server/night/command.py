"""`autoresearch night`: everything around the night itself, from checking that it can begin to the report."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from mcp_server.errors import NotReady, ResearchError, WrongState
from mcp_server.interfaces.entrance import Entrance
from mcp_server.machine import processes
from mcp_server.machine.environment import MARK
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.git.locks import Hold
from mcp_server.night.agents import Agent, environment, server_config
from mcp_server.night.limits import Limits
from mcp_server.night.night import Clock, Night, Place
from mcp_server.night.record import Record
from mcp_server.night.screen import Screen
from mcp_server.research.task import check_name
from mcp_server.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 3.0
"""Seconds from SIGTERM to SIGKILL for what an earlier night left."""


@dataclass(frozen=True)
class Command:
    """What was asked for.

    Attributes:
        tag: the run; None for the newest, or else one named after today.
        setting: arguments of `setup_run` by which a new run is begun; one that exists must have the same.
        patience: seconds.
    """

    agent: Agent
    limits: Limits
    tag: str | None = None
    goal: str = ""
    patience: float = 900.0
    clock: Clock | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)

    async def run(self, settings: Settings, console: Console) -> int:
        """Work through the night; returns the number of the signal that ended it, or 0.

        Raises:
            WrongState: another night works on the run.
            NotReady: the agent has added nothing, however often it was started.
            ResearchError: the run cannot be begun or read.
        """
        tag = await self._begin(settings, console) if self.setting else self.tag
        async with Entrance(settings) as entrance:
            record = await Record.of(entrance, tag and check_name("tag", tag))
            if not (await record.standing()).metric and (self.agent.finishes or not self.goal):
                await record.check_beginning()
            root = (await asyncio.to_thread(Repository.discover, settings.repo)).root
            folders = Folders.of(settings, root)
            with _alone(folders.night(record.tag), record.tag) as lock:
                mark = str(lock)
                await processes.end(mark, grace=GRACE)
                place = self._prepare(settings, folders, record.tag, mark)
                today = datetime.now().astimezone().date()
                screen = Screen(console, f"{record.tag}, {self.agent.name}", self.limits.described(today))
                return await self._work(record, place, screen)

    async def _begin(self, settings: Settings, console: Console) -> str:
        """Begin the run as was asked, or see that the one that exists is of this kind; returns its tag.

        What the user should know of that is printed.

        It has an entrance of its own, since one that stays open would keep the agent out of the workspace.
        """
        async with Entrance(settings) as entrance:
            record = await Record.of(entrance, self.tag and check_name("tag", self.tag))
            known_by = {"agent": self.agent.name} if self.agent.finishes else {}
            for note in await record.begin({**self.setting, **known_by}):
                console.print(note, markup=False, highlight=False)
            return record.tag

    async def _work(self, record: Record, place: Place, screen: Screen) -> int:
        night = Night(
            record,
            self.agent,
            self.limits,
            place,
            screen,
            goal=self.goal,
            patience=self.patience,
            clock=self.clock,
        )
        screen.say(f"night on run {record.tag} with {self.agent.name}, {screen.limits}; its output: {place.log}")
        try:
            with screen.live(), _on_signals(night.stop) as received:
                why = await night.work()
                screen.agent = "is ended"
                screen.say(f"the night ends: {why}", "bold")
                if ended := await record.end_trainings():
                    screen.say(f"stopped the training of {', '.join(ended)}: it can be trained again")
                await night.look()
        finally:
            await processes.end(place.environment[MARK], grace=GRACE)
        screen.say(screen.outcome())
        await _report(record, place, screen)
        if not (night.added or received or night.last is None or (self.agent.finishes and night.last.code == 0)):
            raise NotReady(
                f"The agent added nothing to the record in {night.starts} starts; the last one {night.last.told}",
                f"Read what it said in {place.log}",
            )
        return received[0] if received else 0

    def _prepare(self, settings: Settings, folders: Folders, tag: str, mark: str) -> Place:
        """Write what the agent needs; a preset works where the workspaces are, any other command where it was given."""
        work = folders.workspaces(tag) if self.agent.preset else Path.cwd()
        work.mkdir(parents=True, exist_ok=True)
        place = Place(folders.night(tag), work, environment(settings, mark))
        config = json.dumps(server_config(settings, place.calls, mark), indent=2)
        descriptor = os.open(
            place.mcp_config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )  # it holds what trainings see
        with os.fdopen(descriptor, "w") as file:
            file.write(config + "\n")
        place.calls.unlink(missing_ok=True)
        return place


@contextmanager
def _alone(home: Path, tag: str) -> Iterator[Path]:
    """Keep other nights off the run while the block runs; gives the file of the lock."""
    home.mkdir(parents=True, exist_ok=True)
    lock = home / "lock"
    try:
        hold = Hold(lock)
    except BlockingIOError:
        raise WrongState(
            f"Another night works on run {tag!r}", "Wait for its end or stop it, or name another run with --tag"
        ) from None
    with hold:
        yield lock


@contextmanager
def _on_signals(stop: Callable[[str], None]) -> Iterator[list[int]]:
    """End the night on the first signal, and this program at once on the second; gives the signals that came."""
    loop = asyncio.get_running_loop()
    received: list[int] = []
    heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup ignores SIGHUP

    def heed(number: int) -> None:
        received.append(number)
        stop(f"{signal.Signals(number).name} came; again to leave everything as it is")
        for each in heeded:
            loop.remove_signal_handler(each)

    for each in heeded:
        loop.add_signal_handler(each, heed, each)
    try:
        yield received
    finally:
        for each in heeded:
            with suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(each)


async def _report(record: Record, place: Place, screen: Screen) -> None:
    """Write the report beside the agent's log, and say where it is."""
    try:
        text = await record.report()
    except ResearchError as error:
        screen.say(f"there is no report: {error}", "yellow")
        return
    try:
        screen.say(f"summary: {await record.save_report()}")
    except ResearchError as error:
        screen.say(f"there is no summary beside the results: {error}", "yellow")
    path = place.home / f"report-{time.strftime('%Y-%m-%d-%H%M%S')}.md"
    path.write_text(text, encoding="utf-8")
    screen.say(f"report: {path}")
