"""What trials scored by row of text: read for a verdict alone."""

from collections.abc import Iterable, Mapping

import aiosqlite

from mcp_server.research.case import Record
from mcp_server.research.rows import RowScores, parse


async def keep_rows(connection: aiosqlite.Connection, trial_id: str, rows: str) -> None:
    """Record what a trial scored by row, as its judge said it; nothing where that is empty."""
    if rows:
        await connection.execute("INSERT INTO row_scores (trial_id, scores) VALUES (?, ?)", [trial_id, rows])


async def rows_of(connection: aiosqlite.Connection, records: Iterable[Record]) -> Mapping[str, RowScores]:
    """By id, what the trials of experiments scored by row, as far as it is known."""
    found: dict[str, RowScores] = {}
    for name in sorted({record.experiment.id for record in records}):
        said = await connection.execute_fetchall(
            "SELECT trial_id, scores FROM row_scores WHERE trial_id IN (SELECT id FROM trials WHERE experiment_id = ?)",
            [name],
        )
        found |= {row["trial_id"]: rows for row in said if (rows := parse(row["scores"]))}
    return found
