"""Runs of a change and of its base in blocks: nobody chooses which run of the base a change is compared with."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mcp_server.research.blocks import Sample, Variances, blocks_of, contrast, samples_of, variances_of
from mcp_server.research.case import Case, Record, weigh
from mcp_server.research.decision import decide
from mcp_server.research.experiment import Trial
from mcp_server.research.levels import levels_of
from mcp_server.research.noise import Noise, mean
from mcp_server.research.pairing import Spread
from mcp_server.research.verdict import Verdict
from tests.research.test_pairing import BEST, IDEA, RUN, TASK, loss, trial

OWN, BASE = True, False


def by_matrices(samples: Sequence[Sample], variances: Variances, sigma: float) -> tuple[float, float]:
    """Generalised least squares as the textbook has it."""
    covariance = np.array(
        [
            [
                variances.run * (one is other)
                + variances.seed * (one.block == other.block and one.seed == other.seed)
                + variances.time * (one.block == other.block)
                for other in samples
            ]
            for one in samples
        ]
    )
    codes = np.array([[each.own, not each.own] for each in samples], dtype=float)
    weights = np.linalg.inv(covariance)
    spread = np.linalg.inv(codes.T @ weights @ codes)
    level = spread @ codes.T @ weights @ np.array([each.value for each in samples])
    return level[0] - level[1], sigma * math.sqrt(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])


def test_the_difference_is_that_of_generalised_least_squares() -> None:
    draw = random.Random(7)
    for _ in range(200):
        samples = [
            Sample(draw.gauss(5, 2), own, draw.randrange(4), draw.randrange(3))
            for own in (OWN, BASE, *(draw.random() < 0.5 for _ in range(draw.randrange(12))))
        ]
        variances = Variances(draw.uniform(0.1, 1), draw.choice((0.0, 0.5)), draw.choice((0.0, 0.3, 50.0)))
        assert contrast(samples, variances, 0.5) == pytest.approx(by_matrices(samples, variances, 0.5), rel=1e-6)


SAMPLES = (
    Sample(3.0, OWN, 1, 42), Sample(1.0, BASE, 1, 42), Sample(0.0, BASE, 1, 43), Sample(8.0, BASE, 2, 44),
)  # fmt: skip


@pytest.mark.parametrize(
    ("variances", "gain", "error"),
    [
        (Variances(1.0, 0.0, 0.0), 0.0, math.sqrt(1 + 1 / 3)),  # a steady machine: the means of all
        (Variances(1.0, 0.0, 1e6), 2.5, math.sqrt(1 + 1 / 2)),  # one that moves: those of the same time, all of them
        (Variances(1e-9, 1.0, 1e6), 2.0, 0.0),  # one whose noise is all of the seed: that of the same seed
    ],
)
def test_runs_count_by_what_they_have_in_common(variances: Variances, gain: float, error: float) -> None:
    assert contrast(SAMPLES, variances, 1.0) == pytest.approx((gain, error), abs=1e-3)
    assert contrast(SAMPLES, variances, 2.0)[1] == pytest.approx(2 * error, abs=2e-3)


def test_huge_scores_stay_finite() -> None:
    huge = [Sample(value, own, own, 42) for value, own in ((1e308, OWN), (-1e308, BASE), (1e308, BASE))]
    for sigma in (1e-300, 1.0, 1e300):
        assert all(map(math.isfinite, contrast(huge, Variances(1e-9, 0.0, 1e6), sigma)))


@pytest.mark.parametrize(
    ("own", "base", "together"),
    [
        ([0], [1, 2, 3], [{"c1", "b1", "b2", "b3"}]),
        ([0, 10], [20], [{"c1", "c2", "b1"}]),  # near the second, which is near the first
        ([0], [20, 30, 100], [{"c1"}, {"b1", "b2"}, {"b3"}]),
        ([0, 100], [5, 95, 50], [{"c1", "b1"}, {"c2", "b2"}, {"b3"}]),
        ([0, 20], [14], [{"c1"}, {"c2", "b1"}]),  # the nearest
    ],
)
def test_blocks_are_near_in_time(own: list[float], base: list[float], together: list[set[str]]) -> None:
    runs = [trial(f"e2.{i}", 60 + i, at, id=f"c{i}") for i, at in enumerate(own, 1)]
    others = [trial(f"e1.{i}", 42 + i, at, id=f"b{i}") for i, at in enumerate(base, 1)]
    blocks = blocks_of(TASK, runs, others)
    found = [{name for name, block in blocks.items() if block == number} for number in sorted(set(blocks.values()))]
    assert sorted(found, key=sorted) == sorted(together, key=sorted)


def test_a_pair_is_in_one_block_and_a_run_without_times_in_none() -> None:
    own = [trial("e2.1", 42, 0), trial("e2.2", 43, 20)]
    assert blocks_of(TASK, own, [trial("e1.1", 42, 14)])["e1.1"] == 1
    timeless = [replace(each, started_at=None) for each in own]
    assert len(set(blocks_of(TASK, timeless, [trial("e1.1", 42, 14)]).values())) == 3
    assert samples_of(TASK, own, [], loss) == ()


@pytest.mark.parametrize(
    ("spread", "noise", "run", "seed", "time"),
    [
        (Spread(8.0, 8, 0.0, 2), Noise(9.0, 9), 1.0, 0.0, 0.0),  # steady
        (Spread(10.0, 10, 90.0, 1), Noise(90.0, 10), 1 / 9, 0.0, 10 - 1 / 9),  # moves
        (Spread(10.0, 10, 0.0, 0, 4.0, 100), Noise(90.0, 10), 0.2, -0.05, 0.7),  # the same seed, the same luck
    ],
)
def test_variances_are_those_that_were_seen(spread: Spread, noise: Noise, run: float, seed: float, time: float) -> None:
    assert noise.sigma is not None
    found = variances_of(spread, noise, noise.sigma)
    if seed >= 0:
        assert (found.run, found.seed, found.time) == pytest.approx((run, seed, time), rel=0.1, abs=0.02)
    else:
        assert found.run < found.seed / 2
        assert found.run + found.seed + found.time == pytest.approx(1.0)


EARLIER = [trial(f"e1.{i}", 41 + i, 5 * i, value) for i, value in enumerate((1.000, 1.003, 0.998, 1.004), 1)]
"""Another hour, in which the machine scored better by a twentieth."""
DRAWN = (1.050, 1.047, 1.053, 1.048, 1.051, 1.046, 1.049, 1.057)
"""Runs of the base one after the other, ended by a bad one."""


def judged(base: list[Trial], own: list[Trial]) -> Verdict:
    """The verdict on a change with these runs."""
    best, subject = Record(BEST, tuple(base)), Record(IDEA, tuple(own))
    known = weigh(RUN, best)
    repeats = (*base, *(own if len(own) > 1 else ()))
    return decide(RUN, Case(subject, best, {"e1": best}, "e1", known.sum_of_squares, known.dof, best, repeats))


@pytest.mark.parametrize(("draws", "gain"), [(1, 0.007), (3, 0.0044), (8, 0.0003)])
def test_the_worst_of_many_runs_of_the_base_is_no_partner_by_itself(draws: int, gain: float) -> None:
    """A change that equals the base, run beside the last of so many runs of that; then the same once more."""
    drawn = [
        trial(f"e1.{5 + i}", 46 + i, 1000 + i, value, came_from="keep")
        for i, value in enumerate((*DRAWN[: draws - 1], DRAWN[-1]))
    ]
    last = drawn[-1].seed
    own = [trial("e2.1", last, 1009, 1.050), trial("e2.2", last + 1, 1011, 1.0505)]
    verdict = judged([*EARLIER, *drawn, trial(f"e1.{5 + draws}", last + 1, 1010, 1.0491, came_from="keep")], own)
    assert verdict.numbers is not None
    assert verdict.numbers.pairs == 2
    near = sum(map(loss, drawn)) / (draws + 1) + 1.0491 / (draws + 1)
    assert verdict.numbers.d == pytest.approx(near - 1.05025, abs=4e-4)
    assert verdict.numbers.d < gain
    assert verdict.decision != "keep"


def test_an_honest_pair_is_worth_what_it_was() -> None:
    """The best once, and the change beside it with its seed: an hour in which all scores are worse by a twentieth."""
    pair = trial("e1.5", 46, 1000, 1.051, came_from="keep")
    verdict = judged([*EARLIER, pair], [trial("e2.1", 46, 1005, 1.031)])
    assert (verdict.decision, verdict.numbers and verdict.numbers.pairs) == ("keep", 1)
    assert verdict.numbers is not None
    assert verdict.numbers.d == pytest.approx(0.020, abs=1e-3)
    assert verdict.numbers.s < 0.006


WAYS = ("honest", "the worst of 8 in a row", "the worst of 8, one an hour")


@dataclass
class Machine:
    """A machine that scores anew by five standard deviations of a run in every hour."""

    draw: random.Random
    hours: dict[int, float] = field(default_factory=dict)

    def run(self, name: str, seed: int, minute: float, came_from: str = "keep") -> Trial:
        """A run of any code, for all are equal."""
        level = self.hours.setdefault(int(minute // 60), self.draw.gauss(0, 5))
        return trial(name, seed, minute, level + self.draw.gauss(0, 1), came_from=came_from)


def keeps(way: str, nights: int) -> float:
    """How often a change that equals the base is kept by whoever draws runs of the base until one is bad."""
    kept = 0
    for night in range(nights):
        machine, base, minute = Machine(random.Random(night)), list[Trial](), 600.0
        for i in range(1, 7):  # in three hours, so that it is known to drift
            base.append(machine.run(f"e1.{i}", 41 + i, 60 * (i // 2) + i))
        own: list[Trial] = []
        while not own or (verdict := judged(base, own)).decision == "needs_confirmation":
            for _ in range(1 if way == "honest" else 8):
                seed = 42 + len(base)
                base.append(machine.run(f"e1.{len(base) + 1}", seed, minute))
                peers = base if "hour" in way else base[6:]
                if len(peers) > 1 and loss(base[-1]) > mean([loss(each) for each in peers]) + 1:
                    break
                minute += 60.0 if "hour" in way else 0.2
            own.append(machine.run(f"e2.{len(own) + 1}", seed, minute, "needs_confirmation" if own else "registered"))
        kept += verdict.decision == "keep"
    return kept / nights


@pytest.mark.parametrize("way", WAYS[1:])
def test_drawing_runs_of_the_base_buys_no_keep(way: str) -> None:
    honest = keeps("honest", 150)
    assert keeps(way, 150) <= honest + 0.1


def test_a_claim_rests_on_all_runs_of_the_base_near_in_time() -> None:
    before = [trial(f"e1.{i}", 42 + i, i, value) for i, value in enumerate((1.0, 1.2, 1.1, 1.9), 1)]
    own = [trial("e2.1", 46, 5, 1.3), trial("e2.2", 50, 500, 9.0)]
    _, step = levels_of(TASK, [("e1", before), ("e2", own)], lambda each: -loss(each))
    assert (step.pairs, step.ahead) == pytest.approx((1, 0.0))  # not 0.6, as beside the last
