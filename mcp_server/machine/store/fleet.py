"""Devices that outside agents registered: they say now and then that they live, and are lent to one experiment."""

from collections.abc import Sequence
from dataclasses import dataclass

import aiosqlite

from mcp_server.errors import WrongState
from mcp_server.machine.store.connection import Database, Row, fetch

HERE = "localhost"
"""The server's own machine, from which every device may be named by its id."""


@dataclass(frozen=True)
class Member:
    """A registered device. Times are seconds since the epoch.

    Attributes:
        gpu_id: what it is known by here: the name that its host gave it, with the host where another has that name.
        host: the machine that it is in.
        name: what its host calls it. Every host of GPUs has a `gpu-0`.
        experiment_id: what it is lent to; None while it is idle.
        lent_until: when the loan ends by itself.
    """

    gpu_id: str
    host: str
    name: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    registered_at: float
    seen_at: float
    experiment_id: str | None = None
    lent_until: float | None = None


@dataclass(frozen=True)
class Described:
    """A device as its host describes it."""

    host: str
    name: str
    gpu_index: int
    gpu_name: str
    vram_mb: float


class Fleet:
    """Queries about devices of outside agents. Local workers never use them.

    A device is named by the name that the caller's own `host` gave it, or by its `gpu_id`. Devices of other hosts can
    only be named from `HERE`, but for giving back what was borrowed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, device: Described, now: float) -> Member:
        """Register a device, or say anew what it is; a loan goes on."""

        async def body(connection: aiosqlite.Connection) -> Member:
            row = await fetch(
                connection,
                """
                INSERT INTO fleet (gpu_id, host, name, gpu_index, gpu_name, vram_mb, registered_at, seen_at)
                VALUES (?, ?, ?, ?, ?, ?, ?7, ?7) ON CONFLICT (host, name) DO UPDATE SET
                    gpu_index = excluded.gpu_index, gpu_name = excluded.gpu_name, vram_mb = excluded.vram_mb,
                    seen_at = excluded.seen_at
                RETURNING *
                """,
                [
                    await _free_id(connection, device),
                    device.host,
                    device.name,
                    device.gpu_index,
                    device.gpu_name,
                    device.vram_mb,
                    now,
                ],
            )
            assert row is not None
            return _member(row)

        return await self._database.transaction(body)

    async def find(self, gpu_id: str, host: str, now: float) -> Member | None:
        """The device of this name, if there is one."""
        row = await self._database.one(f"{_MEMBERS} WHERE gpu_id = ({_NAMED})", [now, gpu_id, host])
        return _member(row) if row else None

    async def seen(self, gpu_id: str, host: str, now: float) -> bool:
        """Note that a device lives; False if it is not registered."""

        async def body(connection: aiosqlite.Connection) -> bool:
            query = f"UPDATE fleet SET seen_at = ?1 WHERE gpu_id = ({_NAMED}) RETURNING gpu_id"  # noqa: S608 - a constant
            return await fetch(connection, query, [now, gpu_id, host]) is not None

        return await self._database.transaction(body)

    async def all(self, now: float) -> Sequence[Member]:
        """Every device in the order of registration; loans that ended by themselves are not shown."""
        rows = await self._database.all(f"{_MEMBERS} ORDER BY registered_at, gpu_id", [now])
        return [_member(row) for row in rows]

    async def lend(self, experiment_id: str, host: str, now: float, until: float, silent: float) -> Member | None:
        """Lend the device that has been idle longest, or the one that the experiment has already; None if none is free.

        Args:
            host: the caller's own. If it has devices, only these are lent: the caller could not reach any other.
            silent: seconds without a word after which a device is not lent.
        """

        async def body(connection: aiosqlite.Connection) -> Member | None:
            held = await fetch(connection, f"{_MEMBERS} WHERE lent_to = ?", [now, experiment_id])
            if held is not None:
                return _member(held)
            row = await fetch(
                connection,
                """
                UPDATE fleet SET experiment_id = ?1, lent_until = ?2, lent_at = ?3, lent_host = ?5 WHERE gpu_id = (
                    SELECT gpu_id FROM fleet
                    WHERE seen_at >= ?3 - ?4 AND (experiment_id IS NULL OR lent_until <= ?3)
                        AND (host = ?5 OR NOT EXISTS (SELECT 1 FROM fleet WHERE host = ?5))
                    ORDER BY COALESCE(lent_at, 0), registered_at, rowid LIMIT 1
                ) RETURNING *
                """,
                [experiment_id, until, now, silent, host],
            )
            return _member(row) if row else None

        return await self._database.transaction(body)

    async def give_back(self, gpu_id: str, host: str, experiment_id: str | None, now: float) -> Member | None:
        """End the loan of a device; its state before, or None if `host` has, borrowed or may name none of this name.

        Args:
            experiment_id: whose loan it is; None ends whatever loan there is.

        Raises:
            WrongState: it is lent to another experiment.
        """

        async def body(connection: aiosqlite.Connection) -> Member | None:
            row = await fetch(connection, f"{_MEMBERS} WHERE gpu_id = ({_NAMED})", [now, gpu_id, host])
            row = row or await fetch(
                connection,
                f"{_MEMBERS} WHERE gpu_id = ?2 AND (lent_host = ?3 OR lent_to = ?4)",
                [now, gpu_id, host, experiment_id],
            )
            member = _member(row) if row else None
            if member is None or member.experiment_id is None:
                return member
            if experiment_id not in (None, member.experiment_id):
                raise WrongState(
                    f"GPU {gpu_id!r} is lent to {member.experiment_id!r}, not to {experiment_id!r}",
                    "Leave it: the earlier loan ended by itself",
                )
            await connection.execute(
                "UPDATE fleet SET experiment_id = NULL, lent_until = NULL WHERE gpu_id = ?", [member.gpu_id]
            )
            return member

        return await self._database.transaction(body)

    async def remove(self, gpu_id: str, host: str) -> bool:
        """Take a device out; False if it was not registered."""

        async def body(connection: aiosqlite.Connection) -> bool:
            query = f"DELETE FROM fleet WHERE gpu_id = ({_NAMED}) RETURNING gpu_id"  # noqa: S608 - a constant
            return await fetch(connection, query, [None, gpu_id, host]) is not None

        return await self._database.transaction(body)


_NAMED = """
    SELECT gpu_id FROM fleet WHERE (host = ?3 AND name = ?2) OR (gpu_id = ?2 AND ?3 IN (host, 'localhost'))
    ORDER BY host = ?3 AND name = ?2 DESC LIMIT 1
"""
"""The id of the device with the name ?2, as ?3 knows it."""

_MEMBERS = """
    SELECT * FROM (
        SELECT gpu_id, host, name, gpu_index, gpu_name, vram_mb, registered_at, seen_at, lent_until,
            lent_host, iif(lent_until > ?1, experiment_id, NULL) AS lent_to
        FROM fleet
    )
"""
"""The devices at the time ?1 with the loans that are still on."""


async def _free_id(connection: aiosqlite.Connection, device: Described) -> str:
    """An id for a new device: its name where no other has it."""
    number, wanted = 1, device.name
    while await fetch(connection, "SELECT 1 FROM fleet WHERE gpu_id = ?", [wanted]):
        wanted = f"{device.name}@{device.host}" + (f"-{number}" if number > 1 else "")
        number += 1
    return wanted


def _member(row: Row) -> Member:
    values = dict(row)
    for unseen in ("lent_at", "lent_host"):
        values.pop(unseen, None)
    if "lent_to" in values:
        values["experiment_id"] = values.pop("lent_to")
    return Member(**values)
