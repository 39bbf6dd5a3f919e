"""Tracking: runs whose agents use git and train by themselves.

What the routes of the multi-GPU tracker need beyond the operations. Experiments tracked here and those of any other
door are one history.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mcp_server.errors import InvalidInput, NotReady, ResearchError, UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.gathering import gather
from mcp_server.lab.logs import read_whole
from mcp_server.lab.pool import Pool
from mcp_server.lab.results import Completed, Crashed
from mcp_server.lab.setup import Setup
from mcp_server.lab.texts import LONGEST, LONGEST_NAME, shortened
from mcp_server.lab.verdicts import Verdicts
from mcp_server.machine.devices import Device, reading
from mcp_server.research.evidence import Count
from mcp_server.research.experiment import FINISHED, UNVERIFIED, Experiment, Run, Status, Trial
from mcp_server.research.metrics import as_data, clean
from mcp_server.research.noise import clamp
from mcp_server.research.strategy import (
    TREND_KEEPS,
    WINDOW,
    Strategy,
    check_mode,
    choose,
    classic,
    high_yielding,
    untried,
)
from mcp_server.research.suggestions import suggest
from mcp_server.research.task import CATEGORIES, Category

METRIC = "val_bpb"
SCRIPT = "train.py"
SECONDS = 300.0
"""The budget that the tracker's agents train for."""
MOST = 10_000_000
WAKE_SECONDS = 2.0
LOG_LINES = 50
LOG_CHARACTERS = 20_000
FLAT = "The last kept values are flat or worsening in order of start: consider another strategy."


@dataclass(frozen=True)
class Tally:
    """How many experiments of a run there are.

    Attributes:
        statuses: by status, in flight and finished.
        categories: by category, in flight and finished.
        counts: of each category, those that are finished.
    """

    statuses: Mapping[Status, int] = field(default_factory=dict)
    categories: Mapping[Category, int] = field(default_factory=dict)
    counts: Mapping[Category, Count] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """How many have a verdict."""
        return sum(self.statuses.get(status, 0) for status in FINISHED)


@dataclass(frozen=True)
class Overview:
    """A run at a glance."""

    run: Run
    tally: Tally
    best: Experiment | None
    keeps: Sequence[Experiment] = ()
    training_seconds: float = 0.0
    mode: str = ""


@dataclass(frozen=True)
class Outlook:
    """What to try next; categories are judged by all that was tried, the baseline too.

    Attributes:
        trend: the last kept values in order of start.
    """

    mode: str
    tally: Tally
    underexplored: Sequence[Category]
    high_yield: Sequence[Category]
    near_misses: int
    near_miss_categories: Sequence[Category]
    trend: Sequence[float]
    suggestions: Sequence[str]


class Tracking:
    """Records what outside agents do."""

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

    async def register(
        self, tag: str, *, commit_sha: str, parent_id: str | None, category: str, gpu_id: str, **said: str
    ) -> Experiment:
        """Record an experiment that its agent trains itself.

        Several may share a commit. One that does not resolve here is recorded as it was given, as unverified; any other
        is kept under refs/autoresearch/. A category that is not known here becomes `other`.

        Args:
            said: `hypothesis`, `description` and `diff_summary`.
        """
        bench = self._bench
        run = await bench.store.runs.get(tag)
        if not run.task.external:
            raise WrongState(f"Run {tag!r} trains by itself", "Register with the tool `register`, or use another tag")
        if parent_id:
            await bench.store.experiments.get(parent_id)
        agent = _word(gpu_id) or "gpu-0"
        number = await bench.store.runs.take_number(run.tag)
        experiment_id = f"{run.tag}-{number}"
        await bench.store.runs.add_agent(run.tag, agent)
        commit = await self._kept_commit(run, experiment_id, commit_sha)
        experiment = Experiment(
            id=experiment_id,
            tag=run.tag,
            number=number,
            agent=agent,
            commit=commit or _word(commit_sha) or "unknown",
            base_commit=run.base_commit,
            hypothesis=shortened(said["hypothesis"]),
            category=next((known for known in CATEGORIES if known == category), "other"),
            request=experiment_id,
            registered_at=time.time(),
            parent_id=parent_id or None,
            description=shortened(said["description"]),
            source="commit_sha" if commit else UNVERIFIED,
            diff_summary=shortened(said["diff_summary"]),
        )
        return await bench.store.experiments.add(experiment)

    async def _kept_commit(self, run: Run, experiment_id: str, commit_sha: str) -> str | None:
        """The commit, which is kept from now on; None if there is none of this name here."""
        repository = self._bench.repository
        try:
            commit = await self._bench.run(repository.resolve, commit_sha)
        except (InvalidInput, NotReady):
            return None
        await self._bench.run(repository.keep_ref, run.tag, experiment_id, commit)
        return commit

    async def complete(self, experiment_id: str, metrics: Mapping[str, float]) -> tuple[Experiment, Completed]:
        """Judge a tracked experiment. A strategy that was set by hand ends with it."""
        before = await self._bench.store.experiments.get(experiment_id)
        verdict = await self._verdicts.complete(experiment_id, metrics=dict(metrics))
        experiment = await self._bench.store.experiments.get(experiment_id)
        await self._end_manual(before)
        return experiment, verdict

    async def crash(self, experiment_id: str, error: str) -> Crashed:
        """Record that a tracked experiment failed. A strategy that was set by hand ends with it."""
        before = await self._bench.store.experiments.get(experiment_id)
        crashed = await self._verdicts.crash(experiment_id, clean(error, LONGEST).strip() or "crashed")
        await self._end_manual(before)
        return crashed

    async def _end_manual(self, before: Experiment) -> None:
        """Let the history choose the strategy again after a verdict, unless it was a repeated one."""
        if before.status not in FINISHED:
            await self._bench.store.runs.set_mode(before.tag, None, "")

    async def experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id; raises UnknownId."""
        return await self._bench.store.experiments.get(experiment_id)

    async def experiments(
        self, tag: str, status: Status | Literal["running"] | None = None, limit: int | None = None
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
        history = self._bench.store.history
        return await history.nearest_misses(run.tag, limit), await history.near_miss_total(run.tag)

    async def strategy(self, tag: str) -> tuple[Strategy, float]:
        """The strategy of a run as it now is, and since when, in seconds since the epoch."""
        run = await self._bench.store.runs.get(tag)
        if run.manual_mode is not None:
            chosen = choose(run, await gather(self._bench, run, None))
            return replace(chosen, reason=run.manual_reason), run.manual_at or run.created_at
        history = self._bench.store.history
        recent = await history.finished(run.tag, WINDOW)
        last = await history.decided(run.tag, 1)
        chosen = classic(
            (await self._tally(run)).finished,
            [experiment.status for experiment in recent],
            await history.near_miss_total(run.tag),
        )
        since = [run.created_at, run.manual_at, *(experiment.decided_at for experiment in last)]
        return chosen, max(moment for moment in since if moment is not None)

    async def set_strategy(
        self, tag: str, mode: str, reason: str, explore_ratio: float, temperature: float
    ) -> tuple[Strategy, float]:
        """Set the strategy by hand until the next verdict; `auto` lets the history decide at once."""
        run = await self._bench.store.runs.get(tag)
        if mode == "auto":
            return await self.adapt(tag)
        why = shortened(reason)
        await self._bench.store.runs.set_mode(run.tag, check_mode(mode), why, explore_ratio, temperature)
        return await self.strategy(tag)

    async def adapt(self, tag: str) -> tuple[Strategy, float]:
        """Let the history decide again."""
        run = await self._bench.store.runs.get(tag)
        await self._bench.store.runs.set_mode(run.tag, None, "")
        return await self.strategy(tag)

    async def outlook(self, tag: str) -> Outlook:
        """What to try next."""
        run = await self._bench.store.runs.get(tag)
        history = self._bench.store.history
        tally = await self._tally(run)
        keeps = await history.latest_keeps(run.tag, TREND_KEEPS)
        values = [keep.value for keep in reversed(keeps) if keep.value is not None]
        found = suggest(run, await gather(self._bench, run, await self._script(run)))
        flat = len(values) >= 3 and values[-1] >= values[0]
        return Outlook(
            mode=found.strategy,
            tally=tally,
            underexplored=untried(tally.counts),
            high_yield=high_yielding(tally.counts),
            near_misses=await history.near_miss_total(run.tag),
            near_miss_categories=await history.near_miss_categories(run.tag),
            trend=values,
            suggestions=(*found.suggestions, FLAT) if flat else found.suggestions,
        )

    async def _script(self, run: Run) -> str | None:
        """The training script of the best, where its commit is here."""
        best = await self._bench.store.experiments.best(run.tag)
        commit = best.commit if best and best.commit_known else run.base_commit
        try:
            return await self._bench.run(self._bench.repository.read_file, commit, run.task.train_script)
        except ResearchError:
            return None

    async def overview(self, tag: str) -> Overview:
        """A run at a glance."""
        run = await self._bench.store.runs.get(tag)
        history = self._bench.store.history
        return Overview(
            run=run,
            tally=await self._tally(run),
            best=await self._bench.store.experiments.best(run.tag),
            keeps=list(reversed(await history.latest_keeps(run.tag, MOST))),
            training_seconds=clamp(await history.reported_seconds(run.tag)),
            mode=(await self.strategy(run.tag))[0].mode,
        )

    async def runs(self) -> list[Overview]:
        """All runs, newest first, without their keeps."""
        best = self._bench.store.experiments.best
        return [
            Overview(run, await self._tally(run), await best(run.tag))
            for run in await self._bench.store.runs.newest(MOST)
        ]

    async def _tally(self, run: Run) -> Tally:
        statuses: dict[Status, int] = {}
        categories: dict[Category, int] = {}
        counts: dict[Category, Count] = {}
        for (category, status), number in (await self._bench.store.history.tallies(run.tag)).items():
            statuses[status] = statuses.get(status, 0) + number
            categories[category] = categories.get(category, 0) + number
            if status in FINISHED:
                had = counts.get(category, Count())
                counts[category] = Count(had.tries + number, had.keeps + number * (status == "keep"))
        return Tally(statuses, categories, counts)

    async def device(self, gpu_id: str) -> tuple[Device, Any]:
        """A device of this machine by label, key or number, and how it is now; raises UnknownId."""
        device = await self._device(gpu_id)
        if device is None:
            todo = "Use gpu-0, gpu-1, ... or a name that `devices` shows"
            raise UnknownId(f"This machine has no GPU {gpu_id!r}", todo)
        return device, await self._bench.run(reading, device)

    async def has_device(self, gpu_id: str) -> bool:
        """Whether a device of this machine has this label, key or number."""
        return await self._device(gpu_id) is not None

    async def _device(self, gpu_id: str) -> Device | None:
        for device in await self._pool.devices():
            if gpu_id in (device.label, device.key, str(device.index), f"gpu-{device.index}"):
                return device
        return None

    async def train(self, gpu_id: str, experiment_id: str) -> Trial:
        """Train an experiment's commit on a device of this machine like the named one, and wait for its end.

        One that was trained before is not trained again.
        """
        device, _ = await self.device(gpu_id)
        await self._check_trainable(await self._bench.store.experiments.get(experiment_id))
        trials = self._bench.store.trials
        trial = await trials.latest(experiment_id)
        if trial is None or trial.status in ("stopped", "lost"):
            trial = await trials.enqueue(experiment_id, None, device.type)
        woken = float("-inf")
        while trial.status in ("queued", "training"):
            if time.monotonic() - woken > WAKE_SECONDS:
                woken = time.monotonic()
                await self._pool.wake(device.type)
            await asyncio.sleep(0.1)
            trial = await trials.latest(experiment_id) or trial
        return trial

    async def _check_trainable(self, experiment: Experiment) -> None:
        if not experiment.commit_known:
            raise WrongState(
                f"The commit {experiment.commit!r} of {experiment.id} is not in this repository",
                "Fetch it here and register again, or train it where it is",
            )
        run = await self._bench.store.runs.get(experiment.tag)
        if not run.task.external:
            raise WrongState(f"Run {run.tag!r} trains by itself", f"Call the tool train({experiment.id!r})")

    async def device_label(self, trial: Trial) -> str | None:
        """The short name of the device that a trial ran on."""
        return await self._pool.label(trial.device)

    async def log_tail(self, trial: Trial) -> str:
        """The last lines of a training's log, in their order, marked as data."""
        log = await self._bench.run(read_whole, self._bench.folders.log(trial.id), None)
        return as_data(log.last(LOG_LINES, LOG_CHARACTERS))


def _word(text: str) -> str:
    """A name that an outside agent gave, on one line."""
    return " ".join(shortened(text, LONGEST_NAME).split())
