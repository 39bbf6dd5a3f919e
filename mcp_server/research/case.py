"""A case: an experiment with its runs, and all that a verdict on it rests on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcp_server.research.bases import likely_levels, pulled
from mcp_server.research.chain import Level
from mcp_server.research.experiment import Experiment, Numbers, Run, Trial
from mcp_server.research.hidden_text import hidden_value
from mcp_server.research.noise import Noise, mean, pool, prior
from mcp_server.research.noise_aware import (
    Incumbent,
    counted,
    standing,
)
from mcp_server.research.pairing import equal_runs
from mcp_server.research.rows import RowScores
from mcp_server.research.selection import redraws, undecided
from mcp_server.research.verdict import finite


@dataclass(frozen=True)
class Record:
    """An experiment and its trials, the oldest first.

    Attributes:
        stands_in: it is judged as the baseline, though it changes something, since the script as it was crashes.
    """

    experiment: Experiment
    trials: tuple[Trial, ...] = ()
    stands_in: bool = False

    @property
    def is_baseline(self) -> bool:
        """Whether it is measured by itself, and was not selected for being better than something else."""
        compared = self.experiment.status != "keep" or self.experiment.numbers is not None
        return self.stands_in or self.experiment.unchanged or not compared

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials that ended with a result."""
        return tuple(trial for trial in self.trials if trial.status == "finished")

    @property
    def counting(self) -> tuple[Trial, ...]:
        """Those of them that say what it scores: once one was scored anew, a training's own word counts no more, nor
        what was drawn again."""
        anew = tuple(trial for trial in self.finished if self.is_scored(trial))
        return anew or self.finished

    @property
    def redraws(self) -> int:
        """How often it was drawn again after a training had been ended; what is measured by itself gains nothing so."""
        return 0 if self.stands_in or self.experiment.unchanged else len(redraws(self.trials))

    def is_scored(self, trial: Trial) -> bool:
        """Whether a keep may rest on a trial: it was scored anew, and was not drawn again."""
        return trial.verification != "reported" and not (self.redraws and trial.id in undecided(self.trials))


@dataclass(frozen=True)
class Case:
    """What a verdict rests on.

    Attributes:
        incumbent: the present best; None while there is none.
        bases: by id, the kept experiments that the runs of the subject were made from.
        first_keep: the id of what the run started from; the base of a run that names none.
        squares, dof: sums over the run's replicates, see `noise.Noise`.
        baseline: what the run started from, with its runs; None while there is none.
        repeats: the latest finished runs of experiments that have several.
        rows: by id, what trials scored by row, as far as that is known.
        chain: the kept experiments that the incumbent was made from, the baseline first and itself last; empty where
            bases count as the mean of their runs.
        compared: the numbers of the latest verdicts of the run.
    """

    subject: Record
    incumbent: Record | None = None
    bases: Mapping[str, Record] = field(default_factory=dict)
    first_keep: str = ""
    squares: float = 0.0
    dof: int = 0
    baseline: Record | None = None
    repeats: tuple[Trial, ...] = ()
    rows: Mapping[str, RowScores] = field(default_factory=dict)
    chain: tuple[Record, ...] = ()
    compared: tuple[Numbers, ...] = ()


MARKS: Mapping[str, Callable[[Trial], str]] = {
    "fingerprint": lambda trial: str(trial.metrics.get("fingerprint", "")),
    "device type": lambda trial: trial.device_type,
}
"""What runs must have in common to be compared."""


def value_of(run: Run, trial: Trial) -> float | None:
    """A trial's metric, if it is a finite number."""
    return finite(trial.metrics.get(run.task.metric))


def stand(run: Run, record: Record) -> Incumbent:
    """How a kept experiment stands as the base of others; one without trials, by the value that it was judged by."""
    replicates = replicate_values(run, record)
    if replicates is None:
        return standing(record.experiment.id, record.experiment.value or 0.0)
    hidden = replicate_values(run, record, hidden_value)
    return replace(standing(record.experiment.id, *replicates), hidden=mean(counted(*hidden)) if hidden else None)


def compared_with(run: Run, case: Case) -> Mapping[str, Incumbent]:
    """The incumbent and the bases of a case as what changes are compared with, by id, see `bases.pulled`."""
    noise = noise_of(run, case.squares, case.dof)
    likely = likely_levels(_levels(run, case, value_of), noise, comparisons(case))
    hidden = likely_levels(_levels(run, case, hidden_value), noise, comparisons(case))
    records = {**case.bases, **({case.incumbent.experiment.id: case.incumbent} if case.incumbent else {})}
    return {name: pulled(run.task, stand(run, record), likely, hidden) for name, record in records.items()}


def comparisons(case: Case) -> list[tuple[float, float, float]]:
    return [(numbers.d, *equal_runs(numbers)) for numbers in case.compared]


def _levels(run: Run, case: Case, read: Callable[[Run, Trial], float | None]) -> Sequence[Level]:
    """The chain of a case by one text; empty where some of it was not measured on that."""
    sign = -1.0 if run.task.direction == "minimize" else 1.0
    found = [(record.experiment.id, levelled(run, record, read)) for record in case.chain]
    if not all(values for _, values in found):
        return ()
    return [Level(name, sign * mean(values), len(values)) for name, values in found]


def replicates(run: Run, record: Record) -> tuple[float, ...]:
    """The runs of an experiment's present code that say what it scores, see `noise_aware.counted`."""
    found = replicate_values(run, record)
    return counted(*found) if found else ()


def independent(run: Run, record: Record) -> tuple[Trial, ...]:
    """The runs of a record that count, each draw of the noise once.

    With our harness no two seeds give exactly one score on both texts. A changed script whose do has a seed of its own,
    and its repeats are one draw again and again.
    """
    if record.is_baseline or not run.task.builtin:
        return record.counting
    found: list[Trial] = []
    for trial in record.counting:
        if not any(_alike(run, trial, other) for other in found):
            found.append(trial)
    return tuple(found)


def _alike(run: Run, one: Trial, other: Trial) -> bool:
    """Whether two runs of one code scored exactly the same under different seeds."""
    scores = [(trial.commit, value_of(run, trial), hidden_value(run, trial)) for trial in (one, other)]
    anew = "reported" not in (one.verification, other.verification)
    return anew and one.seed != other.seed and scores[0] == scores[1]


def levelled(run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of) -> tuple[float, ...]:
    """What is read of all `levelled_runs`."""
    return tuple(value for trial in levelled_runs(run, record, read) if (value := read(run, trial)) is not None)


def levelled_runs(run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of) -> tuple[Trial, ...]:
    """All finished runs of an experiment's present code, the one that it was selected by included; without those that
    say nothing of it.

    Args:
        read: what is to be known of each run.
    """
    set_aside = without_weight(record)
    return tuple(
        trial
        for trial in independent(run, record)
        if trial.commit == record.experiment.commit and trial.id not in set_aside and read(run, trial) is not None
    )


def replicate_values(
    run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of
) -> tuple[float | None, list[float], list[float]] | None:
    """The arguments of `noise_aware.counted`, as they are read of the runs; None where no run has a finite value."""
    parts = _parted(run, record, read)
    if parts is None:
        return None
    values = [[value for trial in part if (value := read(run, trial)) is not None] for part in parts]
    return values[0][0] if values[0] else None, values[1], values[2]


def _parted(
    run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of
) -> tuple[list[Trial], list[Trial], list[Trial]] | None:
    """The run that an experiment was selected by, if any, its confirmations, and the runs since its verdict."""
    set_aside = without_weight(record)
    runs = [
        trial
        for trial in independent(run, record)
        if trial.id not in set_aside and value_of(run, trial) is not None and read(run, trial) is not None
    ]
    if not runs:
        return None
    code = record.experiment.commit
    before = [trial for trial in runs if trial.came_from != "keep"]
    remeasures = [trial for trial in runs if trial.came_from == "keep" and trial.commit == code]
    if record.is_baseline:
        return [], before, remeasures
    return before[:1], [trial for trial in before[1:] if trial.commit == code], remeasures


def standing_runs(run: Run, record: Record) -> tuple[Trial, ...]:
    """The runs that `replicates` gives the values of."""
    parts = _parted(run, record)
    return counted(parts[0][0] if parts[0] else None, parts[1], parts[2]) if parts else ()


def without_weight(record: Record) -> dict[str, str]:
    """The runs after the verdict of a kept experiment that say nothing of it, by id, each with the reason."""
    found = {}
    for trial in record.finished:
        if trial.came_from != "keep":
            continue
        first = record.finished[0]
        other = next((what for what, mark in MARKS.items() if mark(trial) != mark(first)), "")
        if other:
            found[trial.id] = (
                f"{trial.id} has another {other} ({MARKS[other](trial)[:24] or 'none'}) than {first.id} "
                f"({MARKS[other](first)[:24] or 'none'})"
            )
        elif trial.error:
            found[trial.id] = f"{trial.id}: {trial.error}"
    return found


def error_of(run: Run, best: Experiment | None, noise: Noise) -> float | None:
    """Standard error of a kept experiment's value, sigma / sqrt(runs); None where the noise is not known."""
    if run.task.policy == "greedy" or best is None or noise.sigma is None or not best.runs:
        return None
    return noise.sigma / math.sqrt(best.runs)


def noise_of(run: Run, squares: float, dof: int) -> Noise:
    """The estimate of a run's noise from the sums over its replicates."""
    return Noise(squares, dof, prior(run.task, run.device_kind))


def weigh(run: Run, record: Record) -> Noise:
    """What the replicates of one experiment add to the estimate."""
    return pool([replicates(run, record)])


def present_values(run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of) -> list[float]:
    """What is read of the runs of a record's present code, as far as they have it."""
    found = [read(run, trial) for trial in record.counting if trial.commit == record.experiment.commit]
    return [value for value in found if value is not None]
