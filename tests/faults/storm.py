"""A storm: agents research through real servers while servers, workers and trainings are killed.

Every server, or its workers, is doomed to die at one of the named steps of the loop, at which few died before. Others
are killed at random, in volleys. After each volley every training in the record must have its worker again within
`HEALS` seconds of the next call. Now and then the storm calms: agents finish what is open, and everything is looked at.
What agents were told is written down, and looked up in the record.
"""

import asyncio
import itertools
import math
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from mcp import Client

from mcp_server.machine.locks import DeviceLock
from tests.faults.doomed import SETTING_UP, STEPS, TRAINING
from tests.faults.invariants import INVARIANTS, rows, violations
from tests.faults.scene import GOAL, TAG, Scene, attended, finish
from tests.interfaces.agents import use

HEALS = 5.0
"""Seconds in which, after a volley and the first call after it, every training in the record has its worker again."""
CALMS = 60.0
"""Seconds in which agents finish what is open when the storm calms."""
CALM_EVERY = 50
"""Kills between two calms."""
PATIENCE = 1.0
"""Seconds for which a volley waits for something of a kind to kill."""
RISES = 0.02
"""How much better the next idea is than the last, on average."""


@dataclass
class Figures:
    """What a storm came to.

    Attributes:
        kills: by what was killed.
        steps: kills at named steps; they are among `kills`.
        cuts: how often everything was killed at once.
        checks: how many invariants were checked.
        healing: seconds from the first call after a volley until all was well, where it was not.
        told: what agents were told: the commit, and the verdict, of each experiment by its id.
    """

    kills: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    cuts: int = 0
    checks: int = 0
    healing: list[float] = field(default_factory=list)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The figures in a line or two."""
        what = ", ".join(f"{count} of {kind}s" for kind, count in sorted(self.kills.items()))
        times = sorted(self.healing) or [0.0]
        return (
            f"{self.kills.total()} kills ({what}; {self.steps.total()} of them at {len(self.steps)} of {len(STEPS)} "
            f"named steps; {self.cuts} times all at once); healed {len(self.healing)} times, "
            f"after {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most; {len(self.told)} experiments "
            f"registered, {sum('status' in told for told in self.told.values())} judged; {self.checks} invariants "
            f"checked, {len(self.wrong)} violations"
        )


class Storm:
    """One storm over one place."""

    def __init__(
        self, scene: Scene, seed: int, agents: int = 2, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.scene = scene
        self.figures = Figures()
        self._dice = random.Random(seed)
        self._names = [f"agent-{number}" for number in range(1, agents + 1)]
        self._victims = [("server", scene.servers), ("worker", scene.workers), ("training", scene.trainings)]
        self._connections = itertools.count(1)
        self._level = 0.0
        self._over = False
        self._calm = False
        self._resting: set[str] = set()
        self._calls: dict[str, float] = {}
        """When each agent made the first call of its present server."""
        self._say = say

    async def blow(self, kills: int, seconds: float = float("inf")) -> Figures:
        """Kill so many processes, or for so many seconds; then let the agents finish, and look at everything."""
        async with Client(self.scene.server()) as client:
            await use(client, "setup_run", tag=TAG, **GOAL)
            made = await use(client, "register", tag=TAG, hypothesis="the baseline", category="other")
            await finish(client, made["next_action"])
        agents = [asyncio.create_task(self._research(name)) for name in self._names]
        ends, calmed = time.monotonic() + seconds, 0
        try:
            while self.figures.kills.total() < kills and time.monotonic() < ends:
                await asyncio.sleep(self._dice.uniform(0.1, 2.0))
                await self._volley()
                await self._heal()
                for agent in agents:
                    if agent.done():
                        agent.result()
                if self.figures.kills.total() - calmed >= CALM_EVERY:
                    await self._calm_down(agents)
                    calmed = self.figures.kills.total()
                self._say(self.figures.text())
            self._over = True
            await asyncio.wait_for(asyncio.gather(*agents), CALMS)
            await self._eventually(lambda: not self.scene.alive(), CALMS)
            self._look()
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
        return self.figures

    def _step(self) -> str:
        """One of the steps at which the fewest died so far."""
        return self._dice.choice(sorted(STEPS, key=lambda step: self.figures.steps[step])[: len(STEPS) // 3])

    async def _calm_down(self, agents: list[asyncio.Task[None]]) -> None:
        """Let the agents finish what is open, and look at everything."""
        self._calm = True
        quiet = await self._eventually(
            lambda: len(self._resting) == len(agents) and not self.scene.workers() and not self.scene.trainings(), CALMS
        )
        if not quiet:
            self.figures.wrong.append(f"not quiet after {CALMS:g} s: {self.scene.alive()}")
        self._look()
        self._calm = False

    def _look(self) -> None:
        self.figures.checks += len(INVARIANTS) + 1
        self.figures.wrong += [*violations(self.scene), *self._forgotten()]

    async def _volley(self) -> None:
        """Kill a few at random, or everything at once, with the locks and the pids gone, as in a power cut."""
        if self._dice.random() < 0.1:
            self.figures.cuts += 1
            for kind, find in self._victims:
                self._kill(find(), kind)
            shutil.rmtree(self.scene.locks, ignore_errors=True)
            return
        for _ in range(self._dice.randint(1, 4)):
            kind, find = self._dice.choices(self._victims, [1, 2, 3])[0]
            await self._eventually(partial(_any, find), PATIENCE)
            if found := find():
                self._kill([self._dice.choice(found)], kind)
            await asyncio.sleep(self._dice.uniform(0, 0.3))

    def _kill(self, victims: list[psutil.Process], kind: str) -> None:
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                self.figures.kills[kind] += 1

    async def _heal(self) -> None:
        self.figures.checks += 1
        began, took = time.monotonic(), 0.0
        if not (ill := self._ills()):
            return
        while (still := self._ills()) and time.monotonic() < began + CALMS:
            ill = still
            await asyncio.sleep(0.1)
            if self._calls:  # else every server is dead, and nobody has called since
                took = time.monotonic() - max(began, min(self._calls.values()))
        self.figures.healing.append(took)
        if took > HEALS:
            self.figures.wrong.append(f"healed {took:.1f} s after a volley: {ill}")

    def _ills(self) -> str:
        """What has to heal: a training in the record, or a device that is held, without a worker."""
        try:
            devices = [row["device"] for row in rows(self.scene, "SELECT device FROM trials WHERE status = 'training'")]
        except sqlite3.OperationalError:  # its first connection after a power cut repairs the file
            return "the record is being repaired"
        held = {key for key in self.scene.keys if DeviceLock(self.scene.locks, key).is_held()}
        at_work = {key for worker in self.scene.workers() for key in _words(worker)}
        orphaned, idle = sorted({*devices} - held), sorted(held - at_work)
        return f"training on {orphaned}, held {idle}, without a worker" if orphaned or idle else ""

    async def _eventually(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _research(self, name: str) -> None:
        """Be an agent that connects again whenever its server dies, until the storm is over and nothing is open."""
        while True:
            number = next(self._connections)
            step, grave = self._step(), self.scene.folder / f"grave-{number}"
            doom = () if self._over else (step, str(grave))
            done = await attended(self.scene.server(*doom), partial(self._session, name, f"s{number}", doom))
            self._calls.pop(name, None)
            if grave.exists():
                self.figures.steps[step] += 1
                self.figures.kills["worker" if step in TRAINING else "server"] += 1
            if done:
                return

    async def _session(self, name: str, fresh: str, doom: Sequence[str], client: Client) -> None:
        """Research with one server; one that is to die while it sets up is asked to set up another run."""
        self._calls[name] = time.monotonic()
        if {*doom} & {*SETTING_UP}:
            await use(client, "setup_run", tag=fresh, **GOAL)
        there = await self._resumed(client, name)
        await self._finish_open(client)
        while not self._over:
            if self._calm:
                await self._finish_open(client)
                self._resting.add(name)
                await self._eventually(lambda: not self._calm, float("inf"))
                self._resting.discard(name)
            else:
                await self._propose(client, name, Path(there["workspace"]))
        await self._finish_open(client)

    async def _resumed(self, client: Client, name: str) -> dict[str, Any]:
        """The run, taken up again; a server whose client is gone may still be ending, and has the workspace."""
        asked = {"tag": TAG, "resume": True, "agent": name}
        deadline = time.monotonic() + HEALS
        while time.monotonic() < deadline:
            answer = await client.call_tool("setup_run", asked)
            if not (answer.is_error and "live server" in str(answer.content)):
                break
            await asyncio.sleep(0.1)
        return await use(client, "setup_run", **asked)

    async def _propose(self, client: Client, name: str, workspace: Path) -> None:
        """Register an idea: as knobs, or edited in the workspace; some leave a process behind."""
        self._level += RISES
        rate = round(self._level + self._dice.uniform(-0.1, 0.1), 6)
        source: dict[str, Any] = {"knobs": {"RATE": rate, "ORPHAN": 60 if self._dice.random() < 0.2 else 0}}
        if self._dice.random() < 0.5:
            source = {}
            script = workspace / "train.py"
            lines = [f"RATE = {rate}" if line.startswith("RATE") else line for line in script.read_text().splitlines()]
            script.write_text("\n".join(lines) + "\n")
        made = await use(
            client, "register", tag=TAG, hypothesis=f"rate {rate}", category="hyperparams", agent=name, **source
        )
        self.figures.told.setdefault(made["experiment_id"], {})["commit_sha"] = made["commit"]
        if self._dice.random() < 0.7:
            await self._judge(client, made["experiment_id"])

    async def _finish_open(self, client: Client) -> None:
        """Take up whatever anybody left."""
        page = await use(client, "history", tag=TAG, limit=50)
        for shown in page["experiments"]:
            if shown["status"] not in ("keep", "discard", "crash"):
                await self._judge(client, shown["experiment_id"])

    async def _judge(self, client: Client, experiment_id: str) -> None:
        await finish(client, f"Call train({experiment_id!r})")
        verdict = await use(client, "complete", experiment_id=experiment_id)
        told = {"status": verdict["status"], "value": verdict["value"]}
        self.figures.told.setdefault(experiment_id, {}).update(told)

    def _forgotten(self) -> list[str]:
        """What agents were told and the record does not say."""
        recorded = {row["id"]: row for row in rows(self.scene, "SELECT * FROM experiments")}
        return [
            f"{experiment_id}: told {name} {value}, recorded {recorded[experiment_id][name]}"
            if experiment_id in recorded
            else f"{experiment_id} was registered and is not in the record"
            for experiment_id, told in self.figures.told.items()
            for name, value in told.items()
            if experiment_id not in recorded or not _same(recorded[experiment_id][name], value)
        ]


def _any(find: Callable[[], list[psutil.Process]]) -> bool:
    return bool(find())


def _words(process: psutil.Process) -> list[str]:
    """The words of a process's command; none where it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _same(recorded: object, told: object) -> bool:
    """Whether two values are one; answers give numbers to twelve digits."""
    if isinstance(recorded, float) and isinstance(told, float):
        return math.isclose(recorded, told, rel_tol=1e-9)
    return recorded == told
