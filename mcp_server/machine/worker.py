"""The worker of one device: trains what is queued, one trial after the other, until nothing is left, and exits.

    python -m mcp_server.machine.worker --repo PATH --device KEY

It is nobody's child and needs no server. Whoever holds the device's lock is its worker, and nobody else touches a trial
on that device. A worker that is killed outright is healed by the next one. SIGTERM or SIGINT ends the training with all
it started, queues its trial again, and ends the worker: what a reboot does, and what `kill` does. To end a training
for good, ask to stop it.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcp_server.errors import NotReady, ResearchError
from mcp_server.machine import processes
from mcp_server.machine.child import EndedBy
from mcp_server.machine.devices import Device, find_device
from mcp_server.machine.environment import launched, worker_environment
from mcp_server.machine.folders import Folders
from mcp_server.machine.foreign import LINGERING, Occupant, occupants
from mcp_server.machine.git import Repository
from mcp_server.machine.holding import clear, run_trial, stuck
from mcp_server.machine.locks import DeviceLock, Holder
from mcp_server.machine.outcome import LONGEST_ERROR
from mcp_server.machine.recording import disown, heal, keep, look, order_of, patiently, prune, record, say, wanted
from mcp_server.machine.rig import Rig
from mcp_server.machine.sandbox import find_sandbox
from mcp_server.machine.store import Store
from mcp_server.research.experiment import Ending, Trial
from mcp_server.research.integrity import meddled, run_meddled
from mcp_server.settings import Settings

LOG_LIMIT = 1024 * 1024
PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds after a trial that the machine failed; four times as long after each further one."""
LAUNCHES = 3
"""How often a launch is tried that a signal ends: whoever sent it did not mean the next one."""


def start_worker(settings: Settings, device: Device) -> None:
    """Start a worker for the device and return at once, unless one is coming already. Takes about 20 ms.

    Raises:
        NotReady: it cannot be started.
    """
    lock = DeviceLock(settings.locks, device.key)
    coming = lock.await_worker()
    if coming is None:
        return
    words = [sys.executable, "-m", "mcp_server.machine.worker", "--repo", str(settings.repo), "--device", device.key]
    words += ["--coming", str(coming)]
    try:
        start_detached(words, worker_environment(settings), lock.log, f"The worker of {device.label}", [coming])
    finally:
        os.close(coming)


def start_detached(
    words: Sequence[str], environment: Mapping[str, str], log: Path, name: str, inherited: Sequence[int] = ()
) -> None:
    """Start a program that is nobody's child, and that says what it has to say in a log.

    Args:
        inherited: descriptors that it inherits.

    Raises:
        NotReady: it cannot be started.
    """
    try:
        too_long = log.exists() and log.stat().st_size > LOG_LIMIT
        with log.open("wb" if too_long else "ab") as output:
            for _ in range(LAUNCHES):
                code = subprocess.run(
                    launched("detached", *words),
                    cwd="/",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=inherited,
                    check=False,
                ).returncode
                if code >= 0:
                    break
        why = f"exit code {code}, see {str(log)!r}"
    except OSError as error:
        code, why = 1, str(error)
    if code:
        raise NotReady(f"{name} cannot be started: {why}", "Run `autoresearch doctor`")


class Worker:
    """The holder of a device's lock, at work for one repository."""

    def __init__(self, rig: Rig, folders: Folders, store: Store, coming: int | None = None) -> None:
        self._rig = rig
        self._folders = folders
        self._store = store
        self._coming = coming
        self._pause = PAUSE
        self.ending = False
        """Set to end the present training and claim no other."""

    async def work(self) -> None:
        """Train until nothing is queued for this device, another worker has it, or something unkillable is on it."""
        device, lock = self._rig.device, self._rig.lock
        while not self.ending and self._take():
            with lock:
                await self._hold()
            if lock.is_busy():
                say(stuck(device.label, lock))
                return
            if others := await self._others():
                say(f"{device.label} is left to {', '.join(map(str, others))}")
                return
            # What was queued before the release is seen now; what is queued later finds the lock free.
            if not await self._store.trials.waiting(device.type):
                return

    def _take(self) -> bool:
        """Take the device, or not; in either case the worker has come."""
        taken = self._rig.lock.take()
        if self._coming is not None:
            os.close(self._coming)
            self._coming = None
        return taken

    async def _hold(self) -> None:
        """Do all that only the holder of the lock may do."""
        self._note()
        cleared = await clear(self._rig.lock)
        await self._heal()
        if not cleared:
            return
        while not self.ending and not await self._others():
            busy = self._rig.lock.mark_busy()
            if busy is None:
                return
            trial = await self._claim()
            if trial is None:
                os.close(busy)
                return
            self._note(trial)
            await self._train(trial, busy)
            self._note()

    async def _others(self) -> list[Occupant]:
        """Whoever else computes on the device; what was just killed may be told of for a moment longer."""
        deadline = time.monotonic() + LINGERING
        while others := occupants(self._rig.device, self._rig.lock.mark):
            if time.monotonic() > deadline:
                return others
            await asyncio.sleep(0.1)
        return []

    async def _heal(self) -> None:
        """Give every trial that an earlier worker left in training the end that it had."""
        for trial in await patiently(lambda: self._store.trials.training_on(self._rig.device.key)):
            walled = find_sandbox(self._rig.settings.sandbox) is not None
            await heal(self._store, self._folders, trial, "Its worker was killed.", walled, self._rig.repository)

    async def _claim(self) -> Trial | None:
        device = self._rig.device
        return await patiently(lambda: self._store.trials.claim(device.key, device.type, os.getpid()))

    async def _train(self, trial: Trial, busy: int) -> None:
        """Train one trial, free the device of all that it left, and record how it ended."""

        async def ask() -> EndedBy | None:
            return "shutdown" if self.ending else await wanted(self._store, trial)

        try:
            order = await order_of(self._store, self._folders, trial)
            run, before = await look(self._store, trial)
        except BaseException:
            os.close(busy)
            raise
        try:
            ending = await run_trial(self._rig, order, busy, ask, lambda: look(self._store, trial))
        except (ResearchError, OSError):
            raise
        except Exception as error:  # what a training left ends no worker, which would be another draw for it
            ending = Ending("failed", time.time(), error=f"It left what cannot be measured: {error!r}"[:LONGEST_ERROR])
        run_now, after = await look(self._store, trial)
        if what := run_meddled(run, run_now) or meddled(trial, before, after):
            await disown(self._store, self._folders, trial, what, run)
            return
        keep(order.folder, trial, ending)
        await record(self._store, trial, ending, self._rig.repository)
        await prune(self._store, self._folders, trial)
        await self._recover(ending.status == "lost")

    async def _recover(self, failed: bool) -> None:
        """Let some time pass after the machine failed a trial, which is queued again."""
        deadline = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 4 * self._pause) if failed else PAUSE
        while failed and not self.ending and time.monotonic() < deadline:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(0.1)

    def _note(self, trial: Trial | None = None) -> None:
        repo = str(self._rig.repository.root)
        self._rig.lock.note(Holder(os.getpid(), repo, trial.id if trial else ""))


async def serve(settings: Settings, key: str, coming: int | None = None) -> None:
    """Be the worker of the device with this key; raises ResearchError where the repository or device is gone.

    Args:
        coming: the descriptor that says so until the worker has the device, see `DeviceLock.await_worker`.
    """
    device = find_device(key, settings.devices)
    if device.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, device.cores)
    lock = DeviceLock(settings.locks, device.key)
    if lock.is_held():
        return
    repository = Repository.discover(settings.repo)
    folders = Folders.of(settings, repository.root)
    async with Store.open(folders.store) as store:
        worker = Worker(Rig(settings, repository, device, lock), folders, store, coming)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, setattr, worker, "ending", True)
        await worker.work()


def main() -> None:
    """The entry point of the worker's process."""
    parser = argparse.ArgumentParser(prog="mcp_server.machine.worker", description="Train what is queued for a device.")
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--device", required=True, metavar="KEY")
    parser.add_argument(
        "--devices", metavar="SPEC", help="the devices of which KEY is one; default: of the environment"
    )
    parser.add_argument("--coming", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would turn every exit code into 0
    processes.adopt_orphans()
    try:
        asyncio.run(serve(Settings.load(arguments.repo, arguments.devices), arguments.device, arguments.coming))
    except ResearchError as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
