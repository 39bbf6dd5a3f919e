"""One trial, from its checkout to its ending."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_server.errors import ResearchError
from mcp_server.machine import child, outcome, result
from mcp_server.machine.devices import Device
from mcp_server.machine.environment import launched, training_environment, training_words
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository, check_out, missing_hint, restore, state_of
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.logfile import BoundedLog
from mcp_server.machine.measuring import Bay, Measured, measure
from mcp_server.machine.outcome import Changed
from mcp_server.machine.sandbox import View, exit_code, find_sandbox, walled
from mcp_server.machine.watch import check_inputs, installed, state_of_files
from mcp_server.research.experiment import Ending, Trial
from mcp_server.research.guard import matches
from mcp_server.research.task import Task
from mcp_server.settings import Settings

COMPILED = ("inductor", "triton", "measured")
"""Folders of the cache that trainings write: compiled kernels, and what was measured of the machine."""

Ask = Callable[[], Awaitable[child.EndedBy | None]]


@dataclass(frozen=True)
class Rig:
    """Where trials run: a device with its lock, for a repository and its state folder."""

    settings: Settings
    repository: Repository
    device: Device
    lock: DeviceLock

    @property
    def state(self) -> Path:
        """The folder with the record and all trials."""
        return Folders.of(self.settings, self.repository.root).state


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes:
        folder: the trial's folder; what it holds is deleted.
        inputs: the run's record of its inputs, see `check_inputs`.
    """

    task: Task
    trial: Trial
    folder: Path
    inputs: Path


async def train(rig: Rig, order: Order, busy: int, ask: Ask) -> Ending:
    """Train what is ordered and say how it ended; what cannot even be started has ended as `failed`.

    Args:
        busy: the descriptor of the device's busy lock, for the training to inherit.
        ask: see `child.run`.
    """
    task, folder = order.task, order.folder
    checkout = folder / "checkout"
    try:
        discard(folder)
        (folder / "out").mkdir(parents=True)
        rig.settings.cache.mkdir(parents=True, exist_ok=True)
        result.reserve(folder)
        log = BoundedLog(folder / "log.txt")
    except OSError as error:
        return _not_started(f"its folder {str(folder)!r} cannot be written: {error.strerror}")
    try:
        check_out(rig.repository, order.trial.commit, checkout, task.inputs)
        before = state_of(rig.repository.root, task.inputs)
        check_inputs(order.inputs, before)
        fixed = [path for path in rig.repository.files(order.trial.commit) if not matches(task.editable, path)]
        written, packages = state_of_files(checkout, fixed), installed(task.interpreter)
        end = await _run(rig, order, checkout, log, busy, ask)
        text = log.text()
        after = state_of(rig.repository.root, task.inputs)
        changed = Changed(
            inputs=[path for path in task.inputs if after[path] != before[path]],
            fixed=[path for path, state in written.items() if state_of_files(checkout, [path]) != {path: state}],
            packages=sorted(installed(task.interpreter) ^ packages),
        )
        bay = Bay(checkout / task.folder, _environment(rig, order), log, ask, [busy])
        measured = None if changed else await _measure(rig, order, end, bay)
        hint = missing_hint(rig.repository.root, checkout, text[-outcome.LOOKED_AT :]) if end.code else None
        return outcome.ending(task, end, text, time.time(), checkout, changed, hint, measured)
    except (ResearchError, OSError) as error:
        log.write(f"{error}\n".encode("utf-8", "replace"))
        return _not_started(str(error))
    finally:
        log.close()


async def _run(rig: Rig, order: Order, checkout: Path, log: BoundedLog, busy: int, ask: Ask) -> child.Exit:
    task, place = order.task, checkout / order.task.folder
    words, environment = training_words(task), _environment(rig, order)
    sandbox = find_sandbox(rig.settings.sandbox)
    if sandbox:
        view = _view(rig, order, checkout, order.folder / "out")
        words = walled(sandbox, view, place, launched("attached", "1", *words))
    end = await child.run(words, place, environment, log, task.deadline_seconds, ask, [busy])
    return replace(end, code=exit_code(end.code)) if sandbox else end


def _environment(rig: Rig, order: Order) -> dict[str, str]:
    checkout, out = order.folder / "checkout", order.folder / "out"
    return training_environment(rig.settings, order.task, order.trial, rig.device, rig.lock.mark, checkout, out)


async def _measure(rig: Rig, order: Order, end: child.Exit, bay: Bay) -> Measured | None:
    """Run checks and scorer, where the task has them, after a training that ended well, on files as committed."""
    task = order.task
    if not (task.checks or task.score_command) or not outcome.ended_well(task, end):
        return None
    restore(rig.repository, order.trial.commit, order.folder / "checkout")
    return await measure(task, bay, order.folder)


def _view(rig: Rig, order: Order, checkout: Path, out: Path) -> View:
    """What a training sees: neither the record and what other trials left, nor the data that audits it."""
    cache, temporary = rig.settings.cache, order.folder / "tmp"
    compiled = [cache / name for name in COMPILED]
    for folder in (temporary, *compiled):
        folder.mkdir(exist_ok=True)
    programs = [
        Path(sys.prefix),
        Path(order.task.interpreter).parents[1],
        Path(order.task.interpreter).resolve().parents[1],
    ]
    return View(
        temporary=temporary,
        readable=[rig.repository.root, cache, *programs],
        writable=[checkout, out, *compiled],
        hidden=[rig.state, rig.settings.locks, cache / "downloads", *(cache / "data").glob("*/audit.bin")],
    )


def discard(folder: Path) -> None:
    """Delete a folder as far as that is possible; a training may have left parts of it read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for parent, names, _ in os.walk(folder):
            for place in (Path(parent, name) for name in names):
                if not place.is_symlink():  # a link to an input, whose mode is the user's
                    with contextlib.suppress(OSError):
                        place.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _not_started(why: str) -> Ending:
    return Ending("failed", time.time(), error=f"It could not be trained: {why}")
