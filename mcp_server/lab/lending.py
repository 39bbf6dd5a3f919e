"""Lending: devices that outside agents registered, which are theirs alone: local workers never use them."""

import time
from dataclasses import dataclass, replace
from typing import Literal

from mcp_server.errors import UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.texts import LONGEST_NAME, shortened
from mcp_server.machine.store.fleet import HERE as HERE
from mcp_server.machine.store.fleet import Described as Described
from mcp_server.machine.store.fleet import Member
from mcp_server.research.experiment import FINISHED

SILENT_SECONDS = 60.0
"""After so long without a heartbeat a device is offline. Heartbeats are due every 30 s."""


@dataclass(frozen=True)
class Seat:
    """A registered device as it now is."""

    member: Member
    status: Literal["idle", "training", "offline"]


class Lending:
    """Lends registered devices to experiments of outside agents, for a time.

    Devices are named as the caller's own `host` knows them, or by their `gpu_id`.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def enlist(self, device: Described) -> Seat:
        """Register a device."""
        now = time.time()
        device = replace(device, gpu_name=shortened(device.gpu_name, LONGEST_NAME))
        return _seat(await self._bench.store.fleet.register(device, now), now)

    async def heartbeat(self, gpu_id: str, host: str) -> None:
        """Note that a device lives; raises UnknownId."""
        if not await self._bench.store.fleet.seen(gpu_id, host, time.time()):
            raise _no_gpu(gpu_id)

    async def seats(self) -> list[Seat]:
        """Every registered device as it now is."""
        now = time.time()
        return [_seat(member, now) for member in await self._bench.store.fleet.all(now)]

    async def find(self, gpu_id: str, host: str) -> Member | None:
        """The registered device of this name, if there is one."""
        return await self._bench.store.fleet.find(gpu_id, host, time.time())

    async def lend(self, experiment_id: str, host: str) -> Member | None:
        """Lend an idle device to an experiment until it is given back, or its time is over; None where none is idle.

        The time is what a training may take. Raises UnknownId, or WrongState where the experiment has its verdict.
        """
        experiment = await self._bench.store.experiments.get(experiment_id)
        if experiment.status in FINISHED:
            raise WrongState(
                f"Experiment {experiment_id} has its verdict, {experiment.status}", "Register the next one first"
            )
        run = await self._bench.store.runs.get(experiment.tag)
        now = time.time()
        until = now + run.task.deadline_seconds
        return await self._bench.store.fleet.lend(experiment_id, host, now, until, SILENT_SECONDS)

    async def give_back(self, gpu_id: str, host: str, experiment_id: str | None) -> None:
        """End a loan; harmless where there is none. Raises UnknownId, or WrongState where another has it."""
        if not await self._bench.store.fleet.give_back(gpu_id, host, experiment_id, time.time()):
            raise _no_gpu(gpu_id)

    async def discharge(self, gpu_id: str, host: str) -> None:
        """Take a device out of the pool; harmless where it is gone."""
        await self._bench.store.fleet.remove(gpu_id, host)


def _seat(member: Member, now: float) -> Seat:
    if now - member.seen_at > SILENT_SECONDS:
        return Seat(member, "offline")
    return Seat(member, "training" if member.experiment_id else "idle")


def _no_gpu(gpu_id: str) -> UnknownId:
    return UnknownId(
        f"GPU {gpu_id!r} is not registered", "Call pool/register first, or pool/list to see those there are"
    )
