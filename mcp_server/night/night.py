"""The night itself: the agent is started, watched, ended and started again until a limit is reached."""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mcp_server.errors import ResearchError
from mcp_server.machine import child
from mcp_server.night.agents import Agent
from mcp_server.night.brief import catch_up, is_question
from mcp_server.night.limits import Limits
from mcp_server.night.patience import Backoff, Pulse
from mcp_server.night.record import Record, Standing
from mcp_server.night.screen import Screen
from mcp_server.night.transcript import Transcript

LOOK_SECONDS = 1.0
"""How often the record is looked at while the agent works."""
SHORT = 120
"""Characters of an agent's words on the screen."""


@dataclass(frozen=True)
class Clock:
    """Where the time comes from: seconds since the epoch, seconds that never go back, and a way to wait."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True)
class Place:
    """The files of the nights on one run, and where its agent works.

    Attributes:
        home: the folder below the state folder.
        work: the agent's working directory.
        environment: all that the agent sees, with the mark by which its processes are known.
    """

    home: Path
    work: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def prompt(self) -> Path:
        """What the agent is told at its start."""
        return self.home / "prompt.md"

    @property
    def mcp_config(self) -> Path:
        """How the agent starts the server."""
        return self.home / "mcp.json"

    @property
    def calls(self) -> Path:
        """The last tool that the agent called."""
        return self.home / "last-call"

    @property
    def log(self) -> Path:
        """What the agent says."""
        return self.home / "agent.log"


@dataclass(frozen=True)
class Ended:
    """How one start of the agent ended.

    Attributes:
        code: its exit code, minus the number of a signal; None if it could not be killed.
        hung: it was ended because nothing was heard of it.
        fruitful: it added something to the record.
    """

    code: int | None
    seconds: float
    hung: bool
    fruitful: bool
    last_words: str

    @property
    def why(self) -> str:
        """Why it must be started again, as a clause."""
        if self.hung:
            return "nothing was heard of you, and you were ended"
        if self.code:
            return f"your program failed with exit code {self.code}"
        return "you asked a question" if is_question(self.last_words) else "you stopped"

    @property
    def told(self) -> str:
        """The same for the person at the screen."""
        if self.hung:
            return "hangs, and was ended"
        if self.code:
            return f"failed with exit code {self.code}"
        return "asked a question" if is_question(self.last_words) else "stopped"


class Night:
    """Keeps one agent at work on one run.

    Attributes:
        starts: how often the agent was started.
        added: something was added to the record.
        last: how the agent ended last.
    """

    def __init__(
        self,
        record: Record,
        agent: Agent,
        limits: Limits,
        place: Place,
        screen: Screen,
        *,
        goal: str = "",
        patience: float = 900.0,
        clock: Clock | None = None,
    ) -> None:
        """`patience` is for how many seconds nothing may be heard of the agent while nothing trains."""
        self._record, self._agent, self._limits, self._place, self._screen = record, agent, limits, place, screen
        self._goal = goal
        self._patience = patience
        self._clock = clock or Clock()
        self._backoff = Backoff()
        self._transcript = Transcript(place.log)
        self._looked = -math.inf
        self._trouble = ""
        self._seen: set[tuple[str, str]] = set()
        self._began = self._now = Standing()
        self._stopped: str | None = None
        self.starts = 0
        self.added = False
        self.last: Ended | None = None

    def stop(self, why: str) -> None:
        """End the night soon, for this reason."""
        self._stopped = self._stopped or why

    async def work(self) -> str:
        """Keep the agent at work; returns why the night ended.

        Raises:
            ResearchError: the record cannot be read at the beginning.
        """
        self._began = self._now = self._screen.began = self._screen.now = await self._record.standing()
        self._seen = {(each.experiment_id, each.status) for each in self._began.last}
        try:
            prompt = await self._record.opening(self._goal)
            while not self._over():
                self.last = await self._start(prompt)
                if self._over():
                    break
                if self._agent.finishes and self.last.code == 0:
                    self.stop("the agent has nothing left to do")
                    break
                await self._pause_after(self.last)
                prompt = await self._brief(self.last)
        finally:
            self._transcript.close()
        return self._over() or "it was stopped"

    async def look(self) -> None:
        """See where the run stands, and show what is new; what cannot be read now is read the next time."""
        try:
            self._now = self._screen.now = await self._record.standing()
            self._trouble = ""
        except ResearchError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._screen.say(f"the record cannot be read: {error}", "yellow")
        for each in reversed(self._now.last):
            if (each.experiment_id, each.status) not in self._seen:
                self._seen.add((each.experiment_id, each.status))
                self._screen.verdict(each)
        self.added = self.added or self._now.grown != self._began.grown

    def _over(self) -> str | None:
        return self._stopped or self._limits.reached(self._began, self._now, self._clock.wall())

    async def _start(self, prompt: str) -> Ended:
        """Start the agent, watch it until it ends, and see to it that nothing of it is left."""
        self.starts += 1
        place, before = self._place, self._now.grown
        place.prompt.write_text(prompt, encoding="utf-8")
        self._transcript.note(f"start {self.starts} of the agent, {time.strftime('%Y-%m-%d %H:%M:%S')}")
        began, pulse, hung = self._clock.steady(), Pulse(self._clock.steady), False

        async def watch() -> child.EndedBy | None:
            nonlocal hung
            if self._clock.steady() - self._looked >= LOOK_SECONDS:
                self._looked = self._clock.steady()
                await self.look()
            call = self._last_call()
            quiet = pulse.feel((self._transcript.heard, call, self._now.grown), alive=bool(self._now.training))
            self._show(began, quiet, call)
            hung = quiet >= self._patience
            return "stop" if hung or self._over() else None

        left = self._limits.left(self._began, self._now)
        words = self._agent.command(place.prompt, place.mcp_config, self._record.tag, left)
        given = place.prompt if self._agent.reads_input else Path(os.devnull)
        ended = await child.run(words, place.work, place.environment, self._transcript, math.inf, watch, given=given)
        await self.look()
        self._screen.saying = ""
        seconds = self._clock.steady() - began
        return Ended(ended.code, seconds, hung, self._now.grown != before, self._transcript.last_words())

    def _last_call(self) -> tuple[str, int]:
        """The tool that was called last, and when."""
        try:
            return self._place.calls.read_text(), self._place.calls.stat().st_mtime_ns
        except OSError:
            return "", 0

    def _show(self, began: float, quiet: float, call: tuple[str, int]) -> None:
        minutes = (self._clock.steady() - began) / 60
        last = f", last call {call[0]}" if call[0] else ""
        silent = f", quiet for {quiet / 60:.0f} min" if quiet >= 60 else ""
        self._screen.agent = f"works for {minutes:.0f} min, start {self.starts}{last}{silent}"
        self._screen.saying = self._transcript.last_line()

    async def _pause_after(self, ended: Ended) -> None:
        """Say how the agent ended, and wait before the next start if it failed at once."""
        pause = self._backoff.after(ended.fruitful, ended.seconds)
        words = " ".join(ended.last_words.split())
        said = f": {words[-SHORT:]}" if words else ""
        if not pause:
            self._screen.say(f"the agent {ended.told}, and is started again{said}", "yellow")
            return
        self._screen.say(
            f"the agent {ended.told} after {ended.seconds:.0f} s and added nothing, {self._backoff.failures} in a row: "
            f"it is started again in {pause:g} s{said}",
            "red",
        )
        self._screen.agent = f"waits {pause:g} s for its next start"
        until = self._clock.steady() + pause
        while (left := until - self._clock.steady()) > 0 and not self._over():
            await self._clock.sleep(min(left, LOOK_SECONDS))

    async def _brief(self, ended: Ended) -> str:
        """What the agent is told when it is started again: how things stand, then all that it was told at first."""
        try:
            known = bool(self._now.metric)
            todo = await self._record.next_action() if known else ""
            opening = await self._record.opening(self._goal)
        except ResearchError as error:
            todo, opening = "", str(error)
        return f"{catch_up(self._record.tag, ended.why, ended.last_words, self._now, todo, self._limits)}\n\n{opening}"
