"""The verdict on a case, by the policy of its run."""

from collections.abc import Sequence
from dataclasses import replace

from mcp_server.research.bases import LOUD_WORDS, in_words, is_loud
from mcp_server.research.case import (
    MARKS,
    Case,
    Record,
    compared_with,
    comparisons,
    independent,
    noise_of,
    present_values,
    replicates,
    stand,
    value_of,
    weigh,
    without_weight,
)
from mcp_server.research.comparison import by_row_of_present, candidate, doubt_of
from mcp_server.research.contention import unsettled
from mcp_server.research.experiment import Run, fresh_seed
from mcp_server.research.hidden_text import hidden_value, limited
from mcp_server.research.noise import mean
from mcp_server.research.noise_aware import (
    Candidate,
    judge_baseline,
    judge_candidate,
    waiting,
)
from mcp_server.research.verdict import Verdict, finite, judge, show

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
    loud = is_loud(noise, comparisons(case)) and run.task.policy == "noise_aware"
    why = doubt_of(run, case, noise)
    verdict = judge_candidate(run.task, compared, best, noise, seed=seed, doubt=why, loud=loud)
    if verdict.numbers is None:
        return verdict
    if not verdict.numbers.pairs and (why := _unsettled(run, case)):
        numbers = replace(verdict.numbers, awaits_base=True)
        if verdict.decision != "needs_confirmation":
            return waiting(run.task, numbers, why)
        verdict = replace(verdict, numbers=numbers)
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
    hidden, bases = hidden_value(run, last), present_values(run, incumbent, hidden_value)
    gain = run.task.improvement(hidden, mean(bases)) if hidden is not None and bases else None
    by_row = by_row_of_present(run, case, last, incumbent)
    return limited(judge(run.task, value, best, gain), run.task.improvement(number, best), gain, by_row)


def scored(run: Run, record: Record, verdict: Verdict) -> float | None:
    """What an experiment scores after a verdict: the mean of the runs that count; None without a finite one."""
    if verdict.decision == "keep" and run.task.policy != "greedy":
        counting: Sequence[float] = replicates(run, record)
    else:
        counting = present_values(run, record)
    return mean(counting) if counting else None


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
