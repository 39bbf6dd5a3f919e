"""The driver of a cluster: it takes trials from the store of one repository, and has the cluster's devices train them.

    python -m mcp_server.machine.cluster.driver --repo PATH --address ADDRESS

Like a local worker it is nobody's child and needs no server; it is to the cluster what a worker is to a device. Whoever
holds its lock is the driver, and nobody else touches a trial on a device of the cluster. When it is killed, Ray ends
its actors, and the next driver heals their trials. SIGTERM ends the trainings, queues them again, and ends it.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from mcp_server.errors import ResearchError
from mcp_server.machine.cluster import roster
from mcp_server.machine.cluster.freight import Freight
from mcp_server.machine.cluster.ray_cluster import RayCluster
from mcp_server.machine.cluster.roster import Roster
from mcp_server.machine.cluster.seating import PREFIX, Seating
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.locks import DeviceLock, Holder
from mcp_server.machine.recording import heal, patiently, say
from mcp_server.machine.store import Store
from mcp_server.settings import Settings

LOCK = "driver"
LINGER = 300.0
"""Seconds without work after which it ends. It holds no device meanwhile, see `seating.IDLE_SECONDS`."""

JOIN_SECONDS = 60.0
TICK = 0.2
NOTE_SECONDS = 1.0


def named(settings: Settings) -> str:
    """Which devices of which cluster the settings ask for."""
    return f"{settings.devices} of {settings.ray_address}"


class Driver:
    """The holder of the driver's lock, at work for one repository."""

    def __init__(self, settings: Settings, folders: Folders, store: Store, seating: Seating, linger: float) -> None:
        self._settings = settings
        self._folders = folders
        self._store = store
        self._seating = seating
        self._linger = linger
        self._noted = 0.0

    def end(self) -> None:
        """End all trainings and take no other."""
        self._seating.ending = True

    async def drive(self) -> None:
        """Have trained what is queued, until nothing is for a while."""
        await self._heal()
        worked = time.monotonic()
        try:
            while not self._seating.ending:
                if await self._seating.tend() or not self._seating.settled:
                    worked = time.monotonic()
                elif time.monotonic() - worked >= self._linger:
                    return
                self._note()
                await asyncio.sleep(TICK)
        finally:
            await self._seating.close()
            self._note(at_once=True)

    async def has_work(self) -> bool:
        """Whether something is queued for a device of the cluster."""
        return not self._seating.ending and any((await self._seating.waiting()).values())

    async def _heal(self) -> None:
        trials = self._store.trials
        for device in [key for key in await patiently(trials.in_training) if key.startswith(PREFIX)]:
            for trial in await patiently(partial(trials.training_on, device)):
                await heal(
                    self._store, self._folders, trial, "Its driver was killed.", walled=False
                )  # as far as is known here

    def _note(self, at_once: bool = False) -> None:
        """Tell the servers which devices there are, from when all were looked at."""
        if not (at_once or (self._seating.settled and time.monotonic() - self._noted >= NOTE_SECONDS)):
            return
        self._noted = time.monotonic()
        problem = self._seating.problem()
        try:
            roster.write(
                self._folders.cluster, Roster(time.time(), named(self._settings), self._seating.seen(), problem)
            )
        except OSError as error:
            say(f"the list of devices cannot be written: {error}")


async def serve(settings: Settings, linger: float) -> None:
    """Be the driver for a repository; raises ResearchError where that or the cluster is gone."""
    repository = Repository.discover(settings.repo)
    folders = Folders.of(settings, repository.root)
    lock = DeviceLock(folders.cluster, LOCK)
    if lock.is_held():
        return
    async with Store.open(folders.store) as store:
        while lock.take():
            with lock:
                lock.note(Holder(os.getpid(), str(repository.root)))
                cluster = _join(settings, folders)
                try:
                    seating = Seating(settings, store, folders, Freight(repository, folders, settings), cluster)
                    driver = Driver(settings, folders, store, seating, linger)
                    for number in (signal.SIGTERM, signal.SIGINT):
                        asyncio.get_running_loop().add_signal_handler(number, driver.end)
                    await driver.drive()
                finally:
                    cluster.close()
            # What was queued before the release is seen now; what is queued later finds the lock free.
            if not await driver.has_work():
                return


def _join(settings: Settings, folders: Folders) -> RayCluster:
    """The cluster; where it cannot be joined, the servers are told why."""

    def tell(problem: str) -> None:
        roster.write(folders.cluster, Roster(time.time(), named(settings), problem=problem))

    def give_up() -> None:
        tell(f"The Ray cluster {settings.ray_address!r} does not answer")
        os._exit(1)  # Ray goes on trying, and cannot be interrupted

    watch = threading.Timer(JOIN_SECONDS, give_up)
    watch.daemon = True
    watch.start()
    try:
        return RayCluster(settings.ray_address)
    except ResearchError as error:
        tell(error.what)
        raise
    finally:
        watch.cancel()


def main() -> None:
    """The entry point of the driver's process."""
    parser = argparse.ArgumentParser(
        prog="mcp_server.machine.cluster.driver", description="Train what is queued on the devices of a Ray cluster."
    )
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--address", default="auto", help="the cluster's HOST:PORT, or auto")
    parser.add_argument("--devices", metavar="SPEC", help="auto, cuda, or cpu:N for N slots on each machine")
    parser.add_argument("--linger", type=float, default=LINGER, help="seconds without work after which it ends")
    arguments = parser.parse_args()
    settings = Settings.load(arguments.repo, arguments.devices, "ray", arguments.address)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        asyncio.run(serve(settings, arguments.linger))
    except ResearchError as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
