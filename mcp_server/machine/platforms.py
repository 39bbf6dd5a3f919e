"""Finding out what a device and the system around it can do, without torch."""

import platform
from functools import lru_cache
from pathlib import Path

from mcp_server.machine.devices import Device, compute_capability
from mcp_server.research.platform import Facts

CPU_BF16 = "amx_bf16"
"""The flag of CPUs on which bfloat16 is surely faster; on others train.py measures it."""


@lru_cache(maxsize=64)
def facts_of(device: Device) -> Facts:
    """The facts about a device of this machine."""
    return Facts(
        kind=device.kind,
        memory_mb=device.memory_total_mb,
        capability=compute_capability(device),
        cpu_bf16=CPU_BF16 in _text("/proc/cpuinfo"),
        system=platform.system(),
        wsl2=is_wsl2(),
    )


def is_wsl2() -> bool:
    """Whether this is Linux within Windows."""
    return "microsoft" in _text("/proc/sys/kernel/osrelease").casefold()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
