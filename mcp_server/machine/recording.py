"""How trials come from the store and their endings into it, for whoever runs them."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from mcp_server.errors import NotReady
from mcp_server.machine import result
from mcp_server.machine.child import EndedBy
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.measuring import read_metrics
from mcp_server.machine.outcome import shown
from mcp_server.machine.rescoring import LEFT
from mcp_server.machine.retry import smaller
from mcp_server.machine.rig import BASELINE, HANDED_IN, Order
from mcp_server.machine.store import Refused, Store
from mcp_server.machine.store.retries import Smaller
from mcp_server.machine.trees import open_regular, remove
from mcp_server.research.case import Case
from mcp_server.research.effort import limit
from mcp_server.research.experiment import Ending, Run, Trial

Answer = TypeVar("Answer")

TRIES = 12
"""How often a refused write is tried; the waits between add up to about a minute, on top of SQLite's own."""


async def order_of(store: Store, folders: Folders, trial: Trial) -> Order:
    """What a claimed trial orders."""
    run, case = await look(store, trial)
    task = run.task
    if most := limit(run, case):
        told = json.dumps({name: round(value, 3) for name, value in asdict(most).items()})
        task = replace(task, environment=(*task.environment, (BASELINE, told)))
    return Order(task, trial, folders.trial(trial.id), folders.inputs(run.tag), run.base_commit)


async def look(store: Store, trial: Trial) -> tuple[Run, Case]:
    """The run of a trial, and its case as it stands now."""
    experiment = await store.experiments.get(trial.experiment_id)
    case = await patiently(lambda: store.verdicts.case(trial.experiment_id))
    return await store.runs.get(experiment.tag), case


async def wanted(store: Store, trial: Trial) -> EndedBy | None:
    """Why a trial in training is to end: a user asks for it, or the store is gone, and with it the place of results."""
    try:
        return "stop" if await store.trials.stop_requested(trial.id) else None
    except Refused:
        return None
    except NotReady as error:
        say(str(error))
        return "shutdown"


def keep(folder: Path, trial: Trial, ending: Ending) -> None:
    """Write a result to the disk, and delete what no one needs any more: before the record, after which nobody would
    come back to it."""
    try:
        result.write(folder, trial, ending)
    except OSError as error:
        say(f"{trial.id}: the result cannot be written: {error}")
    for name in ("checkout", "tmp", *LEFT):
        remove(folder / name)
    if not (folder / "out").is_symlink():
        for name in HANDED_IN:
            with contextlib.suppress(OSError):
                (folder / "out" / name).unlink()


async def record(store: Store, trial: Trial, ending: Ending, repository: Repository | None = None) -> None:
    """Record how a trial ended; one that was lost or starved is queued again.

    Args:
        repository: where to commit what needs less, for one that ran out of memory the first time; None: no retry.
    """
    trials = store.trials
    if ending.status == "lost":
        await patiently(lambda: trials.lose(trial.id, ending))
        return
    less, said = await _smaller(store, repository, trial, ending) if repository else (None, "")
    if less is not None:
        await patiently(lambda: store.retries.retry(trial.id, ending, less))
        return
    crashed = ending.status in ("failed", "timed_out")
    told = replace(ending, error=f"{ending.error} {said}".strip())
    await patiently(lambda: trials.finish(trial.id, told, crashed))


async def _smaller(store: Store, repository: Repository, trial: Trial, ending: Ending) -> tuple[Smaller | None, str]:
    """What to train instead of what ran out of memory, and what to say of it; see `retry.smaller`."""
    if not ending.out_of_memory:
        return None, ""
    experiment = await patiently(lambda: store.experiments.get(trial.experiment_id))
    run = await patiently(lambda: store.runs.get(experiment.tag))
    trials = await patiently(lambda: store.trials.of(experiment.id))
    return await asyncio.to_thread(smaller, repository, run, experiment, trials, trial, ending)


async def disown(store: Store, folders: Folders, trial: Trial, what: str, run: Run | None = None) -> None:
    """Discard an experiment whose training wrote something into the record; `what` says what.

    Args:
        run: its run as it was before, which is put back.
    """
    told = (
        f"rejected: {what} was written while {trial.id} trained, and not by its worker. Train behind walls "
        "(bubblewrap), and compare the record with its backups."
    )
    say(told)
    remove(folders.trial(trial.id) / "checkout")
    if run:
        await patiently(lambda: store.runs.put_back(run))
    await patiently(lambda: store.trials.disown(trial, time.time(), told))


async def prune(store: Store, folders: Folders, trial: Trial) -> None:
    """Delete what the trainings of a trial's run left, but for the best and the latest; logs and results stay."""
    try:
        for outdated in await store.trials.outdated(trial.experiment_id.rpartition("-")[0]):
            await asyncio.to_thread(remove, folders.out(outdated))
    except NotReady as error:  # the next trial will see to it
        say(str(error))


async def heal(
    store: Store, folders: Folders, trial: Trial, why: str, walled: bool, repository: Repository | None = None
) -> None:
    """Give a trial that was left in training the end that it had; without a result it was lost, and `why` says how.

    Args:
        walled: trainings run behind walls, so that none can have written the result itself. Else its score counts as
            the training's own word, which is never enough for a keep.
    """
    folder = folders.trial(trial.id)
    ending = result.read(folder, trial) or await _left_behind(store, folders, trial, why)
    if not walled:
        ending = replace(ending, verification="reported")
    remove(folder / "checkout")
    await record(store, trial, ending, repository)


async def _left_behind(store: Store, folders: Folders, trial: Trial, why: str) -> Ending:
    """The ending of a trial without a result, with what its log shows: whoever ended it may have looked at that."""
    try:
        with open_regular(folders.log(trial.id)) as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return Ending("lost", time.time(), error=why)
    experiment = await patiently(lambda: store.experiments.get(trial.experiment_id))
    run = await patiently(lambda: store.runs.get(experiment.tag))
    said = shown(text)
    return Ending("lost", time.time(), metrics=read_metrics(run.task, text), error=f"{why.rstrip('.')}{said}.")


async def patiently(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Await `attempt()`, again and again while the store is locked or the disk is full, and at last raise the error."""
    for number in range(TRIES):
        try:
            return await attempt()
        except Refused as error:
            if number == TRIES - 1:
                raise
            say(f"trying again: {error}")
        await asyncio.sleep(min(10.0, 0.1 * 2**number))
    raise AssertionError("unreachable")


def say(text: str) -> None:
    """Write a line to the log of this process, which is its stderr."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}", file=sys.stderr, flush=True)  # noqa: T201
