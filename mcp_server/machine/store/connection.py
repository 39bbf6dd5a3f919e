"""Two connections to one SQLite file: a reader that cannot write, and a writer that takes turns."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from mcp_server.errors import NotReady
from mcp_server.machine.filesystem import NETWORK, file_system
from mcp_server.machine.store.backups import check_not_emptied, restore_advice
from mcp_server.machine.store.schema import migrate

Result = TypeVar("Result")
Row = sqlite3.Row
BUSY_SECONDS = 30.0


class Refused(NotReady):
    """The store cannot be written or read at this moment: it is locked, or the disk is full. Try again."""


class Database:
    """The reader and the writer of one store file; made by `Database.open`."""

    def __init__(self, path: Path, reader: aiosqlite.Connection, writer: aiosqlite.Connection) -> None:
        self._path = path
        self._file = path.stat()
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["Database"]:
        """Open (and create or upgrade) the store at `path`; raises NotReady if it cannot be used."""
        _check_local(path)
        check_not_emptied(path)
        with readable_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = await _connect(path)
            try:
                # Autocommit hands `begin` and `commit` to `transaction`, the only place that writes.
                await _use_wal(path, writer)
                await writer.execute("PRAGMA synchronous = FULL")
                await writer.execute("PRAGMA foreign_keys = ON")
                await migrate(writer)
                reader = await _connect(path)
            except BaseException:
                await writer.close()
                raise
            try:
                await reader.execute("PRAGMA query_only = ON")
                yield cls(path, reader, writer)
            finally:
                # An open aiosqlite connection keeps its thread, and with it the process, alive.
                await reader.close()
                await writer.close()

    async def transaction(self, body: Callable[[aiosqlite.Connection], Awaitable[Result]]) -> Result:
        """Run `body` in one IMMEDIATE transaction: all of it happens, or none.

        A caller that is cancelled leaves the transaction to finish by itself. `body` does nothing but SQL.

        Raises:
            Refused: the store is locked for longer than `BUSY_SECONDS`, or the disk is full.
            NotReady: the file is damaged, or is not in its place any more.
        """
        return await asyncio.shield(asyncio.ensure_future(self._transaction(body)))

    async def _transaction(self, body: Callable[[aiosqlite.Connection], Awaitable[Result]]) -> Result:
        with readable_errors(self._path):
            async with self._turn:
                self._check_in_place()
                await self._writer.execute("BEGIN IMMEDIATE")
                try:
                    result = await body(self._writer)
                    await self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        await self._writer.execute("ROLLBACK")
                    raise
                self._check_in_place()
                return result

    async def all(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a read-only query; raises as `transaction` does."""
        with readable_errors(self._path):
            self._check_in_place()
            return list(await self._reader.execute_fetchall(query, parameters))

    async def one(self, query: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a read-only query, if there is one; raises as `transaction` does."""
        with readable_errors(self._path):
            self._check_in_place()
            return first(await self._reader.execute_fetchall(query, parameters))

    def _check_in_place(self) -> None:
        """Raise NotReady where the file was deleted or replaced: SQLite would go on, in a file that has no name."""
        try:
            if os.path.samestat(self._path.stat(), self._file):
                return
        except FileNotFoundError:
            pass
        raise NotReady(
            f"The store {self._path} was deleted or replaced while this process used it; nothing more is written",
            "Put it back if you have it, and start the server again",
        )


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


def _check_local(path: Path) -> None:
    """Raise NotReady where the store would lie on a network file system, on which WAL loses writes."""
    kind = file_system(path.parent)
    if kind in NETWORK:
        raise NotReady(
            f"The store {path} would lie on {kind}, a network file system, where SQLite loses writes",
            "Set AUTORESEARCH_STATE to a folder on a disk of this machine",
        )


async def _use_wal(path: Path, connection: aiosqlite.Connection) -> None:
    async with connection.execute("PRAGMA journal_mode = WAL") as cursor:
        row = await cursor.fetchone()
    if row is None or row[0] != "wal":
        raise NotReady(
            f"SQLite cannot use WAL for {path} (it offers {row and row[0]!r})",
            "Set AUTORESEARCH_STATE to a folder on a disk of this machine",
        )


class readable_errors:  # noqa: N801 - reads as a statement
    """Turn SQLite's errors about the file itself into NotReady."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
            raise explain(self.path, error) from error


def explain(path: Path, error: sqlite3.DatabaseError) -> NotReady:
    """Say what an SQLite error on `path` means for the person who owns the file."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return Refused(f"The store {path} is locked by another process ({text})", "Call again in a moment")
    if "full" in text:
        return Refused(f"The disk that holds {path} is full", "Free some space and call again")
    if "disk I/O error" in text:
        return Refused(f"The disk that holds {path} fails ({text})", "Free some space or mend the disk, and call again")
    if "unable to open" in text or "readonly" in text:
        return NotReady(f"The store {path} cannot be written ({text})", "Check the folder's permissions")
    if "malformed" in text or "not a database" in text:
        return NotReady(f"The store {path} is damaged ({text}); it was left as it is", restore_advice(path))
    return NotReady(f"The store {path} failed: {text}", "Run `autoresearch doctor`")
