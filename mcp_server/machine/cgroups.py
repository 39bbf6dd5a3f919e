"""Control groups (Linux, version 2): a group for one training, whose kernel counts the CPU time of all that is in it.

A group needs no controller: `cpu.stat` is there in every one. It can be made where the group of this process may be
written: as root, or where systemd has delegated it.
"""

import contextlib
import hashlib
import itertools
import math
import os
import re
import sys
from pathlib import Path

import psutil

from mcp_server.machine.trees import walk

ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where version 2 is mounted: alone, or beside version 1."""
_numbers = itertools.count(1)


class Group:
    """A group of its own below that of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def entrance(self) -> Path:
        """The file into which a process writes its number to be counted, with all that it starts."""
        return self.folder / "cgroup.procs"

    def cpu_seconds(self) -> float:
        """CPU time of all that was ever in the group; 0 where it cannot be read."""
        try:
            found = re.search(r"^usage_usec (\d+)$", (self.folder / "cpu.stat").read_text(encoding="ascii"), re.M)
        except OSError:
            found = None
        return int(found[1]) / 1e6 if found else 0.0

    def remove(self) -> None:
        """Delete the group and those that were made in it; what still has processes stays for the next one to try."""
        for parent, _, _ in reversed(list(walk(self.folder, math.inf))):
            with contextlib.suppress(OSError):
                Path(parent).rmdir()


def make_group(mark: str) -> Group | None:
    """A new group for a training on the device with this mark; None where this process may make none.

    Groups that an earlier worker of the device left are deleted, and those of workers that are no more.
    """
    parent = _own()
    if parent is None:
        return None
    name = f"autoresearch-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    folder = parent / f"{name}-{os.getpid()}-{next(_numbers)}"
    try:
        for left in parent.glob("autoresearch-*-*-*"):
            maker = left.name.split("-")[-2]
            if left.name.startswith(f"{name}-") or (maker.isdigit() and not psutil.pid_exists(int(maker))):
                Group(left).remove()
        folder.mkdir()
    except OSError:
        return None
    group = Group(folder)
    if os.access(group.entrance, os.W_OK) and (folder / "cpu.stat").exists():
        return group
    group.remove()
    return None


def _own() -> Path | None:
    """The folder of the group that this process is in; None where there is no version 2."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        found = re.search(r"^0::(/.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.M)
        for root in map(Path, ROOTS if found else ()):
            folder = root / found[1].lstrip("/") if found else root
            if (root / "cgroup.controllers").exists() and (folder / "cgroup.procs").exists():
                return folder
    return None
