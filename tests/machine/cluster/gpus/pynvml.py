"""Stands in for NVML where there is no GPU: those that SIMULATED_GPUS names, e.g. `A=NVIDIA H100,B=NVIDIA H100`."""

import os
from pathlib import Path
from types import SimpleNamespace

_NAMES = [word.split("=") for word in os.environ.get("SIMULATED_GPUS", "").split(",") if word]


def nvmlInit() -> None:  # noqa: N802
    if not _NAMES:
        raise RuntimeError("no driver")


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_NAMES)


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    return next(index for index in range(len(_NAMES)) if nvmlDeviceGetUUID(index) == uuid)


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return f"GPU-{_NAMES[handle][0]}"


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return _NAMES[handle][1]


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(total=80 << 30, used=1 << 30)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    """One that is nobody's, where a file of the name of the GPU lies beside the caches of the machine."""
    taken = Path(os.environ["AUTORESEARCH_CACHE"]).parent / nvmlDeviceGetUUID(handle)
    return [SimpleNamespace(pid=int(taken.read_text()), usedGpuMemory=8 << 30)] if taken.exists() else []


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:  # noqa: N802
    return 40 + handle + sensor


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=50 + handle)
