"""What an experiment's code was made from, now and before it was put on another base."""

import aiosqlite

from mcp_server.machine.store.connection import fetch
from mcp_server.research.experiment import Experiment

DEEPEST = 10_000
MOVED_FROM = "SELECT experiment_id, parent_id FROM moves WHERE tag = ? AND commit_sha = ? LIMIT 1"
"""The experiment that was at a commit before it moved, and what it was made from there."""


async def kept_from(connection: aiosqlite.Connection, experiment_id: str | None) -> str | None:
    """The id of the nearest kept experiment from this one on, by parents; one that was imported was not kept here."""
    row = await fetch(connection, _KEPT_FROM, [experiment_id, DEEPEST])
    return row["id"] if row else None


async def sources(connection: aiosqlite.Connection, experiment: Experiment) -> dict[str, str | None]:
    """The kept experiment that each commit of an experiment was made from: of its present one and the earlier ones.

    What counts is what is kept now: a parent may have been kept after its child was trained.
    """
    rows = await connection.execute_fetchall(
        "SELECT commit_sha, parent_id FROM moves WHERE experiment_id = ?", [experiment.id]
    )
    parents = {row["commit_sha"]: row["parent_id"] for row in rows} | {experiment.commit: experiment.parent_id}
    return {commit: await kept_from(connection, parent) for commit, parent in parents.items()}


async def leave(connection: aiosqlite.Connection, experiment: Experiment) -> None:
    """Remember where an experiment was before it moves, and hang what was built on it there onto what it was built on.

    For that does not have the code that the experiment will have.
    """
    await connection.execute(
        "INSERT OR REPLACE INTO moves (experiment_id, tag, commit_sha, base_commit, parent_id) VALUES (?, ?, ?, ?, ?)",
        [experiment.id, experiment.tag, experiment.commit, experiment.base_commit, experiment.parent_id],
    )
    for table in ("experiments", "moves"):
        await connection.execute(
            f"UPDATE {table} SET parent_id = ? WHERE parent_id = ? AND base_commit = ?",  # noqa: S608 - constants
            [experiment.parent_id, experiment.id, experiment.commit],
        )


_KEPT_FROM = """
    WITH RECURSIVE line (id, parent_id, kept, depth) AS (
        SELECT id, parent_id, status = 'keep' AND decided > 0, 0 FROM experiments WHERE id = ?
        UNION ALL
        SELECT e.id, e.parent_id, e.status = 'keep' AND e.decided > 0, depth + 1
        FROM line JOIN experiments AS e ON e.id = line.parent_id WHERE NOT kept AND depth < ?
    )
    SELECT id FROM line WHERE kept
"""
