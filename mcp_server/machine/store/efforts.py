"""What the trainings of a run took, and which of them were starved."""

from collections.abc import Iterable, Mapping, Sequence

from mcp_server.machine.store.connection import Database
from mcp_server.machine.store.row_scores import ROWS, parsed
from mcp_server.machine.store.rows import trial_of
from mcp_server.research.case import Record
from mcp_server.research.experiment import Trial
from mcp_server.research.rows import RowScores

REPEATS = 200
"""So many finished trainings of a run, the latest, are looked at for repeats."""


REPEATED = """
    SELECT trials.* FROM trials JOIN experiments ON experiments.id = experiment_id
    WHERE tag = ? AND trials.status = 'finished' AND error = '' AND EXISTS (
        SELECT 1 FROM trials AS other WHERE other.experiment_id = trials.experiment_id
        AND other.id <> trials.id AND other.status = 'finished' AND other.error = ''
    )
    ORDER BY queued_at DESC LIMIT ?
"""
"""The latest finished trainings of experiments that have several, the newest first."""


class Efforts:
    """Queries over the trials of a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def starved(self, tag: str) -> tuple[int, Trial | None]:
        """How many trainings of a run were starved, and the latest of them."""
        rows = await self._database.all(
            """
            SELECT trials.* FROM trials JOIN experiments ON experiments.id = experiment_id
            WHERE tag = ? AND starved = 1 ORDER BY trials.ended_at
            """,
            [tag],
        )
        return len(rows), trial_of(rows[-1]) if rows else None

    async def repeats(self, tag: str) -> Sequence[Trial]:
        """The latest finished trainings, the oldest first, of experiments that have several."""
        rows = await self._database.all(REPEATED, [tag, REPEATS])
        return [trial_of(row) for row in reversed(rows)]

    async def rows(self, records: Iterable[Record]) -> Mapping[str, RowScores]:
        """By id, what the trials of experiments scored by row, as far as it is known."""
        names = sorted({record.experiment.id for record in records})
        return parsed([row for name in names for row in await self._database.all(ROWS, [name])])

    async def asked(self, tag: str, beside: str) -> float:
        """When the latest training of a run was asked for, those of one experiment left out; 0 where there is none."""
        row = await self._database.one(
            """
            SELECT max(queued_at) AS asked FROM trials JOIN experiments ON experiments.id = experiment_id
            WHERE tag = ? AND experiment_id <> ?
            """,
            [tag, beside],
        )
        return float(row["asked"] or 0.0) if row else 0.0
