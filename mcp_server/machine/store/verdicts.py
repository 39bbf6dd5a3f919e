"""Verdicts: judging an experiment against the best of that very moment, and taking in what was measured again."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

import aiosqlite

from mcp_server.errors import UnknownId
from mcp_server.machine.store.connection import Database, fetch
from mcp_server.machine.store.efforts import REPEATED, REPEATS
from mcp_server.machine.store.lineage import kept_from, leave, sources
from mcp_server.machine.store.memory import remember
from mcp_server.machine.store.restated import AFFECTED, write_numbers
from mcp_server.machine.store.row_scores import rows_of
from mcp_server.machine.store.rows import dump, experiment_of, trial_of
from mcp_server.machine.store.trials import NEXT_DECISION, crash_body
from mcp_server.research.case import Case, Record
from mcp_server.research.experiment import (
    FINISHED,
    Experiment,
    KnobValue,
    Numbers,
    Origin,
    Scalar,
    Status,
    Trial,
    Verification,
)
from mcp_server.research.memory import Fingerprint
from mcp_server.research.restating import is_near

_MEASURED_KEEPS = "SELECT * FROM experiments WHERE tag = ? AND status = 'keep' AND decided > 0"
LATEST_KEEP = f"{_MEASURED_KEEPS} ORDER BY decided DESC LIMIT 1"
FIRST_KEEP = f"{_MEASURED_KEEPS} ORDER BY decided LIMIT 1"
START_CRASHES = """
    SELECT count(*) FILTER (WHERE status = 'crash') > 0 AND count(*) FILTER (WHERE status <> 'crash') = 0 AS crashes
    FROM experiments WHERE tag = ? AND commit_sha = base_commit
"""
"""Whether the code that a run started from crashed whenever it was measured, and is not being measured now."""
REOPENED = "The best was measured again, and against its new mean this counts"
"""How the reason begins that a near miss gets which is to be confirmed after all."""
LEVELS = 50
"""So many kept changes before the best inform what it counts as, and the baseline."""
COMPARED = 200
"""So many verdicts, the latest, tell how large effects are."""
LOOKED_BACK = 50
"""So many changes, the latest, are looked at again when the best that they were compared with was measured again."""


@dataclass(frozen=True)
class Decision:
    """What a verdict writes into an experiment; see there."""

    status: Status
    reason: str
    value: float | None
    delta: float | None
    near_miss: bool
    metrics: Mapping[str, Scalar]
    origin: Origin = "measured"
    numbers: Numbers | None = None
    accepted_loss: float = 0.0
    runs: int = 1
    squares: float = 0.0
    dof: int = 0
    verification: Verification = "reported"
    sandboxed: bool = False


@dataclass(frozen=True)
class Restatement:
    """What is said of the best after it was measured again.

    Attributes:
        reopened: near misses that are to be confirmed after all, with the numbers by which they count now.
    """

    value: float
    runs: int
    squares: float
    dof: int
    reopened: Mapping[str, Numbers] = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """An experiment's change on top of another base."""

    commit: str
    base_commit: str
    parent_id: str
    summary: str
    added: int
    removed: int
    changes: Mapping[str, tuple[KnobValue, KnobValue]]
    fingerprint: Fingerprint
    knobs: Mapping[str, KnobValue]


class Verdicts:
    """Writes what was decided. The judging functions are pure, since they run inside the transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decide(self, experiment_id: str, judge: Callable[[Case], Decision]) -> Experiment:
        """Judge an experiment and record the verdict; one that has its verdict stays as it is.

        One that needs confirmation is judged again without a new run of its own only where there was nothing yet to
        compare it with, or where its base was to be run once more before: more runs of the base alone are no reason,
        for they do not make a second run of the experiment.
        """

        async def body(connection: aiosqlite.Connection) -> Experiment:
            subject = await _record(connection, experiment_id)
            experiment = subject.experiment
            numbers = experiment.numbers
            compared = numbers is not None and not numbers.awaits_base
            if experiment.status in FINISHED or (experiment.status == "needs_confirmation" and compared):
                return experiment
            case = await _case(connection, subject)
            await _write(connection, case, judge(case))
            return (await _record(connection, experiment_id)).experiment

        return await self._database.transaction(body)

    async def restate(
        self,
        experiment_id: str,
        look: Callable[[Case, list[Case]], Restatement | None],
        restated: Callable[[Case], Experiment],
    ) -> Experiment:
        """Take in what was measured of a kept experiment after its verdict.

        Args:
            look: gets the case of the experiment and those of the latest near misses; None changes nothing.
            restated: gives it and those that were compared with it as all runs say that there are now.
        """

        async def body(connection: aiosqlite.Connection) -> Experiment:
            subject = await _record(connection, experiment_id)
            if subject.experiment.status != "keep":
                return subject.experiment
            rows = await connection.execute_fetchall(
                "SELECT id FROM experiments WHERE tag = ? AND near_miss AND status = 'discard'"
                " ORDER BY decided DESC LIMIT ?",
                [subject.experiment.tag, LOOKED_BACK],
            )
            case = await _case(connection, subject)
            records = [await _record(connection, row["id"]) for row in rows]
            said = look(case, [await _case(connection, each, case.repeats, chained=False) for each in records])
            if said is not None:
                await connection.execute(
                    "UPDATE experiments SET value = ?, runs = ?, squares = ?, dof = ? WHERE id = ?",
                    [said.value, said.runs, said.squares, said.dof, experiment_id],
                )
                for reopened, numbers in said.reopened.items():
                    reason = f"{REOPENED}: z is {numbers.z:.2f} now."
                    await connection.execute(
                        """
                        UPDATE experiments SET status = 'needs_confirmation', near_miss = 0, decided = NULL,
                            decided_at = NULL, reason = ?, numbers = ?, delta = ? WHERE id = ?
                        """,
                        [reason, dump(asdict(numbers)), numbers.d, reopened],
                    )
                await _follow(connection, case, restated)
            return (await _record(connection, experiment_id)).experiment

        return await self._database.transaction(body)

    async def move(self, experiment: Experiment, moved: Moved) -> bool:
        """Put an experiment that needs confirmation on another base; False if it is not what it was any more."""

        async def body(connection: aiosqlite.Connection) -> bool:
            row = await fetch(
                connection,
                "SELECT * FROM experiments WHERE id = ? AND commit_sha = ? AND status = 'needs_confirmation'",
                [experiment.id, experiment.commit],
            )
            if row is None:
                return False
            await leave(connection, experiment_of(row))
            await connection.execute(
                """
                UPDATE experiments SET commit_sha = ?, base_commit = ?, parent_id = ?, diff_summary = ?,
                    lines_added = ?, lines_removed = ?, changes = ? WHERE id = ?
                """,
                [
                    moved.commit,
                    moved.base_commit,
                    moved.parent_id,
                    moved.summary,
                    moved.added,
                    moved.removed,
                    dump(moved.changes),
                    experiment.id,
                ],
            )
            await remember(connection, experiment.tag, experiment.number, moved.fingerprint, moved.knobs)
            return True

        return await self._database.transaction(body)

    async def drop(self, experiment_id: str, reason: str) -> Experiment:
        """Discard an experiment that cannot be confirmed; a near miss where what was measured of it is near."""

        async def body(connection: aiosqlite.Connection) -> Experiment:
            near = is_near((await _record(connection, experiment_id)).experiment.numbers)
            await connection.execute(
                f"""
                UPDATE experiments SET status = 'discard', near_miss = ?, reason = ?, decided = {NEXT_DECISION},
                    decided_at = ? WHERE id = ? AND status = 'needs_confirmation'
                """,  # noqa: S608 - the expression is a constant
                [near, reason, time.time(), experiment_id],
            )
            return (await _record(connection, experiment_id)).experiment

        return await self._database.transaction(body)

    async def displace(
        self, experiment_id: str, taken_back: Callable[[Case], Experiment], restated: Callable[[Case], Experiment]
    ) -> Experiment:
        """Take back the best, which its own later runs do not bear out.

        Nothing changes where it is not the best any more.

        Args:
            taken_back: gives it as it is then, by its case without it as the best.
            restated: gives those that were compared with it, against what is kept before it.
        """

        async def body(connection: aiosqlite.Connection) -> Experiment:
            subject = (await _record(connection, experiment_id)).experiment
            last = await fetch(connection, LATEST_KEEP, [subject.tag])
            if last is not None and last["id"] == experiment_id:
                await connection.execute(
                    f"""
                    UPDATE experiments SET status = 'discard', decided = {NEXT_DECISION}, decided_at = ? WHERE id = ?
                    """,  # noqa: S608 - the expression is a constant
                    [time.time(), experiment_id],
                )
                case = await _case_of(connection, experiment_id)
                await write_numbers(connection, taken_back(case))
                await _follow(connection, case, restated, itself=False)
            return (await _record(connection, experiment_id)).experiment

        return await self._database.transaction(body)

    async def case(self, experiment_id: str) -> Case:
        """The case of an experiment as it now is; raises UnknownId."""
        return await self._database.transaction(lambda connection: _case_of(connection, experiment_id))


async def _case_of(connection: aiosqlite.Connection, experiment_id: str) -> Case:
    return await _case(connection, await _record(connection, experiment_id))


async def _case(
    connection: aiosqlite.Connection, subject: Record, repeats: tuple[Trial, ...] | None = None, *, chained: bool = True
) -> Case:
    """The case of a record.

    Args:
        repeats: read where they are not at hand.
        chained: whether the chain is read too, as verdicts need it.
    """
    tag = subject.experiment.tag
    first, last = await fetch(connection, FIRST_KEEP, [tag]), await fetch(connection, LATEST_KEEP, [tag])
    sums = await fetch(
        connection, "SELECT sum(squares) AS squares, sum(dof) AS dof FROM experiments WHERE tag = ? AND dof > 0", [tag]
    )
    first_keep = first["id"] if first else ""
    made_from = await sources(connection, subject.experiment)
    trials = tuple(replace(trial, base_id=made_from.get(trial.commit)) for trial in subject.trials)
    start = await fetch(connection, START_CRASHES, [tag]) if last is None else None
    subject = replace(subject, trials=trials, stands_in=bool(start and start["crashes"]))
    names = {trial.base_id or first_keep for trial in subject.trials} - {""}
    baseline = await _record(connection, first_keep) if first_keep else None
    bases = {name: await _record(connection, name) for name in sorted(names)}
    incumbent = await _record(connection, last["id"]) if last else None
    rows = await rows_of(connection, [subject, *bases.values(), *([incumbent] if incumbent else [])])
    assert sums is not None
    if repeats is None:
        found = list(await connection.execute_fetchall(REPEATED, [tag, REPEATS]))
        repeats = tuple(trial_of(row) for row in reversed(found))
    squares, dof = sums["squares"] or 0.0, sums["dof"] or 0
    case = Case(subject, incumbent, bases, first_keep, squares, dof, baseline, repeats, rows)
    if incumbent is None or not chained:
        return case
    chain = await _chain(connection, incumbent, first_keep)
    return replace(case, chain=chain, compared=await _compared(connection, tag))


async def _follow(
    connection: aiosqlite.Connection, case: Case, restated: Callable[[Case], Experiment], *, itself: bool = True
) -> None:
    """Write the present numbers of the subject of a case, if it is meant too, and of what was compared with it."""
    subject = case.subject.experiment
    rows = await connection.execute_fetchall(AFFECTED, [subject.tag, subject.id, subject.id, LOOKED_BACK])
    for name in [row["id"] for row in rows if itself or row["id"] != subject.id]:
        other = await _case(connection, await _record(connection, name), case.repeats, chained=False)
        await write_numbers(connection, restated(replace(other, chain=case.chain, compared=case.compared)))


async def _chain(connection: aiosqlite.Connection, best: Record, first_keep: str) -> tuple[Record, ...]:
    """The kept experiments that the best is made from, the baseline first."""
    found = [best]
    while len(found) < LEVELS and (name := await kept_from(connection, found[-1].experiment.parent_id)):
        found.append(await _record(connection, name))
    if found[-1].experiment.id != first_keep:
        found.append(await _record(connection, first_keep))
    return tuple(reversed(found))


async def _compared(connection: aiosqlite.Connection, tag: str) -> tuple[Numbers, ...]:
    """The numbers of the latest verdicts."""
    rows = await connection.execute_fetchall(
        "SELECT numbers FROM experiments WHERE tag = ? AND numbers IS NOT NULL AND status IN ('keep', 'discard')"
        " ORDER BY number DESC LIMIT ?",
        [tag, COMPARED],
    )
    return tuple(Numbers(**json.loads(row["numbers"])) for row in rows)


async def _record(connection: aiosqlite.Connection, experiment_id: str) -> Record:
    row = await fetch(connection, "SELECT * FROM experiments WHERE id = ?", [experiment_id])
    if row is None:
        raise UnknownId(f"No experiment has the id {experiment_id!r}", "Call history to see the ids")
    trials = await connection.execute_fetchall(
        "SELECT * FROM trials WHERE experiment_id = ? ORDER BY attempt", [experiment_id]
    )
    return Record(experiment_of(row), tuple(trial_of(trial) for trial in trials))


async def _write(connection: aiosqlite.Connection, case: Case, decision: Decision) -> None:
    experiment_id = case.subject.experiment.id
    if decision.status == "crash":
        await crash_body(connection, experiment_id, decision.reason, decision.metrics)
        return
    best_before = case.incumbent.experiment.value if case.incumbent else None
    await connection.execute(
        """
        UPDATE experiments SET status = ?, reason = ?, value = ?, delta = ?, best_before = ?, near_miss = ?,
            metrics = ?, origin = ?, numbers = ?, accepted_loss = ?, runs = ?, squares = ?, dof = ?,
            verification = ?, sandboxed = ?
        WHERE id = ?
        """,
        [
            decision.status,
            decision.reason,
            decision.value,
            decision.delta,
            best_before,
            decision.near_miss,
            dump(decision.metrics),
            decision.origin,
            dump(asdict(decision.numbers)) if decision.numbers else None,
            decision.accepted_loss,
            decision.runs,
            decision.squares,
            decision.dof,
            decision.verification,
            decision.sandboxed,
            experiment_id,
        ],
    )
    if decision.status == "needs_confirmation" and decision.value is not None:
        await connection.execute(
            f"UPDATE experiments SET promising_after = {NEXT_DECISION} - 1 WHERE id = ?",  # noqa: S608 - a constant
            [experiment_id],
        )
    if decision.status in FINISHED:
        await connection.execute(
            f"UPDATE experiments SET decided = {NEXT_DECISION}, decided_at = ? WHERE id = ?",  # noqa: S608 - a constant
            [time.time(), experiment_id],
        )
