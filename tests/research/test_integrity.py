"""What a training wrote into the record is told from what others may have done to it meanwhile."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.research.case import Case
from mcp_server.research.integrity import meddled, run_meddled
from tests.research.test_rescoring import case, record, run

BEST, FIRST = record("e2", 1.0), record("e1", 1.2)
BEFORE = case(BEST, FIRST)
TRIAL = BEFORE.subject.trials[0]


def with_own(**fields: Any) -> Case:
    return replace(BEFORE, subject=replace(BEFORE.subject, trials=(replace(TRIAL, **fields),)))


def with_status(status: Any) -> Case:
    subject = replace(BEFORE.subject, experiment=replace(BEFORE.subject.experiment, status=status))
    return replace(BEFORE, subject=subject)


def with_best(**fields: Any) -> Case:
    return replace(BEFORE, incumbent=replace(BEST, experiment=replace(BEST.experiment, **fields)))


AGAIN = replace(BEST.trials[0], id="e2.2", attempt=2, metrics={"val_bpb": 1.3})


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        with_own(stop_requested=True),
        with_best(value=1.1, runs=2),
        with_best(branch_commit="c9", lesson="so it is"),
        replace(BEFORE, incumbent=replace(BEST, trials=(*BEST.trials, AGAIN))),
        replace(BEFORE, incumbent=record("e3", 0.9)),
    ],
)
def test_what_others_may_do(after: Case) -> None:
    assert meddled(TRIAL, BEFORE, after) == ""


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (with_own(status="finished"), "the record of e9.1 (it says finished, training)"),
        (with_own(metrics={"val_bpb": 0.1}), "the record of e9.1"),
        (with_own(started_at=7.0), "the record of e9.1"),
        (with_status("keep"), "the record of e9.1 (it says training, keep)"),
        (replace(BEFORE, subject=replace(BEFORE.subject, trials=())), "(it says nothing, training)"),
        (with_best(value=9.0), "the record of e2"),
        (with_best(status="discard"), "the record of e2"),
        (replace(BEFORE, incumbent=None), "the record of e2"),
        (replace(BEFORE, incumbent=replace(BEST, trials=(AGAIN,))), "the record of e2"),
        (replace(BEFORE, baseline=record("e1", 9.0)), "the record of e1"),
    ],
)
def test_what_only_a_training_would_do(after: Case, told: str) -> None:
    assert told in meddled(TRIAL, BEFORE, after)


def test_one_that_is_kept_and_measured_again_stays_kept() -> None:
    trial = replace(TRIAL, came_from="keep")
    kept = replace(BEFORE.subject, experiment=replace(BEFORE.subject.experiment, status="keep"), trials=(trial,))
    before = replace(BEFORE, subject=kept)
    assert meddled(trial, before, before) == ""


def test_what_a_run_is_stays_as_it_was_but_for_its_mode() -> None:
    before = run()
    assert run_meddled(before, replace(before, manual_mode="exploit", manual_at=3.0)) == ""
    for after in (
        run(rescore_command="", judge_command=""),
        run(policy="noise_aware"),
        run("cpu"),
        replace(before, base_commit="c9"),
        replace(before, branch="main"),
    ):
        assert run_meddled(before, after) == "the record of the run mar8"
