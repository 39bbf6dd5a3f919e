"""Which runs of a kept experiment say what it scores."""

from dataclasses import replace

import pytest

from mcp_server.research.case import Case, Record, levelled, replicates, without_weight
from mcp_server.research.decision import decide
from mcp_server.research.experiment import NO_CHANGE, Experiment, Run, Scalar, Trial
from mcp_server.research.task import Task

TASK = Task("loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))
RUN = Run("mar8", "autoresearch/mar8", "b", TASK, "cpu", {}, 0.0)
BEST = Experiment(
    "e1", "mar8", 1, "ann", "c", "c", "", "other", "", 0.0, "keep", diff_summary=NO_CHANGE, value=1.0, runs=1
)
FIRST = Trial("e1.1", "e1", 1, 42, "cpu", "finished", 0.0, metrics={"loss": 1.0, "fingerprint": "old"}, commit="c")
AGAIN = replace(FIRST, id="e1.2", attempt=2, seed=43, metrics={"loss": 2.0, "fingerprint": "old"}, came_from="keep")
NEWER: dict[str, Scalar] = {"loss": 2.0, "fingerprint": "new"}


@pytest.mark.parametrize(
    ("again", "counted", "why"),
    [
        (AGAIN, (1.0, 2.0), ""),
        (replace(AGAIN, metrics=NEWER), (1.0,), "e1.2 has another fingerprint (new) than e1.1 (old)"),
        (replace(AGAIN, metrics={"loss": 2.0}), (1.0,), "e1.2 has another fingerprint (none) than e1.1 (old)"),
        (replace(AGAIN, device_type="cuda H100"), (1.0,), "e1.2 has another device type (cuda H100) than e1.1 (cpu)"),
        (replace(AGAIN, error="check failed"), (1.0,), "e1.2: check failed"),
        (replace(AGAIN, status="failed", error="OOM"), (1.0,), ""),  # not finished
    ],
)
def test_a_run_under_other_conditions_says_nothing(again: Trial, counted: tuple[float, ...], why: str) -> None:
    record = Record(BEST, (FIRST, again))
    assert replicates(RUN, record) == counted
    assert without_weight(record) == ({"e1.2": why} if why else {})


@pytest.mark.parametrize(("mark", "verdict"), [("old", "keep"), ("new", "discard")])
def test_others_are_compared_with_the_best_as_it_was_first_measured(mark: str, verdict: str) -> None:
    best = Record(BEST, (FIRST, replace(AGAIN, metrics=NEWER)))
    new = replace(BEST, id="e2", number=2, status="trained", commit="d", diff_summary="LR 1 -> 2")
    half: dict[str, Scalar] = {"loss": 0.5, "fingerprint": mark}
    trial = replace(FIRST, id="e2.1", experiment_id="e2", commit="d", metrics=half)
    case = Case(Record(new, (replace(trial, base_id="e1"),)), best, {"e1": best}, "e1", squares=1e-4, dof=3)
    assert decide(RUN, case).decision == verdict


@pytest.mark.parametrize(
    ("task", "second", "counted", "verdict"),
    [
        ({"builtin": True}, {}, (0.5,), "discard"),  # a seed of its own: one draw, however often it is shown
        ({"builtin": True}, {"metrics": {"loss": 0.5, "loss_audit": 0.6}}, (0.5, 0.5), "keep"),
        ({"builtin": True}, {"seed": 42}, (0.5, 0.5), "keep"),  # trained again with its seed
        ({"builtin": True}, {"verification": "reported"}, (0.5,), "keep"),
        ({}, {}, (0.5, 0.5), "keep"),  # a score with few digits may well come out alike
    ],
)
def test_repeats_that_do_not_take_their_seed_are_one_draw(
    task: dict[str, bool], second: dict[str, object], counted: tuple[float, ...], verdict: str
) -> None:
    run = replace(RUN, task=replace(TASK, policy="noise_aware", **task))  # type: ignore[arg-type]
    new = replace(BEST, id="e2", number=2, status="trained", commit="d", diff_summary="LR 1 -> 2")
    metrics: dict[str, Scalar] = {"loss": 0.5, "loss_audit": 0.5}
    first = replace(
        FIRST, id="e2.1", experiment_id="e2", commit="d", base_id="e1", metrics=metrics, verification="verified"
    )
    subject = Record(new, (first, replace(first, **{"id": "e2.2", "seed": 43} | second)))  # type: ignore[arg-type]
    assert levelled(run, subject) == counted
    best = Record(BEST, (replace(FIRST, metrics={"loss": 1.0}),))
    decided = decide(run, Case(subject, best, {"e1": best}, "e1", squares=1e-4, dof=3))
    assert decided.decision == verdict, decided.reason
    assert ("came out exactly alike" in decided.reason) == (verdict == "discard")
