"""Devices that outside agents registered: they say now and then that they live, and are lent to one experiment."""

from collections.abc import Sequence
from dataclasses import dataclass

import aiosqlite

from mcp_server.machine.store.connection import Database, Row, fetch


@dataclass(frozen=True)
class Member:
    """A registered device. Times are seconds since the epoch.

    Attributes:
        gpu_id: its name, chosen by whoever registered it; two hosts may both have an index 0.
        experiment_id: what it is lent to; None while it is idle.
        lent_until: when the loan ends by itself.
    """

    gpu_id: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    registered_at: float
    seen_at: float
    experiment_id: str | None = None
    lent_until: float | None = None


class Fleet:
    """Queries about devices of outside agents. Local workers never use them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, gpu_id: str, gpu_index: int, gpu_name: str, vram_mb: float, now: float) -> Member:
        """Register a device, or say anew what it is; a loan goes on."""

        async def body(connection: aiosqlite.Connection) -> Member:
            row = await fetch(
                connection,
                """
                INSERT INTO fleet (gpu_id, gpu_index, gpu_name, vram_mb, registered_at, seen_at)
                VALUES (?, ?, ?, ?, ?5, ?5) ON CONFLICT (gpu_id) DO UPDATE SET
                    gpu_index = excluded.gpu_index, gpu_name = excluded.gpu_name, vram_mb = excluded.vram_mb,
                    seen_at = excluded.seen_at
                RETURNING *
                """,
                [gpu_id, gpu_index, gpu_name, vram_mb, now],
            )
            assert row is not None
            return _member(row)

        return await self._database.transaction(body)

    async def seen(self, gpu_id: str, now: float) -> bool:
        """Note that a device lives; False if it is not registered."""

        async def body(connection: aiosqlite.Connection) -> bool:
            row = await fetch(
                connection, "UPDATE fleet SET seen_at = ? WHERE gpu_id = ? RETURNING gpu_id", [now, gpu_id]
            )
            return row is not None

        return await self._database.transaction(body)

    async def all(self, now: float) -> Sequence[Member]:
        """Every device in the order of registration; loans that ended by themselves are not shown."""
        rows = await self._database.all(f"{_MEMBERS} ORDER BY registered_at, gpu_id", [now])
        return [_member(row) for row in rows]

    async def lend(self, experiment_id: str, now: float, until: float, silent: float) -> Member | None:
        """Lend the device that has been idle longest, or the one that the experiment has already; None if none is free.

        Args:
            silent: seconds without a word after which a device is not lent.
        """

        async def body(connection: aiosqlite.Connection) -> Member | None:
            held = await fetch(connection, f"{_MEMBERS} WHERE lent_to = ?", [now, experiment_id])
            if held is not None:
                return _member(held)
            row = await fetch(
                connection,
                """
                UPDATE fleet SET experiment_id = ?, lent_until = ?, lent_at = ? WHERE gpu_id = (
                    SELECT gpu_id FROM fleet
                    WHERE seen_at >= ? AND (experiment_id IS NULL OR lent_until <= ? OR experiment_id IN (
                        SELECT id FROM experiments WHERE decided IS NOT NULL
                    )) ORDER BY COALESCE(lent_at, 0), registered_at LIMIT 1
                ) RETURNING *
                """,
                [experiment_id, until, now, now - silent, now],
            )
            return _member(row) if row else None

        return await self._database.transaction(body)

    async def give_back(self, gpu_id: str, experiment_id: str) -> bool:
        """End a loan; False if the device is not lent to this experiment."""

        async def body(connection: aiosqlite.Connection) -> bool:
            row = await fetch(
                connection,
                """
                UPDATE fleet SET experiment_id = NULL, lent_until = NULL WHERE gpu_id = ? AND experiment_id = ?
                RETURNING gpu_id
                """,
                [gpu_id, experiment_id],
            )
            return row is not None

        return await self._database.transaction(body)

    async def remove(self, gpu_id: str) -> bool:
        """Take a device out; False if it was not registered."""

        async def body(connection: aiosqlite.Connection) -> bool:
            return await fetch(connection, "DELETE FROM fleet WHERE gpu_id = ? RETURNING gpu_id", [gpu_id]) is not None

        return await self._database.transaction(body)


_MEMBERS = """
    SELECT * FROM (
        SELECT gpu_id, gpu_index, gpu_name, vram_mb, registered_at, seen_at, lent_until,
            iif(lent_until > ?1 AND experiment_id NOT IN (SELECT id FROM experiments WHERE decided IS NOT NULL),
                experiment_id, NULL) AS lent_to
        FROM fleet
    )
"""
"""The devices with the loans that are still on: one ends at its time, and with the verdict on its experiment."""


def _member(row: Row) -> Member:
    values = dict(row)
    values.pop("lent_at", None)
    if "lent_to" in values:
        values["experiment_id"] = values.pop("lent_to")
    return Member(**values)
