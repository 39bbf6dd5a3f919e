"""Runs side by side: which make a pair, what the difference of pairs says, and when they are asked for."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.side_by_side import kept
from mcp_server.research.case import Case, Record
from mcp_server.research.chain import Level
from mcp_server.research.claims import QUANTILE, assess
from mcp_server.research.comparison import present_numbers
from mcp_server.research.decision import decide
from mcp_server.research.experiment import NO_CHANGE, Experiment, Numbers, Run, Trial
from mcp_server.research.levels import levels_of
from mcp_server.research.noise import Noise
from mcp_server.research.pairing import (
    LEAST_NEAR,
    UNSEEN,
    Beside,
    Spread,
    beside,
    doubt,
    equal_runs,
    in_words,
    is_near,
    pairs_of,
    spread_of,
    unseen,
    worthwhile,
)
from mcp_server.research.task import Task

TASK = Task("loss", "minimize", 300, "train.py", "python train.py", "python", ("train.py",), policy="noise_aware")
RUN = Run("mar8", "autoresearch/mar8", "b", TASK, "cpu", {}, 0.0)
BEST = Experiment(
    "e1", "mar8", 1, "ann", "b", "b", "", "other", "", 0.0, "keep", diff_summary=NO_CHANGE, value=1.0, runs=1
)
IDEA = replace(BEST, id="e2", number=2, status="trained", commit="c", parent_id="e1", diff_summary="LR 1 -> 2")


def trial(name: str, seed: int, minute: float, value: float = 1.0, **others: Any) -> Trial:
    """A run of five minutes that began then."""
    experiment, attempt = name.split(".")
    made = Trial(
        name, experiment, int(attempt), seed, "cpu", "finished", 60 * minute, started_at=60 * minute,
        ended_at=60 * minute + 300, metrics={"loss": value}, commit="b" if experiment == "e1" else "c",
        base_id=None if experiment == "e1" else "e1",
    )  # fmt: skip
    return replace(made, **others)


def loss(each: Trial) -> float:
    return float(each.metrics["loss"])


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (trial("e2.1", 42, 0), True),
        (trial("e2.1", 42, 15), True),  # three trainings
        (trial("e2.1", 42, 15.1), False),
        (trial("e2.1", 42, -15), True),
        (trial("e2.1", 42, 5, device_type="mps"), False),
        (trial("e2.1", 42, 5, started_at=None), False),  # of a record that has no times
        (trial("e2.1", 42, 5, ended_at=None), False),
        (trial("e2.1", 42, 40, ended_at=1e6), False),  # one that hung for long makes nothing near
    ],
)
def test_near_is_within_the_time_of_a_few_trainings(other: Trial, near: bool) -> None:
    assert is_near(TASK, trial("e1.1", 42, 0), other) == near
    assert is_near(TASK, other, trial("e1.1", 42, 0)) == near


def test_moments_are_near_whatever_the_budget() -> None:
    short = replace(TASK, time_budget_seconds=1)
    quick = trial("e1.1", 42, 0, ended_at=1.0)
    assert is_near(short, quick, replace(quick, started_at=LEAST_NEAR, ended_at=LEAST_NEAR + 1))
    assert not is_near(short, quick, replace(quick, started_at=LEAST_NEAR + 1, ended_at=LEAST_NEAR + 2))


@pytest.mark.parametrize(
    ("own", "base", "expected"),
    [
        ([(42, 0), (43, 5)], [(42, 10), (43, 100)], [(42, 42)]),  # the second is far
        ([(42, 0), (43, 5)], [(43, 10), (44, 0)], [(43, 43)]),
        ([(42, 0), (43, 5)], [(43, 0), (42, 5)], [(42, 42), (43, 43)]),
        ([(42, 0)], [(43, 0)], []),
        ([(42, 0), (42, 6)], [(42, 7)], [(42, 42)]),  # each run is in one at most, the nearest first
        ([], [(42, 0)], []),
    ],
)
def test_pairs_have_a_seed_in_common(
    own: list[tuple[int, float]], base: list[tuple[int, float]], expected: list[tuple[int, int]]
) -> None:
    runs = [trial(f"e2.{i}", *each) for i, each in enumerate(own, 1)]
    others = [trial(f"e1.{i}", *each) for i, each in enumerate(base, 1)]
    pairs = pairs_of(TASK, runs, others)
    assert [(pair.own.seed, pair.beside.seed) for pair in pairs] == expected
    if len(own) == 2 and own[0][0] == own[1][0]:
        assert pairs[0].own.id == "e2.2"


def test_the_spread_near_in_time_is_told_from_that_between_times() -> None:
    runs = [trial("e1.1", 42, 0, 1.0), trial("e1.2", 43, 5, 1.2), trial("e1.3", 44, 500, 2.0)]
    spread = spread_of(TASK, runs, loss)
    assert (spread.near, spread.near_dof) == pytest.approx((0.02, 1))
    level = 4.2 / 3
    assert (spread.far, spread.far_dof) == pytest.approx((2 * (1.1 - level) ** 2 + (2.0 - level) ** 2, 1))


def test_pairs_tell_their_own_noise() -> None:
    base = [trial("e1.1", 42, 0, 1.0), trial("e1.2", 43, 100, 3.0), trial("e1.3", 44, 200, 2.0)]
    own = [trial("e2.1", 42, 5, 0.9), trial("e2.2", 43, 105, 2.8), trial("e2.3", 45, 205, 9.0)]
    spread = spread_of(TASK, [*base, *own], loss)
    assert (spread.pairs, spread.pairs_dof) == pytest.approx((2 * 0.05**2, 1))


@pytest.mark.parametrize(
    ("spread", "prior", "drifts"),
    [
        (Spread(3.0, 3, 30.0, 1), None, True),  # F 30 of 1 and 3: 0.012
        (Spread(3.0, 3, 12.0, 1), None, False),  # 0.04
        (Spread(10.0, 10, 20.0, 5), None, False),  # 4 of 5 and 10: 0.03
        (Spread(10.0, 10, 25.0, 5), None, True),  # 5: 0.015
        (Spread(3.0, 3, 0.0, 0), None, False),  # at one time only
        (Spread(0.0, 0, 30.0, 1), None, False),  # nothing near in time to hold against it
        (Spread(1.0, 1, 60.0, 1), 1.0, True),  # what is assumed counts while little is known
        (Spread(1.0, 1, 60.0, 1), 20.0, False),
        (Spread(0.0, 3, 1e-9, 1), None, True),  # no noise at all, but for the time
        (Spread(0.0, 3, 0.0, 1), None, False),
        (Spread(pairs=6.0, pairs_dof=3, far=40.0, far_dof=1), None, True),  # pairs say what is near as well
    ],
)
def test_a_drift_is_a_spread_between_times_beyond_luck(spread: Spread, prior: float | None, drifts: bool) -> None:
    assert bool(spread.drift(prior)) == drifts


def test_a_steady_machine_drifts_as_seldom_as_it_should() -> None:
    draw = random.Random(3)
    found = 0
    for _ in range(2000):
        near, far = (sum(draw.gauss(0, 1) ** 2 for _ in range(dof)) for dof in (6, 2))
        found += bool(Spread(near, 6, far, 2).drift())
    assert 0.015 < found / 2000 < 0.035


def drifted(own: list[Trial], base: list[Trial], squares: float = 1.0) -> Case:
    best = Record(BEST, tuple(base))
    return Case(
        Record(IDEA, tuple(own)), best, {"e1": best}, "e1", squares, dof=4, baseline=best,
        repeats=(*base, *(own if len(own) > 1 else ())),
    )  # fmt: skip


START = [trial(f"e1.{i}", 41 + i, 5 * i, value) for i, value in enumerate((1.00, 1.01, 0.99, 1.00), 1)]
LATER = trial("e1.5", 46, 1000, 0.5)
"""The machine scores better by a half then."""


def test_a_drift_is_no_gain_in_pairs() -> None:
    own = [trial("e2.1", 42, 995, 0.51), trial("e2.2", 46, 1005, 0.505)]
    verdict = decide(RUN, drifted(own, [*START, LATER]))
    assert verdict.decision == "discard"
    assert verdict.numbers is not None
    assert (verdict.numbers.n, verdict.numbers.n_b, verdict.numbers.pairs) == (2, 5, 1)
    assert verdict.numbers.d == pytest.approx(-0.0075, abs=5e-4)  # both are near the last run of the base
    assert verdict.numbers.s < 0.02
    assert (
        "2 runs against 5 of e1, 1 of its 2 in pairs with runs of the base: same seed, near in time)" in verdict.reason
    )
    timeless = [replace(each, started_at=None, ended_at=None) for each in own]
    by_means = decide(RUN, drifted(timeless, [*START, LATER]))
    assert by_means.numbers is not None
    assert by_means.numbers.pairs == 0
    assert by_means.numbers.d == pytest.approx(0.9 - 0.5075)


def test_the_gain_in_pairs_is_the_smaller_of_both_texts() -> None:
    hidden: dict[str, Any] = {"verification": "verified"}
    metrics = {"loss": 0.5, "loss_audit": 0.6}
    base = [replace(each, metrics={"loss": loss(each), "loss_audit": loss(each)}, **hidden) for each in START]
    base.append(replace(LATER, metrics=metrics, **hidden))
    own = [trial("e2.1", 46, 1005, metrics={"loss": 0.3, "loss_audit": 0.59}, **hidden)]
    case = drifted(own, base)
    numbers = present_numbers(RUN, case)
    assert numbers is not None
    assert (numbers.pairs, numbers.n, numbers.n_b) == (1, 1, 5)
    # By the validation text 0.2 better than the run beside it; by the hidden one 0.01, as good as the pair alone says.
    assert numbers.d == pytest.approx(0.01, abs=5e-3)


def test_a_single_run_from_another_time_is_not_enough() -> None:
    own = [trial("e2.1", 42, 1000, 0.5)]
    verdict = decide(RUN, drifted(own, START, 2e-4))
    assert verdict.decision == "needs_confirmation"
    assert f"promising, but {UNSEEN}." in verdict.reason
    assert decide(RUN, drifted([trial("e2.1", 42, 25, 0.5)], START, 2e-4)).decision == "keep"  # near
    timeless = [replace(each, started_at=None) for each in START]
    assert decide(RUN, drifted(own, timeless, 2e-4)).decision == "keep"  # a record without times


def test_present_numbers_follow_what_was_measured_since() -> None:
    own = [trial("e2.1", 42, 25, 0.5), trial("e2.2", 43, 500, 0.98, came_from="keep")]
    kept_since = replace(drifted(own, START), subject=Record(replace(IDEA, status="keep"), tuple(own)))
    numbers = present_numbers(RUN, kept_since)
    assert numbers is not None
    assert (numbers.d, numbers.n) == pytest.approx((0.26, 2))
    greedy = replace(RUN, task=replace(TASK, policy="greedy"))
    assert present_numbers(greedy, kept_since) is None


NUMBERS = Numbers(1.0, 0.5, 2.0, 2, 4, 1.0, 8, "e1", "e1")


def test_pairs_count_as_so_many_more_runs() -> None:
    assert equal_runs(NUMBERS) == (2, 4)
    assert equal_runs(replace(NUMBERS, s=2 * NUMBERS.s)) == (2, 4)
    assert equal_runs(replace(NUMBERS, hidden_error=0.0)) == pytest.approx(
        equal_runs(replace(NUMBERS, pairs=2))  # whatever made s what it is
    )
    runs, base_runs = equal_runs(replace(NUMBERS, pairs=2))
    assert 1 / runs + 1 / base_runs == pytest.approx(0.25)
    assert in_words(NUMBERS) == ""
    assert in_words(replace(NUMBERS, pairs=2)).startswith(", 2 of its 2 in pairs")


def test_claims_of_a_chain_are_paired_along_it() -> None:
    """What the machine adds differs by 10 between times; side by side each step is 1 with hardly any noise."""
    codes = [
        ("e1", [trial(f"e1.{i}", 41 + i, 5 * i, 10.0 + 0.01 * i) for i in range(1, 4)]),
        ("e2", [trial(f"e2.{i}", seed, at, v) for i, (seed, at, v) in enumerate(((42, 500, 0.0), (45, 1000, 4.0)), 1)]),
    ]
    codes[0][1].append(trial("e1.4", 45, 1005, 5.0))
    first, last = levels_of(TASK, codes, lambda each: -loss(each))
    assert (first.runs, first.pairs, *first.alone) == pytest.approx((4, 0, -10.02, 3))
    assert (last.runs, last.pairs, last.ahead, last.apart) == (2, 1, 1.0, (0.0, 1))
    unpaired = levels_of(TASK, [(name, [replace(t, started_at=None) for t in runs]) for name, runs in codes], loss)
    assert [level.pairs for level in unpaired] == [0, 0]
    alone = levels_of(TASK, [("e1", codes[0][1][3:]), ("e2", codes[1][1][1:])], loss)
    assert [level.apart for level in alone] == [(5.0, 1), (4.0, 1)]  # each keeps a run of its own


@pytest.mark.parametrize(("pair_noise", "pairs"), [(Noise(2e-3, 20), 2), (Noise(2e3, 20), 0), (None, 0)])
def test_pairs_that_are_exact_make_a_claim(pair_noise: Noise | None, pairs: int) -> None:
    paired = Level("e2", 0.6, 3, 2, 1.0, apart=(-0.2, 1))
    found = assess([Level("e1", 0.0, 4, apart=(0.0, 2)), paired], Noise(80.0, 20), [], pair_noise)
    assert found is not None
    assert found.total == found.steps["e2"]
    claim = found.total
    assert claim is not None
    assert (claim.claimed, claim.pairs) == (bool(pairs), pairs)
    assert ("2 of them side by side" in claim.words()) == bool(pairs)
    whole = QUANTILE * found.sigma * math.sqrt(1 / 3 + 1 / 4)
    assert (claim.smallest_gain == pytest.approx(whole)) == (not pairs)
    if pairs:
        assert claim.smallest_gain < 0.05
        assert claim.gain == pytest.approx(1.0, abs=0.05)


QUIET, LOUD, UNKNOWN = Noise(0.0, 4, 0.5), Noise(40.0, 4, 0.5), Noise(40.0, 10)
CHANGED = Spread(3.0, 3, 60.0, 1)


@pytest.mark.parametrize(
    ("noise", "spread", "load", "z", "now", "why"),
    [
        (UNKNOWN, CHANGED, "", 5.0, 0, "the machine drifts: the same code differs by 7.745967 between times"),
        (QUIET, CHANGED, "", 5.0, 0, "the machine drifts"),
        (UNKNOWN, Spread(3.0, 3, 1.0, 1), "The repeats differ", 5.0, 0, "noise follows the machine's load"),
        (UNKNOWN, Spread(3.0, 3), "", 5.0, 1000, UNSEEN),  # once, to see
        (LOUD, Spread(3.0, 3), "", 5.0, 1000, UNSEEN),
        (QUIET, Spread(3.0, 3), "", 5.0, 1000, ""),  # noise is what it should be
        (UNKNOWN, Spread(3.0, 3), "", 5.0, 5, ""),  # the best was run just now
        (UNKNOWN, Spread(30.0, 10, 3.0, 1), "", 0.2, 1000, ""),  # large, but at any time
        (UNKNOWN, Spread(9.0, 10, 3.0, 1), "", 0.2, 1000, "noise is large, most of 5 changes cannot be told from it"),
        (UNKNOWN, Spread(9.0, 10, 3.0, 1), "", 5.0, 1000, ""),  # side by side it is less, but changes can be told
        (LOUD, Spread(9.0, 10, 3.0, 1), "", 5.0, 1000, "noise is large, 2.598"),
        (Noise(), Spread(), "", 0.2, 1000, ""),
    ],
)
def test_pairs_are_asked_for_where_they_are_worth_it(
    noise: Noise, spread: Spread, load: str, z: float, now: float, why: str
) -> None:
    compared = [replace(NUMBERS, z=z)] * 5
    found = worthwhile(RUN, noise, spread, load, compared, START, 60 * now)
    assert found.startswith(why)
    assert bool(found) == bool(why)
    greedy = replace(RUN, task=replace(TASK, policy="greedy"))
    assert worthwhile(greedy, noise, spread, load, compared, START, 60 * now) == ""


def test_nothing_is_asked_of_a_record_without_times() -> None:
    timeless = [replace(each, started_at=None) for each in START]
    assert not unseen(TASK, UNKNOWN, Spread(), timeless, 1e9)
    assert unseen(TASK, UNKNOWN, Spread(), START, 1e9)
    assert doubt(TASK, Spread(), UNKNOWN, [trial("e2.1", 42, 1000)], timeless) == ""


FIRST = trial("e2.1", 42, 1000)


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (START, Beside(first=46)),  # neither had 46
        ([*START, trial("e1.5", 46, 1006)], Beside(seed=46)),
        ([*START, trial("e1.5", 46, 1006, status="training", ended_at=None)], Beside(seed=46)),  # on another device
        ([*START, trial("e1.5", 46, 1006, status="queued", started_at=None, ended_at=None)], Beside(seed=46)),
        ([*START, trial("e1.5", 46, 1006), trial("e1.6", 47, 1007)], Beside(seed=47)),  # the latest
        ([*START, trial("e1.5", 42, 1006)], Beside()),  # the change had that seed
        ([*START, trial("e1.5", 46, 1006, status="failed", came_from="keep")], Beside()),
        ([*START, trial("e1.5", 46, 1006, error="check failed", came_from="keep")], Beside()),
        ([*START, trial("e1.5", 46, 1006, status="stopped", came_from="keep")], Beside()),
        ([*START, trial("e1.5", 46, 900)], Beside(first=47)),  # before the change's own run, and long ago
    ],
)
def test_the_next_run_comes_beside_one_of_the_best(best: list[Trial], expected: Beside) -> None:
    assert beside(TASK, [FIRST], best, 60 * 1010.0, FIRST.queued_at) == expected


def test_whoever_lets_the_moment_pass_is_not_asked_again() -> None:
    best = [*START, trial("e1.5", 46, 1006)]
    assert beside(TASK, [FIRST], best, 60 * 2000.0, FIRST.queued_at) == Beside()


def test_the_run_that_the_best_was_selected_by_is_no_neighbour() -> None:
    lucky = trial("e1.1", 43, 1006)
    assert beside(TASK, [FIRST], [lucky], 60 * 1010.0, FIRST.queued_at, lucky.id) == Beside(first=44)
    assert beside(TASK, [FIRST], [lucky], 60 * 1010.0, FIRST.queued_at) == Beside(seed=43)


SEEDS = range(150)


@pytest.mark.parametrize("drift", [0.0, 10.0])
def test_pairs_keep_what_a_steady_machine_would(drift: float) -> None:
    """A change that does nothing on a machine that moved by ten deviations: the means keep it half of the time."""
    nothing = {way: sum(kept(drift, 0.0, way, seed) for seed in SEEDS) / len(SEEDS) for way in ("means", "pairs")}
    assert nothing["pairs"] < 0.32
    assert (nothing["means"] > 0.4) == bool(drift)
    gain = sum(kept(drift, 2.0, "seen", seed) for seed in SEEDS) / len(SEEDS)
    assert gain > 0.7
