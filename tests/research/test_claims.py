"""What may be claimed: beliefs in effects and in chains of kept changes, against integrals and drawn truths."""

import math
import random
import statistics
from dataclasses import replace

import pytest

from mcp_server.research.chain import Level, believed
from mcp_server.research.claims import (
    QUANTILE,
    REPEATS_FOR_CLAIM,
    RUNS_FOR_CLAIM,
    Assessment,
    assess,
    cautious,
    smaller,
    smallest_gain,
)
from mcp_server.research.effects import CLAIM, SHAPE, Effects, learnt
from mcp_server.research.experiment import Numbers
from mcp_server.research.noise import Noise
from mcp_server.research.rows import RowGain, RowGains, counted_error

KNOWN = Noise(sum_of_squares=40.0, dof=40)
"""Sigma 1, well known."""
UNIT = Effects(tuple((weight, mean, spread**2) for weight, mean, spread in SHAPE))


def integrated(difference: float, variance: float) -> tuple[float, float, float]:
    """Mean, standard deviation and share above zero of the posterior, by sums over a fine grid."""
    grid = [i / 200 for i in range(-4000, 4001)]
    density = [
        sum(w * math.exp(-((x - m) ** 2) / (2 * s * s)) / s for w, m, s in SHAPE)
        * math.exp(-((x - difference) ** 2) / (2 * variance))
        for x in grid
    ]
    total = sum(density)
    mean = sum(x * p for x, p in zip(grid, density, strict=True)) / total
    square = sum((x - mean) ** 2 * p for x, p in zip(grid, density, strict=True)) / total
    above = (sum(p for x, p in zip(grid, density, strict=True) if x > 0) + density[4000] / 2) / total
    return mean, math.sqrt(square), above


@pytest.mark.parametrize(("difference", "variance"), [(0.0, 1.0), (2.0, 1.0), (-3.0, 0.5), (6.0, 4.0), (0.3, 0.02)])
def test_a_belief_is_the_posterior(difference: float, variance: float) -> None:
    belief = UNIT.given(difference, variance)
    assert (belief.gain, belief.error, belief.probability) == pytest.approx(integrated(difference, variance), abs=2e-3)


def test_a_gain_is_shrunk_and_the_more_the_less_it_was_measured() -> None:
    gains = [UNIT.given(2.0, 1.0 / n).gain for n in (1, 2, 4, 100)]
    assert gains == sorted(gains)
    assert gains[0] < 1.0
    assert gains[-1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("size", [0.2, 5.0])
def test_the_size_of_effects_is_learnt_from_the_run(size: float) -> None:
    draw = random.Random(5)
    seen = [(draw.gauss(-size, size) + draw.gauss(0, 0.1), 0.01) for _ in range(60)]
    spread = math.sqrt(sum(w * (m * m + v) for w, m, v in learnt(0.1, seen).parts))
    assert size / 3 < spread < 3 * size


def test_two_levels_are_the_posterior_of_their_difference() -> None:
    chain = believed([Level("a", 10.0, 2), Level("b", 12.0, 4)], 1.0, UNIT)
    direct = UNIT.given(2.0, 1 / 2 + 1 / 4)
    assert chain.steps[0].gain == pytest.approx(direct.gain)
    assert chain.steps[0].probability == pytest.approx(direct.probability)
    assert chain.total == chain.steps[0]


def test_a_base_that_was_kept_for_its_luck_is_found_out() -> None:
    """The middle one came out 3 better in its one run, and what was made from it, run often, is back at the start."""
    lucky = believed([Level("a", 0.0, 6), Level("b", 3.0, 1)], 1.0, UNIT)
    found = believed([Level("a", 0.0, 6), Level("b", 3.0, 1), Level("c", 0.2, 8)], 1.0, UNIT)
    borne_out = believed([Level("a", 0.0, 6), Level("b", 3.0, 1), Level("c", 3.2, 8)], 1.0, UNIT)
    assert found.steps[0].gain < 0.7 * lucky.steps[0].gain < borne_out.steps[0].gain
    assert found.means[1] < lucky.means[1] < borne_out.means[1]


def test_probabilities_are_borne_out_over_many_chains() -> None:
    """Of what is claimed with at least 0.97 at most as much is false, and no total is biased; effects as believed."""
    draw = random.Random(11)
    weights = [weight for weight, _, _ in SHAPE]
    claims, false, off, inside = 0, 0, [], 0
    for _ in range(400):
        truth, levels, effects = 0.0, [Level("0", draw.gauss(0, 0.5), 4)], []
        for i in range(5):
            _, mean, spread = draw.choices(SHAPE, weights)[0]
            effects.append(draw.gauss(mean, spread))
            truth += effects[-1]
            runs = draw.choice([1, 2, 3])
            levels.append(Level(str(i + 1), truth + draw.gauss(0, 1 / math.sqrt(runs)), runs))
        chain = believed(levels, 1.0, UNIT)
        for effect, step in zip(effects, chain.steps, strict=True):
            claims += step.claimed
            false += step.claimed and effect <= 0
        off.append(chain.total.gain - truth)
        inside += abs(off[-1]) <= 2 * chain.total.error
    assert claims > 50
    assert false <= 0.03 * claims + 3 * math.sqrt(0.03 * 0.97 * claims)
    assert abs(statistics.fmean(off)) < 3 * statistics.stdev(off) / 20 + 0.05
    assert 0.9 < inside / 400 <= 1


def steady(*levels: Level, noise: Noise = KNOWN) -> list[bool]:
    found = assess(levels, noise, [(0.0, 1, 2)] * 5)
    assert found is not None
    return [claim.claimed for claim in found.steps.values()]


def test_nothing_is_claimed_of_what_ran_once_or_where_the_noise_is_hardly_known() -> None:
    assert steady(Level("a", 0.0, 4), Level("b", 9.0, RUNS_FOR_CLAIM)) == [True]
    assert steady(Level("a", 0.0, 4), Level("b", 9.0, RUNS_FOR_CLAIM - 1)) == [False]
    assert steady(Level("a", 0.0, 1), Level("b", 9.0, 4)) == [False]
    few = Noise(sum_of_squares=1.0 * (REPEATS_FOR_CLAIM - 1), dof=REPEATS_FOR_CLAIM - 1)
    assert steady(Level("a", 0.0, 4), Level("b", 9.0, 4), noise=few) == [False]
    assert steady(Level("a", 0.0, 4), Level("b", -9.0, 4)) == [False]


def test_a_sum_of_steps_none_of_which_is_likely_is_no_fact() -> None:
    """Four steps of 0.75 each look surer, each taken for normal, than the runs of both ends make their sum."""
    compared = [(x / 3, 1, 2) for x in range(-9, 5)] * 4
    levels = [Level(str(i), 0.75 * i, 3) for i in range(5)]
    found, ends = assess(levels, KNOWN, compared), assess([levels[0], levels[-1]], KNOWN, compared)
    assert found is not None
    assert ends is not None
    assert found.total is not None
    assert ends.total is not None
    assert found.chain.total.probability > CLAIM > found.total.probability
    assert found.total.probability == pytest.approx(ends.total.probability)
    assert not found.total.claimed
    assert found.total.gain == pytest.approx(found.chain.total.gain * found.sigma)
    far = assess([Level(str(i), 1.5 * i, 3) for i in range(5)], KNOWN, compared)
    assert far is not None
    assert far.total is not None
    assert far.total.claimed


def test_a_prior_that_the_repeats_contradict_does_not_count() -> None:
    wrong = Noise(sum_of_squares=25.0 * 8, dof=8, prior=0.5)
    assert wrong.sigma is not None
    assert wrong.sigma < 5 < (cautious(wrong) or 0.0)
    assert cautious(Noise()) is None
    many = Noise(sum_of_squares=1e4, dof=10_000)
    assert cautious(many) == pytest.approx(1.0, abs=0.02)


def test_the_upper_bound_holds_in_nine_of_ten() -> None:
    draw = random.Random(3)
    above = 0
    for _ in range(2000):
        squares = sum(draw.gauss(0, 1) ** 2 for _ in range(6))
        above += (cautious(Noise(squares, 6)) or 0.0) >= 1.0
    assert above / 2000 == pytest.approx(0.9, abs=0.025)


def test_what_is_nearest_to_a_claim_runs_next() -> None:
    """The best against the baseline first, the side with fewer runs; then the kept change nearest to its claim."""
    open_ = assess([Level("a", 0.0, 5), Level("b", 0.6, 2)], KNOWN, [])
    assert open_ is not None
    assert (open_.total and open_.total.claimed, open_.next_repeat) == (False, "b")
    done = assess([Level("a", 0.0, 4), Level("b", 9.0, 4), Level("c", 10.5, 3), Level("d", 10.6, 3)], KNOWN, [])
    assert done is not None
    assert done.total is not None
    assert done.total.claimed
    chances = {name: claim.probability for name, claim in done.steps.items() if not claim.claimed}
    assert chances["c"] > chances["d"]
    assert done.next_repeat == "c"
    assert assess([], KNOWN, []) is None


def test_a_best_that_its_runs_do_not_bear_out_has_fallen() -> None:
    before = assess([Level("a", 0.0, 4), Level("b", 2.5, 2)], KNOWN, [])
    after = assess([Level("a", 0.0, 4), Level("b", -0.7, 3)], KNOWN, [])
    assert before is not None
    assert after is not None
    assert (before.fallen, after.fallen) == (False, True)
    assert after.doubtful == ("b",)


def test_the_words_say_which_is_which() -> None:
    found = assess([Level("a", 0.0, 4), Level("b", 9.0, 4)], KNOWN, [])
    assert found is not None
    assert found.total is not None
    assert found.total.words().startswith("claimed: better by ")
    assert "(4 and 4 runs, which can show " in found.total.words()
    other = found.of(Numbers(0.1, 1.0, 0.1, 1, 4, 1.0, 40, "a", "b"))
    assert other.words().startswith("provisional: ")
    assert other.runs == 1


def test_without_any_noise_a_difference_is_a_fact() -> None:
    found = assess([Level("a", -1.24, 4), Level("b", -1.23, 2)], Noise(sum_of_squares=0.0, dof=6), [])
    assert found is not None
    assert found.total is not None
    assert found.total.claimed
    assert found.total.gain == pytest.approx(0.01, rel=1e-3)


def test_the_smallest_gain_falls_with_the_runs() -> None:
    assert smallest_gain(1.0, 2, 2) == pytest.approx(1.881, abs=1e-3)
    assert smallest_gain(1.0, 8, 8) == pytest.approx(1.881 / 2, abs=1e-3)
    assert CLAIM == 0.97


def test_what_was_learnt_by_heart_of_the_validation_text_is_not_claimed() -> None:
    compared = [(5.0, 4, 4), (-1.0, 4, 4), (0.2, 4, 4)]
    known, by_heart = ([Level("a", 0.0, 6), Level("b", gain, 6)] for gain in (5.0, 0.1))
    validation, hidden = (assess(levels, KNOWN, compared) for levels in (known, by_heart))
    assert validation is not None
    assert validation.steps["b"].claimed
    both = smaller(validation, hidden)
    assert (both.total, both.steps["b"].claimed) == (hidden and hidden.total, False)
    assert smaller(validation, None) == validation


QUIET = Noise(sum_of_squares=40 * 0.0005**2, dof=40)
"""Seeds that move the score by 0.0005."""
SEEN = [(0.002, 6, 6), (-0.003, 1, 6), (-0.001, 1, 6), (0.0004, 2, 6), (-0.0002, 1, 6)]


def both_texts(gains: list[tuple[float, float]], error: float, runs: int = 6, total: float = 0.0) -> Assessment:
    """A chain whose levels gain so much over the first, on the validation text and on the hidden text.

    Args:
        error: over the rows of the hidden text, of every step.
        total: the same of the last level's gain over the first.
    """
    start = Level("0", 0.0, runs)
    seen, hidden = (
        [start, *(Level(str(i), pair[k], runs, sampled=k * error) for i, pair in enumerate(gains, 1))] for k in (0, 1)
    )
    found, audited = assess(seen, QUIET, SEEN), assess(hidden, QUIET, SEEN, sampled=total)
    assert found is not None
    return smaller(found, audited)


def test_a_gain_that_its_rows_explain_is_not_claimed() -> None:
    """Where seeds are quiet, which rows the hidden text has is most of the error: 0.002 of 0.00275 is a z of 0.7."""
    known, sampled = both_texts([(0.002, 0.002)], 0.0), both_texts([(0.002, 0.002)], 0.00275)
    assert (known.steps["1"].claimed, sampled.steps["1"].claimed) == (True, False)
    assert sampled.total == sampled.steps["1"]
    assert sampled.steps["1"].probability < 0.9
    assert sampled.steps["1"].error > 3 * known.steps["1"].error
    assert sampled.steps["1"].smallest_gain > QUANTILE * 0.00275
    assert both_texts([(0.012, 0.012)], 0.00275).steps["1"].claimed
    often = both_texts([(0.002, 0.002)], 0.00275, runs=1000)  # no repeat makes the error over rows smaller
    assert not often.steps["1"].claimed


def test_the_error_over_rows_is_part_of_every_step_and_of_their_sum() -> None:
    gains = [(0.002, 0.002), (0.004, 0.004), (0.006, 0.006)]
    known, steps, ends = both_texts(gains, 0.0), both_texts(gains, 0.003), both_texts(gains, 0.0, total=0.004)
    assert known.total is not None
    assert ends.total is not None
    assert [each.claimed for each in known.steps.values()] == [True] * 3
    assert not any(each.claimed for each in steps.steps.values())
    assert (known.total.claimed, ends.total.claimed) == (True, False)
    assert ends.total.smallest_gain > QUANTILE * 0.004
    assert ends.steps == known.steps


def test_the_smaller_gain_is_told_with_the_larger_error() -> None:
    """A hidden text on which more is gained, by less certain numbers, makes nothing of what the other shows."""
    told = both_texts([(0.002, 0.012)], 0.00275).steps["1"]
    alone = both_texts([(0.002, 0.002)], 0.0).steps["1"]
    assert alone.claimed
    assert told.gain == pytest.approx(alone.gain)
    assert not told.claimed
    assert told.probability <= 0.5 * math.erfc(-told.gain / told.error / math.sqrt(2)) + 1e-12


@pytest.mark.parametrize("error", [0.0, 0.0002, 0.001, 0.00275, 0.01])
@pytest.mark.parametrize("runs", [2, 6])
def test_a_claim_needs_more_than_a_verdict(error: float, runs: int) -> None:
    """The z of a verdict: the smaller gain by its error, with that over rows where `counted_error` adds it."""
    seeds, claims = 0.0005 * math.sqrt(2 / runs), 0
    for validation in (0.0005, 0.001, 0.003, 0.01, 0.05):
        for hidden in (-0.001, 0.0005, 0.001, 0.003, 0.01, 0.05):
            rows = RowGains(RowGain(validation, 0.0), RowGain(hidden, error))
            z = min(validation, hidden) / counted_error(seeds, rows)
            claim = both_texts([(validation, hidden)], error, runs).steps["1"]
            assert z > 1.3 or not claim.claimed, (validation, hidden, z, claim)
            claims += claim.claimed
    assert claims > 0


def test_the_numbers_of_a_verdict_count_for_as_much_as_their_error_says() -> None:
    plain = Numbers(0.002, 0.0005 * math.sqrt(1 / 3), 6.9, 6, 6, 0.0005, 40, "a", "b")
    sampled = replace(plain, s=math.hypot(plain.s, 0.00275), hidden_gain=0.002, hidden_error=0.00275)
    found = both_texts([(0.002, 0.002)], 0.0)
    assert (found.of(plain).claimed, found.of(sampled).claimed) == (True, False)
    assert found.of(sampled).smallest_gain > QUANTILE * 0.00275
