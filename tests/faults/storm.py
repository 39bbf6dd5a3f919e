"""A storm: agents research through real servers while servers, workers and trainings are killed at random.

The storm comes in volleys. After each, agents connect to new servers, and within `HEALS` seconds every training must
have its worker again. What agents were told is written down, and looked up in the record when all is over.
"""

import asyncio
import math
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mcp import Client

from mcp_server.machine.locks import DeviceLock
from tests.faults.invariants import rows, violations
from tests.faults.scene import GOAL, TAG, Scene, attended, finish
from tests.interfaces.agents import use

HEALS = 5.0
"""Seconds in which, after a volley, every training in the record has its worker again."""
CALMS = 60.0
"""Seconds in which agents finish what is open when the storm is over."""


@dataclass
class Figures:
    """What a storm came to.

    Attributes:
        kills: by what was killed.
        cuts: how often everything was killed at once.
        healing: seconds from each volley after which something was not well until all was.
        told: what agents were told: the commit, and the verdict, of each experiment by its id.
    """

    kills: Counter[str] = field(default_factory=Counter)
    cuts: int = 0
    healing: list[float] = field(default_factory=list)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The figures in a line or two."""
        what = ", ".join(f"{count} of {kind}s" for kind, count in sorted(self.kills.items()))
        times = sorted(self.healing) or [0.0]
        return (
            f"{self.kills.total()} kills ({what}; {self.cuts} times of all at once); healed {len(self.healing)} times, "
            f"after {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most; {len(self.told)} experiments "
            f"registered, {sum('status' in told for told in self.told.values())} judged; {len(self.wrong)} violations"
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
        self._over = False
        self._say = say

    async def blow(self, kills: int, seconds: float = float("inf")) -> Figures:
        """Kill so many processes, or for so many seconds; then let the agents finish, and look at everything."""
        async with Client(self.scene.server()) as client:
            await use(client, "setup_run", tag=TAG, **GOAL)
            made = await use(client, "register", tag=TAG, hypothesis="the baseline", category="other")
            await finish(client, made["next_action"])
        agents = [asyncio.create_task(self._research(name)) for name in self._names]
        ends = time.monotonic() + seconds
        try:
            while self.figures.kills.total() < kills and time.monotonic() < ends:
                await asyncio.sleep(self._dice.uniform(0.1, 2.0))
                await self._volley()
                await self._heal()
                for agent in agents:
                    if agent.done():
                        agent.result()
                self._say(self.figures.text())
            self._over = True
            await asyncio.wait_for(asyncio.gather(*agents), CALMS)
            await self._eventually(lambda: not self.scene.alive(), CALMS)
            self.figures.wrong += [*violations(self.scene), *self._forgotten()]
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
        return self.figures

    async def _volley(self) -> None:
        """Kill a few at random, or everything at once, with the locks and the pids gone, as in a power cut."""
        if self._dice.random() < 0.1:
            self.figures.cuts += 1
            for kind, find in self._victims:
                self._kill(find(), kind)
            shutil.rmtree(self.scene.locks, ignore_errors=True)
            return
        for _ in range(self._dice.randint(1, 4)):
            kind, find = self._dice.choice(self._victims)
            if found := find():
                self._kill([self._dice.choice(found)], kind)
            await asyncio.sleep(self._dice.uniform(0, 0.3))

    def _kill(self, victims: list[psutil.Process], kind: str) -> None:
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                self.figures.kills[kind] += 1

    async def _heal(self) -> None:
        if self._is_well():
            return
        began = time.monotonic()
        await self._eventually(self._is_well, HEALS * 4)
        took = time.monotonic() - began
        self.figures.healing.append(took)
        if took > HEALS:
            self.figures.wrong.append(f"healed {took:.1f} s after a volley")

    def _is_well(self) -> bool:
        """Whether every training in the record has a worker on its device."""
        try:
            devices = [row["device"] for row in rows(self.scene, "SELECT device FROM trials WHERE status = 'training'")]
        except sqlite3.OperationalError:  # its first connection after a power cut repairs the file
            return False
        return all(DeviceLock(self.scene.locks, device).is_held() for device in devices)

    async def _eventually(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _research(self, name: str) -> None:
        """Be an agent that connects again whenever its server dies, until the storm is over and nothing is open."""

        async def session(client: Client) -> None:
            there = await use(client, "setup_run", tag=TAG, resume=True, agent=name)
            await self._finish_open(client)
            while not self._over:
                await self._propose(client, name, Path(there["workspace"]))
            await self._finish_open(client)

        while not await attended(self.scene.server(), session):
            pass

    async def _propose(self, client: Client, name: str, workspace: Path) -> None:
        """Register an idea: as knobs, or edited in the workspace; some leave a process behind."""
        rate, orphan = round(self._dice.uniform(0, 5), 6), 60 if self._dice.random() < 0.2 else 0
        source: dict[str, Any] = {"knobs": {"RATE": rate, "ORPHAN": orphan}}
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


def _same(recorded: object, told: object) -> bool:
    """Whether two values are one; answers give numbers to twelve digits."""
    if isinstance(recorded, float) and isinstance(told, float):
        return math.isclose(recorded, told, rel_tol=1e-9)
    return recorded == told
