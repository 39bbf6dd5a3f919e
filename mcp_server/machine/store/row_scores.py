"""What trials scored by row of text: read for verdicts and claims alone."""

from collections.abc import Iterable, Mapping

import aiosqlite

from mcp_server.research.case import Record
from mcp_server.research.rows import RowScores, parse

ROWS = "SELECT trial_id, scores FROM row_scores WHERE trial_id IN (SELECT id FROM trials WHERE experiment_id = ?)"
"""What the trials of one experiment scored by row."""


async def keep_rows(connection: aiosqlite.Connection, trial_id: str, rows: str) -> None:
    """Record what a trial scored by row, as its judge said it; nothing where that is empty."""
    if rows:
        await connection.execute("INSERT INTO row_scores (trial_id, scores) VALUES (?, ?)", [trial_id, rows])


async def rows_of(connection: aiosqlite.Connection, records: Iterable[Record]) -> Mapping[str, RowScores]:
    """By id, what the trials of experiments scored by row, as far as it is known."""
    names = sorted({record.experiment.id for record in records})
    return parsed([row for name in names for row in await connection.execute_fetchall(ROWS, [name])])


def parsed(rows: Iterable[aiosqlite.Row]) -> Mapping[str, RowScores]:
    """What rows of ROWS say, by the trial's id; without those that are not of the known form."""
    return {row["trial_id"]: scores for row in rows if (scores := parse(row["scores"]))}
