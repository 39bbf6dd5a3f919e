"""What came after a certain verdict of a run: what a report tells. Verdict 0 stands for the beginning."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_server.machine.store.connection import Database
from mcp_server.machine.store.rows import experiment_of
from mcp_server.research.evidence import Count
from mcp_server.research.experiment import Experiment, Status
from mcp_server.research.task import Category


class Periods:
    """Queries over the verdicts of a run after the one numbered `after`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def verdicts(self, tag: str) -> int:
        """The number of the latest verdict; 0 while there is none."""
        row = await self._database.one("SELECT max(decided) AS latest FROM experiments WHERE tag = ?", [tag])
        return max(0, row["latest"] or 0) if row else 0

    async def last_before(self, tag: str, moment: float) -> int:
        """The number of the latest verdict before a moment (seconds since the epoch); 0 if there is none."""
        row = await self._database.one(
            """
            SELECT decided FROM experiments WHERE tag = ? AND decided > 0 AND decided_at < ?
            ORDER BY decided DESC LIMIT 1
            """,
            [tag, moment],
        )
        return int(row["decided"]) if row else 0

    async def counts(self, tag: str, after: int) -> Mapping[Status, int]:
        """How many experiments of the period, those without a verdict included, have each status that occurs."""
        rows = await self._database.all(
            """
            SELECT status, count(*) AS total FROM experiments WHERE tag = ? AND (decided > ? OR decided IS NULL)
            GROUP BY status
            """,
            [tag, after],
        )
        return {row["status"]: row["total"] for row in rows}

    async def categories(self, tag: str, after: int) -> Mapping[Category, Count]:
        """Tries and keeps of every category that has a verdict in the period."""
        rows = await self._database.all(
            """
            SELECT category, count(*) AS tries, sum(status = 'keep') AS keeps FROM experiments
            WHERE tag = ? AND decided > ? GROUP BY category
            """,
            [tag, after],
        )
        return {row["category"]: Count(row["tries"], row["keeps"]) for row in rows}

    async def gains(self, tag: str, after: int, limit: int) -> Sequence[Experiment]:
        """What was kept for being better than something, the largest gain first."""
        return await self._experiments(
            "WHERE tag = ? AND status = 'keep' AND decided > ? AND delta IS NOT NULL ORDER BY delta DESC LIMIT ?",
            [tag, after, limit],
        )

    async def failures(self, tag: str, category: Category, after: int, limit: int) -> Sequence[Experiment]:
        """The latest experiments of a category that were discarded or crashed, the newest first."""
        return await self._experiments(
            """
            WHERE tag = ? AND category = ? AND status IN ('discard', 'crash') AND decided > ?
            ORDER BY decided DESC LIMIT ?
            """,
            [tag, category, after, limit],
        )

    async def lessons(self, tag: str, after: int, limit: int) -> Sequence[Experiment]:
        """The latest experiments that an agent left a lesson with, newest first."""
        return await self._experiments(
            "WHERE tag = ? AND lesson <> '' AND decided > ? ORDER BY decided DESC LIMIT ?", [tag, after, limit]
        )

    async def best_at(self, tag: str, verdict: int) -> Experiment | None:
        """The incumbent after a verdict: the latest keep up to it."""
        found = await self._experiments(
            "WHERE tag = ? AND status = 'keep' AND decided BETWEEN 1 AND ? ORDER BY decided DESC LIMIT 1",
            [tag, verdict],
        )
        return found[0] if found else None

    async def imported(self, tag: str) -> int:
        """How many experiments of a run were taken from the table of an earlier session."""
        row = await self._database.one(
            "SELECT count(*) AS total FROM experiments WHERE tag = ? AND decided <= 0", [tag]
        )
        return int(row["total"]) if row else 0

    async def _experiments(self, clause: str, parameters: Sequence[Any]) -> list[Experiment]:
        query = f"SELECT * FROM experiments {clause}"  # noqa: S608 - clauses are constants of this file
        return [experiment_of(row) for row in await self._database.all(query, parameters)]
