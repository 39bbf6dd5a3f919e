"""The seats of a driver: which devices of the cluster it has, and what each trains.

A device is taken when trials wait for its type, and given back to Ray when it had nothing to do for a while. One that
was never seen is taken once, to learn what it is.
"""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from mcp_server import __version__
from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.child import EndedBy
from mcp_server.machine.cluster.errand import Errand, forgotten
from mcp_server.machine.cluster.freight import Freight
from mcp_server.machine.cluster.ray_cluster import START_SECONDS, Gone, Node, RayCluster, RaySeat, Unreachable
from mcp_server.machine.cluster.roster import Seen
from mcp_server.machine.cluster.seat import Facts, SeatSpec
from mcp_server.machine.devices import MOST_SLOTS, Device, Reading
from mcp_server.machine.folders import Folders
from mcp_server.machine.recording import keep, look, order_of, patiently, record, say, wanted
from mcp_server.machine.store import Store
from mcp_server.research.experiment import Trial
from mcp_server.settings import Settings

PREFIX = "ray/"
"""What the keys of the cluster's devices begin with in the store."""

IDLE_SECONDS = 20.0
"""How long a device is kept that has nothing to do."""

RETRY_SECONDS = 20.0
"""How long a device is left alone that could not be had."""

LOOK_SECONDS = 1.0
"""How often Ray is asked which machines there are."""

SETTLE_SECONDS = 30.0
"""For so long the list of devices waits for one that Ray does not give, since another job has it."""


@dataclass
class Chair:
    """A device that a seat may take.

    Attributes:
        slot: its number on its machine, for CPU slots.
        device: what it is; None as long as nobody sat there.
        asked: when it was asked for; None while it is not.
        retry: when it may be asked for again.
        detail: why it could not be had.
        open: whether the seat is there.
    """

    node: Node
    devices: str
    slot: int
    device: Device | None = None
    asked: float | None = None
    retry: float = 0.0
    detail: str = ""
    open: bool = False
    trial: Trial | None = None
    reading: Reading = field(default_factory=Reading)
    task: "asyncio.Task[None] | None" = None

    @property
    def type(self) -> str:
        """The type of its device, as far as that is known."""
        return self.device.type if self.device else ""

    @property
    def coming(self) -> bool:
        """Whether it was asked for, and is not there yet."""
        return self.task is not None and not self.open

    @property
    def idle(self) -> bool:
        """Whether a seat has nothing to do."""
        return self.open and self.trial is None


class Seating:
    """All chairs. `tend` is called several times a second."""

    def __init__(
        self, settings: Settings, store: Store, folders: Folders, freight: Freight, cluster: RayCluster
    ) -> None:
        self._settings = settings
        self._store = store
        self._folders = folders
        self._freight = freight
        self._cluster = cluster
        self._chairs: dict[tuple[str, str, int], Chair] = {}
        self._present: set[tuple[str, str, int]] = set()
        self._looked = float("-inf")
        self._work = asyncio.Condition()
        self._broken: BaseException | None = None
        self.ending = False
        """Set to end all trainings and to take no other trial."""

    async def tend(self) -> bool:
        """Follow machines that come and go, and take devices for what waits; whether anything is under way.

        Raises what kept a trial from being recorded: the next driver heals it.
        """
        if self._broken:
            raise self._broken
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._follow(await asyncio.to_thread(self._cluster.nodes))
            self._looked = time.monotonic()
        for chair in self._free():
            if chair.device is None:
                self._take(chair)
        queued = await self.waiting()
        for kind, waiting in queued.items():
            ours = [chair for chair in self._chairs.values() if chair.type in (kind, "")]
            there = sum(chair.coming or chair.idle for chair in ours)
            for chair in [chair for chair in self._free() if chair.type == kind][: max(0, waiting - there)]:
                self._take(chair)
        if any(queued.values()):
            async with self._work:
                self._work.notify_all()
        return any(queued.values()) or any(chair.trial for chair in self._chairs.values())

    async def waiting(self) -> dict[str, int]:
        """How many trials are queued for each type of device that was seen."""
        types = sorted({chair.type for chair in self._chairs.values()} - {""})
        return {kind: await patiently(partial(self._store.trials.waiting, kind)) for kind in types}

    @property
    def settled(self) -> bool:
        """Whether all devices were looked at, as far as Ray gives them soon: any, once one was seen."""
        chairs = list(self._chairs.values())
        late = time.monotonic() - (SETTLE_SECONDS if any(chair.device for chair in chairs) else START_SECONDS)
        return self._looked > 0 and all(
            chair.device or chair.detail or (chair.asked is not None and chair.asked < late) for chair in chairs
        )

    def seen(self) -> list[Seen]:
        """Every device that was seen and is still there."""
        present = [chair for key, chair in self._chairs.items() if chair.device and key in self._present]
        return [
            Seen(chair.device, chair.reading, chair.trial is not None or bool(chair.detail), chair.detail)
            for chair in present
            if chair.device
        ]

    def problem(self) -> str:
        """Why no device can be used; empty where one can."""
        if any(chair.device for chair in self._chairs.values()):
            return ""
        if not self._chairs:
            settings = self._settings
            return f"No machine of the Ray cluster {settings.ray_address!r} has devices for {settings.devices!r}"
        details = sorted({chair.detail for chair in self._chairs.values()} - {""})
        return "; ".join(details) or f"Other Ray jobs have all of the cluster's {len(self._chairs)} devices"

    async def close(self) -> None:
        """End everything; what trains is queued again."""
        self.ending = True
        async with self._work:
            self._work.notify_all()
        tasks = [chair.task for chair in self._chairs.values() if chair.task]
        for chair in self._chairs.values():
            if chair.coming and chair.task:
                chair.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _free(self) -> list[Chair]:
        """The chairs that may be taken."""
        now = time.monotonic()
        return [
            chair
            for key, chair in self._chairs.items()
            if key in self._present and chair.task is None and chair.retry <= now
        ]

    def _follow(self, nodes: list[Node]) -> None:
        """Add chairs for machines that came, and take away those of machines that left."""
        there = {
            (chair.node.id, chair.devices, chair.slot): chair for chair in chairs_of(self._settings.devices, nodes)
        }
        for key in self._present - there.keys():
            self._freight.forget(self._chairs[key].node.name)
        self._present = set(there)
        kept = {key: chair for key, chair in self._chairs.items() if key in there or chair.task}
        self._chairs = {**there, **kept}

    def _take(self, chair: Chair) -> None:
        chair.asked = time.monotonic()
        chair.task = asyncio.create_task(self._sit(chair))
        chair.task.add_done_callback(lambda task: self._left(chair, task))

    def _left(self, chair: Chair, task: "asyncio.Task[None]") -> None:
        unrecorded = chair.trial is not None
        chair.task, chair.open, chair.trial, chair.asked = None, False, None, None
        if not task.cancelled() and (error := task.exception()):
            if unrecorded:
                self._broken = error
            chair.detail, chair.retry = str(error), time.monotonic() + RETRY_SECONDS
            say(f"{chair.node.name}: {type(error).__name__}: {error}")

    async def _sit(self, chair: Chair) -> None:
        """Have a device until there was nothing to do for a while."""
        seat = self._cluster.seat(chair.node, self._spec(chair), *_demand(chair))
        try:
            try:
                facts: Facts = await seat.call("open", seconds=START_SECONDS)
            except Unreachable:
                raise NotReady(f"Ray gives no device of {chair.node.name}", "Look at `ray status`") from None
            chair.device = replace(
                facts.device, node=chair.node.name, key=f"{PREFIX}{chair.node.name}/{facts.device.key}"
            )
            chair.open, chair.detail = True, ""
            while trial := await self._next(chair.device, seat):
                chair.trial = trial
                usable = await self._train(chair, seat, trial)
                chair.trial = None
                if not usable:
                    raise NotReady(f"{chair.device.label} was lost in {trial.id}", "Look at `ray status`")
        except Gone as error:
            raise NotReady(f"{chair.node.name} left: {error}", "Look at `ray status`") from None
        finally:
            await asyncio.shield(seat.close() if chair.open else asyncio.to_thread(seat.kill))

    async def _next(self, device: Device, seat: RaySeat) -> Trial | None:
        """The next trial for a device, claimed; None if there was none for a while, or there is to be no other.

        Raises:
            NotReady: somebody else computes on the device.
        """
        idle = time.monotonic()
        trials = self._store.trials
        while not self.ending:
            if await patiently(lambda: trials.waiting(device.type)):
                if others := await seat.call("others"):  # which also shows that it is still there
                    raise NotReady(f"used by {others}", "Wait for that, or take the device out of Ray")
                trial = await patiently(lambda: trials.claim(device.key, device.type, os.getpid()))
                if trial:
                    return trial
            if time.monotonic() - idle > IDLE_SECONDS:
                return None
            async with self._work:
                try:
                    await asyncio.wait_for(self._work.wait(), 1.0)
                except TimeoutError:
                    continue
        return None

    async def _train(self, chair: Chair, seat: RaySeat, trial: Trial) -> bool:
        """Train a trial and record how it ended; whether the seat can be used for another."""

        async def ask() -> EndedBy | None:
            return "shutdown" if self.ending else await wanted(self._store, trial)

        def note(reading: Reading) -> None:
            chair.reading = reading

        order = await order_of(self._store, self._folders, trial)
        errand = Errand(seat, chair.node.name, self._freight, ask, partial(look, self._store, trial), note)
        ending, usable = await errand.carry_out(order)
        clean = asyncio.create_task(forgotten(seat)) if usable else None  # while the result is recorded
        keep(order.folder, trial, ending)
        await record(self._store, trial, ending, self._freight.repository)
        return clean is not None and await clean

    def _spec(self, chair: Chair) -> SeatSpec:
        root = str(self._freight.repository.root)
        return SeatSpec(
            version=__version__,
            repository=hashlib.sha256(f"{os.uname().nodename}\0{root}".encode()).hexdigest()[:12],
            root=root,
            object_format=self._freight.object_format,
            devices=chair.devices,
            slot=chair.slot,
            sandbox=self._settings.sandbox,
            keep_environment=self._settings.keep_environment,
        )


def check_devices(spec: str) -> tuple[str, int]:
    """What `--devices` means in a cluster: `auto`, `cuda` or `cpu`, and the slots of a machine; else InvalidInput."""
    if spec in ("auto", "cuda"):
        return spec, 1
    if (found := re.fullmatch(r"cpu(?::(\d{1,3}))?", spec)) and 1 <= int(found[1] or 1) <= MOST_SLOTS:
        return "cpu", int(found[1] or 1)
    raise InvalidInput(
        f"devices is {spec!r}, and the executor is ray",
        f"Use auto or cuda (every GPU that Ray may give away) or cpu:N, N slots on each machine, up to {MOST_SLOTS}; "
        "which GPUs of a machine Ray has, `ray start --num-gpus` and CUDA_VISIBLE_DEVICES say there",
    )


def chairs_of(spec: str, nodes: Iterable[Node]) -> Iterator[Chair]:
    """The chairs on some machines: every GPU; for `auto` without any GPU, and for `cpu:N`, slots of the CPU."""
    kind, slots = check_devices(spec)
    nodes = list(nodes)
    if kind == "cuda" or (kind == "auto" and any(node.gpus for node in nodes)):
        yield from (Chair(node, "cuda", slot) for node in nodes for slot in range(node.gpus))
    else:
        yield from (Chair(node, f"cpu:{slots}", slot) for node in nodes if node.cpus for slot in range(slots))


def _demand(chair: Chair) -> tuple[float, float]:
    """The GPUs and CPUs that a seat asks Ray for."""
    if chair.devices == "cuda":
        return 1, 0
    slots = int(chair.devices.partition(":")[2])
    return 0, int(chair.node.cpus / slots * 10_000) / 10_000  # Ray counts in such fractions
