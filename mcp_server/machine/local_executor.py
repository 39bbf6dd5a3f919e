"""Trainings on this machine: a detached worker for each device."""

import time
from collections.abc import Collection

from mcp_server.machine.devices import Device, find_devices, reading
from mcp_server.machine.executor import Occupancy
from mcp_server.machine.foreign import occupants
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.stopping import StoppedWorkers, worker_words
from mcp_server.machine.worker import start_worker
from mcp_server.settings import Settings

STUCK_SECONDS = 30.0
"""How long a device that could not be cleared is left alone."""
KILLED_SECONDS = 2.0
"""How long is waited for the end of a worker that was killed."""


class LocalExecutor:
    """A detached worker for each device of this machine, see `worker`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: list[Device] | None = None
        self._tried: dict[str, float] = {}
        self._stopped: dict[str, StoppedWorkers] = {}

    def devices(self, anew: bool = False) -> list[Device]:
        """See `Executor`."""
        if self._found is None or anew:
            self._found = find_devices(self._settings.devices)
        return self._found

    def wake(self, device_type: str, waiting: int, training: Collection[str]) -> int:
        """Start a worker on free devices, as many as there are trials to take or to heal."""
        started = 0
        for device in [device for device in self.devices() if device.type == device_type]:
            orphaned = device.key in training
            self._end_stopped(device)
            if self._lock(device).is_awaited():  # Python takes its time to start, and a second worker would too
                waiting -= 1
            elif (waiting > 0 or orphaned) and self._is_free(device, orphaned):
                start_worker(self._settings, device)
                waiting -= 0 if orphaned else 1
                started += 1
        return started

    def occupancy(self, device: Device) -> Occupancy:
        """See `Executor`."""
        lock = self._lock(device)
        holder = lock.holder()
        whose = f"held by process {holder.pid} for {holder.repo or 'another repository'}" if holder else ""
        others = "" if holder else ", ".join(str(each) for each in occupants(device, lock.mark))
        return Occupancy(holder is not None, holder is None and lock.is_busy(), whose, reading(device), others)

    def _end_stopped(self, device: Device) -> None:
        """Kill a worker of a device that was stopped for a while: a look tells that, and the ones before."""
        lock, seen = self._lock(device), self._stopped.setdefault(device.key, StoppedWorkers())
        if seen.end(lock, worker_words(device.key)):
            deadline = time.monotonic() + KILLED_SECONDS
            while (lock.is_held() or lock.is_awaited()) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _is_free(self, device: Device, orphaned: bool) -> bool:
        """Whether a worker may be started on a device; one with something unkillable on it is tried now and then.

        Args:
            orphaned: a trial was left in training on it, which is healed whoever else uses the device.
        """
        lock = self._lock(device)
        if lock.is_held() or (not orphaned and occupants(device, lock.mark)):
            return False
        if lock.is_busy() and time.monotonic() - self._tried.get(device.key, float("-inf")) < STUCK_SECONDS:
            return False
        self._tried[device.key] = time.monotonic()
        return True

    def _lock(self, device: Device) -> DeviceLock:
        return DeviceLock(self._settings.locks, device.key)
