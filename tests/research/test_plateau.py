"""A run that is stuck measures its best again, and looks back at what came close to it."""

from dataclasses import replace

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Candidate, Incumbent, Replicate, judge_candidate
from mcp_server.research.plateau import on_plateau, remeasure_due, reopened
from mcp_server.research.task import Policy, Task

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="noise_aware"
)
UNIT = Noise(prior=1.0)
LUCKY = Incumbent("e1", 10.0, 1, False)
"""Kept for one run, which was a lucky one."""
SOBER = Incumbent("e1", 12.0, 2, True)
"""The same, run once more."""


def near(name: str, *values: float, base: str = "e1") -> Candidate:
    """A near miss, as it was judged against the lucky run."""
    return Candidate(name, tuple(Replicate(value, base, LUCKY.mean, LUCKY.runs) for value in values))


@pytest.mark.parametrize(("non_keeps", "stuck"), [(0, False), (7, False), (8, True), (9, True), (100, True)])
def test_eight_non_keeps_are_a_plateau(non_keeps: int, stuck: bool) -> None:
    assert on_plateau(non_keeps) == stuck


@pytest.mark.parametrize(
    ("policy", "incumbent", "non_keeps", "due"),
    [
        ("noise_aware", LUCKY, 7, False),
        ("noise_aware", LUCKY, 8, True),
        ("strict", LUCKY, 8, True),
        ("noise_aware", SOBER, 8, False),  # once is enough
        ("noise_aware", replace(LUCKY, confirmed=True), 8, True),  # one confirmation is one run
        ("noise_aware", None, 8, False),
        ("greedy", LUCKY, 8, False),  # greedy makes no extra runs
        ("greedy", LUCKY, 80, False),
    ],
)
def test_a_best_of_one_run_is_measured_again_on_a_plateau(
    policy: Policy, incumbent: Incumbent | None, non_keeps: int, due: bool
) -> None:
    assert remeasure_due(replace(TASK, policy=policy), incumbent, non_keeps) == due


def test_what_missed_a_lucky_best_is_reopened_once_that_is_known_better() -> None:
    candidate = near("e2", 11.0)
    assert judge_candidate(TASK, candidate, LUCKY, UNIT).state == "near_miss"  # 10 - 11 = -1, of s = sqrt(2)
    assert reopened(TASK, [candidate], LUCKY, UNIT) == ()
    assert reopened(TASK, [candidate], SOBER, UNIT) == ("e2",)  # 12 - 11 = 1, of s = sqrt(1.5): z = 0.82


@pytest.mark.parametrize(
    ("values", "again"),
    [
        ([11.63], True),  # 0.37 / sqrt(1 + 1/2) = 0.302
        ([11.64], False),  # 0.36 / 1.225 = 0.294
        ([11.7], False),  # 0.245; of n_b = 1 before
        ([11.6, 11.799], True),  # 0.3005 / sqrt(1/2 + 1/2)
        ([11.701, 11.701], False),  # 0.299
        ([0.0], True),
    ],
)
def test_reopened_from_0_3_on(values: list[float], again: bool) -> None:
    assert reopened(TASK, [near("e2", *values)], SOBER, UNIT) == (("e2",) if again else ())


def test_the_two_best_are_reopened_the_best_first() -> None:
    found = [near("e2", 11.5), near("e3", 11.1), near("e4", 14.0), near("e5", 11.0), near("e6", 11.4)]
    assert reopened(TASK, found, SOBER, UNIT) == ("e5", "e3")
    assert reopened(TASK, found[:2], SOBER, UNIT) == ("e3", "e2")
    assert reopened(TASK, [], SOBER, UNIT) == ()


def test_of_equals_the_first_named_come_first() -> None:
    assert reopened(TASK, [near("e4", 11.0), near("e2", 11.0), near("e3", 11.0)], SOBER, UNIT) == ("e4", "e2")


def test_what_was_made_from_something_else_stays_closed() -> None:
    assert reopened(TASK, [near("e2", 5.0, base="e0")], SOBER, UNIT) == ()


def test_a_run_on_an_older_base_counts_against_that() -> None:
    """(10 - 12) + (12 - 9) = 1, of two runs; s = sqrt(1/2 + 1/2): z = 0.5. Both against 12: z = 1.5."""
    older, newer = near("e2", 12.0, base="e0").runs[0], near("e2", 9.0).runs[0]
    moved = Candidate("e2", (older, newer))
    other = near("e3", 11.2)  # 0.8 / 1.22 = 0.65 lies between
    assert reopened(TASK, [moved, other], SOBER, UNIT) == ("e3", "e2")


def test_to_maximize_is_to_minimize_the_negative() -> None:
    task = replace(TASK, direction="maximize")
    found = [near("e2", -11.5), near("e3", -11.1), near("e4", -14.0)]
    assert reopened(task, found, replace(SOBER, mean=-12.0), UNIT) == ("e3", "e2")


def test_while_the_noise_is_unknown_nothing_is_reopened() -> None:
    assert reopened(TASK, [near("e2", 0.0)], SOBER, Noise()) == ()


def test_greedy_reopens_nothing() -> None:
    with pytest.raises(InvalidInput, match="greedy"):
        reopened(replace(TASK, policy="greedy"), [near("e2", 11.0)], SOBER, UNIT)
