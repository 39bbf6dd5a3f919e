"""CPU time of a training's processes, seen from outside by looking at them again and again.

Counted are the processes below this one that came after the start (on Linux it adopts what is orphaned, see
`processes.adopt_orphans`), those that carry the mark, and all that descend from either. A process counts with the most
that was seen of it; what lived between two looks counts by what its parent, once it had waited for it, was charged.
What neither was seen nor waited for is missed: there a control group is needed.
"""

import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from mcp_server.machine.processes import marked

SCAN_SECONDS, SCAN_SHARE = 1.0, 0.02
"""At least so long from one search of all processes for the mark to the next, which takes at most this share of the
time: it goes through the whole machine, and the cores are the training's."""

Key = tuple[int, float]
"""Number and time of creation of a process: numbers are given again."""


@dataclass(frozen=True)
class Seen:
    """A process at one moment.

    Attributes:
        own: CPU seconds of its threads, ended ones too.
        reaped: CPU seconds of the children that it has waited for.
        delays: by thread, seconds for which it was ready to run and did not; None where the system does not tell.
        yielding: threads that let others go first by their own choice, so that their waiting is nobody else's doing.
    """

    key: Key
    parent: int
    own: float
    reaped: float
    delays: dict[int, float] | None
    yielding: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Look:
    """What was added since the look before: CPU seconds, and seconds of waiting for a core; None where untold."""

    cpu: float
    delay: float | None


class Sampler:
    """Sums over looks at the processes of one training."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._root = os.getpid()
        self._known: dict[int, Seen] = {}
        self._others = {seen.key for pid in _descendants([self._root]) if pid != self._root and (seen := _seen(pid))}
        self._reaped = _reaped_here()
        self._scan_at = float("-inf")

    @property
    def pids(self) -> set[int]:
        """The numbers of the processes that were there at the last look."""
        return set(self._known)

    def look(self) -> Look:
        """Look at all of them once more."""
        now = {seen.key[0]: seen for seen in map(_seen, self._present()) if seen is not None}
        before, self._known = self._known, now
        gone = {pid: seen for pid, seen in before.items() if pid not in now or now[pid].key != seen.key}
        cpu, delay = 0.0, 0.0
        told = True
        for pid, seen in now.items():
            last = before.get(pid) if pid not in gone else None
            cpu += max(0.0, seen.own - (last.own if last else 0.0))
            if seen.delays is None:
                told = False
            else:
                yielding = seen.yielding | (last.yielding if last else frozenset())
                delay += _added(seen.delays, (last.delays or {}) if last else {}, yielding)
        return Look(cpu + self._unseen(before, gone), delay if told else None)

    def _unseen(self, before: dict[int, Seen], gone: dict[int, Seen]) -> float:
        """CPU seconds of processes that ended since the last look, beyond what was seen of them."""
        accounted: dict[int, float] = {}
        for seen in gone.values():
            heir = self._heir(seen, before, gone)
            accounted[heir] = accounted.get(heir, 0.0) + seen.own + seen.reaped
        here = _reaped_here()
        reaped = {self._root: here - self._reaped}
        self._reaped = here
        for pid, seen in self._known.items():
            last = before.get(pid) if pid not in gone else None
            reaped[pid] = seen.reaped - (last.reaped if last else 0.0)
        return sum(max(0.0, added - accounted.get(pid, 0.0)) for pid, added in reaped.items())

    def _heir(self, seen: Seen, before: dict[int, Seen], gone: dict[int, Seen]) -> int:
        """Who was charged for a process that ended: the nearest one above it that still runs."""
        parent = seen.parent
        for _ in before:
            if parent not in gone or parent == self._root:
                break
            parent = gone[parent].parent
        return parent

    def _present(self) -> set[int]:
        """The numbers of the processes that are the training's now."""
        others = {pid for pid, created in self._others if (seen := _seen(pid)) and seen.key == (pid, created)}
        roots = {self._root, *self._known}
        if (begun := time.monotonic()) >= self._scan_at:
            roots.update(process.pid for process in marked(self._mark))
            took = time.monotonic() - begun
            self._scan_at = begun + max(SCAN_SECONDS, took / SCAN_SHARE)
        return set(_descendants(roots, others)) - {self._root}


def _added(now: dict[int, float], before: dict[int, float], without: Collection[int]) -> float:
    added = {thread: max(0.0, delay - before.get(thread, 0.0)) for thread, delay in now.items()}
    return sum(delay for thread, delay in added.items() if thread not in without)


def _yields(thread: int) -> bool:
    """Whether a thread made itself less urgent than this process, by its niceness or its scheduling policy."""
    if os.getpriority(os.PRIO_PROCESS, thread) > os.getpriority(os.PRIO_PROCESS, 0):
        return True
    return os.sched_getscheduler(thread) in (os.SCHED_IDLE, os.SCHED_BATCH) and os.sched_getscheduler(0) == 0


def _reaped_here() -> float:
    """CPU seconds of all children that this process has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _descendants(roots: Iterable[int], without: Collection[int] = ()) -> Iterator[int]:
    """The given processes and all below them, but for some and what is below those."""
    waiting, found = list(roots), set(without)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            yield pid
            waiting += _children(pid)


def _children(pid: int) -> list[int]:
    if sys.platform == "linux":
        children: list[int] = []
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    children += map(int, (task / "children").read_bytes().split())
            if children or Path("/proc/self/task", str(os.getpid()), "children").exists():
                return children
        except OSError:
            return []
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def _seen(pid: int) -> Seen | None:
    """A process as it is now; None where it is gone."""
    if sys.platform == "linux":
        return _seen_in_proc(pid)
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            return Seen((pid, process.create_time()), process.ppid() or 0, times.user + times.system, reaped, None)
    return None


def _seen_in_proc(pid: int) -> Seen | None:
    """The same from /proc, which takes a tenth of the time; see proc_pid_stat(5) and the kernel's sched-stats.rst."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        user, system, reaped_user, reaped_system = (int(field) / tick for field in fields[11:15])
        key = (pid, float(fields[19]))
        delays: dict[int, float] = {}
        yielding: set[int] = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended just now
                thread = int(task.name)
                delays[thread] = int((task / "schedstat").read_bytes().split()[1]) / 1e9
                if _yields(thread):
                    yielding.add(thread)
    except (OSError, ValueError, IndexError):
        return None
    told = bool(delays) or Path("/proc/self/schedstat").exists()
    reaped = reaped_user + reaped_system
    return Seen(key, int(fields[1]), user + system, reaped, delays if told else None, frozenset(yielding))
