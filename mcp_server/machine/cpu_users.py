"""Who else computes on a CPU: the processes that use most of it while a training waits for its share."""

import contextlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psutil

SHOWN = 3
"""How many are named."""
LEAST = 0.1
"""CPU seconds of a process that is worth a name."""


@dataclass(frozen=True)
class CpuUser:
    """A process, and the CPU seconds that it used while it was watched."""

    pid: int
    name: str
    owner: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.name or 'process'} (pid {self.pid} of {self.owner or 'somebody'}, {self.seconds:.1f} s)"


class CpuUsers:
    """Watches all processes of the machine but some."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, float], float] = {}
        self._users: dict[tuple[int, float], CpuUser] = {}
        self._began = False

    def look(self, ours: Collection[int] = ()) -> None:
        """Note what each process has used so far, but for those with the given numbers."""
        for process in psutil.process_iter(["pid", "name", "username", "create_time", "cpu_times"]):
            with contextlib.suppress(psutil.Error, KeyError):
                facts = process.info
                times = facts["cpu_times"]
                if times is None or facts["pid"] in ours:
                    continue
                key, used = (facts["pid"], facts["create_time"]), times.user + times.system
                first = self._first.setdefault(key, used if not self._began else 0.0)
                self._users[key] = CpuUser(facts["pid"], _word(facts["name"]), _word(facts["username"]), used - first)
        self._began = True

    def most(self, ours: Collection[int] = ()) -> Sequence[CpuUser]:
        """Those who used most between the first look and the last, the greatest first."""
        others = [user for user in self._users.values() if user.seconds >= LEAST and user.pid not in ours]
        return sorted(others, key=lambda user: -user.seconds)[:SHOWN]


def _word(name: str | None) -> str:
    """A name that somebody else chose, as a word."""
    return re.sub(r"[^\w.+-]", "?", name or "")[:32]
