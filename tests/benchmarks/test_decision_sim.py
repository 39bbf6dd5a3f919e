"""The simulated research, and that verdicts and suggestions find in it what is stated of them."""

import math
import random
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from benchmarks import decision_sim
from benchmarks.decision_sim import (
    FIRST_SEED,
    GREEDY,
    GREEDY_CLASSIC,
    NOISE_AWARE,
    NOISY,
    PAIRED,
    ROWS,
    SEEDS_SMALL,
    STATED,
    STRICT,
    Result,
    missed,
    simulate,
    summarise,
)
from benchmarks.simulated_research import HIT_RATES, SCOPE, Cell, Code, Idea, Landscape, Outcome, Row, Simulation

SEEDS_CLASSIC = 40
"""The classic modes take six times as long as the others, and one bound is stated of them."""


@pytest.fixture(scope="module")
def rows() -> Mapping[Row, Result]:
    """The stated setting, over fewer seeds."""
    return {
        row: summarise(
            [
                simulate((row, STATED, FIRST_SEED + n))
                for n in range(SEEDS_CLASSIC if row == GREEDY_CLASSIC else SEEDS_SMALL)
            ]
        )
        for row in ROWS
    }


def test_the_stated_bounds_hold_within_three_standard_errors(rows: Mapping[Row, Result]) -> None:
    assert list(missed(STATED, rows, slack=3.0)) == []


def test_so_do_those_where_the_noise_is_far_above_the_gains() -> None:
    noisy = summarise([simulate((NOISE_AWARE, NOISY, FIRST_SEED + n)) for n in range(SEEDS_SMALL)])
    assert list(missed(NOISY, {NOISE_AWARE: noisy}, slack=3.0)) == []
    assert noisy.claims < 0.5  # what cannot be told is not told


def test_care_costs_runs_and_saves_false_keeps(rows: Mapping[Row, Result]) -> None:
    for row in (NOISE_AWARE, STRICT):
        assert rows[row].false_keeps[0] < rows[GREEDY].false_keeps[0]
        assert rows[row].harm[0] < 0.5 * rows[GREEDY].harm[0]
        assert rows[row].overstatement[0] < 0.3 < rows[GREEDY].overstatement[0]
        assert rows[row].claims > 1
        assert rows[row].false_claims[0] <= 0.08
    assert (rows[GREEDY].claims, rows[GREEDY].false_claims) == (0, (0, 0))  # what repeats nothing claims nothing
    for row in (GREEDY, GREEDY_CLASSIC):
        assert (rows[row].runs["baseline"], rows[row].runs["confirmation"], rows[row].runs["re-measure"]) == (1, 0, 0)
    for row in (NOISE_AWARE, STRICT):
        assert 2 <= rows[row].runs["baseline"] < 2.4  # four where the first two contradict the prior
        assert rows[row].runs["re-measure"] > 1
    assert min(rows[row].runs["confirmation"] for row in (STRICT, NOISE_AWARE)) > 5


AWARE = Result(
    gain=(9.4, 0.2), false_keeps=(0.25, 0.01), harm=(0.25, 0.0), overstatement=(0.1, 0.0), keeps=7.0, runs={}
)
PLAIN = Result(
    gain=(9.7, 0.2), false_keeps=(0.33, 0.01), harm=(1.0, 0.0), overstatement=(2.0, 0.0), keeps=10.0, runs={}
)
STATED_ROWS = {GREEDY_CLASSIC: replace(PLAIN, gain=(7.3, 0.2)), GREEDY: PLAIN, NOISE_AWARE: AWARE, STRICT: AWARE}


@pytest.mark.parametrize(
    ("row", "result", "slack", "told"),
    [
        (NOISE_AWARE, AWARE, 0.0, []),
        (GREEDY_CLASSIC, replace(PLAIN, gain=(6.6, 0.2)), 0.0, ["greedy + classic gains 6.60"]),  # 7.3 - 0.7
        (GREEDY, replace(PLAIN, gain=(10.4, 0.2)), 0.0, ["greedy + thompson gains 10.40"]),
        (NOISE_AWARE, replace(AWARE, gain=(9.2, 0.2)), 0.0, ["noise_aware gains 9.20 at sigma 1, stated at least 9.3"]),
        (NOISE_AWARE, replace(AWARE, gain=(9.2, 0.2)), 1.0, []),  # 9.3 - 0.2
        (NOISE_AWARE, replace(AWARE, false_keeps=(0.29, 0.01)), 0.0, ["noise_aware: 0.290 of the keeps"]),
        (NOISE_AWARE, replace(AWARE, false_keeps=(0.30, 0.01)), 3.0, []),
        (GREEDY, replace(PLAIN, false_keeps=(0.30, 0.01)), 0.0, ["greedy: 0.300 of the keeps"]),
        (GREEDY, replace(PLAIN, false_keeps=(0.29, 0.01)), 3.0, []),
        (NOISE_AWARE, replace(AWARE, overstatement=(0.31, 0.0)), 0.0, ["overstatement: 0.31 at sigma 1"]),
        (NOISE_AWARE, replace(AWARE, overstatement=(0.5, 0.1)), 3.0, []),
        (NOISE_AWARE, replace(AWARE, false_claims=(0.09, 0.01)), 0.0, ["claims: 0.090 are false at sigma 1"]),
        (NOISE_AWARE, replace(AWARE, false_claims=(0.09, 0.01)), 1.0, []),
        (NOISE_AWARE, replace(AWARE, harm=(0.26, 0.0)), 0.0, ["harm: 0.26 at sigma 1, stated at most 0.25"]),
        (NOISE_AWARE, replace(AWARE, harm=(0.37, 0.04)), 3.0, []),  # 0.25 + 0.12
        (NOISE_AWARE, replace(AWARE, harm=(0.38, 0.04)), 3.0, ["harm"]),
    ],
)
def test_each_bound_that_is_missed_is_told(row: Row, result: Result, slack: float, told: list[str]) -> None:
    problems = list(missed(STATED, {**STATED_ROWS, row: result}, slack))
    assert len(problems) == len(told)
    assert all(problem.startswith(start) for problem, start in zip(problems, told, strict=True))


LOUD = replace(AWARE, gain=(1.4, 0.1), false_keeps=(0.5, 0.01), harm=(0.7, 0.0), overstatement=(1.4, 0.0))


@pytest.mark.parametrize(
    ("result", "slack", "told"),
    [
        (LOUD, 0.0, []),  # an overstatement of 1.4 is 0.28 sigma; of the share of keeps nothing is stated
        (replace(LOUD, gain=(1.1, 0.1)), 1.0, ["noise_aware gains 1.10 at sigma 5, stated at least 1.3"]),
        (replace(LOUD, gain=(1.1, 0.1)), 3.0, []),
        (replace(LOUD, harm=(0.8, 0.1)), 0.0, ["harm: 0.80 at sigma 5, stated at most 0.75"]),
        (replace(LOUD, overstatement=(1.6, 0.0)), 0.0, ["overstatement: 1.60 at sigma 5, stated at most 0.3 sigma"]),
        (replace(LOUD, false_claims=(0.2, 0.03)), 3.0, ["claims: 0.200 are false at sigma 5, stated at most 0.08"]),
    ],
)
def test_so_is_each_where_the_noise_is_large(result: Result, slack: float, told: list[str]) -> None:
    assert list(missed(NOISY, {NOISE_AWARE: result}, slack)) == told


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["harm: too much"], 1)])
def test_a_missed_bound_fails_the_check(
    problems: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small check, with three seeds and without processes."""
    checked: list[tuple[Cell, Mapping[Row, Result]]] = []

    def told(cell: Cell, rows: Mapping[Row, Result], slack: float) -> list[str]:
        assert slack == 3.0
        checked.append((cell, rows))
        return problems if cell == NOISY else []

    monkeypatch.setattr(decision_sim, "missed", told)
    monkeypatch.setattr(decision_sim, "SEEDS_SMALL", 3)
    monkeypatch.setattr(decision_sim, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(sys, "argv", ["decision_sim", "--small", "--processes", "1"])
    assert decision_sim.main() == code
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("missed")] == [f"missed: {x}" for x in problems]
    assert all(f"{rule} + {guide}" in printed for rule, guide in ROWS)
    same = {row: summarise([simulate((row, STATED, FIRST_SEED + n)) for n in range(3)]) for row in ROWS}
    noisy = summarise([simulate((NOISE_AWARE, NOISY, FIRST_SEED + n)) for n in range(3)])
    assert checked == [(STATED, same), (NOISY, {NOISE_AWARE: noisy})]  # each row over the same seeds


def test_a_summary_is_the_means_and_their_errors() -> None:
    outcomes = [
        Outcome(gain=1.0, overstatement=0.0, keeps=1, false_keeps=1, harm=2.0, runs=Counter(baseline=1, proposal=4)),
        Outcome(gain=3.0, overstatement=1.0, keeps=3, false_keeps=1, harm=0.0, runs=Counter(baseline=1, proposal=6)),
    ]
    result = summarise(outcomes)
    assert result.gain == pytest.approx((2.0, 1.0))  # sqrt(2) / sqrt(2)
    assert result.harm == pytest.approx((1.0, 1.0))
    assert result.overstatement == pytest.approx((0.5, 0.5))
    assert result.false_keeps == pytest.approx((0.5, 0.25))  # 2 of 4; rests 1/2 and -1/2, error 1/2, over 2 keeps each
    assert result.keeps == 2.0
    assert result.runs == {"baseline": 1.0, "proposal": 5.0, "confirmation": 0.0, "re-measure": 0.0, "pair": 0.0}


def test_pairs_are_run_where_the_machine_changes_and_hardly_where_it_is_steady(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = {True: 40, False: 2}
    cells = {
        cell: [simulate((NOISE_AWARE, cell, FIRST_SEED + n)) for n in range(nights[cell.pairs])] for cell in PAIRED
    }
    runs = {(cell.sigma, cell.drift, cell.pairs): summarise(found).runs["pair"] for cell, found in cells.items()}
    assert runs[1.0, 0.0, True] < 1 < runs[1.0, 4.0, True]
    assert runs[5.0, 0.0, True] < 3
    assert all(count == 0 for (_, _, pairs), count in runs.items() if not pairs)
    monkeypatch.setattr(decision_sim, "SEEDS_PAIRS", 2)
    monkeypatch.setattr(decision_sim, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(sys, "argv", ["decision_sim", "--pairs", "--processes", "1"])
    assert decision_sim.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("noise_aware + thompson") == len(PAIRED)
    assert printed.count("without pairs") == len(PAIRED) // 2
    assert printed.count("machine moves by 4") == 2


@pytest.mark.parametrize("row", ROWS)
def test_equal_seeds_give_equal_research(row: Row) -> None:
    cell = Cell(1.0, 60, 4)
    assert simulate((row, cell, 1)) == simulate((row, cell, 1))
    assert simulate((row, cell, 1)).gain != simulate((row, cell, 2)).gain


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("row", ROWS)
def test_without_noise_nothing_is_lost_and_the_best_is_what_it_seems(row: Row, workers: int) -> None:
    for seed in range(3):
        outcome = simulate((row, Cell(0.0, 60, workers), seed))
        assert outcome.keeps > 1
        assert outcome.gain > 0
        assert outcome.harm == 0.0
        assert outcome.false_keeps == 0 or workers > 1  # what vanished on a new base may be kept for its first run
        if row[0] == "greedy":
            assert outcome.overstatement == pytest.approx(0.0, abs=1e-9)
        else:  # what is told is shrunk, since the prior says that there is noise; most for a late keep
            assert -0.3 * outcome.gain < outcome.overstatement < 0.1


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("row", [GREEDY, NOISE_AWARE, STRICT])
def test_the_budget_is_spent_and_every_run_comes_back(row: Row, workers: int) -> None:
    simulation = Simulation(row, Cell(1.0, 60, workers), 1)
    outcome = simulation.complete()
    crashed = sum(idea.crashes for idea in simulation.ideas.values())
    assert crashed > 0
    assert 60 <= sum(outcome.runs.values()) - 0.8 * crashed < 61  # a crash costs 0.2
    assert {idea.status for idea in simulation.ideas.values()} <= {"keep", "discard", "crash", "needs_confirmation"}
    assert simulation.under_way == []


def test_ideas_are_as_good_as_the_rates_say_and_are_used_up() -> None:
    landscapes = [Landscape(seed) for seed in range(4000)]
    assert {tuple(sorted(each.rates.values(), reverse=True)) for each in landscapes} == {HIT_RATES}
    assert len({tuple(each.rates.values()) for each in landscapes}) > 600  # of 720 orders
    helpful, neutral, harmful = 0, 0, 0
    for each in landscapes:
        category = max(SCOPE, key=lambda c: each.rates[c])
        effect = each.propose(category)
        assert -50 <= effect <= 12
        hit = each.rates[category] == pytest.approx(0.35 * 0.9)
        assert hit or each.rates[category] == 0.35
        helpful += hit
        neutral += not hit and abs(effect) < 0.1
        harmful += not hit and effect < -1
    assert near(helpful, 0.35)
    assert near(harmful, 0.65 * 0.65 / 2)  # half of LogNormal(0, 1) is beyond 1
    assert near(neutral, 0.65 * (0.35 * 0.6827 + 0.65 * 0.0107))  # within one sigma; LogNormal(0, 1) below 0.1
    assert near(sum(each.crashes() for each in landscapes), 0.05)


@pytest.mark.parametrize(
    ("effect", "changes", "left"), [(2.0, 0, 1.0), (2.0, 1, 0.85), (2.0, 3, 0.614), (-2.0, 9, 1.0)]
)
def test_gains_may_vanish_on_another_base(effect: float, changes: int, left: float) -> None:
    settled = [Landscape(seed).settle(effect, changes) for seed in range(4000)]
    assert set(settled) <= {effect, 0.0}
    assert near(settled.count(effect), left)  # 0.85 to the power of the changes


def near(count: int, share: float) -> bool:
    """Whether a count of 4,000 is within four standard errors of its share."""
    return abs(count / 4000 - share) <= 4 * math.sqrt(share * (1 - share) / 4000)


class Still(random.Random):
    """Draws without scatter."""

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return mu


@pytest.mark.parametrize(
    ("a", "b", "alike", "effect"),
    [
        (2.0, 1.0, False, 2.4),  # 0.8 * 3
        (2.0, 1.0, True, 1.5),  # 0.5 * 3
        (2.0, -3.0, False, -1.0),  # losses add up in full
        (2.0, -3.0, True, -1.0),
    ],
)
def test_two_together_bring_less_than_their_sum(a: float, b: float, alike: bool, effect: float) -> None:
    landscape, base = Landscape(1), Code("e0", 998.0)
    landscape.draw = Still(1)
    first = Idea("e1", 1, "optimizer", a, False, 1, base)
    second = Idea("e2", 2, "optimizer" if alike else "attention", b, False, 1, base)
    assert landscape.combine(first, second) == pytest.approx(effect)
