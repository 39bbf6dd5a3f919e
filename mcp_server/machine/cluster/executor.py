"""The cluster as an executor: a detached driver, and the list of devices that it keeps."""

import importlib.util
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.cluster import roster
from mcp_server.machine.cluster.driver import LOCK, named
from mcp_server.machine.cluster.roster import Roster
from mcp_server.machine.cluster.seating import PREFIX, check_devices
from mcp_server.machine.devices import Device, Reading
from mcp_server.machine.environment import worker_environment
from mcp_server.machine.executor import Occupancy
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.stopping import StoppedWorkers
from mcp_server.machine.worker import start_detached
from mcp_server.settings import Settings

START_SECONDS = 150.0
"""For so long a driver may look for devices: somewhat longer than it waits for Ray to give it one."""

POLL = 0.1


class RayExecutor:
    """See `Executor`. Nothing here imports ray, which would print and start threads in the server."""

    def __init__(self, settings: Settings, state: Path) -> None:
        """Raises NotReady where ray is not installed, InvalidInput where address or devices cannot be used."""
        if importlib.util.find_spec("ray") is None:
            raise NotReady("The executor ray is not installed", "Run: pip install 'autoresearch-mcp[cluster]'")
        if settings.ray_address.startswith("ray://"):
            raise InvalidInput(
                f"ray_address is {settings.ray_address!r}, the address of a Ray client",
                "Join this machine with `ray start --address=HOST:6379 --num-gpus=0` and give --ray-address HOST:6379",
            )
        check_devices(settings.devices)
        self._settings = settings
        self._folder = state / "cluster"
        self._stopped = StoppedWorkers()

    def devices(self, anew: bool = False) -> list[Device]:
        """See `Executor`. Where no driver is at work, one is started if nothing is known or to be found anew."""
        at_work = self._lock().is_held()
        told = self._told()
        if told is None or not told.devices or (anew and not at_work):
            told = self._found()
        return [seen.device for seen in told.devices]

    def wake(self, device_type: str, waiting: int, training: Collection[str]) -> None:
        """Start a driver where none is at work; one finds by itself what waits and what is to be healed."""
        orphaned = any(key.startswith(PREFIX) for key in training)
        self._stopped.end(self._lock(), ["mcp_server.machine.cluster.driver", str(self._settings.repo)])
        if (waiting or orphaned) and not self._lock().is_held():
            self._start()

    def occupancy(self, device: Device) -> Occupancy:
        """See `Executor`."""
        told = self._told() if self._lock().is_held() else None
        for seen in told.devices if told else ():
            if seen.device.key == device.key:
                return Occupancy(seen.held, False, seen.detail, seen.reading)
        return Occupancy(False, False, "", Reading())

    def _found(self) -> Roster:
        """What a driver finds, as soon as it has looked at everything."""
        began = time.time()
        if not self._lock().is_held():
            self._start()
        while time.time() - began < START_SECONDS:
            told = self._told()
            if told and told.at >= began:
                if told.devices:
                    return told
                raise NotReady(told.problem or "The Ray cluster has no device", f"Look at {self._lock().log}")
            time.sleep(POLL)
        raise NotReady(
            f"The driver of the Ray cluster {self._settings.ray_address!r} found no device in {START_SECONDS:.0f} s",
            f"Run `autoresearch doctor` and `ray status`, and look at {self._lock().log}",
        )

    def _told(self) -> Roster | None:
        """What the driver told of the cluster that is asked for; raises NotReady if it drives another."""
        told = roster.read(self._folder)
        if told is None or told.cluster == named(self._settings):
            return told
        if self._lock().is_held():
            raise NotReady(
                f"A driver is at work for this repository with {told.cluster}, not {named(self._settings)}",
                "Give the same --devices and --ray-address, or wait until it has nothing to do and ends",
            )
        return None

    def _start(self) -> None:
        """Start a driver; one too many ends by itself."""
        settings = self._settings
        words = [sys.executable, "-m", "mcp_server.machine.cluster.driver", "--repo", str(settings.repo)]
        words += ["--address", settings.ray_address, "--devices", settings.devices]
        rays = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        start_detached(words, rays | worker_environment(settings), self._lock().log, "The driver of the Ray cluster")

    def _lock(self) -> DeviceLock:
        return DeviceLock(self._folder, LOCK)
