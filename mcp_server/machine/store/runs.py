"""Runs and the workspaces of their agents."""

import json
import time
from collections.abc import Sequence

import aiosqlite

from mcp_server.errors import UnknownId, WrongState
from mcp_server.machine.store.connection import Database, fetch
from mcp_server.machine.store.rows import dump, run_of
from mcp_server.research.experiment import Run


class Runs:
    """Queries about runs and agents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, run: Run) -> None:
        """Record a new run; raises WrongState if its tag exists, in whatever letter case."""

        async def body(connection: aiosqlite.Connection) -> None:
            # A tag that differs only in letter case would share its branch on some file systems.
            if taken := await fetch(connection, "SELECT tag FROM runs WHERE tag = ?", [run.tag]):
                raise WrongState(
                    f"A run with tag {taken['tag']!r} exists",
                    "Continue it with setup_run(tag, resume=true), or choose another tag",
                )
            await connection.execute(
                """
                INSERT INTO runs (tag, branch, base_commit, task, device_kind, platform, created_at)
                VALUES (?, ?, ?, ?, ?, ?, ?)
                """,
                [run.tag, *_columns(run)],
            )

        await self._database.transaction(body)

    async def put_back(self, run: Run) -> None:
        """Write once more what a run is, where others wrote over it; its mode and its numbers stay."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute(
                "UPDATE runs SET branch = ?, base_commit = ?, task = ?, device_kind = ?, platform = ?, created_at = ?"
                " WHERE tag = ?",
                [*_columns(run), run.tag],
            )

        await self._database.transaction(body)

    async def find(self, tag: str) -> Run | None:
        """The run with this tag, if there is one."""
        row = await self._database.one("SELECT * FROM runs WHERE tag = ?", [tag])
        return run_of(row) if row else None

    async def get(self, tag: str) -> Run:
        """The run with this tag; raises UnknownId, naming the newest tags."""
        if run := await self.find(tag):
            return run
        known = ", ".join([run.tag for run in await self.newest(8)]) or "none yet"
        raise UnknownId(f"No run has the tag {tag!r} (newest: {known})", "Call list_runs, or setup_run to begin one")

    async def named(self, tag: str | None) -> Run:
        """The run with this tag, or the newest where none is given; raises UnknownId where there is none."""
        if tag is not None:
            return await self.get(tag)
        newest = await self.newest(1)
        if not newest:
            raise UnknownId("There is no run in this repository yet", "Call setup_run to begin one")
        return newest[0]

    async def newest(self, limit: int = 100) -> list[Run]:
        """Runs, newest first."""
        rows = await self._database.all("SELECT * FROM runs ORDER BY created_at DESC, rowid DESC LIMIT ?", [limit])
        return [run_of(row) for row in rows]

    async def matching(self, prefix: str, limit: int = 100) -> list[str]:
        """Tags that begin with `prefix`, newest first."""
        rows = await self._database.all(
            "SELECT tag FROM runs WHERE substr(tag, 1, ?) = ? ORDER BY created_at DESC LIMIT ?",
            [len(prefix), prefix, limit],
        )
        return [row["tag"] for row in rows]

    async def set_mode(
        self,
        tag: str,
        mode: str | None,
        reason: str,
        explore_ratio: float | None = None,
        temperature: float | None = None,
    ) -> None:
        """Fix the strategy's mode by hand, or give it back to the computed one with None."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute(
                "UPDATE runs SET manual_mode = ?, manual_reason = ?, manual_ratio = ?, manual_temperature = ?,"
                " manual_at = ? WHERE tag = ?",
                [mode, reason, explore_ratio, temperature, time.time(), tag],
            )

        await self._database.transaction(body)

    async def take_number(self, tag: str, after: int = 0, count: int = 1) -> int:
        """The next experiment number of a run, above `after`, or the first of `count`; one taken is never given again,
        used or not.
        """

        async def body(connection: aiosqlite.Connection) -> int:
            row = await fetch(
                connection,
                "UPDATE runs SET next_number = max(next_number, ?1) + ?2 WHERE tag = ?3"
                " RETURNING next_number - ?2 AS number",
                [after + 1, count, tag],
            )
            assert row is not None
            return int(row["number"])

        return await self._database.transaction(body)

    async def listed(self, tag: str) -> int:
        """The number of the last verdict that the results file has."""
        row = await self._database.one("SELECT listed FROM runs WHERE tag = ?", [tag])
        return int(row["listed"]) if row else 0

    async def set_listed(self, tag: str, decided: int) -> None:
        """Remember that the results file has every verdict up to this one."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute("UPDATE runs SET listed = max(listed, ?) WHERE tag = ?", [decided, tag])

        await self._database.transaction(body)

    async def add_agent(self, tag: str, agent: str) -> None:
        """Remember that an agent has a workspace in a run; harmless when it is known."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute(
                "INSERT INTO workspaces (tag, agent, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [tag, agent, time.time()],
            )

        await self._database.transaction(body)

    async def agents(self, tag: str) -> Sequence[str]:
        """The agents that have a workspace in a run, in order of arrival."""
        rows = await self._database.all("SELECT agent FROM workspaces WHERE tag = ? ORDER BY rowid", [tag])
        return [row["agent"] for row in rows]


def _columns(run: Run) -> tuple[str | float, ...]:
    """What a run is, in the order of its columns from `branch` to `created_at`."""
    platform = json.dumps(dict(run.platform))
    return run.branch, run.base_commit, dump(run.task), run.device_kind, platform, run.created_at
