"""Tracking: runs whose agents use git and train by themselves, and the devices that they register.

What the routes of the multi-GPU tracker need beyond the operations. Experiments tracked here and those of any other
door are one history.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mcp_server.errors import InvalidInput, ResearchError, UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.gathering import gather
from mcp_server.lab.pool import Pool
from mcp_server.lab.results import Completed, Crashed
from mcp_server.lab.setup import Setup
from mcp_server.lab.texts import clean_text
from mcp_server.lab.verdicts import Verdicts
from mcp_server.machine.devices import Device, reading
from mcp_server.machine.store.fleet import Member
from mcp_server.research.experiment import Experiment, Run, Status, Trial
from mcp_server.research.strategy import Strategy, check_mode, choose
from mcp_server.research.suggestions import Suggestion, suggest
from mcp_server.research.task import CATEGORIES, Category, check_name

METRIC = "val_bpb"
SCRIPT = "train.py"
SECONDS = 300.0
"""The budget that the tracker's agents train for."""
SILENT_SECONDS = 60.0
"""After so long without a heartbeat a device is offline."""
MOST = 100_000
WAKE_SECONDS = 2.0


@dataclass(frozen=True)
class Seat:
    """A registered device as it now is."""

    member: Member
    status: Literal["idle", "training", "offline"]


class Tracking:
    """Records what outside agents do, and lends them their devices."""

    def __init__(self, bench: Bench, pool: Pool, setup: Setup, verdicts: Verdicts) -> None:
        self._bench = bench
        self._pool = pool
        self._setup = setup
        self._verdicts = verdicts

    async def begin(self, tag: str) -> Run:
        """Make an external run that is greedy on val_bpb; raises WrongState if its tag exists."""
        await self._setup.setup_run(
            tag=tag,
            metric=METRIC,
            direction="minimize",
            time_budget_seconds=SECONDS,
            train_script=SCRIPT,
            command=f"python {SCRIPT}",
            external=True,
        )
        return await self._bench.store.runs.get(tag)

    async def run(self, tag: str) -> Run:
        """The run with this tag; raises UnknownId."""
        return await self._bench.store.runs.get(tag)

    async def runs(self) -> Sequence[Run]:
        """All runs, newest first."""
        return await self._bench.store.runs.newest(MOST)

    async def register(
        self, tag: str, *, commit_sha: str, parent_id: str | None, category: str, **said: str
    ) -> Experiment:
        """Record an experiment that its agent trains itself.

        Several may share a commit. One that does not resolve here is recorded as it was given; any other is kept under
        refs/autoresearch/.

        Args:
            said: `hypothesis`, `description`, `diff_summary` and `agent`.
        """
        bench = self._bench
        run = await bench.store.runs.get(tag)
        if not run.task.external:
            raise WrongState(f"Run {tag!r} trains by itself", "Register with the tool `register`, or use another tag")
        if parent_id:
            await bench.store.experiments.get(parent_id)
        agent = check_name("gpu_id", said["agent"])
        number = await bench.store.runs.take_number(run.tag)
        experiment_id = f"{run.tag}-{number}"
        await bench.store.runs.add_agent(run.tag, agent)
        experiment = Experiment(
            id=experiment_id,
            tag=run.tag,
            number=number,
            agent=agent,
            commit=await self._kept_commit(run, experiment_id, commit_sha),
            base_commit=run.base_commit,
            hypothesis=clean_text("hypothesis", said["hypothesis"]),
            category=_category(category),
            request=experiment_id,
            registered_at=time.time(),
            parent_id=parent_id or None,
            description=clean_text("description", said["description"]),
            source="commit_sha",
            diff_summary=clean_text("diff_summary", said["diff_summary"]),
        )
        return await bench.store.experiments.add(experiment)

    async def _kept_commit(self, run: Run, experiment_id: str, commit_sha: str) -> str:
        repository = self._bench.repository
        try:
            commit = await self._bench.run(repository.resolve, commit_sha)
        except ResearchError:
            return clean_text("commit_sha", commit_sha) or "unknown"
        await self._bench.run(repository.keep_ref, run.tag, experiment_id, commit)
        return commit

    async def complete(self, experiment_id: str, metrics: Mapping[str, float]) -> tuple[Experiment, Completed]:
        """Judge a tracked experiment. A strategy that was set by hand ends with it."""
        verdict = await self._verdicts.complete(experiment_id, metrics=dict(metrics))
        experiment = await self._bench.store.experiments.get(experiment_id)
        await self._bench.store.runs.set_mode(experiment.tag, None, "")
        return experiment, verdict

    async def crash(self, experiment_id: str, error: str) -> Crashed:
        """Record that a tracked experiment failed. A strategy that was set by hand ends with it."""
        crashed = await self._verdicts.crash(experiment_id, error or "crashed")
        experiment = await self._bench.store.experiments.get(experiment_id)
        await self._bench.store.runs.set_mode(experiment.tag, None, "")
        return crashed

    async def experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id; raises UnknownId."""
        return await self._bench.store.experiments.get(experiment_id)

    async def experiments(
        self, tag: str, status: Status | Literal["running"] | None, limit: int | None
    ) -> list[Experiment]:
        """The last experiments of a run in order of start; `running` are those without a verdict."""
        run = await self._bench.store.runs.get(tag)
        history = self._bench.store.history
        if status == "running":
            found = await history.open(run.tag, limit or MOST)
        else:
            found = await history.page(run.tag, status, limit=limit or MOST)
        return list(reversed(found))

    async def best(self, tag: str) -> Experiment | None:
        """The best experiment of a run, if there is one."""
        run = await self._bench.store.runs.get(tag)
        return await self._bench.store.experiments.best(run.tag)

    async def near_misses(self, tag: str, limit: int) -> tuple[Sequence[Experiment], int]:
        """Near misses by how little they lacked when they were judged, and how many there are."""
        run = await self._bench.store.runs.get(tag)
        total = await self._bench.store.history.near_miss_total(run.tag)
        best = await self._bench.store.experiments.best(run.tag)
        found = await self._bench.store.history.near_misses(run.tag, best.value or 0.0 if best else 0.0, MOST)
        return sorted(found, key=lambda e: abs(e.delta or 0.0))[:limit], total

    async def strategy(self, tag: str) -> Strategy:
        """The strategy of a run as it now is."""
        run = await self._bench.store.runs.get(tag)
        return choose(run, await gather(self._bench, run, None))

    async def set_strategy(
        self, tag: str, mode: str, reason: str, explore_ratio: float | None, temperature: float | None
    ) -> Strategy:
        """Set the strategy by hand, until the next verdict."""
        run = await self._bench.store.runs.get(tag)
        why = clean_text("reason", reason)
        await self._bench.store.runs.set_mode(run.tag, check_mode(mode), why, explore_ratio, temperature)
        return await self.strategy(tag)

    async def adapt(self, tag: str) -> Strategy:
        """Let the history decide again."""
        run = await self._bench.store.runs.get(tag)
        await self._bench.store.runs.set_mode(run.tag, None, "")
        return await self.strategy(tag)

    async def suggest(self, tag: str) -> Suggestion:
        """What to try next."""
        run = await self._bench.store.runs.get(tag)
        return suggest(run, await gather(self._bench, run, None))

    async def enlist(self, gpu_id: str, gpu_index: int, gpu_name: str, vram_mb: float) -> Seat:
        """Register a device."""
        now = time.time()
        return _seat(await self._bench.store.fleet.register(gpu_id, gpu_index, gpu_name, vram_mb, now), now)

    async def heartbeat(self, gpu_id: str) -> None:
        """Note that a device lives; raises UnknownId."""
        if not await self._bench.store.fleet.seen(gpu_id, time.time()):
            raise _no_gpu(gpu_id)

    async def seats(self) -> list[Seat]:
        """Every registered device as it now is."""
        now = time.time()
        return [_seat(member, now) for member in await self._bench.store.fleet.all(now)]

    async def lend(self, experiment_id: str) -> Member | None:
        """Lend an idle device to an experiment, until its verdict or the end of its time; None where none is idle."""
        experiment = await self._bench.store.experiments.get(experiment_id)
        run = await self._bench.store.runs.get(experiment.tag)
        now = time.time()
        until = now + run.task.deadline_seconds
        return await self._bench.store.fleet.lend(experiment_id, now, until, SILENT_SECONDS)

    async def give_back(self, gpu_id: str, experiment_id: str) -> None:
        """End a loan; raises UnknownId or WrongState."""
        if await self._bench.store.fleet.give_back(gpu_id, experiment_id):
            return
        if gpu_id not in {seat.member.gpu_id for seat in await self.seats()}:
            raise _no_gpu(gpu_id)
        raise WrongState(
            f"GPU {gpu_id!r} is not lent to {experiment_id!r}", "Release it with the experiment that has it"
        )

    async def discharge(self, gpu_id: str) -> None:
        """Take a device out of the pool; harmless where it is gone."""
        await self._bench.store.fleet.remove(gpu_id)

    async def device(self, gpu_id: str) -> tuple[Device, Any]:
        """A device of this machine by label, key or number, and how it is now; raises UnknownId."""
        for device in await self._pool.devices():
            if gpu_id in (device.label, device.key, str(device.index), f"gpu-{device.index}"):
                return device, await self._bench.run(reading, device)
        raise _no_gpu(gpu_id)

    async def train(self, gpu_id: str, experiment_id: str) -> Trial:
        """Train an experiment's commit on this machine, and wait for its end."""
        device, _ = await self.device(gpu_id)
        trials = self._bench.store.trials
        trial = await trials.enqueue(experiment_id, None, device.type)
        woken = float("-inf")
        while trial.status in ("queued", "training"):
            if time.monotonic() - woken > WAKE_SECONDS:
                woken = time.monotonic()
                await self._pool.wake(device.type)
            await asyncio.sleep(0.1)
            trial = await trials.latest(experiment_id) or trial
        return trial


def _seat(member: Member, now: float) -> Seat:
    if now - member.seen_at > SILENT_SECONDS:
        return Seat(member, "offline")
    return Seat(member, "training" if member.experiment_id else "idle")


def _no_gpu(gpu_id: str) -> UnknownId:
    return UnknownId(
        f"GPU {gpu_id!r} is not registered", "Call pool/register first, or pool/list to see those there are"
    )


def _category(category: str) -> Category:
    for known in CATEGORIES:
        if category == known:
            return known
    raise InvalidInput(f"category {category!r} is unknown", f"Choose from {', '.join(CATEGORIES)}")
