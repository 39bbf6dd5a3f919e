"""Trainings: queueing them, watching them, ending them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Literal

from annotated_types import Ge, Le

from mcp_server.errors import UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.logs import read_end, read_whole
from mcp_server.lab.pairs import paired_seed
from mcp_server.lab.pool import Pool
from mcp_server.lab.rebasing import on_best
from mcp_server.lab.results import DeviceList, LogExcerpt, Stopped, Trained
from mcp_server.lab.views import reason_of
from mcp_server.machine.store.trials import Changed
from mcp_server.research.effort import effort_text
from mcp_server.research.experiment import FINISHED, MAX_LOST, Experiment, Run, Trial, fresh_seed, label_of
from mcp_server.research.metrics import as_data, clean, parse_progress, quoted
from mcp_server.research.selection import bound_seed

Watcher = Callable[[float, float | None, str], Awaitable[None]]
"""Called while an operation waits, with seconds done, seconds in all (if known), and a message."""

LIVE = ("queued", "training")
AGAIN = ("stopped", "lost")
TAIL_LINES = 12
TAIL_CHARACTERS = 2_000
LINE_CHARACTERS = 200
REPORT_SECONDS = 3.0
WAKE_SECONDS = 2.0
QUICK_SECONDS = 5.0
"""For so long a training is looked at often: some take no longer."""
STOP_SECONDS = 20.0
LOG_CHARACTERS = 20_000


class Training:
    """Queues trials and watches them; the workers do the rest."""

    def __init__(self, bench: Bench, pool: Pool, branch: Branch) -> None:
        self._bench = bench
        self._pool = pool
        self._branch = branch

    async def train(
        self,
        experiment_id: str,
        wait_seconds: Annotated[
            float, "Seconds after which to return even if it is not done; call again to re-attach", Ge(0), Le(3600)
        ] = 45,
        seed: Annotated[int | None, "Random seed; default: chosen for you", Ge(0), Le(2**31 - 1)] = None,
        *,
        progress: Watcher | None = None,
    ) -> Trained:
        """Train an experiment on the next free device, and wait for a while. Still queued or training: call again.

        A second call never starts a second training. One that needs confirmation, or a kept one with a new seed, is
        trained again. Next, when trained: complete.
        """
        experiment = await self._bench.store.experiments.get(experiment_id)
        run = await self._bench.store.runs.get(experiment.tag)
        if run.task.external:
            raise WrongState(
                f"Run {run.tag!r} is external: its trainings are yours", "Train, then call complete with the metrics"
            )
        try:
            trial = await self._live_or_queued(run, experiment, seed)
        except Changed:  # by another server, at this moment
            trial = await self._live_or_queued(run, await self._bench.store.experiments.get(experiment_id), seed)
        if seed is not None and trial is not None and seed != trial.seed:
            raise WrongState(
                f"Experiment {experiment_id} is {experiment.status} with seed {trial.seed}, not {seed}",
                "Leave seed out; policy greedy runs nothing again"
                if run.task.policy == "greedy"
                else "Leave seed out; another seed is for an experiment that needs confirmation or is kept",
            )
        if trial is None:  # it was given up before any training
            return _untrained(experiment)
        return await self._watch(run, trial, wait_seconds, progress)

    async def _live_or_queued(self, run: Run, experiment: Experiment, seed: int | None) -> Trial | None:
        trials = await self._bench.store.trials.of(experiment.id)
        if trials and trials[-1].status in LIVE:
            return trials[-1]
        return await self._queue(run, experiment, trials, seed)

    async def _queue(self, run: Run, experiment: Experiment, trials: list[Trial], seed: int | None) -> Trial | None:
        """Queue a trial where the experiment may be trained now; else its last trial, or that with this seed."""
        last, bound = trials[-1] if trials else None, bound_seed(trials)
        stopped = last is not None and (last.status in AGAIN or bound is not None)
        same = next((trial for trial in trials if trial.seed == seed and trial.status not in AGAIN), None)
        if bound is not None and seed in (None, bound):
            same = None
        elif bound is not None and not same:
            raise WrongState(
                f"The last training of {experiment.id}, with seed {bound}, came to no result, and runs again as it was",
                "Leave seed out: which runs count is not chosen by what they showed",
            )
        if experiment.status == "keep":
            if run.task.policy == "greedy" or same or (seed is None and not stopped):
                return same or last
        elif experiment.status == "needs_confirmation":
            if same:
                raise WrongState(
                    f"Experiment {experiment.id} was trained with seed {seed} before, and would come out the same",
                    f"Leave seed out, or give another: {fresh_seed({trial.seed for trial in trials})}",
                )
        elif experiment.status != "registered" and not (experiment.status == "trained" and stopped):
            return last
        await self._pool.of_type(run.device_type)
        if experiment.status == "needs_confirmation":
            experiment = await on_best(self._bench, self._branch, run, experiment)
            if experiment.status != "needs_confirmation":
                return await self._bench.store.trials.latest(experiment.id)
        seed = await paired_seed(self._bench, run, experiment, trials, seed)
        return await self._bench.store.trials.enqueue(experiment.id, seed, run.device_type, experiment.commit)

    async def _watch(self, run: Run, trial: Trial, wait_seconds: float, progress: Watcher | None) -> Trained:
        """Wait until the trial has ended or the time is up; wake workers where the queue stands still."""
        deadline = time.monotonic() + wait_seconds
        woken = reported = float("-inf")
        started = time.monotonic()
        while trial.status in LIVE:
            now = time.monotonic()
            if now - woken >= WAKE_SECONDS:
                woken = now
                await self._pool.wake(trial.device_type)
            if progress is not None and now - reported >= REPORT_SECONDS:
                reported = now
                await progress(*await self._message(run, trial))
            if now >= deadline:
                break
            pause = 0.05 if now - started < QUICK_SECONDS else 0.5
            await asyncio.sleep(min(pause, max(0.0, deadline - now)))
            trial = await self._bench.store.trials.latest(trial.experiment_id) or trial
        return await self._answer(run, trial)

    async def _message(self, run: Run, trial: Trial) -> tuple[float, float | None, str]:
        """How far a training is: seconds done, seconds in all, and the last line of its log."""
        elapsed = _elapsed(trial) or 0.0
        if trial.status == "queued":
            return 0.0, None, f"queued at place {await self._bench.store.trials.position(trial)}"
        log = await self._bench.run(read_end, self._bench.folders.log(trial.id))
        lines = clean(log.text, TAIL_CHARACTERS).strip().splitlines()
        return elapsed, run.task.time_budget_seconds, quoted(lines[-1], LINE_CHARACTERS) if lines else "starting"

    async def _answer(self, run: Run, trial: Trial) -> Trained:
        experiment = await self._bench.store.experiments.get(trial.experiment_id)
        log = await self._bench.run(read_end, self._bench.folders.log(trial.id))
        seen = parse_progress(log.text)
        elapsed = _elapsed(trial)
        training = trial.status == "training"
        left = max(0.0, run.task.time_budget_seconds - elapsed) if training and elapsed is not None else None
        if training and seen and seen.remaining_seconds is not None:
            left = seen.remaining_seconds
        status = _status(experiment, trial)
        return Trained(
            trial_id=trial.id,
            status=status,
            device=await self._pool.label(trial.device),
            queue_position=await self._bench.store.trials.position(trial) if trial.status == "queued" else None,
            elapsed_seconds=elapsed,
            remaining_seconds=left,
            progress=asdict(seen) if seen and training else None,
            metrics=dict(trial.metrics),
            log_tail=as_data(log.last(TAIL_LINES, TAIL_CHARACTERS)),
            next_action=_next(experiment, trial, status),
            error=trial.error or None,
            seed=trial.seed,
            verification=label_of(trial.verification, trial.metrics),
            sandboxed=trial.sandboxed,
            effort=effort_text(trial),
            starved=await self._starved(trial),
        )

    async def _starved(self, trial: Trial) -> str | None:
        """Why the try before this one, or this one, is no measurement; None where none was starved."""
        if trial.starved:
            return trial.error
        earlier = await self._bench.store.trials.of(trial.experiment_id) if trial.attempt > 1 else []
        return next((f"{each.id}: {each.error}" for each in reversed(earlier) if each.starved), None)

    async def devices(self) -> DeviceList:
        """List the devices: memory in MB, temperature, utilisation, and the experiment on each."""
        views = await self._pool.views()
        types = {device.type for device in await self._pool.devices()}
        queued = sum([await self._bench.store.trials.waiting(device_type) for device_type in sorted(types)])
        idle = sum(view.status == "idle" for view in views)
        todo = f"{idle} idle: register and train further experiments" if idle else "All busy: trainings wait their turn"
        return DeviceList(devices=views, queued=queued, next_action=todo)

    async def logs(
        self,
        experiment_id: str,
        lines: Annotated[int, "How many of the last lines", Ge(1), Le(500)] = 50,
        grep: Annotated[str | None, "Only lines that contain this text"] = None,
    ) -> LogExcerpt:
        """Read the end of an experiment's training log, e.g. to see why it crashed."""
        trial = await self._trial(experiment_id)
        log = await self._bench.run(read_whole, self._bench.folders.log(trial.id), grep)
        text = log.last(lines, LOG_CHARACTERS)
        shown = len(text.splitlines())
        return LogExcerpt(
            experiment_id=experiment_id,
            trial_id=trial.id,
            lines=as_data(text),
            total_lines=log.total,
            truncated=shown < log.total,
            next_action="Call logs with more lines or another grep to see more"
            if shown < log.total
            else f"Call train({experiment_id!r}) for its status",
        )

    async def full_log(self, experiment_id: str) -> str:
        """The log of an experiment's latest trial, cleaned, its end if it is very long."""
        trial = await self._trial(experiment_id)
        log = await self._bench.run(read_whole, self._bench.folders.log(trial.id), None)
        return as_data(log.last(log.total, 400_000))

    async def stop(self, experiment_id: str) -> Stopped:
        """End an experiment's training. It is recorded as stopped, with what it had shown, and the experiment may be
        trained again, with the same seed.
        """
        experiment = await self._bench.store.experiments.get(experiment_id)
        trial = await self._bench.store.trials.latest(experiment_id)
        if trial is None or trial.status not in LIVE:
            todo = f"It is {experiment.status} and no training of it is under way: go on"
            return Stopped(experiment_id, trial.id if trial else None, "not_training", todo)
        trial = await self._await_end(await self._bench.store.trials.stop(trial.id))
        if trial.status == "training":
            await self._pool.end_by_force(trial)
            trial = await self._await_end(trial)
        if trial.status in LIVE:
            return Stopped(
                experiment_id, trial.id, "stopping", f"Call train({experiment_id!r}) in a while to see it end"
            )
        if trial.status != "stopped":
            return Stopped(
                experiment_id,
                trial.id,
                "not_training",
                f"It ended by itself: call train({experiment_id!r}) for its result",
            )
        return Stopped(experiment_id, trial.id, "stopped", f"Call train({experiment_id!r}) to train it again")

    async def _await_end(self, trial: Trial) -> Trial:
        """Wait a while for the end of a trial that was asked to stop; as it then is."""
        deadline = time.monotonic() + STOP_SECONDS
        woken = float("-inf")
        while trial.status in LIVE and time.monotonic() < deadline:
            if time.monotonic() - woken >= WAKE_SECONDS:
                woken = time.monotonic()
                await self._pool.wake(trial.device_type)  # heals it if its worker is gone or stopped
            await asyncio.sleep(0.1)
            trial = await self._bench.store.trials.latest(trial.experiment_id) or trial
        return trial

    async def _trial(self, experiment_id: str) -> Trial:
        experiment = await self._bench.store.experiments.get(experiment_id)
        trial = await self._bench.store.trials.latest(experiment_id)
        if trial is None:
            run = await self._bench.store.runs.get(experiment.tag)
            todo = "Its trainings are yours, and so are their logs" if run.task.external else "Call train first"
            raise UnknownId(f"Experiment {experiment_id!r} has no training here", todo)
        return trial


def _elapsed(trial: Trial) -> float | None:
    """Wall seconds since the trial started, up to its end."""
    if trial.started_at is None:
        return None
    return round(max(0.0, (trial.ended_at or time.time()) - trial.started_at), 3)


def _status(
    experiment: Experiment, trial: Trial
) -> Literal["queued", "training", "trained", "crash", "stopped", "error"]:
    if experiment.status == "crash":
        return "crash"
    if trial.status == "queued" or trial.status == "training":
        return trial.status
    if trial.status == "lost":
        return "error"
    return "stopped" if trial.status == "stopped" else "trained"


def _next(experiment: Experiment, trial: Trial, status: str) -> str:
    name = repr(experiment.id)
    if status in LIVE:
        return f"Call train({name}) again to go on watching; meanwhile edit the next idea in the workspace"
    if trial.starved:
        todo = "Tell the user who uses the device, have that end or give the training another"
        return f"The machine has too little left for it, {MAX_LOST + 1} times over. {todo}; then call train({name})"
    if status in ("stopped", "error"):
        why = "was stopped" if status == "stopped" else "failed by no fault of its own: see to what `error` names"
        given_up = f", or crash({name}) to give it up" if experiment.status == "trained" else ", or leave it as it is"
        return f"The training {why}: call train({name}) to run it again{given_up}"
    if experiment.status == "keep" and trial.came_from == "keep":
        if trial.status != "finished":
            return f"The repeat failed, so that {name} stays as it is: call suggest for the next idea"
        return f"Call complete({name}): what was measured again is taken into the mean of the best"
    if experiment.status in FINISHED:
        why = f" ({experiment.reason})" if experiment.status == "discard" else ""
        return f"It has its verdict, {experiment.status}{why}: call suggest for the next idea"
    if status == "crash":
        return f"Read the error, call complete({name}), fix a trivial mistake in a new experiment or drop the idea"
    return f"Call complete({name}) for the verdict"


def _untrained(experiment: Experiment) -> Trained:
    todo = "It was given up before any training: register the next idea"
    return Trained(None, "crash", None, None, None, None, None, {}, "", todo, reason_of(experiment) or None)
