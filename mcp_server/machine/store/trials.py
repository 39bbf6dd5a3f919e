"""Trials: the queue, and every transition that an experiment makes together with its trial."""

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest

import aiosqlite

from mcp_server.errors import UnknownId, WrongState
from mcp_server.machine.store.connection import Database, fetch
from mcp_server.machine.store.row_scores import keep_rows
from mcp_server.machine.store.rows import dump, trial_of
from mcp_server.machine.store.schema import GUARDS
from mcp_server.research.experiment import MAX_LOST, Ending, Trial, fresh_seed
from mcp_server.research.selection import bound_seed

NEXT_DECISION = """(
    SELECT max(COALESCE(MAX(decided), 0), (SELECT listed FROM runs WHERE runs.tag = experiments.tag)) + 1
    FROM experiments AS other WHERE other.tag = experiments.tag
)"""
"""The number of the next verdict in an experiment's run, as an SQL expression; one once listed is not given again."""

OUTPUTS_KEPT = 20
"""The outputs of so many experiments of a run stay, the latest, beside those of its best."""


class Changed(WrongState):
    """An experiment is not, or not any more, what the caller took it for."""


class Trials:
    """Queries about trials. Every write is guarded by the status that it expects to find."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, experiment_id: str, seed: int | None, device_type: str, commit: str | None = None) -> Trial:
        """Queue a trial of an experiment, or return the live one.

        Args:
            seed: the seed of the trial; None takes the first from 42 on that the experiment had not. A trial after one
                that was stopped or lost has the seed of that one, whatever is asked for; see `selection.bound_seed`.
            commit: what the experiment is expected to be at; None: whatever it is at.

        Raises:
            Changed: it may not be trained in the state that it is in now, or is at another commit.
        """

        async def body(connection: aiosqlite.Connection) -> Trial:
            rows = await connection.execute_fetchall(
                "SELECT * FROM trials WHERE experiment_id = ? ORDER BY attempt", [experiment_id]
            )
            earlier = [trial_of(row) for row in rows]
            last = earlier[-1] if earlier else None
            if last and last.status in ("queued", "training"):
                return last
            again = last is not None and last.status in ("stopped", "lost")
            found = await fetch(
                connection,
                "SELECT status, commit_sha FROM experiments WHERE id = ?"
                " AND (status IN ('registered', 'needs_confirmation', 'keep') OR (status = 'trained' AND ?))",
                [experiment_id, again],
            )
            if found is None or commit not in (None, found["commit_sha"]):
                raise Changed(f"Experiment {experiment_id} cannot be trained now", "Call history to see its status")
            chosen = bound_seed(earlier)
            if chosen is None:
                unused = last.seed if last and again else fresh_seed({trial.seed for trial in earlier})
                chosen = unused if seed is None else seed
            trial = Trial(
                id=f"{experiment_id}.{len(earlier) + 1}",
                experiment_id=experiment_id,
                attempt=len(earlier) + 1,
                seed=chosen,
                device_type=device_type,
                status="queued",
                queued_at=time.time(),
                commit=found["commit_sha"],
                came_from=found["status"],
            )
            return await insert(connection, trial)

        return await self._database.transaction(body)

    async def claim(self, device: str, device_type: str, worker_pid: int) -> Trial | None:
        """Move the next queued trial of a device type to `training` on this device, if there is one.

        Agents take turns: next is the one who had none for longest, and of its trials the one asked for first.
        """

        async def body(connection: aiosqlite.Connection) -> Trial | None:
            row = await fetch(
                connection,
                """
                UPDATE trials SET status = 'training', device = ?1, worker_pid = ?2, started_at = ?3
                WHERE id = (
                    SELECT trials.id FROM trials JOIN experiments ON experiments.id = experiment_id
                    LEFT JOIN turns ON turns.tag = experiments.tag AND turns.agent = experiments.agent
                    WHERE trials.status = 'queued' AND device_type = ?4
                    ORDER BY COALESCE(turns.taken, 0), queued_at, trials.rowid LIMIT 1
                )
                RETURNING *
                """,
                [device, worker_pid, time.time(), device_type],
            )
            if row is None:
                return None
            await connection.execute(
                """
                INSERT INTO turns (tag, agent, taken)
                SELECT tag, agent, (SELECT COALESCE(max(taken), 0) + 1 FROM turns) FROM experiments WHERE id = ?
                ON CONFLICT (tag, agent) DO UPDATE SET taken = excluded.taken
                """,
                [row["experiment_id"]],
            )
            await _move(connection, row["experiment_id"], "training")
            return trial_of(row)

        return await self._database.transaction(body)

    async def finish(self, trial_id: str, ending: Ending, crashed: bool) -> bool:
        """Record how a training ended; False if that was recorded before.

        The experiment becomes `crash`, with the error as its reason, if `crashed`, else `trained`.
        """

        async def body(connection: aiosqlite.Connection) -> bool:
            trial = await end_trial(connection, trial_id, ending)
            if trial is None:
                return False
            await _move(connection, trial.experiment_id, "trained")
            await _give_back(connection, trial)
            if crashed:
                await crash_body(connection, trial.experiment_id, ending.error, ending.metrics)
            return True

        return await self._database.transaction(body)

    async def disown(self, trial: Trial, ended_at: float, why: str) -> None:
        """Discard an experiment whose record was written by others while it trained, whatever it says now; one that was
        kept before, and only measured again, stays.

        The guards of the tables are put aside for it, and put back if others took them away.
        """

        async def body(connection: aiosqlite.Connection) -> None:
            for name in GUARDS:
                await connection.execute(f"DROP TRIGGER IF EXISTS {name}")
            await connection.execute(
                """
                UPDATE trials SET status = 'failed', ended_at = ?, metrics = '{}', error = ?, verification = 'reported'
                WHERE id = ?
                """,
                [ended_at, why, trial.id],
            )
            await connection.execute(
                f"""
                UPDATE experiments SET status = 'discard', reason = ?, metrics = '{{}}', value = NULL, delta = NULL,
                    near_miss = 0, decided_at = ?, decided = {NEXT_DECISION}, numbers = NULL,
                    accepted_loss = 0, runs = 0, squares = 0, dof = 0, verification = 'reported'
                WHERE id = ? AND ? <> 'keep'
                """,  # noqa: S608 - the expression is a constant
                [why, ended_at, trial.experiment_id, trial.came_from],
            )
            for guard in GUARDS.values():
                await connection.execute(guard)

        await self._database.transaction(body)

    async def lose(self, trial_id: str, ending: Ending) -> bool:
        """Record that a trial was lost with its worker, by a fault of the machine or for want of the device, and queue
        it again at most `MAX_LOST` times; starved ones are counted apart. A trial that was asked to stop is recorded as
        stopped instead. True if it is queued again.
        """

        async def body(connection: aiosqlite.Connection) -> bool:
            lost = await end_trial(connection, trial_id, ending)
            if lost is None:
                return False
            await _move(connection, lost.experiment_id, "trained")
            times = await fetch(
                connection,
                "SELECT count(*) AS times FROM trials"
                " WHERE experiment_id = ? AND status = 'lost' AND seed = ? AND starved = ?",
                [lost.experiment_id, lost.seed, lost.starved],
            )
            assert times is not None
            if lost.status == "stopped" or times["times"] > MAX_LOST:
                await _give_back(connection, lost)
                return False
            attempt = lost.attempt + 1
            again = replace(lost, id=f"{lost.experiment_id}.{attempt}", attempt=attempt, queued_at=time.time())
            await insert(connection, again)
            return True

        return await self._database.transaction(body)

    async def stop(self, trial_id: str) -> Trial:
        """End a queued trial now, or ask the worker of one in training to end it; returns it as it then is."""

        async def body(connection: aiosqlite.Connection) -> Trial:
            stopped = await fetch(
                connection,
                """
                UPDATE trials SET status = 'stopped', ended_at = ?, error = 'stopped while queued', stop_requested = 1
                WHERE id = ? AND status = 'queued' RETURNING *
                """,
                [time.time(), trial_id],
            )
            if stopped is not None:
                await _move(connection, stopped["experiment_id"], stopped["came_from"])
                return trial_of(stopped)
            await connection.execute(
                "UPDATE trials SET stop_requested = 1 WHERE id = ? AND status = 'training'", [trial_id]
            )
            row = await fetch(connection, "SELECT * FROM trials WHERE id = ?", [trial_id])
            if row is None:
                raise UnknownId(f"No trial has the id {trial_id!r}", "Call history")
            return trial_of(row)

        return await self._database.transaction(body)

    async def stop_requested(self, trial_id: str) -> bool:
        """Whether a trial in training is to end: someone asked for it, or wrote another status into its row."""
        row = await self._database.one("SELECT stop_requested, status FROM trials WHERE id = ?", [trial_id])
        return row is None or bool(row["stop_requested"]) or row["status"] != "training"

    async def training_on(self, device: str) -> list[Trial]:
        """The trials recorded as in training on a device: more than one only if something went wrong."""
        rows = await self._database.all("SELECT * FROM trials WHERE status = 'training' AND device = ?", [device])
        return [trial_of(row) for row in rows]

    async def in_training(self) -> Mapping[str, Trial]:
        """The trial in training on each device that has one."""
        rows = await self._database.all("SELECT * FROM trials WHERE status = 'training'")
        return {row["device"]: trial_of(row) for row in rows}

    async def waiting(self, device_type: str) -> int:
        """How many trials are queued for a type of device."""
        row = await self._database.one(
            "SELECT count(*) AS waiting FROM trials WHERE status = 'queued' AND device_type = ?", [device_type]
        )
        return int(row["waiting"]) if row else 0

    async def any_live(self) -> bool:
        """Whether any trial is queued or in training."""
        row = await self._database.one("SELECT 1 FROM trials WHERE status IN ('queued', 'training') LIMIT 1")
        return row is not None

    async def position(self, trial: Trial) -> int:
        """The place of a queued trial among those of its type, from 1, as agents take turns; 0 if it is not queued."""
        rows = await self._database.all(
            """
            SELECT trials.id, experiments.tag, experiments.agent, COALESCE(turns.taken, 0) AS taken
            FROM trials JOIN experiments ON experiments.id = experiment_id
            LEFT JOIN turns ON turns.tag = experiments.tag AND turns.agent = experiments.agent
            WHERE trials.status = 'queued' AND device_type = ?
            ORDER BY taken, queued_at, trials.rowid
            """,
            [trial.device_type],
        )
        lines: dict[tuple[str, str], list[str]] = {}  # each agent's trials, the agents in the order of their turns
        for row in rows:
            lines.setdefault((row["tag"], row["agent"]), []).append(row["id"])
        place = 0
        for turn in zip_longest(*lines.values()):
            for each in turn:
                place += each is not None
                if each == trial.id:
                    return place
        return 0

    async def outdated(self, tag: str) -> list[str]:
        """Trials of a run whose output need not stay: ended ones of experiments that are neither its best nor among its
        last `OUTPUTS_KEPT`. Only those that left these ranks lately are named: call it after every trial.
        """
        rows = await self._database.all(
            """
            WITH best AS (SELECT id FROM experiments WHERE tag = ?1 AND status = 'keep' ORDER BY decided DESC LIMIT 1),
                recent AS (SELECT id FROM experiments WHERE tag = ?1 ORDER BY number DESC LIMIT ?2),
                left_ranks AS (
                    SELECT id FROM (SELECT id FROM experiments WHERE tag = ?1 ORDER BY number DESC LIMIT ?2 OFFSET ?2)
                    UNION SELECT id FROM (
                        SELECT id FROM experiments WHERE tag = ?1 AND status = 'keep' ORDER BY decided DESC LIMIT ?2
                    )
                )
            SELECT trials.id FROM left_ranks JOIN trials ON trials.experiment_id = left_ranks.id
            WHERE left_ranks.id NOT IN (SELECT id FROM best UNION SELECT id FROM recent)
                AND trials.status NOT IN ('queued', 'training')
            """,
            [tag, OUTPUTS_KEPT],
        )
        return [row["id"] for row in rows]

    async def latest(self, experiment_id: str) -> Trial | None:
        """The newest trial of an experiment, if it has any."""
        row = await self._database.one(
            "SELECT * FROM trials WHERE experiment_id = ? ORDER BY attempt DESC LIMIT 1", [experiment_id]
        )
        return trial_of(row) if row else None

    async def of(self, experiment_id: str) -> list[Trial]:
        """All trials of an experiment, oldest first."""
        rows = await self._database.all(
            "SELECT * FROM trials WHERE experiment_id = ? ORDER BY attempt", [experiment_id]
        )
        return [trial_of(row) for row in rows]


async def end_trial(connection: aiosqlite.Connection, trial_id: str, ending: Ending) -> Trial | None:
    """Record how a trial in training ended; None if that was recorded before."""
    row = await fetch(
        connection,
        """
        UPDATE trials SET status = iif(?1 = 'lost' AND stop_requested, 'stopped', ?1), ended_at = ?2, exit_code = ?3,
            metrics = ?4, error = ?5, verification = ?6, sandboxed = ?7, wall_seconds = ?8, cpu_seconds = ?9,
            effort_seconds = ?10, waited_seconds = ?11, counted_by = ?12, starved = ?13
        WHERE id = ?14 AND status = 'training' RETURNING *
        """,
        [
            ending.status,
            ending.ended_at,
            ending.exit_code,
            dump(ending.metrics),
            ending.error,
            ending.verification,
            ending.sandboxed,
            ending.wall_seconds,
            ending.cpu_seconds,
            ending.effort_seconds,
            ending.waited_seconds,
            ending.counted_by,
            ending.starved,
            trial_id,
        ],
    )
    if row:
        await keep_rows(connection, trial_id, ending.rows)
    return trial_of(row) if row else None


async def insert(connection: aiosqlite.Connection, trial: Trial) -> Trial:
    """Insert a trial as queued and move its experiment to `queued`."""
    row = await fetch(
        connection,
        """
        INSERT INTO trials (
            id, experiment_id, attempt, seed, device_type, status, came_from, queued_at, commit_sha
        ) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?) RETURNING *
        """,
        [
            trial.id,
            trial.experiment_id,
            trial.attempt,
            trial.seed,
            trial.device_type,
            trial.came_from,
            trial.queued_at,
            trial.commit,
        ],
    )
    assert row is not None
    await _move(connection, trial.experiment_id, "queued")
    return trial_of(row)


async def _move(connection: aiosqlite.Connection, experiment_id: str, status: str) -> None:
    """Move an experiment to a status, unless it is kept: then it is only measured again, and stays so.

    The table's trigger refuses an illegal transition.
    """
    await connection.execute(
        "UPDATE experiments SET status = ? WHERE id = ? AND status <> 'keep'", [status, experiment_id]
    )


async def _give_back(connection: aiosqlite.Connection, trial: Trial) -> None:
    """Let an experiment wait for its confirmation as before, where that was stopped or lost: its verdict stands."""
    if trial.came_from == "needs_confirmation" and trial.status in ("stopped", "lost"):
        await _move(connection, trial.experiment_id, "needs_confirmation")


async def crash_body(
    connection: aiosqlite.Connection, experiment_id: str, reason: str, metrics: Mapping[str, float | int | str]
) -> None:
    """Give an experiment the verdict `crash`, unless it is kept and was only measured again."""
    await connection.execute(
        f"""
        UPDATE experiments SET status = 'crash', reason = ?, metrics = ?, decided = {NEXT_DECISION}, decided_at = ?,
            value = NULL, delta = NULL
        WHERE id = ? AND status <> 'keep'
        """,  # noqa: S608 - the expression is a constant
        [reason, dump(metrics), time.time(), experiment_id],
    )
