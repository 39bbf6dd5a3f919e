"""Stores as earlier versions left them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

from mcp_server.machine.store.schema import MIGRATIONS


@asynccontextmanager
async def store_before(
    path: Path, migration: Callable[[aiosqlite.Connection], Awaitable[None]]
) -> AsyncIterator[aiosqlite.Connection]:
    """A store of the version before a migration, with the run mar8; what is added to it is committed at the end."""
    earlier = MIGRATIONS[: MIGRATIONS.index(migration)]
    async with aiosqlite.connect(path) as connection:
        for each in earlier:
            await each(connection)
        await connection.execute(f"PRAGMA user_version = {len(earlier)}")
        await connection.execute(
            "INSERT INTO runs (tag, branch, base_commit, task, device_kind, platform, created_at)"
            " VALUES ('mar8', 'b', 'c0', '{}', 'cpu', '{}', 1)"
        )
        yield connection
        await connection.commit()
