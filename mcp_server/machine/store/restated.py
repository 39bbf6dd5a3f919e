"""Numbers of verdicts that follow what was measured since."""

from dataclasses import asdict

import aiosqlite

from mcp_server.machine.store.rows import dump
from mcp_server.research.experiment import Experiment

AFFECTED = """
    SELECT id FROM experiments WHERE tag = ? AND status IN ('keep', 'discard') AND numbers IS NOT NULL
    AND (id = ? OR json_extract(numbers, '$.base') = ?) ORDER BY status = 'keep' DESC, number DESC LIMIT ?
"""
"""A kept change, and the latest of those that were compared with it: what one more run of it puts in another light."""


async def write_numbers(connection: aiosqlite.Connection, said: Experiment) -> None:
    """Write how an experiment compares by now, and what that makes of it."""
    await connection.execute(
        "UPDATE experiments SET delta = ?, numbers = ?, near_miss = ?, accepted_loss = ?, reason = ? WHERE id = ?",
        [
            said.delta,
            dump(asdict(said.numbers)) if said.numbers else None,
            said.near_miss,
            said.accepted_loss,
            said.reason,
            said.id,
        ],
    )
