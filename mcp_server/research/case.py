"""A case: an experiment with its runs, and all that a verdict on it rests on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcp_server.research.experiment import Experiment, Run, Scalar, Trial, fresh_seed
from mcp_server.research.hidden_text import hidden_value, limited
from mcp_server.research.noise import Noise, mean, pool, prior
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    counted,
    judge_baseline,
    judge_candidate,
    standing,
)
from mcp_server.research.selection import redraws, undecided
from mcp_server.research.verdict import Verdict, finite, judge


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
    """

    subject: Record
    incumbent: Record | None = None
    bases: Mapping[str, Record] = field(default_factory=dict)
    first_keep: str = ""
    squares: float = 0.0
    dof: int = 0
    baseline: Record | None = None


MARKS: Mapping[str, Callable[[Trial], str]] = {
    "fingerprint": lambda trial: str(trial.metrics.get("fingerprint", "")),
    "device type": lambda trial: trial.device_type,
}
"""What runs must have in common to be compared."""


OWN_WORD = "that is the training's own word, which was not in reach of the best at the time"
DRAWN_AGAIN = (
    "a training of it was ended before, for its score perhaps, and this is another draw: measure it once more, since "
    "none counts but what is measured after that"
)
DRAWN_TWICE = (
    "trainings of it were ended and drawn again more than once, for their scores perhaps, so that none of its runs "
    "shows a gain: let trainings come to their end, behind walls (bubblewrap) where it was not you who ended them"
)
"""Why a gain is not enough for a keep."""


def value_of(run: Run, trial: Trial) -> float | None:
    """A trial's metric, if it is a finite number."""
    return finite(trial.metrics.get(run.task.metric))


def stand(run: Run, record: Record) -> Incumbent:
    """How a kept experiment stands as the base of others; one without trials, by the value that it was judged by."""
    replicates = _replicates(run, record)
    if replicates is None:
        return standing(record.experiment.id, record.experiment.value or 0.0)
    hidden = _replicates(run, record, hidden_value)
    return replace(standing(record.experiment.id, *replicates), hidden=mean(counted(*hidden)) if hidden else None)


def replicates(run: Run, record: Record) -> tuple[float, ...]:
    """The runs of an experiment's present code that say what it scores, see `noise_aware.counted`."""
    found = _replicates(run, record)
    return counted(*found) if found else ()


def levelled(run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of) -> tuple[float, ...]:
    """All finite runs of an experiment's present code, the one that it was selected by included; without those that
    say nothing of it.

    Args:
        read: what is read of each run.
    """
    set_aside = without_weight(record)
    return tuple(
        value
        for trial in record.counting
        if trial.commit == record.experiment.commit
        and trial.id not in set_aside
        and (value := read(run, trial)) is not None
    )


def _replicates(
    run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of
) -> tuple[float | None, list[float], list[float]] | None:
    """The arguments of `noise_aware.counted`, as they are read of the runs; None where no run has a finite value."""
    set_aside = without_weight(record)
    runs = [
        (trial, value)
        for trial in record.counting
        if trial.id not in set_aside and value_of(run, trial) is not None and (value := read(run, trial)) is not None
    ]
    if not runs:
        return None
    code = record.experiment.commit
    before = [(trial, value) for trial, value in runs if trial.came_from != "keep"]
    remeasures = [value for trial, value in runs if trial.came_from == "keep" and trial.commit == code]
    if record.is_baseline:
        return None, [value for _, value in before], remeasures
    confirmations = [value for trial, value in before[1:] if trial.commit == code]
    return before[0][1] if before else None, confirmations, remeasures


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


def decide(run: Run, case: Case) -> Verdict:
    """Judge the subject of a case by the policy of its run, from the trials that this server measured.

    Where the task has scores made anew, none but such a score is kept, and none that was drawn again.
    """
    verdict, subject = _decide(run, case), case.subject
    if verdict.decision not in ("keep", "needs_confirmation") or not run.task.rescore_command:
        return verdict
    if subject.redraws > 1:
        reason = f"{verdict.reason} But {DRAWN_TWICE}."
        return replace(verdict, decision="discard", reason=reason, action="git_reset", improved=False)
    if verdict.decision != "keep" or all(map(subject.is_scored, subject.counting)):
        return verdict
    last = subject.counting[-1]
    reason = f"{verdict.reason} But {OWN_WORD if last.verification == 'reported' else DRAWN_AGAIN}."
    return replace(verdict, decision="needs_confirmation", reason=reason, action="confirm", improved=False)


def _decide(run: Run, case: Case) -> Verdict:
    subject, incumbent = case.subject, case.incumbent
    if reason := _rejected(case):
        baseline = incumbent is None and subject.is_baseline  # without one, nothing else could be judged
        return Verdict("crash" if baseline else "discard", None, False, False, reason, "git_reset")
    if reason := _incomparable(case):
        return Verdict("discard", None, False, False, reason, "git_reset")
    values = [trial.metrics.get(run.task.metric) for trial in subject.counting]
    if run.task.policy == "greedy":
        return _by_the_last(run, subject, incumbent)
    noise = noise_of(run, case.squares, case.dof)
    seed = fresh_seed({trial.seed for trial in subject.trials})
    if incumbent is None and subject.is_baseline:
        own = weigh(run, subject)
        noise = noise_of(run, case.squares + own.sum_of_squares, case.dof + own.dof)
        return judge_baseline(run.task, subject.experiment.id, values or [None], noise, seed)
    best = stand(run, incumbent) if incumbent else None
    compared = candidate(run, case)
    verdict = judge_candidate(run.task, compared, best, noise, seed=seed)
    return verdict if verdict.numbers is None else _with_hidden(run, compared, verdict)


def _with_hidden(run: Run, candidate: Candidate, verdict: Verdict) -> Verdict:
    """A verdict whose reason says where the gain on hidden text is the one that counts."""
    gains = [(each.validation_gain(run.task), each.hidden_gain(run.task)) for each in candidate.runs]
    hidden = [gain for _, gain in gains if gain is not None]
    return limited(verdict, mean([gain for gain, _ in gains]), mean(hidden)) if len(hidden) == len(gains) else verdict


def _by_the_last(run: Run, subject: Record, incumbent: Record | None) -> Verdict:
    """The verdict of the policy that takes the last run of the subject as it is."""
    last = subject.counting[-1] if subject.counting else None
    best = incumbent.experiment.value if incumbent else None
    value = last.metrics.get(run.task.metric) if last else None
    number = finite(value)
    if incumbent is None or last is None or number is None or best is None:
        return judge(run.task, value, best)
    hidden, bases = hidden_value(run, last), _present(run, incumbent, hidden_value)
    gain = run.task.improvement(hidden, mean(bases)) if hidden is not None and bases else None
    return limited(judge(run.task, value, best, gain), run.task.improvement(number, best), gain)


def _present(run: Run, record: Record, read: Callable[[Run, Trial], float | None] = value_of) -> list[float]:
    """What is read of the runs of a record's present code, as far as they have it."""
    found = [read(run, trial) for trial in record.counting if trial.commit == record.experiment.commit]
    return [value for value in found if value is not None]


def scored(run: Run, record: Record, verdict: Verdict) -> float | None:
    """What an experiment scores after a verdict: the mean of the runs that count; None without a finite one."""
    if verdict.decision == "keep" and run.task.policy != "greedy":
        counting: Sequence[float] = replicates(run, record)
    else:
        counting = _present(run, record)
    return mean(counting) if counting else None


def candidate(run: Run, case: Case) -> Candidate:
    """The subject of a case as the judge sees it."""
    experiment = case.subject.experiment
    runs = tuple(_replicate(run, case, trial) for trial in case.subject.counting)
    missing: Scalar | None = None
    return Candidate(
        experiment.id,
        runs or (Replicate(missing, "", 0.0, 1),),
        experiment.lines_added - experiment.lines_removed,
    )


def _replicate(run: Run, case: Case, trial: Trial) -> Replicate:
    base = case.bases.get(trial.base_id or case.first_keep)
    metric = trial.metrics.get(run.task.metric)
    if base is None:
        return Replicate(metric, "", 0.0, 1)
    incumbent = stand(run, base)
    hidden = hidden_value(run, trial)
    return Replicate(metric, incumbent.name, incumbent.mean, incumbent.runs, hidden, incumbent.hidden)


def _rejected(case: Case) -> str:
    """Why the score of the subject does not count: a finished trial with an error failed its checks."""
    return next((trial.error for trial in reversed(case.subject.finished) if trial.error), "")


def _incomparable(case: Case) -> str:
    """Why the results of a case cannot be compared; empty where they can."""
    records = [case.subject, *case.bases.values(), *([case.incumbent] if case.incumbent else [])]
    counting = [trial for record in records for trial in record.finished if trial.id not in without_weight(record)]
    for what, mark in MARKS.items():
        seen: dict[str, str] = {}
        for trial in counting:
            seen.setdefault(mark(trial), trial.id)
        if len(seen) > 1:
            told = ", ".join(f"{name[:24] or 'none'} in {trial}" for name, trial in list(seen.items())[:3])
            return f"Results with different {what}s are never compared: {told}."
    return ""
