"""What comes before a new idea, and which findings are joined or questioned."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.research.agenda import (
    Due,
    Finding,
    Pending,
    due,
    keep_to_question,
    may_combine,
    pair_to_combine,
)
from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.task import Task

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="noise_aware"
)
LUCKY, SOBER = Incumbent("e1", 0.99, 1, False), Incumbent("e1", 0.99, 2, True)

steady = settings(derandomize=True, deadline=None, max_examples=200)
sizes = st.floats(-1e308, 1e308)


@pytest.mark.parametrize(
    ("incumbent", "non_keeps", "remeasuring", "pending", "order"),
    [
        (LUCKY, 0, False, [], []),
        (LUCKY, 7, False, [], []),
        (LUCKY, 8, False, [], ["re-measure e1"]),
        (LUCKY, 8, True, [], []),  # under way
        (SOBER, 8, False, [], []),
        (None, 8, False, [], []),
        (LUCKY, 8, False, [("e2", 0.9)], ["re-measure e1", "confirm e2"]),  # however good it looks
        (LUCKY, 8, True, [("e2", 0.9)], ["confirm e2"]),
        (SOBER, 0, False, [("e2", 0.4), ("e3", 0.9), ("e4", -0.2)], ["confirm e3", "confirm e2", "confirm e4"]),
        (SOBER, 0, False, [("e3", 0.5), ("e2", 0.5)], ["confirm e3", "confirm e2"]),  # as they came
        (None, 0, False, [("e2", 0.4)], ["confirm e2"]),
    ],
)
def test_first_the_best_again_then_what_waits_by_z(
    incumbent: Incumbent | None,
    non_keeps: int,
    remeasuring: bool,
    pending: list[tuple[str, float]],
    order: list[str],
) -> None:
    owed = due(TASK, incumbent, non_keeps, remeasuring, [Pending(*each) for each in pending])
    assert [f"{each.kind} {each.name}" for each in owed] == order


def test_what_is_owed_says_why() -> None:
    assert due(TASK, LUCKY, 9, False, [Pending("e2", 0.456)]) == (
        Due(
            "re-measure",
            "e1",
            "9 experiments since the last keep, and the best rests on one run: measure it once more",
        ),
        Due("confirm", "e2", "z 0.46 in its last verdict: run it again"),
    )


def test_greedy_owes_nothing_on_a_plateau() -> None:
    assert due(replace(TASK, policy="greedy"), LUCKY, 80, False, []) == ()


@pytest.mark.parametrize(
    ("non_keeps", "proposals", "combined", "allowed"),
    [
        (8, 6, 0, True),  # 1 of 7 is 14.3 %
        (8, 5, 0, False),  # 1 of 6 is 16.7 %
        (7, 100, 0, False),  # no plateau
        (8, 13, 1, True),  # 2 of 14 is 14.3 %
        (8, 12, 1, False),  # 2 of 13 is 15.4 %
        (8, 19, 2, True),  # 3 of 20 is 15 %
        (8, 18, 2, False),  # 3 of 19 is 15.8 %
        (8, 99, 14, True),  # 15 of 100
        (8, 99, 15, False),
    ],
)
def test_combinations_wait_for_a_plateau_and_stay_few(
    non_keeps: int, proposals: int, combined: int, allowed: bool
) -> None:
    assert may_combine(non_keeps, proposals, combined) == allowed


def test_combining_whenever_it_may_keeps_to_the_share() -> None:
    combined = 0
    for proposals in range(2000):
        if may_combine(8, proposals, combined):
            combined += 1
        assert Fraction(combined, proposals + 1) <= Fraction(15, 100)
    assert combined == 300  # 15 % of 2,000: the share is used up


@pytest.mark.parametrize(
    ("d", "s", "shrunk"),
    [
        (2.0, 0.0, 2.0),
        (2.0, 2.0, 1.0),  # 2 * 4 / (4 + 4)
        (1.0, 3.0, 0.1),  # 1 * 1 / (1 + 9)
        (-1.0, 3.0, -0.1),
        (0.0, 3.0, 0.0),
        (0.0, 0.0, 0.0),
        (1e-4, 1e-4, 5e-5),
        (1e308, 1e308, 5e307),
        (1e-12, 1e308, 0.0),
    ],
)
def test_a_gain_shrinks_with_its_uncertainty(d: float, s: float, shrunk: float) -> None:
    assert Finding("e1", "other", d, s).shrunk == pytest.approx(shrunk, rel=1e-12, abs=0)


@steady
@given(sizes, st.floats(0, 1e308))
def test_shrinking_neither_turns_nor_enlarges(d: float, s: float) -> None:
    shrunk = Finding("e1", "other", d, s).shrunk
    assert min(0.0, d) <= shrunk <= max(0.0, d)


OPTIMIZER = Finding("e1", "optimizer", 4.0, 0.1)
SECOND = Finding("e2", "optimizer", 3.0, 0.1)
ATTENTION = Finding("e3", "attention", 2.0, 0.1)
UNSURE = Finding("e4", "attention", 2.5, 5.0)  # 2.5 / (1 + 4) = 0.5
SCHEDULE = Finding("e5", "scheduling", 1.0, 0.1)
NOTHING = Finding("e6", "embedding", 0.0, 0.1)
WORSE = Finding("e7", "embedding", -9.0, 0.1)


@pytest.mark.parametrize(
    ("findings", "tried", "pair"),
    [
        ([], [], None),
        ([OPTIMIZER], [], None),
        ([OPTIMIZER, SECOND], [], None),  # of one category
        ([OPTIMIZER, ATTENTION], [], "e1 e3"),
        ([ATTENTION, SECOND, OPTIMIZER, SCHEDULE], [], "e3 e1"),  # 4 + 2 is the most of two categories
        ([OPTIMIZER, UNSURE, SCHEDULE], [], "e1 e5"),  # 4 + 1 > 4 + 0.5
        ([OPTIMIZER, ATTENTION, SCHEDULE], ["e1 e3"], "e1 e5"),
        ([OPTIMIZER, ATTENTION, SCHEDULE], ["e3 e1", "e5 e1"], "e3 e5"),
        ([OPTIMIZER, ATTENTION], ["e3 e1"], None),
        ([OPTIMIZER, NOTHING, WORSE], [], None),
    ],
)
def test_the_largest_gains_of_two_categories_are_joined(
    findings: list[Finding], tried: list[str], pair: str | None
) -> None:
    found = pair_to_combine(findings, [frozenset(names.split()) for names in tried])
    assert (found and f"{found[0].name} {found[1].name}") == pair


CLEAR = Finding("e1", "optimizer", 4.0, 1.0)  # z = 4
WEAK = Finding("e2", "attention", 3.0, 2.0)  # 1.5
SMALL = Finding("e3", "scheduling", 0.1, 0.01)  # 10
LOSS = Finding("e4", "simplification", -0.1, 1.0)  # -0.1
CERTAIN = Finding("e5", "other", 0.01, 0.0)
EVEN = Finding("e6", "simplification", 0.0, 0.0)  # fewer lines, and to the digit the same


@pytest.mark.parametrize(
    ("keeps", "ablated", "questioned"),
    [
        ([], [], None),
        ([CLEAR, WEAK, SMALL], [], "e2"),
        ([CLEAR, WEAK, SMALL, LOSS], [], "e4"),
        ([CLEAR, WEAK, SMALL], ["e2"], "e1"),
        ([CLEAR, WEAK], ["e2", "e1"], None),
        ([CERTAIN, CLEAR], [], "e1"),
        ([CERTAIN], [], "e5"),
        ([CERTAIN, EVEN], [], "e6"),  # without noise, the sign decides
        ([CLEAR, EVEN], [], "e6"),
    ],
)
def test_the_keep_of_the_weakest_z_is_questioned_first(
    keeps: Sequence[Finding], ablated: list[str], questioned: str | None
) -> None:
    found = keep_to_question(keeps, ablated)
    assert (found and found.name) == questioned
