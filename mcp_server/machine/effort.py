"""The effort of a training, counted from outside while it runs, and what others had of its cores meanwhile."""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mcp_server.machine.cgroups import Group, make_group
from mcp_server.machine.cpu_users import CpuUsers
from mcp_server.machine.devices import Device, Nvml, reading
from mcp_server.machine.sampling import Sampler
from mcp_server.machine.trees import content_digest
from mcp_server.research.experiment import CountedBy

BUSY = 0.05
"""Share of a training's wall time that others must have had before they are looked up by name."""
RECENT = 2.0
"""Seconds for which it is remembered what others used."""
LOOK_SECONDS = 5.0
"""Between two such look-ups, each of which goes through all processes of the machine."""
WIDEST = 32.0
"""A training that waits for others is ended after so many times its deadline at the latest."""


@dataclass(frozen=True)
class Effort:
    """What a training took.

    Attributes:
        cpu_seconds: of all its processes.
        seconds: what counts against its budget; of a training that handed a model in for the judge, until then. On a
            CPU it is CPU time divided by cores, or wall time less what others had of them, if that is more: half of
            it for a training that goes by CPU time, since its threads may wait for each other. Else it is wall time.
        waited_seconds: CPU seconds that its processes were ready for and others had.
        counted_by: how its CPU time was counted.
        users: who else used its cores most, where they made it wait.
        idle_seconds: of `seconds`, those in which the GPU did nothing; all of them where its driver does not tell.
    """

    cpu_seconds: float
    seconds: float
    waited_seconds: float
    counted_by: CountedBy
    users: tuple[str, ...] = ()
    idle_seconds: float = 0.0


class Meter:
    """Counts what one training takes, as often as it is asked to look.

    Args:
        mark: by which its processes are known.
        by_cpu: whether the training goes by CPU time, as our harness does on a CPU.
        handed_in: all that will be seen by who scores it; later changes to these files count as handing in anew.
        groups: whether a control group may be used.
        nvml: the driver of a GPU, where it is another than the machine's.
    """

    def __init__(
        self,
        device: Device,
        mark: str,
        by_cpu: bool = False,
        handed_in: Sequence[Path] = (),
        groups: bool = True,
        nvml: Nvml | None = None,
    ) -> None:
        self._device, self._by_cpu, self._nvml = device, by_cpu, nvml
        self._cores = len(device.cores) or os.cpu_count() or 1
        self._group: Group | None = make_group(mark) if groups else None
        self._sampler = Sampler(mark)
        self._users = CpuUsers()
        self._named = float("-inf")
        self._handed_in = handed_in
        self._handed: tuple[float, float, float] | None = None
        self._moment: float | None = None
        self._digest = ""
        self._sampled = self._cpu = self._waited = self._idle = 0.0
        self._ended = self._spare = self._ready = self._span = 0.0
        self.lost_seconds = 0.0
        """Wall seconds that others had of its cores while it was ready to run."""
        self._started = self._looked = time.monotonic()
        self._busy = self._busy_seconds()
        if device.kind == "cpu":
            self._users.look()

    @property
    def entrance(self) -> Path | None:
        """The file that the training's first process writes its number to; None without a control group."""
        return self._group.entrance if self._group else None

    def begin(self) -> None:
        """Count from now on: what the worker took to start it is not the training's."""
        self._started = self._looked = self._ended = time.monotonic()

    def overdue(self, deadline: float) -> bool:
        """Whether it has had as many seconds to itself as it may take: what others had of them does not count."""
        wall = time.monotonic() - self._started
        return wall - self.lost_seconds >= deadline or wall >= WIDEST * deadline

    def look(self) -> None:
        """Count what was added since the last look, while the training runs."""
        self._ended = time.monotonic()
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        wall, self._looked = now - self._looked, now
        seen = self._sampler.look()
        self._sampled += seen.cpu
        before = self._cpu
        self._cpu = max(before, self._sampled, self._group.cpu_seconds() if self._group else 0.0)
        cpu = self._cpu - before
        worked = self._busy_seconds()
        busy, self._busy = worked - self._busy, worked
        self._idle += wall * (1 - (self._utilisation() or 0.0) / 100)
        if self._device.kind == "cpu" and wall > 0:
            delay = seen.delay if seen.delay is not None else (self._cores * wall - cpu if cpu else 0.0)
            self._note_waiting(wall, cpu, delay, max(0.0, busy - cpu))
            self._name_users(now)
        self._note_handed_in(before, wall)

    def end(self) -> Effort:
        """What the training took in all, once none of its processes runs any more."""
        self._look()
        users = self._users_named() if self.lost_seconds >= BUSY * (self._ended - self._started) else ()
        by: CountedBy = "cgroup" if self._group and self._group.cpu_seconds() > 0 else "sampled"
        own, cpu, idle = self._ended - self._started - self.lost_seconds, self._cpu, self._idle
        if self._handed is not None and self._digest == digest_of(self._handed_in):
            own, cpu, idle = self._handed
        on_cpu = self._device.kind == "cpu"
        seconds = max(cpu / self._cores, own / 2 if self._by_cpu else own) if on_cpu else own
        return Effort(self._cpu, seconds, self._waited, by, users, min(idle, own))

    def close(self) -> None:
        """Delete the control group."""
        if self._group:
            self._group.remove()
            self._group = None

    def _note_waiting(self, wall: float, cpu: float, delay: float, others: float) -> None:
        """Add what the training waited for others in the last `wall` seconds.

        Linux tells of a delay only once it is over, so that it may be due to what others used in the `RECENT` seconds.

        Args:
            cpu, delay, others: CPU seconds that it used, waited to use, and others used on its cores.
        """
        kept = max(0.0, 1 - wall / RECENT)
        self._spare = min(self._spare + others, self._cores * max(RECENT, wall))
        self._ready, self._span = self._ready * kept + cpu + delay, self._span * kept + wall
        waited = min(delay, self._spare)
        self._spare -= waited
        self._waited += waited
        abreast = min(float(self._cores), max(1.0, self._ready / self._span))  # threads that were ready or ran
        self.lost_seconds = min(self.lost_seconds + waited / abreast, self._looked - self._started)

    def _utilisation(self) -> float | None:
        """How busy a GPU was lately, in percent; None for other devices and where nobody tells."""
        return reading(self._device, self._nvml).utilisation_percent if self._device.kind == "cuda" else None

    def _busy_seconds(self) -> float:
        """CPU seconds that the device's cores have worked since the machine started, for whomever."""
        if self._device.kind != "cpu":
            return 0.0
        cores = psutil.cpu_times(percpu=True)
        chosen = [cores[core] for core in self._device.cores if core < len(cores)] or cores
        idle = ("idle", "iowait", "guest", "guest_nice")  # the last two are in user and nice already
        return float(sum(seconds for core in chosen for name, seconds in core._asdict().items() if name not in idle))

    def _name_users(self, now: float) -> None:
        if now - self._named >= LOOK_SECONDS and self.lost_seconds >= BUSY * (now - self._started):
            self._named = now
            self._users.look(self._sampler.pids)

    def _users_named(self) -> tuple[str, ...]:
        ours = {*self._sampler.pids, os.getpid()}
        self._users.look(ours)
        return tuple(map(str, self._users.most(ours)))

    def _note_handed_in(self, cpu_before: float, wall: float) -> None:
        """Note what was spent when the model was handed in, by the time at which the kernel saw its files change."""
        changed = _changed(self._handed_in)
        if changed is None:
            self._handed = None
        elif self._handed is None or changed != self._moment:
            ago = max(0.0, time.time() - changed)
            share = min(1.0, max(0.0, 1 - ago / wall)) if wall > 0 else 1.0
            spent = cpu_before + share * (self._cpu - cpu_before)
            own = max(0.0, self._looked - self._started - self.lost_seconds - ago)
            self._handed = (own, spent, self._idle)
            self._digest = digest_of(self._handed_in)
        self._moment = changed


def _changed(paths: Sequence[Path]) -> float | None:
    """When files changed last, in seconds since the epoch, which no program can choose; None without any, and where
    one is a link, a pipe or the like, which nobody scores."""
    times = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return None
            times.append(status.st_ctime)
    return max(times, default=None)


def digest_of(paths: Sequence[Path]) -> str:
    """Of the contents: what is mapped into memory may be written without a change of its times."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        with contextlib.suppress(OSError):
            total.update(content_digest(path))
        total.update(path.name.encode())
    return total.hexdigest()
