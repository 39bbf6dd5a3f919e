"""What ran out of memory, queued again at a commit that needs less."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiosqlite

from mcp_server.machine.store.connection import Database, fetch
from mcp_server.machine.store.lineage import leave
from mcp_server.machine.store.rows import dump, experiment_of
from mcp_server.machine.store.trials import end_trial, insert
from mcp_server.research.experiment import Ending, KnobValue


@dataclass(frozen=True)
class Smaller:
    """A child commit that needs less memory.

    Attributes:
        note: what is added to the experiment's description.
        summary, changes: what was set, in a line and as `Experiment.changes`.
    """

    commit: str
    note: str
    summary: str
    changes: Mapping[str, tuple[KnobValue, KnobValue]]


class Retries:
    """Writes that end a trial and queue the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retry(self, trial_id: str, ending: Ending, smaller: Smaller) -> bool:
        """Record a training that ran out of memory, and queue its experiment again at a commit that needs less.

        An experiment that has no change stays one: that commit is then its base too. False if it was recorded before.
        """

        async def body(connection: aiosqlite.Connection) -> bool:
            failed = await end_trial(connection, trial_id, ending)
            if failed is None:
                return False
            found = await fetch(connection, "SELECT * FROM experiments WHERE id = ?", [failed.experiment_id])
            assert found is not None
            experiment = experiment_of(found)
            await leave(connection, experiment)
            unchanged = experiment.unchanged
            await connection.execute(
                """
                UPDATE experiments SET commit_sha = ?, base_commit = ?, diff_summary = ?, changes = ?, description = ?
                WHERE id = ?
                """,
                [
                    smaller.commit,
                    smaller.commit if unchanged else experiment.base_commit,
                    experiment.diff_summary if unchanged else f"{experiment.diff_summary}, {smaller.summary}",
                    dump({} if unchanged else {**experiment.changes, **smaller.changes}),
                    f"{experiment.description}\n\n{smaller.note}".strip(),
                    experiment.id,
                ],
            )
            attempt = failed.attempt + 1
            again = replace(
                failed,
                id=f"{experiment.id}.{attempt}",
                attempt=attempt,
                commit=smaller.commit,
                queued_at=time.time(),
            )
            await insert(connection, again)
            return True

        return await self._database.transaction(body)
