"""A case: an experiment with its runs, and all that a verdict on it rests on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcp_server.research.bases import LOUD_WORDS, in_words, is_loud, likely_levels, pulled
from mcp_server.research.chain import Level
from mcp_server.research.contention import unsettled
from mcp_server.research.experiment import Experiment, Numbers, Run, Scalar, Trial, fresh_seed
from mcp_server.research.hidden_text import hidden_value, limited
from mcp_server.research.noise import Noise, mean, pool, prior
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    compare,
    counted,
    judge_baseline,
    judge_candidate,
    standing,
    waiting,
)
from mcp_server.research.pairing import Pairing, Spread, doubt, equal_runs, pairs_of, spread_of
from mcp_server.research.rows import Comparison, RowGains, RowScores, compare_rows
from mcp_server.research.selection import redraws, undecided
from mcp_server.research.verdict import Verdict, finite, judge, show


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


def compared_with(run: Run, case: Case) -> Mapping[str, Incumbent]:
    """The incumbent and the bases of a case as what changes are compared with, by id, see `bases.pulled`."""
    noise = noise_of(run, case.squares, case.dof)
    likely = likely_levels(_levels(run, case, value_of), noise, _comparisons(case))
    hidden = likely_levels(_levels(run, case, hidden_value), noise, _comparisons(case))
    records = {**case.bases, **({case.incumbent.experiment.id: case.incumbent} if case.incumbent else {})}
    return {name: pulled(run.task, stand(run, record), likely, hidden) for name, record in records.items()}


def _comparisons(case: Case) -> list[tuple[float, float, float]]:
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
    found = _replicates(run, record)
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


def _replicates(
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


def _standing_runs(run: Run, record: Record) -> tuple[Trial, ...]:
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
    if reason := _incomparable(case) or _seedless(run, subject):
        return Verdict("discard", None, False, False, reason, "git_reset")
    values = [trial.metrics.get(run.task.metric) for trial in subject.counting]
    if run.task.policy == "greedy":
        return _by_the_last(run, case)
    noise = noise_of(run, case.squares, case.dof)
    seed = fresh_seed({trial.seed for trial in subject.trials})
    if incumbent is None and subject.is_baseline:
        own = weigh(run, subject)
        noise = noise_of(run, case.squares + own.sum_of_squares, case.dof + own.dof)
        return judge_baseline(run.task, subject.experiment.id, values or [None], noise, seed)
    best = compared_with(run, case)[incumbent.experiment.id] if incumbent else None
    compared = candidate(run, case)
    loud = is_loud(noise, _comparisons(case)) and run.task.policy == "noise_aware"
    why = _doubt(run, case, noise)
    verdict = judge_candidate(run.task, compared, best, noise, seed=seed, doubt=why, loud=loud)
    if verdict.numbers is None:
        return verdict
    if verdict.decision != "needs_confirmation" and not verdict.numbers.pairs and (why := _unsettled(run, case)):
        return waiting(run.task, verdict.numbers, why)
    verdict = _with_base(run, case, _with_hidden(run, compared, verdict))
    return replace(verdict, reason=f"{verdict.reason} {LOUD_WORDS}") if loud else verdict


def _unsettled(run: Run, case: Case) -> str:
    """Why the subject is not judged before the best, which it was made from, was run again."""
    last, best = case.subject.counting[-1:], case.incumbent
    if not last or best is None or (last[0].base_id or case.first_keep) != best.experiment.id:
        return ""
    return unsettled(run, case.subject.trials, best.trials)


def _with_base(run: Run, case: Case, verdict: Verdict) -> Verdict:
    """A verdict whose reason says what its base counts as, where that is not the mean of its runs."""
    name = verdict.numbers.base if verdict.numbers else ""
    if name not in case.bases:
        return verdict
    said = in_words(stand(run, case.bases[name]), compared_with(run, case)[name])
    return replace(verdict, reason=" ".join(filter(None, (verdict.reason, said))))


def _with_hidden(run: Run, candidate: Candidate, verdict: Verdict) -> Verdict:
    """A verdict whose reason says where the gain on hidden text is the one that counts."""
    gains = [(each.validation_gain(run.task), each.hidden_gain(run.task)) for each in candidate.runs]
    hidden = [gain for _, gain in gains if gain is not None]
    if len(hidden) < len(gains):
        return verdict
    return limited(verdict, mean([gain for gain, _ in gains]), mean(hidden), candidate.by_row)


def _by_the_last(run: Run, case: Case) -> Verdict:
    """The verdict of the policy that takes the last run of the subject as it is."""
    subject, incumbent = case.subject, case.incumbent
    last = subject.counting[-1] if subject.counting else None
    best = incumbent.experiment.value if incumbent else None
    value = last.metrics.get(run.task.metric) if last else None
    number = finite(value)
    if incumbent is None or last is None or number is None or best is None:
        return judge(run.task, value, best)
    hidden, bases = hidden_value(run, last), _present(run, incumbent, hidden_value)
    gain = run.task.improvement(hidden, mean(bases)) if hidden is not None and bases else None
    by_row = _by_row_of_present(run, case, last, incumbent)
    return limited(judge(run.task, value, best, gain), run.task.improvement(number, best), gain, by_row)


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
    experiment, counting, bases = case.subject.experiment, case.subject.counting, compared_with(run, case)
    runs = tuple(_replicate(run, bases.get(trial.base_id or case.first_keep), trial) for trial in counting)
    made_from = [(trial, case.bases.get(trial.base_id or case.first_keep)) for trial in counting]
    now = [(trial, case.incumbent) for trial, base in made_from if counting and base == made_from[-1][1]]
    missing: Scalar | None = None
    return Candidate(
        experiment.id,
        runs or (Replicate(missing, "", 0.0, 1),),
        experiment.lines_added - experiment.lines_removed,
        _pairing(run, case),
        _by_row(run, case, made_from),
        _by_row(run, case, now),
    )


def present_numbers(run: Run, case: Case) -> Numbers | None:
    """How an experiment compares with what it was made from, by all runs that there are of both now.

    None where that is not known: under the greedy policy, and where a run has no value.
    """
    noise, compared = noise_of(run, case.squares, case.dof), candidate(run, case)
    known = all(finite(each.value) is not None and each.base for each in compared.runs)
    if run.task.policy == "greedy" or case.incumbent is None or noise.sigma is None or not known:
        return None
    return compare(run.task, compared, compared_with(run, case)[case.incumbent.experiment.id], noise)


def spread(run: Run, repeats: Sequence[Trial]) -> Spread:
    """How far runs differ that should not, near in time and between times."""
    return spread_of(run.task, repeats, lambda trial: value_of(run, trial))


def _doubt(run: Run, case: Case, noise: Noise) -> str:
    """Why the last run of the subject, if it is in no pair, is not enough to keep it; empty where it may be."""
    last = case.subject.counting[-1:]
    base = case.bases.get(last[0].base_id or case.first_keep) if last else None
    return doubt(run.task, spread(run, case.repeats), noise, last, base.counting) if base else ""


def _pairing(run: Run, case: Case) -> Pairing | None:
    """The gains of the subject's pairs with its bases, and of the rest; None where no run is paired."""
    gains: list[float] = []
    rest: list[Replicate] = []
    runs = [trial for trial in case.subject.counting if value_of(run, trial) is not None]
    for base_id in dict.fromkeys(trial.base_id or case.first_keep for trial in runs):
        if (base := case.bases.get(base_id)) is None:
            continue
        own = [trial for trial in runs if (trial.base_id or case.first_keep) == base_id]
        others = _standing_runs(run, base)
        pairs = pairs_of(run.task, own, others)
        gains += [_compared(run, pair.own, (pair.beside,), base_id).gain(run.task) for pair in pairs]
        taken = {trial.id for pair in pairs for trial in (pair.own, pair.beside)}
        if left := tuple(trial for trial in others if trial.id not in taken):
            rest += [_compared(run, trial, left, base_id) for trial in own if trial.id not in taken]
    if not gains:
        return None
    noise = spread(run, case.repeats).noise(noise_of(run, case.squares, case.dof))
    if not rest:
        return Pairing(tuple(gains), noise)
    return Pairing(tuple(gains), noise, mean([each.gain(run.task) for each in rest]), len(rest), rest[-1].base_runs)


def _compared(run: Run, trial: Trial, others: Sequence[Trial], base_id: str) -> Replicate:
    """A run against the mean of so many of its base."""
    values = [value for other in others if (value := value_of(run, other)) is not None]
    hidden = [value for other in others if (value := hidden_value(run, other)) is not None]
    own = hidden_value(run, trial)
    return Replicate(value_of(run, trial), base_id, mean(values), len(values), own, mean(hidden) if hidden else None)


def _by_row(run: Run, case: Case, compared: Sequence[tuple[Trial, Record | None]]) -> RowGains | None:
    """The gain by row of trials over kept experiments, as those stand; None where any of it is not known by row."""
    found: list[Comparison] = []
    for trial, base in compared:
        one, others = _rows_of(case, trial), _rows_behind(run, case, base) if base else []
        if one is None or not others:
            return None
        found.append((one, others))
    return compare_rows(run.task, found)


def _rows_behind(run: Run, case: Case, record: Record) -> list[RowScores]:
    """The scores by row of those runs whose mean `stand` takes; empty where any has none."""
    trials = {float(trial.attempt): trial for trial in record.trials}
    behind = _replicates(run, record, lambda _, trial: float(trial.attempt))
    rows = [_rows_of(case, trials[attempt]) for attempt in counted(*behind)] if behind else []
    known = [each for each in rows if each is not None]
    return known if len(known) == len(rows) else []


def _by_row_of_present(run: Run, case: Case, trial: Trial, record: Record) -> RowGains | None:
    """The gain by row of one trial over those of a record's present code."""
    code = record.experiment.commit
    one, *rest = (_rows_of(case, each) for each in (trial, *(t for t in record.counting if t.commit == code)))
    others = [each for each in rest if each is not None]
    return compare_rows(run.task, [(one, others)]) if one is not None and len(others) == len(rest) else None


def _rows_of(case: Case, trial: Trial) -> RowScores | None:
    """What a trial scored by row, unless by the training's own word."""
    return None if trial.verification == "reported" else case.rows.get(trial.id)


def _replicate(run: Run, base: Incumbent | None, trial: Trial) -> Replicate:
    metric = trial.metrics.get(run.task.metric)
    if base is None:
        return Replicate(metric, "", 0.0, 1)
    return Replicate(metric, base.name, base.mean, base.runs, hidden_value(run, trial), base.hidden)


def _rejected(case: Case) -> str:
    """Why the score of the subject does not count: a finished trial with an error failed its checks."""
    return next((trial.error for trial in reversed(case.subject.finished) if trial.error), "")


def _seedless(run: Run, subject: Record) -> str:
    """That the runs of the subject came out exactly alike under different seeds; empty where they did not."""
    if len(independent(run, subject)) == len(subject.counting):
        return ""
    first, seeds = subject.counting[0], sorted({trial.seed for trial in subject.counting})
    return (
        f"Its runs with the seeds {', '.join(map(str, seeds))} came out exactly alike ({run.task.metric} "
        f"{show(value_of(run, first) or 0.0)}): it draws from a seed of its own, so that its luck cannot be told from "
        "its merit. Let the script take its seed from AUTORESEARCH_SEED."
    )


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
