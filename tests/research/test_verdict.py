"""Keeping, discarding and giving up under the greedy policy."""

import math
from dataclasses import replace
from typing import Literal

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.task import Task
from mcp_server.research.verdict import judge, should_abort, show

TASK = Task(
    metric="val_bpb",
    direction="minimize",
    time_budget_seconds=300,
    train_script="train.py",
    command="python train.py",
    interpreter="/usr/bin/python3",
    editable=("train.py",),
    policy="greedy",
)


@pytest.mark.parametrize(
    ("direction", "value", "best", "decision", "near_miss", "delta"),
    [
        ("minimize", 0.9979, None, "keep", False, None),
        ("minimize", 0.9960, 0.9979, "keep", False, 0.0019),  # 0.9979 - 0.9960
        ("minimize", 0.9979, 0.9979, "discard", True, 0.0),  # not strictly better
        ("minimize", 0.9989, 0.9979, "discard", True, -0.0010),  # 0.0010 < 0.002
        ("minimize", 1.5, 1.0, "discard", False, -0.5),
        ("minimize", 1.002, 1.0, "discard", False, -0.002),  # 0.002 is not less than 0.002
        ("maximize", 0.91, 0.90, "keep", False, 0.01),
        ("maximize", 0.899, 0.90, "discard", True, -0.001),
        ("maximize", 0.80, 0.90, "discard", False, -0.1),
        ("minimize", -1e12, 1e12, "keep", False, 2e12),
        ("minimize", 1e-12, 2e-12, "keep", False, 1e-12),
        ("minimize", 5e-324, 1e-323, "keep", False, 5e-324),
        ("minimize", -1e308, 1e308, "keep", False, 1.7976931348623157e308),  # 2e308 overflows
        ("minimize", 0, 1, "keep", False, 1.0),
    ],
)
def test_greedy_keeps_what_is_strictly_better(
    direction: Literal["minimize", "maximize"],
    value: float,
    best: float | None,
    decision: str,
    near_miss: bool,
    delta: float | None,
) -> None:
    verdict = judge(replace(TASK, direction=direction), value, best)
    assert (verdict.decision, verdict.near_miss) == (decision, near_miss)
    assert verdict.delta == (None if delta is None else pytest.approx(delta))
    assert verdict.improved == (decision == "keep")
    assert verdict.action == ("keep_commit" if decision == "keep" else "git_reset")
    assert verdict.reason.endswith(".")
    assert show(value) in verdict.reason


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "nan", "oops", 10**400])
@pytest.mark.parametrize("best", [None, 0.9979])
def test_what_is_no_finite_number_is_a_crash_and_never_a_best(value: float | str | None, best: float | None) -> None:
    verdict = judge(TASK, value, best)
    assert (verdict.decision, verdict.improved, verdict.near_miss, verdict.delta) == ("crash", False, False, None)
    assert verdict.action == "git_reset"
    assert "val_bpb" in verdict.reason


def test_the_threshold_is_the_tasks() -> None:
    assert judge(replace(TASK, near_miss_threshold=0.5), 1.4, 1.0).near_miss
    assert not judge(replace(TASK, near_miss_threshold=0), 1.0, 1.0).near_miss  # 0 < 0 is false


def test_the_reason_is_one_sentence_with_the_numbers() -> None:
    assert judge(TASK, 0.9961, 0.9979).reason == "Better by 0.001800: val_bpb 0.996100 against the best, 0.997900."


def test_policies_to_come_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="noise_aware"):
        judge(replace(TASK, policy="noise_aware"), 1.0, 1.0)


@pytest.mark.parametrize(("streak", "abort"), [(0, False), (2, False), (3, True), (9, True)])
def test_three_crashes_in_a_row_are_a_reason_to_look(streak: int, abort: bool) -> None:
    assert should_abort(streak) == abort


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.9979, "0.997900"),
        (0, "0.000000"),
        (0.0018, "0.001800"),
        (1e-7, "1e-07"),
        (1e12, "1e+12"),
        (-2.5, "-2.500000"),
    ],
)
def test_numbers_are_shown_for_people(number: float, shown: str) -> None:
    assert show(number) == shown
