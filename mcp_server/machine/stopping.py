"""Ending what does not end by itself: workers that a signal stopped, and trainings whose worker is of no help."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

import psutil

from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.holding import clear
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.recording import heal
from mcp_server.machine.sandbox import find_sandbox
from mcp_server.machine.store import Store
from mcp_server.research.experiment import Trial
from mcp_server.settings import Settings

STOPPED_SECONDS = 4.0
"""For so long a worker may be stopped (SIGSTOP) before another takes its place."""
PATIENCE = 5.0
"""Seconds within which a killed worker must have let its device go."""


class StoppedWorkers:
    """Notices workers that hold a device, or were to take it, and are stopped: they do nothing, and let nobody else."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, float], float] = {}

    def end(self, lock: DeviceLock, words: Sequence[str]) -> bool:
        """Kill the workers of a device that were found stopped for a while; True if there were any.

        Their trainings end with them, and the next worker queues the trials again.

        Args:
            words: what the command line of its workers holds.
        """
        ended = False
        seen = {_key(process): process for process in _stopped(lock, words)}
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in seen}
        for key, since in self._since.items():
            if now - since >= STOPPED_SECONDS:
                with contextlib.suppress(psutil.Error):
                    seen[key].kill()
                    ended = True
        return ended


def worker_words(device: str) -> list[str]:
    """What the command line of a worker of this device holds."""
    return ["mcp_server.machine.worker", "--device", device]


async def end_by_force(settings: Settings, store: Store, repository: Repository, trial: Trial) -> None:
    """End a trial in training that its worker does not end: the worker is killed if there is one, and the trial gets
    the end that it had. One that was asked to stop is then stopped.
    """
    assert trial.device is not None
    lock = DeviceLock(settings.locks, trial.device)
    if (holder := lock.holder()) and (holder.repo, holder.trial) == (str(repository.root), trial.id):
        for process in _all(lock, worker_words(trial.device)):
            with contextlib.suppress(psutil.Error):
                process.kill()
    taken = await asyncio.to_thread(lock.take, PATIENCE)
    holder = None if taken else lock.holder()
    if holder and (holder.repo, holder.trial) == (str(repository.root), trial.id):
        return  # a new worker has it, and is told
    with lock:
        if taken:
            await clear(lock)
        walled = find_sandbox(settings.sandbox) is not None
        folders = Folders.of(settings, repository.root)
        await heal(store, folders, trial, "It had no worker any more.", walled, repository)


def _stopped(lock: DeviceLock, words: Sequence[str]) -> Iterator[psutil.Process]:
    if not lock.is_held() and not lock.is_awaited():
        return
    for process in _all(lock, words):
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                yield process


def _all(lock: DeviceLock, words: Sequence[str]) -> Iterator[psutil.Process]:
    """The workers of a device: as a rule the one that its lock names; else all processes are looked at."""
    holder = lock.holder()
    if holder and holder.pid:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(holder.pid)
            if _is_worker(process, words):
                yield process
                return
    for process in psutil.process_iter():
        if _is_worker(process, words):
            yield process


def _is_worker(process: psutil.Process, words: Sequence[str]) -> bool:
    try:
        return set(words) <= set(process.cmdline())
    except psutil.Error:
        return False


def _key(process: psutil.Process) -> tuple[int, float]:
    return process.pid, process.create_time()
