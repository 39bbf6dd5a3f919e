"""The memory of this machine, or of the control group that this process may use memory in."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 writes a number above this where there is no limit."""


def used_share() -> float:
    """How much of the memory is in use and could not be had, from 0 to 1: the machine's, or a group's if that is more.

    What only caches files does not count.
    """
    memory = psutil.virtual_memory()
    return max([1 - memory.available / memory.total, *(share for _, share in _of_groups())])


def total_bytes() -> int:
    """How much memory this process may have in all: the machine's, or what a group is limited to."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _of_groups())])


def _of_groups() -> Iterator[tuple[int, float]]:
    """The limit in bytes, and the share in use, of each control group with a limit that this process is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield from _of(GROUPS / "memory" / path[1:], "memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            yield from _of(GROUPS / path[1:], "memory.max", "memory.current")


def _of(folder: Path, limit_file: str, usage_file: str) -> Iterator[tuple[int, float]]:
    """Of a group and those above it."""
    while folder.is_relative_to(GROUPS):
        try:
            limit = (folder / limit_file).read_text(encoding="ascii").strip()
            usage = int((folder / usage_file).read_text(encoding="ascii"))
            files = sum(
                map(int, re.findall(r"^(?:in)?active_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
            )
            if limit.isdigit() and 0 < int(limit) < UNLIMITED:
                yield int(limit), min(1.0, max(0, usage - files) / int(limit))
        except (OSError, ValueError):
            pass
        folder = folder.parent


def _text(file: Path) -> str:
    return file.read_text(encoding="ascii", errors="replace")
