"""Stands in for NVML where there is no GPU: one H100, and on it the processes that the file FOREIGN_PROCESSES lists.

A line of the file is a pid and megabytes; no number stands for a driver that does not tell.
"""

import os
from pathlib import Path
from types import SimpleNamespace


def nvmlInit() -> None:  # noqa: N802
    pass


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    return ["GPU-one"].index(uuid)


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return ["GPU-one"][handle]


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return ["NVIDIA H100"][handle]


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(total=80 << 30, used=1 << 30)


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:  # noqa: N802
    return 41


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=7)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    lines = [line.split() for line in Path(os.environ["FOREIGN_PROCESSES"]).read_text().splitlines()]
    return [
        SimpleNamespace(pid=int(pid), usedGpuMemory=int(memory[0]) << 20 if memory else None) for pid, *memory in lines
    ]
