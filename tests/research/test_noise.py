"""The noise of a task on a device type: what is known beforehand, what repeats teach, and numbers at the edge."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.research.noise import Noise, clamp, mean, pool, prior
from mcp_server.research.task import Task

TASK = Task("val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), builtin=True)
LARGEST = sys.float_info.max

steady = settings(derandomize=True, deadline=None, max_examples=200)
numbers = st.floats(allow_nan=False, allow_infinity=False)
dyadic = st.integers(-(2**40), 2**40).map(lambda n: n / 2**30)
"""Numbers of which sums and differences are exact."""


@pytest.mark.parametrize(
    ("task", "device_kind", "sigma"),
    [
        (TASK, "cuda", 0.0005),
        (TASK, "mps", 0.0005),
        (TASK, "cpu", 0.01),
        (replace(TASK, time_budget_seconds=3600), "cuda", 0.0005),
        (replace(TASK, time_budget_seconds=299), "cuda", None),  # shorter runs are noisier, nobody knows by how much
        (replace(TASK, time_budget_seconds=20), "cpu", 0.01),
        (replace(TASK, metric="val_loss"), "cuda", None),
        (replace(TASK, builtin=False), "cuda", None),  # another script's val_bpb is another metric
        (replace(TASK, builtin=False), "cpu", None),
    ],
)
def test_a_prior_belongs_to_one_task_and_device_type(task: Task, device_kind: str, sigma: float | None) -> None:
    assert prior(task, device_kind) == sigma


@pytest.mark.parametrize(("known", "baselines"), [(0.0005, 2), (0.0, 2), (None, 4)])
def test_two_baselines_where_something_is_known_and_four_where_nothing_is(known: float | None, baselines: int) -> None:
    assert Noise(prior=known).baselines == baselines
    assert pool([[1.0, 1.0004]], known).baselines == baselines  # not fewer once they are run


def test_a_prior_that_the_first_two_contradict_is_not_relied_on() -> None:
    assert pool([[1.0, 1.002]], 0.0005).baselines == 2  # 2.8 times the prior
    assert pool([[1.0, 1.004]], 0.0005).baselines == 4  # 5.7 times
    assert pool([[-1e308, 1e308]], 1e-308).baselines == 4


@pytest.mark.parametrize(
    ("sets", "known", "sigma", "dof"),
    [
        ([], 0.5, 0.5, 0),
        ([], None, None, 0),
        ([[3.0]], 0.5, 0.5, 0),  # one run shows no scatter
        ([[3.0], [4.0]], None, None, 0),  # nor do single runs of different code
        ([[1.0, 3.0]], None, math.sqrt(2), 1),  # (1 + 1) / 1
        ([[1.0, 3.0]], 1.0, math.sqrt(4 / 3), 1),  # (2 * 1 + 2) / (2 + 1)
        ([[1.0, 3.0], [7.0], [10.0, 10.0, 13.0]], 1.0, math.sqrt(10 / 5), 3),  # (2 + 2 + 0 + (1 + 1 + 4)) / (2 + 3)
        ([[1.0, 3.0], [101.0, 103.0]], None, math.sqrt(2), 2),  # (2 + 2) / 2: the sets' own levels play no part
        ([[2.0, 2.0]], 1.0, math.sqrt(2 / 3), 1),  # (2 + 0) / (2 + 1)
        ([[2.0, 2.0]], None, 0.0, 1),
        ([[0.1] * 1000], None, 0.0, 999),
        ([[0.1] * 1000], 0.5, math.sqrt(0.5 / 1001), 999),  # (2 * 0.25 + 0) / (2 + 999)
        ([[1e-12, 3e-12]], None, math.sqrt(2) * 1e-12, 1),
        ([[1e12, 3e12]], None, math.sqrt(2) * 1e12, 1),
    ],
)
def test_repeats_pool_with_the_prior(
    sets: list[list[float]], known: float | None, sigma: float | None, dof: int
) -> None:
    noise = pool(sets, known)
    assert noise.dof == dof
    assert noise.sigma == (None if sigma is None else pytest.approx(sigma, rel=1e-12, abs=0))


@pytest.mark.parametrize("values", [(1e308, -1e308), (1e308, 1.5e308), (-LARGEST, LARGEST, LARGEST)])
@pytest.mark.parametrize("known", [None, 0.0005, 1e308])
def test_huge_scatter_stays_a_number(values: Sequence[float], known: float | None) -> None:
    noise = pool([values], known)
    assert noise.sigma is not None
    assert 1e150 < noise.sigma <= LARGEST
    assert noise.sum_of_squares <= LARGEST


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([0.1], 0.1),
        ([0.1] * 1000, 0.1),  # the sum of 1000 * 0.1 is 99.9999999999986
        ([1e308] * 3, 1e308),  # and this sum is infinite
        ([1e308, -1e308], 0.0),
        ([-1e308, 1e308], 0.0),
        ([-LARGEST, -LARGEST, LARGEST], -LARGEST / 3),
        ([1.0, 2.0, 6.0], 3.0),
        ([1e-12, 3e-12], 2e-12),
    ],
)
def test_the_mean_is_exact_for_equal_and_finite_for_huge_numbers(values: list[float], middle: float) -> None:
    assert mean(values) == (middle if len(set(values)) == 1 else pytest.approx(middle, rel=1e-12, abs=0))


@pytest.mark.parametrize(
    ("number", "nearest"),
    [(0.5, 0.5), (math.inf, LARGEST), (-math.inf, -LARGEST), (LARGEST, LARGEST), (-1e308, -1e308)],
)
def test_overflow_ends_at_the_largest_number(number: float, nearest: float) -> None:
    assert clamp(number) == nearest


@steady
@given(st.lists(numbers, min_size=1, max_size=9))
def test_the_mean_is_right_whatever_the_numbers(values: list[float]) -> None:
    true = sum(map(Fraction, values), Fraction()) / len(values)
    largest = max(map(abs, values))
    assert abs(Fraction(mean(values)) - true) <= Fraction(1, 2**46) * Fraction(largest) + Fraction(1, 10**300)


@steady
@given(st.lists(st.lists(numbers, max_size=5), max_size=5), st.none() | st.floats(0, LARGEST))
def test_whatever_was_measured_the_estimate_is_a_number_or_unknown(
    sets: list[list[float]], known: float | None
) -> None:
    noise = pool(sets, known)
    assert noise.dof == sum(max(0, len(values) - 1) for values in sets)
    assert (noise.sigma is None) == (known is None and noise.dof == 0)
    assert noise.sigma is None or 0 <= noise.sigma <= LARGEST


@steady
@given(st.lists(st.lists(dyadic, max_size=2), max_size=5), dyadic, st.integers(-40, 40))
def test_only_scatter_counts_and_in_the_units_of_the_metric(
    sets: list[list[float]], shift: float, exponent: int
) -> None:
    unit = 2.0**exponent
    sigma = pool(sets, 0.25).sigma
    assert sigma is not None
    assert pool([[value + shift for value in values] for values in sets], 0.25).sigma == sigma
    assert pool([[-value for value in values] for values in sets], 0.25).sigma == sigma
    assert pool([[value * unit for value in values] for values in sets], 0.25 * unit).sigma == sigma * unit
