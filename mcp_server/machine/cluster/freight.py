"""What a trial needs goes to its machine, once: the code of its commit, and the data by its fingerprint."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.machine.cluster.parcels import Packer, Parcel, chunks
from mcp_server.machine.cluster.prepared import prepared_folder
from mcp_server.machine.cluster.ray_cluster import RaySeat
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Depot, Repository, state_of
from mcp_server.machine.rig import Order
from mcp_server.machine.watch import check_inputs
from mcp_server.settings import Settings

GIGABYTE = 1e9

Tell = Callable[[str], None]
"""Takes a line on what is being sent."""

Check = Callable[[], Awaitable[None]]
"""Awaited between parts; raises what ends the sending."""


@dataclass
class _Place:
    """A machine that things are sent to, one after the other.

    Attributes:
        commits: those that it is known to have, in the order of sending.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    commits: dict[str, None] = field(default_factory=dict)


class Freight:
    """Sends code and data of one repository."""

    def __init__(self, repository: Repository, folders: Folders, settings: Settings) -> None:
        self._repository = repository
        self._settings = settings
        self._depot = Depot(folders.cluster / "code.git", repository)
        self._packer = Packer(folders.cluster / "parcels.json")
        self._places: dict[str, _Place] = defaultdict(_Place)
        self._packing = asyncio.Lock()
        self._bundling = asyncio.Lock()

    @property
    def repository(self) -> Repository:
        """The repository whose code is sent."""
        return self._repository

    @property
    def object_format(self) -> str:
        """Git's name of the repository's hash."""
        return self._depot.object_format

    async def parcels(self, order: Order) -> list[Parcel]:
        """The data that a trial needs.

        Raises:
            WrongState: an input is not what it was in the run's first training.
            NotReady: some of it is gone or cannot be read.
        """
        root, task = self._repository.root, order.task
        async with self._packing:
            return await asyncio.to_thread(self._pack, root, order, task.inputs)

    def _pack(self, root: Path, order: Order, inputs: Sequence[str]) -> list[Parcel]:
        check_inputs(order.inputs, state_of(root, inputs))
        parcels = [self._packer.pack("inputs", root / path, path) for path in inputs]
        if order.task.builtin:
            folder = prepared_folder(self._settings)
            parcels.append(self._packer.pack("data", folder, folder.name))
        return parcels

    async def send(
        self, seat: RaySeat, node: str, commits: Sequence[str], parcels: Sequence[Parcel], tell: Tell, check: Check
    ) -> None:
        """Send to a machine what it has not yet.

        Args:
            commits: the code to train, and then others that are needed beside it, mostly of its history.
            tell, check: see their types.

        Raises:
            NotReady: there is no such commit, or the machine refuses something.
            Gone, Unreachable: see `RaySeat.call`.
        """
        place = self._places[node]
        code, *history = commits
        async with place.turn:
            for commit in (code, *(each for each in history if each and each not in place.commits)):
                if not await seat.call("has_commit", commit):
                    await self._send_code(seat, place, commit)
                place.commits[commit] = None
            for parcel in await seat.call("lacks", list(parcels)) if parcels else ():
                await self._send_data(seat, parcel, tell, check)

    def forget(self, node: str) -> None:
        """Forget what a machine has: it left."""
        self._places.pop(node, None)

    async def _send_code(self, seat: RaySeat, place: _Place, commit: str) -> None:
        """Send a commit, resting on those that the machine has; where it lost them, with all its history."""
        try:
            await self._send_bundle(seat, commit, list(place.commits))
        except NotReady:
            if not place.commits:
                raise
            place.commits.clear()
            await self._send_bundle(seat, commit, [])

    async def _send_bundle(self, seat: RaySeat, commit: str, known: Sequence[str]) -> None:
        async with self._bundling:
            bundle = await asyncio.to_thread(self._depot.bundle, commit, known)
        await seat.call("take_bundle", commit, bundle, self._depot.shallow())

    async def _send_data(self, seat: RaySeat, parcel: Parcel, tell: Tell, check: Check) -> None:
        top = prepared_folder(self._settings) if parcel.kind == "data" else self._repository.root / parcel.name
        sent = 0
        parts = chunks(top, parcel)
        while part := await asyncio.to_thread(next, parts, None):
            tell(f"sending {parcel.name}: {sent / GIGABYTE:.2f} of {parcel.bytes / GIGABYTE:.2f} GB")
            await check()
            await seat.call("receive", parcel, *part)
            sent += len(part[2])
        await seat.call("settle", parcel)
