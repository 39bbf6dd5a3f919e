"""Who else computes on a GPU: processes that no training of ours started, which have no lock to be seen by."""

import contextlib
from dataclasses import dataclass

import psutil

from mcp_server.machine.devices import MEGABYTE, Device, Nvml, load_driver
from mcp_server.machine.environment import MARK

ENOUGH_MB = 500.0
"""A process with less of a GPU's memory is no reason to leave it alone: a notebook that once touched it, a monitor."""

LINGERING = 2.0
"""Seconds for which a driver may still tell of a process that has ended."""


@dataclass(frozen=True)
class Occupant:
    """A process with memory on a GPU; its name is empty where it is in another container or of another user."""

    pid: int
    memory_mb: float
    name: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name or 'of somebody else'}) with {self.memory_mb:.0f} MB"


def occupants(device: Device, mark: str, nvml: Nvml | None = None) -> list[Occupant]:
    """The foreign compute processes on a GPU with more than `ENOUGH_MB` of its memory; never raises.

    Args:
        mark: of the device's lock; whatever carries it is left of a training of ours, and for a worker to end.
    """
    if device.kind != "cuda":
        return []
    present = load_driver(nvml)
    if present is None:
        return []
    try:
        running = present.nvmlDeviceGetComputeRunningProcesses(present.nvmlDeviceGetHandleByUUID(device.uuid))
    except Exception:  # some GPUs and systems do not tell
        return []
    found = [_occupant(each.pid, (each.usedGpuMemory or 0) / MEGABYTE, mark) for each in running]
    return [each for each in found if each is not None and each.memory_mb > ENOUGH_MB]


def _occupant(pid: int, memory_mb: float, mark: str) -> Occupant | None:
    """The process, unless it is ours."""
    name = ""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        name = process.name()
        if process.environ().get(MARK) == mark:
            return None
    return Occupant(pid, memory_mb, name)
