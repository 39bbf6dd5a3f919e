"""Proposals of values: one knob at a time, what paid first, never what was tried or is known to fail."""

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import read_knobs, write_knobs
from mcp_server.research.ladders import ladders
from mcp_server.research.lines import Point, Points, past_of
from mcp_server.research.script import outline
from mcp_server.research.task import Category, Direction
from mcp_server.research.tuning import Tuning, search

SCRIPT = """\
SEED = 42
MATRIX_LR = 0.04  # Muon
TOTAL_BATCH_SIZE = 2**14  # tokens
DEPTH = 4
ADAM_BETAS = (0.8, 0.95)
WARMUP = 0.0
USE_BIAS = False
DATA_PATH = "data"
"""
KNOBS = {name: knob.value for name, knob in read_knobs(SCRIPT).items()}


def point(value: float | None, failed: bool = False, **knobs: KnobValue) -> Point:
    return Point({**KNOBS, **knobs}, value, failed)


def tune(
    source: str,
    points: Sequence[Point],
    direction: Direction,
    seed: int,
    *,
    count: int = 3,
    categories: tuple[Category, ...] | None = None,
) -> tuple[Tuning, ...]:
    return search(source, points, direction, seed).tunings(count, categories)


def proposed(
    points: list[Point], direction: Direction = "minimize", count: int = 20, seed: int = 1
) -> Mapping[str, Tuning]:
    """The proposals, by the knobs that they change."""
    return {" ".join(tuning.values): tuning for tuning in tune(SCRIPT, points, direction, seed, count=count)}


@pytest.mark.parametrize("source", ["", "x = f(1)\n", "def broken(:\n", "PATH = 'data'\nSEED = 1\n", "x = None\n"])
def test_a_script_without_knobs_gets_none(source: str) -> None:
    assert tune(source, [point(1.0)], "minimize", 1) == ()


def test_each_knob_is_proposed_once_and_alone() -> None:
    found = tune(SCRIPT, [point(1.0)], "minimize", 1, count=20)
    assert sorted(name for tuning in found for name in tuning.values) == sorted(set(KNOBS) - {"SEED", "DATA_PATH"})
    assert all("never varied" in tuning.reason for tuning in found)
    assert len(tune(SCRIPT, [point(1.0)], "minimize", 1)) == 3
    assert tune(SCRIPT, [], "minimize", 1, count=0) == ()


def test_what_moves_every_training_comes_first() -> None:
    for seed in range(5):
        first = [name for tuning in tune(SCRIPT, [point(1.0)], "minimize", seed) for name in tuning.values]
        assert set(first) == {"MATRIX_LR", "TOTAL_BATCH_SIZE", "DEPTH"}


def test_categories_narrow_the_choice() -> None:
    found = tune(SCRIPT, [point(1.0)], "minimize", 1, count=9, categories=("scheduling", "architecture"))
    assert {(tuning.category, *tuning.values) for tuning in found} == {
        ("scheduling", "WARMUP"),
        ("architecture", "DEPTH"),
    }


def test_equal_arguments_give_equal_proposals_and_seeds_differ() -> None:
    points = [point(1.0), point(0.9, MATRIX_LR=0.06), point(1.1, DEPTH=6)]
    assert tune(SCRIPT, points, "minimize", 3) == tune(SCRIPT, points, "minimize", 3)
    assert len({repr(tune(SCRIPT, points, "minimize", seed, count=9)) for seed in range(5)}) > 1


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_a_knob_that_paid_comes_first_and_goes_on_where_it_is_good(direction: Direction, sign: int) -> None:
    points = [point(sign * (1 + abs(math.log(rate / 0.1))), MATRIX_LR=rate) for rate in (0.02, 0.03, 0.04, 0.06, 0.08)]
    points += [point(sign * 5.0, DEPTH=6, MATRIX_LR=0.08), point(sign * 6.0, DEPTH=8, MATRIX_LR=0.08)]
    best = SCRIPT.replace("0.04", "0.08")
    for seed in range(5):
        first = tune(best, points, direction, seed)[0]
        assert first.values in ({"MATRIX_LR": 0.1}, {"MATRIX_LR": 0.15})
        assert f"MATRIX_LR 0.08 -> {first.values['MATRIX_LR']}: 4 of 4 changes of it alone paid" in first.reason
        assert f"(0.08 gave {sign * 1.223144:.6f}, 0.06 gave {sign * 1.510826:.6f}, 0.04 gave" in first.reason


def test_nothing_beyond_a_failure_is_proposed() -> None:
    points = [
        point(1.0),
        point(None, DEPTH=6),
        point(1.1, failed=True, TOTAL_BATCH_SIZE=2**13),
        point(math.nan, USE_BIAS=True),
    ]
    for seed in range(10):
        found = proposed(points, seed=seed)
        assert found["DEPTH"].values["DEPTH"] in (1, 2, 3, 5)
        assert found["TOTAL_BATCH_SIZE"].values["TOTAL_BATCH_SIZE"] in (2**15, 2**16, 2**17)
        assert "USE_BIAS" not in found
    assert "6 failed" in proposed(points)["DEPTH"].reason


def test_a_success_beyond_a_failure_opens_it_again() -> None:
    points = [point(1.0), point(None, DEPTH=6), point(0.9, DEPTH=9), *(point(1.1, DEPTH=n) for n in (1, 2, 3, 5))]
    assert proposed(points)["DEPTH"].values["DEPTH"] in (7, 8)


def test_a_failure_of_several_knobs_blames_none() -> None:
    points = Points(KNOBS, (point(1.0), point(None, DEPTH=6, TOTAL_BATCH_SIZE=2**16)), 1)
    assert past_of(RUNGS["DEPTH"], points).closed == frozenset()
    found = proposed(list(points.points))["DEPTH"]
    assert found.reason.endswith("it was never changed alone; the estimator over its trials expects most here.")


def test_when_all_is_tried_nothing_is_left() -> None:
    switch = "USE_BIAS = False\n"
    assert len(tune(switch, [Point({}, 1.0)], "minimize", 1)) == 1
    assert tune(switch, [Point({}, 1.0), Point({"USE_BIAS": True}, 1.1)], "minimize", 1) == ()


def test_two_that_both_paid_are_tried_together() -> None:
    points = [point(1.1, MATRIX_LR=0.03, DEPTH=3), point(1.0, DEPTH=3), point(0.9)]
    last = tune(SCRIPT, points, "minimize", 1)[-1]
    assert set(last.values) == {"MATRIX_LR", "DEPTH"}
    assert "together" in last.reason


def test_other_seeds_paths_and_unknown_names_are_the_same_point() -> None:
    points = [Point({**KNOBS, "USE_BIAS": True, "SEED": 7, "DATA_PATH": "x", "GONE": 1}, 1.0)]
    assert "USE_BIAS" not in proposed(points)


def test_what_does_not_fit_its_knob_does_no_harm() -> None:
    odd: list[KnobValue] = ["x", None, (1, 2), True, -1.0, 0, math.inf, math.nan, 10**30]
    points = [Point({**KNOBS, name: value}, 1.0 + n) for n, value in enumerate(odd) for name in KNOBS]
    found = proposed(points)
    for tuning in found.values():
        write_knobs(SCRIPT, tuning.values)


def loss(knobs: Mapping[str, KnobValue]) -> float | None:
    """A bowl with a cliff; optimum: rate 0.1, batch 2**12, depth 7."""
    rate, batch, depth = (float(str(knobs[name])) for name in ("MATRIX_LR", "TOTAL_BATCH_SIZE", "DEPTH"))
    if rate > 0.3 or depth > 10:
        return None
    return 1 + 0.02 * math.log(rate / 0.1) ** 2 + 0.01 * math.log(batch / 2**12) ** 2 + 0.02 * math.log(depth / 7) ** 2


def searched(seed: int, tuned: bool) -> float:
    """The true loss of the best that is found in 25 trials with noise, each a change of the best before."""
    draws = random.Random(seed)
    best_script, points = SCRIPT, [point((loss(KNOBS) or 0) + draws.gauss(0, 5e-4))]
    best = points[0].value or 0
    for turn in range(25):
        if tuned:
            changes = tune(best_script, points, "minimize", turn, count=1)[0].values
        else:
            options = outline(best_script).settings
            present = {setting.knob.name: setting.knob.value for setting in options}
            drawn = draws.choice([each for setting in options for each in ladders(setting, present)])
            rung = draws.choice([rung for rung in range(len(drawn.rungs)) if rung != drawn.place])
            changes = {drawn.name: drawn.put(present[drawn.name], rung)}
        script = write_knobs(best_script, changes)
        knobs = {name: knob.value for name, knob in read_knobs(script).items()}
        true = loss(knobs)
        points.append(Point(knobs, None if true is None else true + draws.gauss(0, 5e-4)))
        if points[-1].value is not None and points[-1].value < best:
            best, best_script = points[-1].value, script
    return loss({name: knob.value for name, knob in read_knobs(best_script).items()}) or math.inf


def test_it_finds_more_than_chance() -> None:
    tuned = sum(searched(seed, True) for seed in range(4)) / 4 - 1
    chance = sum(searched(seed, False) for seed in range(4)) / 4 - 1
    assert tuned < 0.8 * chance


RUNGS = {each.name: each for s in outline(SCRIPT).settings for each in ladders(s, KNOBS) if each.element in (None, 0)}
CHANGES = st.dictionaries(st.sampled_from(sorted(RUNGS)), st.integers(0, 99), max_size=2).map(
    lambda drawn: {name: RUNGS[name].put(KNOBS[name], rung % len(RUNGS[name].rungs)) for name, rung in drawn.items()}
)
SCORES = st.none() | st.floats() | st.sampled_from([1e-12, 1e12, 0.0, 1.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CHANGES, SCORES, st.booleans()), max_size=30), st.integers(0, 2**40))
def test_whatever_was_measured_proposals_are_new_and_can_be_written(
    trials: list[tuple[dict[str, KnobValue], float | None, bool]], seed: int
) -> None:
    points = [point(value, failed, **changes) for changes, value, failed in trials]
    found = tune(SCRIPT, points, "maximize", seed, count=5)
    for tuning in found:
        assert 1 <= len(tuning.values) <= 2
        assert {**KNOBS, **tuning.values} not in [each.values for each in points]
        assert {**KNOBS, **tuning.values} != KNOBS
        write_knobs(SCRIPT, tuning.values)
