"""The level that a change is compared with, and whether effects are small against the noise."""

import random
from dataclasses import replace

import pytest

from mcp_server.research.bases import LOUD_WORDS, in_words, is_loud, likely_levels, pulled
from mcp_server.research.case import Case, Record, stand
from mcp_server.research.chain import Level
from mcp_server.research.decision import decide
from mcp_server.research.effects import SHAPE
from mcp_server.research.experiment import NO_CHANGE, Experiment, Numbers, Run, Scalar, Trial
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.task import Policy, Task

KNOWN = Noise(sum_of_squares=40.0, dof=40)
"""Sigma 1, well known."""
TASK = Task("loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",), policy="noise_aware")
CHAIN = [Level("e0", -10.0, 4), Level("e1", -8.0, 1)]
"""A change that came out two sigmas better in the only run that it was selected by; smaller is better here."""


def seen(scale: float, count: int = 40) -> list[tuple[float, int, int]]:
    """Comparisons of one run with two, with sigma 1 and effects of this scale."""
    draw = random.Random(7)
    found = []
    for _ in range(count):
        _, mean, spread = draw.choices(SHAPE, [weight for weight, _, _ in SHAPE])[0]
        found.append((draw.gauss(scale * mean, scale * spread) + draw.gauss(0, 1.5**0.5), 1, 2))
    return found


def test_a_base_that_was_lucky_is_believed_less_good_than_it_looked() -> None:
    likely = likely_levels(CHAIN, KNOWN, seen(1.0))
    assert -10.5 < likely["e1"] < -8.0
    assert likely["e0"] == pytest.approx(-10.0, abs=0.5)


def test_more_runs_leave_a_base_where_it_is() -> None:
    once, often = (likely_levels([CHAIN[0], replace(CHAIN[1], runs=n)], KNOWN, seen(1.0))["e1"] for n in (1, 50))
    assert once < often - 0.3
    assert often == pytest.approx(-8.0, abs=0.5)


def test_what_came_after_a_base_says_something_of_it() -> None:
    """Of two bases that scored the same, the one from which a later change was no better was the luckier one."""
    good, bad = (likely_levels([*CHAIN, Level("e2", mean, 8)], KNOWN, seen(1.0))["e1"] for mean in (-7.5, -9.5))
    assert bad < good


@pytest.mark.parametrize("unit", [1e-150, 1e-9, 1.0, 1e9, 1e150])
def test_the_unit_of_the_metric_does_not_matter(unit: float) -> None:
    noise = Noise(sum_of_squares=40.0 * unit**2, dof=40)
    levels = [replace(level, mean=level.mean * unit) for level in CHAIN]
    found = likely_levels(levels, noise, [(d * unit, n, n_b) for d, n, n_b in seen(1.0)])
    assert found["e1"] / unit == pytest.approx(likely_levels(CHAIN, KNOWN, seen(1.0))["e1"])
    assert is_loud(noise, [(d * unit, n, n_b) for d, n, n_b in seen(0.1)])


@pytest.mark.parametrize(
    ("levels", "noise"), [(CHAIN[:1], KNOWN), ([], KNOWN), (CHAIN, Noise())], ids=["baseline", "nothing", "no noise"]
)
def test_nothing_is_believed_without_a_chain_or_noise(levels: list[Level], noise: Noise) -> None:
    assert likely_levels(levels, noise, seen(1.0)) == {}


def test_huge_and_equal_numbers_stay_finite() -> None:
    levels = [Level("e0", -1e308, 2), Level("e1", 1e308, 1)]
    assert all(abs(each) <= 1.8e308 for each in likely_levels(levels, Noise(0.0, 3), []).values())


def test_a_base_is_pulled_half_way_on_each_text() -> None:
    base = Incumbent("e1", 8.0, 1, False, hidden=8.5)
    assert pulled(TASK, base, {"e1": -9.0}, {"e1": -9.5}) == replace(base, mean=8.5, hidden=9.0)
    assert pulled(replace(TASK, direction="maximize"), base, {"e1": 7.0}, {}) == replace(base, mean=7.5)
    assert pulled(TASK, base, {}, {}) == base
    assert pulled(TASK, replace(base, hidden=None), {"e1": -9.0}, {"e1": -9.0}).hidden is None


def test_a_base_that_is_pulled_is_told() -> None:
    base = Incumbent("e1", 8.0, 1, False)
    assert in_words(base, base) == ""
    assert in_words(base, replace(base, mean=8.5)).startswith("e1 counts as 8.5")


@pytest.mark.parametrize(
    ("scale", "count", "loud"), [(0.1, 60, True), (3.0, 60, False), (0.1, 29, False), (0.1, 0, False)]
)
def test_noise_is_loud_where_enough_comparisons_show_small_effects(scale: float, count: int, loud: bool) -> None:
    assert is_loud(KNOWN, seen(scale, count)) == loud
    assert not is_loud(Noise(0.0, 3), seen(scale, count))  # without any noise


RUN = Run("mar8", "autoresearch/mar8", "b", TASK, "cpu", {}, 0.0)
START = Experiment("e0", "mar8", 1, "ann", "b", "b", "", "other", "", 0.0, "keep", diff_summary=NO_CHANGE, value=10.0)


def record(experiment: Experiment, *values: float, base: str = "e0") -> Record:
    """An experiment that was run so often."""
    name = experiment.id

    def metrics(value: float) -> dict[str, Scalar]:
        return {"loss": value}

    return Record(
        experiment,
        tuple(
            Trial(f"{name}.{i}", name, i, 41 + i, "cpu", "finished", 0.0, metrics=metrics(value), base_id=base,
                  commit=experiment.commit)
            for i, value in enumerate(values, start=1)
        ),
    )  # fmt: skip


def verdict_of(policy: Policy, scale: float, value: float, chained: bool = True) -> tuple[str, str, float]:
    """State, reason and d of a change on a best that was kept for one run, two sigmas better than the baseline."""
    start = record(START, 9.0, 11.0, 9.5, 10.5)
    numbers = [Numbers(d, 1.0, d, n, n_b, 1.0, 40, "e0", "e0") for d, n, n_b in seen(scale)]
    kept = replace(START, id="e1", number=2, commit="c", parent_id="e0", diff_summary="LR", numbers=numbers[0])
    best = record(kept, 8.0)
    subject = record(replace(kept, id="e2", number=3, commit="d", status="trained", numbers=None), value, base="e1")
    run = replace(RUN, task=replace(TASK, policy=policy))
    case = Case(subject, best, {"e1": best}, "e0", 40.0, 40, start)
    if chained:
        case = replace(case, chain=(start, best), compared=tuple(numbers))
    verdict = decide(run, case)
    assert verdict.numbers is not None
    assert stand(run, best).mean == 8.0  # what is told of the best stays the mean of its runs
    return verdict.state, verdict.reason, verdict.numbers.d


def test_a_verdict_compares_with_the_pulled_base_and_says_so() -> None:
    plain, pulled_one = verdict_of("noise_aware", 3.0, 7.5, chained=False), verdict_of("noise_aware", 3.0, 7.5)
    assert plain[2] == pytest.approx(0.5)
    assert 0.6 < pulled_one[2] < 1.5, pulled_one
    assert "counts as" not in plain[1]
    assert "e1 counts as 8." in pulled_one[1]
    assert LOUD_WORDS not in pulled_one[1]


def test_more_is_asked_where_effects_are_small_and_the_verdict_says_so() -> None:
    small = verdict_of("noise_aware", 0.1, 5.7)
    plain = verdict_of("strict", 0.1, 5.7)  # which keeps from z >= 2 on, at whatever noise
    assert (small[0], plain[0]) == ("needs_confirmation", "keep"), small
    assert small[1].endswith(LOUD_WORDS)
    assert "z below 2.5" in small[1]
    assert LOUD_WORDS not in plain[1]
