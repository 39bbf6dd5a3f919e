"""Which scores are made anew, and which then count."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from mcp_server.research.case import Case, Record, decide
from mcp_server.research.experiment import Ending, Experiment, Run, Status, Trial, Verification
from mcp_server.research.rescoring import Rescored, fault, to_be_rescored, with_ending
from mcp_server.research.task import Policy, Task

TASK = Task(
    *("val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",)),
    policy="greedy",
    builtin=True,
    rescore_command="python scoring.py score",
    judge_command="python scoring.py judge",
)


def run(kind: str = "cuda", **fields: Any) -> Run:
    return Run("mar8", "autoresearch/mar8", "c0", replace(TASK, **fields), kind, {}, 0.0)


def record(name: str, value: float | None = None, audit: float | None = None, **fields: Any) -> Record:
    """A kept experiment of one verified run, or a candidate in its first training."""
    number = int(name[1:])
    status: Status = "training" if value is None else "keep"
    experiment = Experiment(
        *(name, "mar8", number, "ada", f"c{number}", "c0", "better", "other", name, 0.0), status=status, value=value
    )
    verified: Verification = "reported" if value is None else "verified"
    metrics = {} if value is None else {"val_bpb": value, "val_bpb_audit": audit if audit is not None else value}
    trial = Trial(
        *(f"{name}.1", name, 1, 42, "cuda", "training" if value is None else "finished", 0.0),
        commit=f"c{number}",
        metrics=metrics,
        verification=verified,
        **fields,
    )
    return Record(replace(experiment, diff_summary="no change" if number == 1 else "LR"), (trial,))


def case(best: Record | None, first: Record | None = None, **fields: Any) -> Case:
    """A candidate, made from the present best."""
    first = first or best
    subject = record("e9", **fields) if best else record("e1")
    return Case(
        subject, best, {best.experiment.id: best} if best else {}, best.experiment.id if best else "", baseline=first
    )


def test_other_data_than_the_baselines_are_told_of_first() -> None:
    told = replace(BEST, trials=(replace(BEST.trials[0], metrics={**BEST.trials[0].metrics, "fingerprint": "a" * 64}),))
    for fingerprint, why in (
        ("a" * 64, ""),
        ("b" * 64, "the prepared data or the judge is not what e1 was scored with"),
    ):
        assert fault(run(), case(told), 0.9, Rescored(0.9, 1.0, fingerprint)).startswith(why)
        assert bool(fault(run(), case(told), 0.9, Rescored(0.9, 1.0, fingerprint))) == bool(why)


def ended(value: float | str | None, **fields: Any) -> Ending:
    return Ending("finished", 0.0, 0, {} if value is None else {"val_bpb": value}, **fields)


BEST = record("e1", 1.0, 1.1)


@pytest.mark.parametrize(
    ("policy", "came_from", "value", "wanted"),
    [
        ("greedy", "registered", 0.9999, True),
        ("greedy", "registered", 1.0, False),
        ("greedy", "registered", 1.1, False),
        ("greedy", "keep", 1.1, True),  # the best, measured again
        ("noise_aware", "registered", 0.9999, True),  # too little to be kept now, but the noise may turn out less
        ("noise_aware", "registered", 1.0001, False),
        ("noise_aware", "registered", 1.5, False),
        ("strict", "registered", 0.5, True),
    ],
)
def test_what_might_be_kept_is_scored_anew(policy: Policy, came_from: Status, value: float, wanted: bool) -> None:
    seen = case(BEST, came_from=came_from)
    assert to_be_rescored(run(policy=policy), seen, seen.subject.trials[-1], ended(value)) == wanted


def test_a_shorter_script_that_may_be_kept_as_a_simplification_is_scored_anew() -> None:
    seen = case(BEST)
    shorter = replace(seen, subject=replace(seen.subject, experiment=replace(seen.subject.experiment, lines_removed=9)))
    ending = ended(1.0001)  # z is about -0.14
    noisy = run(policy="noise_aware")
    assert to_be_rescored(noisy, shorter, seen.subject.trials[-1], ending)
    assert not to_be_rescored(noisy, seen, seen.subject.trials[-1], ending)


def test_baselines_always_are_and_what_has_no_score_never() -> None:
    first = case(None)
    trial = first.subject.trials[-1]
    assert to_be_rescored(run(), first, trial, ended(7.0))
    assert not to_be_rescored(run(rescore_command=""), first, trial, ended(7.0))
    for ending in (
        ended(None),
        ended("nan"),
        ended(1.0, error="its checks failed"),
        replace(ended(1.0), status="failed"),
    ):
        assert not to_be_rescored(run(), first, trial, ending)


@pytest.mark.parametrize(
    ("printed", "value", "audit", "partial", "says"),
    [
        (0.90, 0.90, 1.00, False, ""),
        (0.9004, 0.90, 1.00, False, ""),  # within 3 sigma = 0.0015
        (0.89, 0.90, 1.00, False, "the training printed val_bpb 0.890000, and the model that it handed in scores 0.9"),
        (0.91, 0.90, 1.00, False, "the training printed val_bpb 0.910000"),  # it is another model, whichever way
        (0.89, 0.90, 1.00, True, ""),  # only a part was scored anew
        (0.80, 0.90, 1.00, True, "the training printed"),
        (0.90, 0.90, 1.04, False, ""),  # better by 0.10 and, on the audit data, by 0.06
        (0.90, 0.90, 1.06, False, "is better than that of e1 by 0.100000, and 1.060000 on the audit data"),
        (0.90, 0.90, 1.30, False, "no training sees, by -0.200000 only"),
        (0.9995, 0.9995, 1.1004, False, ""),  # differences as small as noise say nothing
        (0.90, 0.90, None, False, ""),
    ],
)
def test_what_is_scored_anew_must_bear_out_what_was_printed(
    printed: float, value: float, audit: float | None, partial: bool, says: str
) -> None:
    found = fault(run(policy="noise_aware"), case(BEST), printed, Rescored(value, audit, partial=partial))
    assert (says in found) == (says == found or bool(says))
    assert bool(found) == bool(says)


def test_a_gain_must_show_on_the_audit_data_against_the_best_and_against_the_baseline() -> None:
    later = record("e5", 0.9, 0.95)
    against_both = case(later, BEST)
    assert fault(run(), against_both, 0.85, Rescored(0.85, 0.92)) == ""
    assert "of e5" in fault(run(), against_both, 0.80, Rescored(0.80, 0.94))
    lucky = record("e5", 0.9, 1.08)  # which lost most of its gain on the audit data
    assert "of e1" in fault(run(), case(lucky, BEST), 0.89, Rescored(0.89, 1.07))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_either_direction(direction: Literal["minimize", "maximize"]) -> None:
    sign = 1 if direction == "minimize" else -1
    best = record("e1", sign * 1.0, sign * 1.1)
    task = run(direction=direction, metric="val_bpb")
    assert fault(task, case(best), sign * 0.9, Rescored(sign * 0.9, sign * 1.0)) == ""
    assert "audit" in fault(task, case(best), sign * 0.9, Rescored(sign * 0.9, sign * 1.1))


def test_a_trainings_own_word_is_never_kept_where_scores_are_made_anew() -> None:
    seen = case(BEST)
    trial = seen.subject.trials[-1]
    said = decide(run(), with_ending(seen, trial, ended(0.5)))
    assert (said.decision, said.action, "own word" in said.reason) == ("needs_confirmation", "confirm", True)
    assert decide(run(), with_ending(seen, trial, ended(0.5, verification="verified"))).decision == "keep"
    assert decide(run(rescore_command=""), with_ending(seen, trial, ended(0.5))).decision == "keep"
    assert decide(run(), with_ending(seen, trial, ended(1.5))).decision == "discard"


def test_once_a_run_was_scored_anew_the_others_count_no_more() -> None:
    seen = case(BEST)
    first = replace(seen.subject.trials[-1], status="finished", metrics={"val_bpb": 0.1})
    second = replace(first, id="e9.2", attempt=2, metrics={"val_bpb": 1.2}, verification="verified")
    both = replace(seen, subject=replace(seen.subject, trials=(first, second)))
    assert both.subject.counting == (second,)
    verdict = decide(run(policy="noise_aware"), both)
    assert verdict.decision == "discard"
    assert verdict.numbers is not None
    assert verdict.numbers.n == 1
