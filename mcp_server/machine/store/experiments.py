"""Experiments: registering them, judging them, and the chain of keeps that the branch shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiosqlite

from mcp_server.errors import UnknownId, WrongState
from mcp_server.machine.store.connection import Database, Row, fetch
from mcp_server.machine.store.lineage import MOVED_FROM
from mcp_server.machine.store.memory import remember
from mcp_server.machine.store.rows import columns_of, experiment_of
from mcp_server.machine.store.trials import crash_body
from mcp_server.machine.store.verdicts import LATEST_KEEP
from mcp_server.research.experiment import Experiment, KnobValue
from mcp_server.research.memory import Fingerprint


@dataclass(frozen=True)
class Count:
    """What a run has.

    Attributes:
        settled: kept experiments, and those without a change that have no verdict yet.
        same: the newest experiment that made the same change on the same base, if there is one.

    Experiments of an imported table count in none of them.
    """

    total: int
    settled: int
    same: Experiment | None = None


NOTHING = Fingerprint("", (), ())
"""What is remembered of an experiment that is not to be found again by what it changed."""


@dataclass(frozen=True)
class Imported:
    """An experiment of an earlier session, and what is remembered of it."""

    experiment: Experiment
    change: Fingerprint = NOTHING
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)


class Experiments:
    """Queries about single experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        experiment: Experiment,
        change: Fingerprint = NOTHING,
        knobs: Mapping[str, KnobValue] = {},
        admit: Callable[[Count], None] | None = None,
    ) -> Experiment:
        """Record a new experiment, or return the open one that was registered by an equal request.

        Args:
            change, knobs: what is remembered of it, see `Memory`.
            admit: raises to refuse the experiment, given what the run has; it is pure, since it runs inside the
                transaction.
        """

        async def body(connection: aiosqlite.Connection) -> Experiment:
            if open_one := await fetch(connection, _OPEN_REQUEST, [experiment.tag, experiment.request]):
                return experiment_of(open_one)
            if admit is not None:
                row = await fetch(connection, _COUNT, [experiment.tag])
                assert row is not None
                same = await fetch(connection, _SAME, [experiment.tag, change.digest, experiment.base_commit])
                admit(Count(row["total"], row["settled"] or 0, experiment_of(same) if same else None))
            parent = await _parent(connection, experiment)
            row = await _insert(connection, replace(experiment, parent_id=parent))
            await remember(connection, experiment.tag, experiment.number, change, knobs)
            return experiment_of(row)

        return await self._database.transaction(body)

    async def take_in(self, tag: str, imported: Sequence[Imported]) -> None:
        """Record experiments with the verdicts that an earlier session gave them, the oldest first; all or none.

        Raises:
            WrongState: the run has experiments.
        """

        async def body(connection: aiosqlite.Connection) -> None:
            if taken := await fetch(connection, "SELECT id FROM experiments WHERE tag = ? LIMIT 1", [tag]):
                raise WrongState(
                    f"Run {tag!r} has experiments of its own, {taken['id']} among them",
                    "Import the table under a new tag",
                )
            for each in imported:
                await _insert(connection, each.experiment)
                await remember(connection, tag, each.experiment.number, each.change, each.knobs)

        await self._database.transaction(body)

    async def count(self, tag: str) -> Count:
        """What a run has."""
        row = await self._database.one(_COUNT, [tag])
        assert row is not None
        return Count(row["total"], row["settled"] or 0)

    async def open_request(self, tag: str, request: str) -> Experiment | None:
        """The experiment, not yet judged, that was registered by an equal request."""
        row = await self._database.one(_OPEN_REQUEST, [tag, request])
        return experiment_of(row) if row else None

    async def open_at(self, tag: str, commit: str) -> Experiment | None:
        """An experiment of this commit that has no verdict yet, if there is one."""
        row = await self._database.one(
            "SELECT * FROM experiments WHERE tag = ? AND commit_sha = ? AND decided IS NULL", [tag, commit]
        )
        return experiment_of(row) if row else None

    async def of_commit(self, tag: str, commit: str) -> Experiment | None:
        """The first experiment of this commit, or the keep whose branch commit it is."""
        row = await self._database.one(
            """
            SELECT * FROM experiments WHERE tag = ?1 AND commit_sha = ?2
            UNION ALL SELECT * FROM experiments WHERE tag = ?1 AND status = 'keep' AND branch_commit = ?2 LIMIT 1
            """,
            [tag, commit],
        )
        return experiment_of(row) if row else None

    async def parent_at(self, tag: str, commit: str) -> str | None:
        """What a change to this commit is made from: the experiment of the commit, or if that has moved on to another
        base since, what it was made from here."""
        if owner := await self.of_commit(tag, commit):
            return owner.id
        row = await self._database.one(MOVED_FROM, [tag, commit])
        return row["parent_id"] if row else None

    async def moves(self, experiment_id: str) -> int:
        """How often an experiment was put on another base."""
        row = await self._database.one("SELECT count(*) AS moves FROM moves WHERE experiment_id = ?", [experiment_id])
        return int(row["moves"]) if row else 0

    async def get(self, experiment_id: str) -> Experiment:
        """The experiment with this id; raises UnknownId."""
        row = await self._database.one("SELECT * FROM experiments WHERE id = ?", [experiment_id])
        if row is None:
            raise UnknownId(f"No experiment has the id {experiment_id!r}", "Call history to see the ids")
        return experiment_of(row)

    async def best(self, tag: str) -> Experiment | None:
        """The incumbent: the latest keep of a run."""
        row = await self._database.one(LATEST_KEEP, [tag])
        return experiment_of(row) if row else None

    async def crash(self, experiment_id: str, reason: str) -> None:
        """Give a trained experiment, or a registered one of an external run, the verdict `crash`."""

        async def body(connection: aiosqlite.Connection) -> None:
            row = await fetch(connection, "SELECT status FROM experiments WHERE id = ?", [experiment_id])
            if row and row["status"] not in ("registered", "trained", "needs_confirmation"):
                raise WrongState(
                    f"Experiment {experiment_id} is {row['status']}", "Call stop first if its training should end"
                )
            await crash_body(connection, experiment_id, reason, {})

        await self._database.transaction(body)

    async def learn(self, experiment_id: str, lesson: str) -> None:
        """Attach what an agent learnt to an experiment."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute("UPDATE experiments SET lesson = ? WHERE id = ?", [lesson, experiment_id])

        await self._database.transaction(body)

    async def unprojected_keeps(self, tag: str) -> list[Experiment]:
        """Keeps whose branch commit is not known yet, in the order of their verdicts."""
        rows = await self._database.all(
            """
            SELECT * FROM experiments WHERE tag = ? AND status = 'keep' AND branch_commit IS NULL AND decided > 0
            ORDER BY decided
            """,
            [tag],
        )
        return [experiment_of(row) for row in rows]

    async def last_projected(self, tag: str) -> Experiment | None:
        """The latest keep whose branch commit is known."""
        row = await self._database.one(
            """
            SELECT * FROM experiments WHERE tag = ? AND status = 'keep' AND branch_commit IS NOT NULL
            ORDER BY decided DESC LIMIT 1
            """,
            [tag],
        )
        return experiment_of(row) if row else None

    async def project(self, experiment_id: str, branch_commit: str) -> None:
        """Record the commit by which the branch shows a keep."""

        async def body(connection: aiosqlite.Connection) -> None:
            await connection.execute(
                "UPDATE experiments SET branch_commit = ? WHERE id = ? AND branch_commit IS NULL",
                [branch_commit, experiment_id],
            )

        await self._database.transaction(body)


async def _parent(connection: aiosqlite.Connection, experiment: Experiment) -> str | None:
    """What an experiment is made from: that its parent was, if this moved after its commit was taken as a base."""
    left = await fetch(connection, MOVED_FROM, [experiment.tag, experiment.base_commit])
    moved = left is not None and left["experiment_id"] == experiment.parent_id
    return left["parent_id"] if left is not None and moved else experiment.parent_id


async def _insert(connection: aiosqlite.Connection, experiment: Experiment) -> Row:
    columns = columns_of(experiment)
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    query = f"INSERT INTO experiments ({names}) VALUES ({marks}) RETURNING *"  # noqa: S608 - names of fields
    row = await fetch(connection, query, list(columns.values()))
    assert row is not None
    return row


_COUNT = """
    SELECT count(*) AS total, sum(status = 'keep' OR (commit_sha = base_commit AND decided IS NULL)) AS settled
    FROM experiments WHERE tag = ? AND (decided > 0 OR decided IS NULL)
"""
_SAME = """
    SELECT * FROM experiments WHERE tag = ?1 AND base_commit = ?3 AND number IN (
        SELECT number FROM fingerprints WHERE tag = ?1 AND digest = ?2
    ) AND NOT (status = 'crash' AND COALESCE((
        SELECT trials.status FROM trials WHERE experiment_id = experiments.id ORDER BY attempt DESC LIMIT 1
    ), '') = 'lost') ORDER BY number DESC LIMIT 1
"""
_OPEN_REQUEST = "SELECT * FROM experiments WHERE tag = ? AND request = ? AND decided IS NULL"
