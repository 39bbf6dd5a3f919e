"""Reading the past of a run, always by an index and never whole."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mcp_server.machine.store.connection import Database
from mcp_server.machine.store.rows import experiment_of
from mcp_server.machine.store.verdicts import START_CRASHES
from mcp_server.research.evidence import Count
from mcp_server.research.experiment import FINISHED, Experiment, Status
from mcp_server.research.task import Category


class History:
    """Queries over the experiments of a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        tag: str,
        status: Status | None = None,
        category: Category | None = None,
        before: int | None = None,
        limit: int = 20,
    ) -> Sequence[Experiment]:
        """Experiments, newest first, with numbers below `before`."""
        clause, parameters = _where(tag, status=status, category=category)
        if before is not None:
            clause, parameters = f"{clause} AND number < ?", [*parameters, before]
        return await self._experiments(f"{clause} ORDER BY number DESC LIMIT ?", [*parameters, limit])

    async def total(self, tag: str, status: Status | None = None, category: Category | None = None) -> int:
        """How many experiments match."""
        clause, parameters = _where(tag, status=status, category=category)
        row = await self._database.one(f"SELECT count(*) AS total FROM experiments {clause}", parameters)  # noqa: S608
        return int(row["total"]) if row else 0

    async def all(self, tag: str) -> AsyncIterator[Experiment]:
        """Every experiment of a run, oldest first, a page at a time."""
        last, size = 0, 500
        while page := await self._experiments(
            "WHERE tag = ? AND number > ? ORDER BY number LIMIT ?", [tag, last, size]
        ):
            for experiment in page:
                yield experiment
            last = page[-1].number

    async def counts(self, tag: str) -> Mapping[Status, int]:
        """How many experiments have each status that occurs; those of an imported table are not the run's own."""
        rows = await self._database.all(
            """
            SELECT status, sum(total) AS total FROM (
                SELECT status, count(*) AS total FROM experiments WHERE tag = ?1 GROUP BY status
                UNION ALL
                SELECT status, -count(*) AS total FROM experiments WHERE tag = ?1 AND decided <= 0 GROUP BY status
            ) GROUP BY status HAVING sum(total) > 0
            """,
            [tag],
        )
        return {row["status"]: row["total"] for row in rows}

    async def categories(self, tag: str) -> Mapping[Category, Count]:
        """Tries and keeps of every category that has an experiment with a verdict."""
        rows = await self._database.all(
            """
            SELECT category, count(*) AS tries, sum(status = 'keep') AS keeps FROM experiments
            WHERE tag = ? AND status IN ('keep', 'discard', 'crash') GROUP BY category
            """,
            [tag],
        )
        return {row["category"]: Count(row["tries"], row["keeps"]) for row in rows}

    async def finished(self, tag: str, limit: int) -> Sequence[Experiment]:
        """The latest experiments with a verdict by their number, newest first."""
        marks = ", ".join("?" * len(FINISHED))
        return await self._experiments(
            f"WHERE tag = ? AND status IN ({marks}) ORDER BY number DESC LIMIT ?", [tag, *FINISHED, limit]
        )

    async def open(self, tag: str, limit: int) -> Sequence[Experiment]:
        """Experiments without a verdict, newest first."""
        return await self._experiments("WHERE tag = ? AND decided IS NULL ORDER BY number DESC LIMIT ?", [tag, limit])

    async def decided(self, tag: str, limit: int) -> Sequence[Experiment]:
        """The latest verdicts that a run has given itself, newest first."""
        return await self._experiments("WHERE tag = ? AND decided > 0 ORDER BY decided DESC LIMIT ?", [tag, limit])

    async def decided_after(self, tag: str, decided: int, limit: int) -> Sequence[Experiment]:
        """The verdicts of a run after the one numbered `decided`, oldest first."""
        return await self._experiments("WHERE tag = ? AND decided > ? ORDER BY decided LIMIT ?", [tag, decided, limit])

    async def keeps(self, tag: str, limit: int, after: int = 0) -> Sequence[Experiment]:
        """The latest keeps of a run whose verdict came after the one numbered `after`, newest first."""
        return await self._experiments(
            "WHERE tag = ? AND status = 'keep' AND decided > ? ORDER BY decided DESC LIMIT ?", [tag, after, limit]
        )

    async def latest_keeps(self, tag: str, limit: int) -> Sequence[Experiment]:
        """The keeps that were started last, newest first."""
        return await self._experiments(
            "WHERE tag = ? AND status = 'keep' AND decided > 0 ORDER BY number DESC LIMIT ?", [tag, limit]
        )

    async def tallies(self, tag: str) -> Mapping[tuple[Category, Status], int]:
        """How many experiments of each category have each status, where there are any."""
        rows = await self._database.all(
            "SELECT category, status, count(*) AS total FROM experiments WHERE tag = ? GROUP BY category, status", [tag]
        )
        return {(row["category"], row["status"]): row["total"] for row in rows}

    async def reported_seconds(self, tag: str) -> float:
        """The sum of the metric `training_seconds`, as the trainings themselves told it."""
        row = await self._database.one(
            """
            SELECT sum(json_extract(metrics, '$.training_seconds')) AS seconds FROM experiments
            WHERE tag = ? AND status IN ('keep', 'discard')
            """,
            [tag],
        )
        return float(row["seconds"] or 0.0) if row else 0.0

    async def baseline(self, tag: str) -> Experiment | None:
        """The first keep of a run."""
        rows = await self._experiments(
            "WHERE tag = ? AND status = 'keep' AND decided > 0 ORDER BY decided LIMIT 1", [tag]
        )
        return rows[0] if rows else None

    async def first(self, tag: str) -> Experiment | None:
        """The experiment of a run with the lowest number."""
        rows = await self._experiments("WHERE tag = ? ORDER BY number LIMIT 1", [tag])
        return rows[0] if rows else None

    async def first_keep(self, tag: str) -> str | None:
        """The id of the first keep of a run."""
        first = await self.baseline(tag)
        return first.id if first else None

    async def start_crashes(self, tag: str) -> bool:
        """Whether the code that a run started from crashed whenever it was measured, and is not being measured now."""
        row = await self._database.one(START_CRASHES, [tag])
        return bool(row and row["crashes"])

    async def discards_since_keep(self, tag: str, limit: int = 1000) -> int:
        """How many experiments were discarded since the last keep; crashes do not count."""
        row = await self._database.one(
            """
            SELECT count(*) AS discards FROM (
                SELECT 1 FROM experiments WHERE tag = ?1 AND status = 'discard' AND decided > COALESCE((
                    SELECT decided FROM experiments WHERE tag = ?1 AND status = 'keep' AND decided > 0
                    ORDER BY decided DESC LIMIT 1
                ), 0) LIMIT ?2
            )
            """,
            [tag, limit],
        )
        return int(row["discards"]) if row else 0

    async def pending(self, tag: str, limit: int) -> Sequence[Experiment]:
        """Experiments that need confirmation: a baseline first, then what was not compared yet, then by z."""
        return await self._experiments(
            "WHERE tag = ? AND status = 'needs_confirmation'"
            " ORDER BY commit_sha = base_commit DESC, numbers IS NULL DESC, json_extract(numbers, '$.z') DESC, number"
            " LIMIT ?",
            [tag, limit],
        )

    async def noise(self, tag: str) -> tuple[float, int]:
        """The sums over a run's replicates: squares and degrees of freedom, see `noise.Noise`."""
        row = await self._database.one(
            "SELECT sum(squares) AS squares, sum(dof) AS dof FROM experiments WHERE tag = ? AND dof > 0", [tag]
        )
        return (row["squares"] or 0.0, row["dof"] or 0) if row else (0.0, 0)

    async def accepted_loss(self, tag: str) -> float:
        """What the simplifications that were kept may have cost in all, in units of the metric."""
        row = await self._database.one(
            "SELECT sum(accepted_loss) AS loss FROM experiments WHERE tag = ? AND status = 'keep'", [tag]
        )
        return float(row["loss"] or 0.0) if row else 0.0

    async def near_misses(self, tag: str, best: float, limit: int) -> Sequence[Experiment]:
        """Near misses by the distance of their value from the present best."""
        return await self._experiments(
            "WHERE tag = ? AND near_miss ORDER BY abs(value - ?), number LIMIT ?", [tag, best, limit]
        )

    async def promising(self, tag: str, limit: int) -> Sequence[Experiment]:
        """Near misses by what they seemed to gain on what they were made from."""
        return await self._experiments(
            "WHERE tag = ? AND near_miss AND delta IS NOT NULL ORDER BY delta DESC, number LIMIT ?", [tag, limit]
        )

    async def nearest_misses(self, tag: str, limit: int) -> Sequence[Experiment]:
        """Near misses by how little they lacked when they were judged."""
        return await self._experiments("WHERE tag = ? AND near_miss ORDER BY abs(delta), number LIMIT ?", [tag, limit])

    async def near_miss_categories(self, tag: str) -> Sequence[Category]:
        """The categories that have a near miss."""
        rows = await self._database.all(
            "SELECT DISTINCT category FROM experiments WHERE tag = ? AND near_miss ORDER BY category", [tag]
        )
        return [row["category"] for row in rows]

    async def near_miss_total(self, tag: str) -> int:
        """How many near misses a run has."""
        row = await self._database.one("SELECT count(*) AS total FROM experiments WHERE tag = ? AND near_miss", [tag])
        return int(row["total"]) if row else 0

    async def lessons(self, tag: str, limit: int) -> Sequence[Experiment]:
        """The latest experiments that an agent left a lesson with, newest first."""
        return await self._experiments("WHERE tag = ? AND lesson <> '' ORDER BY decided DESC LIMIT ?", [tag, limit])

    async def consecutive_crashes(self, tag: str) -> int:
        """How many of the latest verdicts are crashes, before any other; that something is promising is one here.

        What was given up because the machine failed it is none.
        """
        row = await self._database.one(
            """
            SELECT count(*) AS crashes FROM experiments
            WHERE tag = ?1 AND decided > max(
                COALESCE((
                    SELECT max(decided) FROM experiments WHERE tag = ?1 AND decided > 0 AND status <> 'crash'
                ), 0),
                COALESCE((SELECT max(promising_after) FROM experiments WHERE tag = ?1), 0)
            ) AND COALESCE((
                SELECT trials.status FROM trials WHERE experiment_id = experiments.id ORDER BY attempt DESC LIMIT 1
            ), '') <> 'lost'
            """,
            [tag],
        )
        return int(row["crashes"]) if row else 0

    async def training_seconds(self, tag: str) -> float:
        """Wall seconds that the trials of a run took on their devices; none where the clock was set back meanwhile."""
        row = await self._database.one(
            """
            SELECT COALESCE(sum(max(0, ended_at - started_at)), 0) AS seconds
            FROM trials JOIN experiments ON experiments.id = trials.experiment_id
            WHERE experiments.tag = ? AND started_at IS NOT NULL AND ended_at IS NOT NULL
            """,
            [tag],
        )
        return float(row["seconds"]) if row else 0.0

    async def _experiments(self, clause: str, parameters: Sequence[Any]) -> list[Experiment]:
        query = f"SELECT * FROM experiments {clause}"  # noqa: S608 - clauses are constants of this file
        return [experiment_of(row) for row in await self._database.all(query, parameters)]


def _where(tag: str, **equal: str | None) -> tuple[str, list[Any]]:
    """A WHERE clause for a run and the columns that were given a value."""
    given = {column: value for column, value in equal.items() if value is not None}
    clause = " AND ".join(["tag = ?", *[f"{column} = ?" for column in given]])
    return f"WHERE {clause}", [tag, *given.values()]
