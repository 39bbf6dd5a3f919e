"""Reasons that say what was measured since, and what counts as near."""

from dataclasses import replace

import pytest

from mcp_server.research.experiment import Numbers
from mcp_server.research.restating import is_near, marked, reason_now, restated_reason
from mcp_server.research.task import Task

NUMBERS = Numbers(0.02, 0.01, 2.0, 2, 4, 0.01, 6, "e1", "e2")
VERDICT = "Better by 0.050000 +- 0.020000 val_loss (z 2.50, 1 run against 4 of e1): kept."


def test_a_reason_says_once_what_it_was_and_what_is_known_last() -> None:
    task = Task("val_loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))
    once = restated_reason(task, VERDICT, NUMBERS)
    assert once == (
        f"At its verdict: {VERDICT} With all runs since: "
        "better by 0.020000 +- 0.010000 val_loss (2 runs against 4 of e1)."
    )
    assert restated_reason(task, once, NUMBERS) == once
    worse = restated_reason(task, once, replace(NUMBERS, d=-0.02, z=-2.0, n=3))
    assert worse == once.replace("better by", "worse by").replace("2 runs", "3 runs")
    assert "different by 0" in restated_reason(task, once, replace(NUMBERS, d=0.0))
    assert marked(once) == once
    assert reason_now(once, None) == once


@pytest.mark.parametrize(("z", "near"), [(0.5, True), (0.0, True), (-1.99, True), (-2.0, False), (-30.0, False)])
def test_near_is_what_is_not_clearly_worse(z: float, near: bool) -> None:
    assert is_near(replace(NUMBERS, z=z)) == near


def test_what_was_never_compared_is_not_near() -> None:
    assert not is_near(None)
