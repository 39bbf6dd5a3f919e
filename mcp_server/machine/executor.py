"""Where trainings run: what the lab asks of it, whether that is this machine or a cluster.

Trials wait in the store, and who runs them takes them from there and records there how they ended. So little is left to
ask: which devices there are, what is on each, and that somebody be at work where trials wait.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mcp_server.errors import InvalidInput
from mcp_server.machine.devices import Device, Reading, find_devices, reading
from mcp_server.machine.foreign import occupants
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.worker import start_worker
from mcp_server.settings import Settings

EXECUTORS = ("local", "ray")
STUCK_SECONDS = 30.0
"""How long a device that could not be cleared is left alone."""


@dataclass(frozen=True)
class Occupancy:
    """What is on a device.

    Attributes:
        held: whether somebody has it.
        stuck: whether nobody has it, and something of an earlier training lives on it.
        holder: who has it where that is not this repository, for display.
        foreign: the processes on it that are nobody's training and keep it from being free, for display.
    """

    held: bool
    stuck: bool
    holder: str
    reading: Reading
    foreign: str = ""


class Executor(Protocol):
    """Runs the trials that wait in the store of one repository. Its methods block."""

    def devices(self, anew: bool = False) -> list[Device]:
        """The devices that trials can run on, found `anew` or as they were last.

        Raises:
            InvalidInput, NotReady: there are none as the settings ask for them.
        """

    def wake(self, device_type: str, waiting: int, training: Collection[str]) -> int | None:
        """Return at once, and have somebody at work on devices of a type; how many were called, where that is known.

        Args:
            waiting: how many trials are queued for the type.
            training: keys of the devices on which trials are recorded as training; those whose keeper died are healed.
        """

    def occupancy(self, device: Device) -> Occupancy:
        """What is on a device now."""


class LocalExecutor:
    """A detached worker for each device of this machine, see `worker`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: list[Device] | None = None
        self._tried: dict[str, float] = {}

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
            if self._lock(device).is_awaited():  # Python takes its time to start, and a second worker would too
                waiting -= 1
            elif (waiting > 0 or orphaned) and self._is_free(device):
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

    def _is_free(self, device: Device) -> bool:
        """Whether a worker may be started on a device; one with something unkillable on it is tried now and then."""
        lock = self._lock(device)
        if lock.is_held() or occupants(device, lock.mark):
            return False
        if lock.is_busy() and time.monotonic() - self._tried.get(device.key, float("-inf")) < STUCK_SECONDS:
            return False
        self._tried[device.key] = time.monotonic()
        return True

    def _lock(self, device: Device) -> DeviceLock:
        return DeviceLock(self._settings.locks, device.key)


def executor_of(settings: Settings, state: Path) -> Executor:
    """The executor that the settings name, for the repository with this state folder.

    Raises:
        InvalidInput: there is none of this name.
        NotReady: what it needs is not installed.
    """
    if settings.executor == "local":
        return LocalExecutor(settings)
    if settings.executor == "ray":
        from mcp_server.machine.cluster.executor import RayExecutor

        return RayExecutor(settings, state)
    raise InvalidInput(f"executor {settings.executor!r} is unknown", f"Choose from {', '.join(EXECUTORS)}")
