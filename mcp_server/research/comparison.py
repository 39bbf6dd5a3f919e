"""The subject of a case as it compares with what it was made from: by means, in pairs and by row."""

from collections.abc import Mapping, Sequence
from functools import partial

from mcp_server.research.blocks import Pairing, samples_of
from mcp_server.research.case import (
    Case,
    Record,
    compared_with,
    levelled_runs,
    noise_of,
    replicate_values,
    standing_runs,
    value_of,
)
from mcp_server.research.experiment import Numbers, Run, Scalar, Trial
from mcp_server.research.hidden_text import hidden_value
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    compare,
    counted,
)
from mcp_server.research.pairing import Spread, doubt, pairs_of, spread_of
from mcp_server.research.rows import Comparison, RowGains, RowScores, compare_rows
from mcp_server.research.verdict import finite


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


def doubt_of(run: Run, case: Case, noise: Noise) -> str:
    """Why the last run of the subject, if it is in no pair, is not enough to keep it; empty where it may be."""
    last = case.subject.counting[-1:]
    base = case.bases.get(last[0].base_id or case.first_keep) if last else None
    return doubt(run.task, spread(run, case.repeats), noise, last, base.counting) if base else ""


def _pairing(run: Run, case: Case) -> Pairing | None:
    """The runs of the subject and of its bases in blocks near in time; None where no two of them are a pair."""
    pairs, texts = 0, []
    runs = [trial for trial in case.subject.counting if value_of(run, trial) is not None]
    for base_id in dict.fromkeys(trial.base_id or case.first_keep for trial in runs):
        if (base := case.bases.get(base_id)) is None:
            continue
        own = [trial for trial in runs if (trial.base_id or case.first_keep) == base_id]
        others = standing_runs(run, base)
        pairs += len(pairs_of(run.task, own, others))
        both = tuple(samples_of(run.task, own, others, partial(read, run)) for read in (value_of, hidden_value))
        texts += [both] if both[0] else []
    if not pairs:
        return None
    known = tuple(text for text in zip(*texts, strict=True) if all(text))
    return Pairing(pairs, known, spread(run, case.repeats), noise_of(run, case.squares, case.dof))


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
    behind = replicate_values(run, record, lambda _, trial: float(trial.attempt))
    rows = [_rows_of(case, trials[attempt]) for attempt in counted(*behind)] if behind else []
    known = [each for each in rows if each is not None]
    return known if len(known) == len(rows) else []


def by_row_of_present(run: Run, case: Case, trial: Trial, record: Record) -> RowGains | None:
    """The gain by row of one trial over those of a record's present code."""
    code = record.experiment.commit
    one, *rest = (_rows_of(case, each) for each in (trial, *(t for t in record.counting if t.commit == code)))
    others = [each for each in rest if each is not None]
    return compare_rows(run.task, [(one, others)]) if one is not None and len(others) == len(rest) else None


def hidden_error(run: Run, record: Record, base: Record, rows: Mapping[str, RowScores]) -> float:
    """The standard error over rows of a record's gain on hidden text over another; 0 where that is not known by row.

    Args:
        rows: by id, what their trials scored by row.
    """
    own, others = ([rows.get(t.id) for t in levelled_runs(run, each, hidden_value)] for each in (record, base))
    known = [each for each in others if each is not None]
    if len(known) < len(others) or None in own:
        return 0.0
    gains = compare_rows(run.task, [(one, known) for one in own if one is not None])
    return gains.hidden.error if gains is not None and gains.hidden is not None else 0.0


def _rows_of(case: Case, trial: Trial) -> RowScores | None:
    """What a trial scored by row, unless by the training's own word."""
    return None if trial.verification == "reported" else case.rows.get(trial.id)


def _replicate(run: Run, base: Incumbent | None, trial: Trial) -> Replicate:
    metric = trial.metrics.get(run.task.metric)
    if base is None:
        return Replicate(metric, "", 0.0, 1)
    return Replicate(metric, base.name, base.mean, base.runs, hidden_value(run, trial), base.hidden)
