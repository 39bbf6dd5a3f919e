"""Which scores are made anew, and which then count."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from mcp_server.research.case import Case, Record
from mcp_server.research.decision import decide
from mcp_server.research.experiment import Ending, Experiment, Run, Status, Trial, TrialStatus, Verification
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


def test_what_was_run_beside_the_best_is_scored_anew_whatever_it_came_to() -> None:
    seen = case(BEST)
    again = replace(BEST.trials[0], id="e1.2", attempt=2, came_from="keep")
    for other, wanted in (
        (again, True),
        (replace(again, status="training", metrics={}), True),  # under way on another device
        (replace(again, seed=43), False),
        (replace(again, queued_at=1e6), False),
        (replace(again, came_from="registered"), False),
    ):
        best = replace(BEST, trials=(*BEST.trials, other))
        found = replace(seen, incumbent=best, bases={"e1": best})
        noisy = run(policy="noise_aware")
        assert to_be_rescored(noisy, found, found.subject.trials[-1], ended(1.5)) == wanted


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
        (0.90, 1.20, 1.30, False, "the training printed val_bpb 0.900000, and the model that it handed in scores 1.2"),
        (1.10, 1.20, 1.30, False, ""),  # neither claims a gain over 1.0: it is worse, and nothing else
        (0.90, 0.90, 1.06, False, ""),  # learnt by heart in part: the verdict counts what is left
        (0.90, 0.90, 1.30, False, ""),
        (0.90, 0.90, None, False, ""),
    ],
)
def test_what_is_scored_anew_must_bear_out_what_was_printed(
    printed: float, value: float, audit: float | None, partial: bool, says: str
) -> None:
    found = fault(run(policy="noise_aware"), case(BEST), printed, Rescored(value, audit, partial=partial))
    assert (says in found) == (says == found or bool(says))
    assert bool(found) == bool(says)


@pytest.mark.parametrize("first", [None, BEST])
def test_what_is_measured_for_itself_must_print_what_it_scores(first: Record | None) -> None:
    """A baseline, and the best once more: there is nothing that they are worse than."""
    seen = case(first) if first is None else replace(case(first), subject=first)
    assert "the training printed val_bpb 1.500000" in fault(run(), seen, 1.5, Rescored(1.6, 1.7))


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


# The best scores 1.0 on the validation text and 1.1 on the hidden text.
BOTH = [
    # validation, hidden: what they are better by, and which of both the reason speaks of
    (0.90, 1.00, 0.10, ""),
    (0.90, 1.04, 0.06, "better on validation text by 0.100000, and on hidden text by 0.060000 only"),
    (0.50, 1.04, 0.06, "and on hidden text by 0.060000 only"),  # more learnt by heart is worth no more
    (0.50, 1.10, 0.00, "and on hidden text by 0.000000 only"),
    (0.50, 1.30, -0.20, "and on hidden text by -0.200000 only"),
    (0.90, 0.80, 0.10, ""),  # more on the hidden text is no more either
    (1.20, 1.50, -0.40, ""),  # worse is worse
    (0.90, None, 0.10, ""),
]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("policy", ["greedy", "noise_aware", "strict"])
@pytest.mark.parametrize(("value", "hidden", "gain", "says"), BOTH)
def test_the_smaller_of_the_gains_on_validation_and_on_hidden_text_counts(
    policy: Policy,
    direction: Literal["minimize", "maximize"],
    value: float,
    hidden: float | None,
    gain: float,
    says: str,
) -> None:
    sign = 1 if direction == "minimize" else -1
    seen = case(record("e1", sign * 1.0, sign * 1.1))
    metrics = {"val_bpb": sign * value} | ({"val_bpb_audit": sign * hidden} if hidden is not None else {})
    ending = replace(ended(None), metrics=metrics, verification="verified")
    verdict = decide(run(policy=policy, direction=direction), with_ending(seen, seen.subject.trials[-1], ending))
    assert verdict.delta == pytest.approx(gain)
    assert verdict.decision == ("keep" if gain > 0 else "discard")
    assert says in verdict.reason
    assert ("hidden text" in verdict.reason) == bool(says)


def test_a_training_cannot_print_its_value_on_the_hidden_text() -> None:
    seen = case(BEST)
    printed = replace(ended(0.9), metrics={"val_bpb": 0.9, "val_bpb_audit": 5.0})
    verdict = decide(run(rescore_command=""), with_ending(seen, seen.subject.trials[-1], printed))
    assert verdict.delta == pytest.approx(0.1)


def test_what_was_learnt_by_heart_of_two_rows_makes_no_gain_and_of_many_doubles_none() -> None:
    """Of 512 rows, each worth 1/512 of the score: remembered ones cost nothing on the validation text alone."""

    def judged(remembered: int, honest: float) -> float | None:
        seen, share = case(BEST), 1 - remembered / 512
        metrics = {"val_bpb": (1.0 - honest) * share, "val_bpb_audit": 1.1 - honest}
        ending = replace(ended(None), metrics=metrics, verification="verified")
        return decide(run(policy="noise_aware"), with_ending(seen, seen.subject.trials[-1], ending)).delta

    assert judged(2, 0.0) == pytest.approx(0.0)
    assert judged(110, 0.1) == pytest.approx(0.1)
    assert judged(512, 0.1) == pytest.approx(0.1)


def test_a_stale_base_is_compared_on_both_texts_too() -> None:
    """Made from the first, it must also be better than the present best, on hidden text as well."""
    later = record("e5", 0.95, 1.05)
    seen = replace(case(later, BEST), bases={"e1": BEST}, first_keep="e1")
    good, learnt = ({"val_bpb": 0.5, "val_bpb_audit": hidden} for hidden in (0.6, 1.06))
    for metrics, wanted in ((good, "keep"), (learnt, "needs_confirmation")):
        ending = replace(ended(None), metrics=metrics, verification="verified")
        verdict = decide(run(policy="noise_aware"), with_ending(seen, seen.subject.trials[-1], ending))
        assert verdict.decision == wanted, verdict.reason


def drawn(*ends: TrialStatus, walled: bool = False, value: float = 0.5, **fields: Any) -> Case:
    """A candidate that gains by half, in runs that ended so; a status, or `finished` with a score made anew."""
    found = case(BEST)
    experiment = replace(found.subject.experiment, status="trained", **fields)
    trials = [
        Trial(
            *(f"e9.{number}", "e9", number, 42, "cuda", status, 0.0),
            started_at=1.0,
            commit="c9",
            metrics={"val_bpb": value, "val_bpb_audit": value} if status == "finished" else {},
            verification="verified (unsandboxed)" if status == "finished" else "reported",
            sandboxed=walled,
        )
        for number, status in enumerate(ends, 1)
    ]
    return replace(found, subject=Record(experiment, tuple(trials)))


@pytest.mark.parametrize("policy", ["greedy", "noise_aware"])
@pytest.mark.parametrize(
    ("ends", "walled", "decision"),
    [
        (["finished"], False, "keep"),
        (["lost", "finished"], True, "keep"),
        (["lost", "finished"], False, "needs_confirmation"),
        (["lost", "lost", "lost", "finished"], False, "needs_confirmation"),
        (["stopped", "finished"], True, "needs_confirmation"),
        (["lost", "finished", "finished"], False, "keep"),
        (["finished", "lost", "finished"], False, "needs_confirmation"),
        (["finished", "lost", "finished", "finished"], False, "keep"),
        (["lost", "finished", "lost", "finished"], False, "discard"),
        (["stopped", "finished", "stopped", "finished", "finished"], True, "discard"),
    ],
)
def test_nothing_is_kept_for_having_been_drawn_again(
    policy: Policy, ends: list[TrialStatus], walled: bool, decision: str
) -> None:
    verdict = decide(run(policy=policy), drawn(*ends, walled=walled))
    assert verdict.decision == decision, verdict.reason
    assert ("drawn again" in verdict.reason or "another draw" in verdict.reason) == (decision != "keep")


def test_what_is_worse_is_so_however_often_it_was_drawn() -> None:
    verdict = decide(run(), drawn("lost", "finished", "lost", "finished", value=1.5))
    assert (verdict.decision, "drawn" in verdict.reason) == ("discard", False)


def test_what_is_measured_for_itself_gains_nothing_by_another_draw() -> None:
    baseline = replace(drawn("lost", "finished", diff_summary="no change"), incumbent=None, bases={}, baseline=None)
    assert decide(run(), baseline).decision == "keep"
