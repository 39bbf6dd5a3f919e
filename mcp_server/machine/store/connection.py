"""Two connections to one SQLite file: a reader that cannot write, and a writer that takes turns."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from mcp_server.errors import NotReady, ResearchError
from mcp_server.machine.store.schema import migrate

Result = TypeVar("Result")
Row = sqlite3.Row
BUSY_SECONDS = 30.0


class Database:
    """The reader and the writer of one store file; made by `Database.open`."""

    def __init__(self, reader: aiosqlite.Connection, writer: aiosqlite.Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["Database"]:
        """Open (and create or upgrade) the store at `path`; raises NotReady if it cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with readable_errors(path):
            writer = await _connect(path)
            try:
                # Autocommit hands `begin` and `commit` to `transaction`, the only place that writes.
                await writer.execute("PRAGMA journal_mode = WAL")
                await writer.execute("PRAGMA synchronous = FULL")
                await writer.execute("PRAGMA foreign_keys = ON")
                await migrate(writer)
                reader = await _connect(path)
            except BaseException:
                await writer.close()
                raise
            try:
                await reader.execute("PRAGMA query_only = ON")
                yield cls(reader, writer)
            finally:
                # An open aiosqlite connection keeps its thread, and with it the process, alive.
                await reader.close()
                await writer.close()

    async def transaction(self, body: Callable[[aiosqlite.Connection], Awaitable[Result]]) -> Result:
        """Run `body` in one IMMEDIATE transaction: all of it happens, or none.

        A caller that is cancelled leaves the transaction to finish by itself. `body` does nothing but SQL.
        """
        return await asyncio.shield(asyncio.ensure_future(self._transaction(body)))

    async def _transaction(self, body: Callable[[aiosqlite.Connection], Awaitable[Result]]) -> Result:
        async with self._turn:
            await self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = await body(self._writer)
                await self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    await self._writer.execute("ROLLBACK")
                raise
            return result

    async def all(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a read-only query."""
        return list(await self._reader.execute_fetchall(query, parameters))

    async def one(self, query: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a read-only query, if there is one."""
        return first(await self._reader.execute_fetchall(query, parameters))


async def fetch(connection: aiosqlite.Connection, query: str, parameters: Sequence[Any] = ()) -> Row | None:
    """The first row of a query inside a transaction, if there is one."""
    return first(await connection.execute_fetchall(query, parameters))


def first(rows: Iterable[Row]) -> Row | None:
    """The first of some rows, or None."""
    return next(iter(rows), None)


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


class readable_errors:  # noqa: N801 - reads as a statement
    """Turn SQLite's errors about the file itself into NotReady."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
            raise explain(self.path, error) from error


def explain(path: Path, error: sqlite3.DatabaseError) -> ResearchError:
    """Say what an SQLite error on `path` means for the person who owns the file."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return NotReady(f"The store {path} is locked by another process ({text})", "Call again in a moment")
    if "full" in text:
        return NotReady(f"The disk that holds {path} is full", "Free some space and call again")
    if "unable to open" in text or "readonly" in text:
        return NotReady(f"The store {path} cannot be written ({text})", "Check the folder's permissions")
    if "malformed" in text or "not a database" in text:
        return NotReady(
            f"The store {path} is damaged ({text}); it was left as it is",
            "Put a copy of yours in its place, or move it away to begin afresh: the commits are all in git",
        )
    return NotReady(f"The store {path} failed: {text}", "Run `autoresearch doctor`")
