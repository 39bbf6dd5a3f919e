"""What may be told of a run as likely true: its chain of kept changes with all their runs, read from the record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.research.case import Record, levelled, levelled_runs, noise_of, replicates, value_of
from mcp_server.research.chain import Level
from mcp_server.research.claims import Assessment, assess, smaller
from mcp_server.research.comparison import hidden_error, spread
from mcp_server.research.evidence import RECENT
from mcp_server.research.experiment import Experiment, Run, Trial
from mcp_server.research.hidden_text import hidden_value
from mcp_server.research.levels import levels_of
from mcp_server.research.noise import pool
from mcp_server.research.pairing import equal_runs
from mcp_server.research.selection import bound_seed

LIVE = ("queued", "training")
LEVELS = 50
"""So many kept changes, the latest of those that the best is made from, are looked at, and the baseline."""


@dataclass(frozen=True)
class Claiming:
    """What may be told of a run, and the state of what it rests on.

    Attributes:
        assessment: None while nothing is kept, the noise is not known, or the numbers come from outside.
        seeds: by the id of each level, those that it was run with.
        busy: ids of the levels of which a run is under way.
        untaken: ids of the levels that were run again and not completed since, the oldest first.
        bound: by the id of a level, the seed that its next run must have, where it must.
    """

    assessment: Assessment | None = None
    seeds: Mapping[str, frozenset[int]] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    untaken: tuple[str, ...] = ()
    bound: Mapping[str, int] = field(default_factory=dict)


async def claiming(bench: Bench, branch: Branch, run: Run) -> Claiming:
    """What may be told of a run as it now is."""
    records = await _chain(bench, branch, run)
    runs = [(record, levelled(run, record)) for record in records]
    bound = {r.experiment.id: seed for r in records if (seed := bound_seed(r.trials)) is not None}
    if run.task.external or not runs or not all(values for _, values in runs):
        return Claiming(bound=bound)
    noise = noise_of(run, *await bench.store.history.noise(run.tag))
    full = pool(values for _, values in runs)  # of these codes the first run counts too, as it does in the means
    squares = noise.sum_of_squares - sum(record.experiment.squares for record in records) + full.sum_of_squares
    dof = noise.dof - sum(record.experiment.dof for record in records) + full.dof
    compared = [
        (e.numbers.d, *equal_runs(e.numbers))
        for e in await bench.store.history.finished(run.tag, RECENT)
        if e.numbers is not None
    ]
    noise = noise_of(run, max(0.0, squares), max(0, dof))
    near = spread(run, await bench.store.efforts.repeats(run.tag)).noise(noise)
    found = assess(_levels(run, records, value_of), noise, compared, near)
    audited = _levels(run, records, hidden_value)
    hidden = None
    if len(audited) == len(runs):
        ends = [records[0], records[-1]]
        sampled = hidden_error(run, ends[1], ends[0], await bench.store.efforts.rows(ends)) if len(audited) > 2 else 0.0
        hidden = assess(_sampled(audited, records), noise, compared, near, sampled)
    return Claiming(
        smaller(found, hidden) if found else None,
        {record.experiment.id: frozenset(trial.seed for trial in record.trials) for record in records},
        frozenset(r.experiment.id for r in records if any(trial.status in LIVE for trial in r.trials)),
        tuple(r.experiment.id for r in records if len(replicates(run, r)) > r.experiment.runs),
        bound,
    )


async def _chain(bench: Bench, branch: Branch, run: Run) -> Sequence[Record]:
    """The kept experiments that the best is made from, the baseline first."""
    found: list[Experiment] = []
    keep = await bench.store.experiments.best(run.tag)
    while keep is not None and len(found) < LEVELS:
        found.append(keep)
        keep = await branch.kept_ancestor(keep)
    first = await bench.store.history.first_keep(run.tag)
    if found and first and found[-1].id != first:
        found.append(await bench.store.experiments.get(first))
    return [Record(e, tuple(await bench.store.trials.of(e.id))) for e in found[::-1]]


def _levels(run: Run, records: Sequence[Record], read: Callable[[Run, Trial], float | None]) -> list[Level]:
    """The records of a chain as they were measured, without those that have no value; the baseline first."""
    sign = -1.0 if run.task.direction == "minimize" else 1.0
    codes = [(record.experiment.id, levelled_runs(run, record, read)) for record in records]
    return levels_of(run.task, codes, lambda trial: sign * (read(run, trial) or 0.0))


def _sampled(levels: Sequence[Level], records: Sequence[Record]) -> list[Level]:
    """Levels on hidden text with what the choice of its rows may do to each step, by the numbers of its verdict."""
    numbers = {record.experiment.id: record.experiment.numbers for record in records}
    errors = {name: each.hidden_error for name, each in numbers.items() if each is not None}
    return [levels[0], *(replace(level, sampled=errors.get(level.name) or 0.0) for level in levels[1:])]
