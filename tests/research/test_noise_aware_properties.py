"""What holds of every verdict under noise, whatever was measured."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.research.experiment import Scalar
from mcp_server.research.noise import Noise, pool
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    judge_baseline,
    judge_candidate,
    standing,
)
from mcp_server.research.task import Direction, Policy, Task
from mcp_server.research.verdict import Verdict, finite

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="noise_aware"
)
POLICIES: tuple[Policy, ...] = ("noise_aware", "strict")
ACTIONS = {"keep": "keep_commit", "needs_confirmation": "confirm", "discard": "git_reset", "crash": "git_reset"}

steady = settings(derandomize=True, deadline=None, max_examples=300)


@dataclass(frozen=True)
class Scene:
    """All that a verdict rests on."""

    policy: Policy
    candidate: Candidate
    incumbent: Incumbent | None
    noise: Noise

    def verdict(self, direction: Direction = "minimize") -> Verdict:
        """The verdict on it."""
        task = replace(TASK, policy=self.policy, direction=direction)
        return judge_candidate(task, self.candidate, self.incumbent, self.noise, seed=7, displaced=("e2", "e3"))

    def moved(self, move: Callable[[float], float], unit: float = 1.0) -> "Scene":
        """It with every level of the metric moved, and the noise in so much smaller units."""
        runs = tuple(
            replace(
                run,
                value=run.value if (number := finite(run.value)) is None else move(number),
                base_mean=move(run.base_mean),
            )
            for run in self.candidate.runs
        )
        best = self.incumbent and replace(self.incumbent, mean=move(self.incumbent.mean))
        noise = Noise(
            self.noise.sum_of_squares * unit * unit,
            self.noise.dof,
            None if self.noise.prior is None else self.noise.prior * unit,
        )
        return Scene(self.policy, replace(self.candidate, runs=runs), best, noise)


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1e-12, 1e12, 1e308, -1e308, 0.9979])
anything = numbers | st.integers() | st.sampled_from([None, math.nan, math.inf, -math.inf, "nan", "x", True, 10**400])
dyadic = st.integers(-(2**33), 2**33).map(lambda n: n / 2**30)
"""Numbers of which sums and differences are exact."""


@st.composite
def scenes(
    draw: st.DrawFn, values: st.SearchStrategy[Scalar | None], levels: st.SearchStrategy[float], most: float = 1e308
) -> Scene:
    """Scenes with these values of the metric and these means of bases."""
    bases = [(name, draw(levels), draw(st.integers(1, 5))) for name in ("e0", "e1")]
    drawn = draw(st.lists(st.tuples(values, st.sampled_from(bases)), min_size=1, max_size=4))
    candidate = Candidate("e9", tuple(Replicate(value, *base) for value, base in drawn), draw(st.integers(-2, 2)))
    name, level, runs = bases[1]
    noise = Noise(draw(st.floats(0, most)), draw(st.integers(0, 9)), draw(st.none() | st.floats(0, most)))
    best = draw(st.sampled_from([None] + [Incumbent(name, level, runs, runs > 1)] * 4))
    return Scene(draw(st.sampled_from(POLICIES)), candidate, best, noise)


def check(verdict: Verdict) -> None:
    """What holds of every verdict."""
    json.dumps(asdict(verdict), allow_nan=False)
    assert verdict.action == ACTIONS[verdict.decision]
    assert verdict.improved == (verdict.decision == "keep")
    assert verdict.near_miss <= (verdict.decision == "discard")
    assert bool(verdict.next_action) == (verdict.decision == "needs_confirmation")
    assert re.fullmatch(r".+\w\)?'?\.", verdict.reason)
    assert not re.search(r"[.!?]\s|\n", verdict.reason), "one sentence"
    assert verdict.accepted_loss >= 0
    assert (verdict.accepted_loss == 0) or verdict.simplification


@steady
@given(scenes(anything, numbers))
def test_every_verdict_is_sound(scene: Scene) -> None:
    verdict = scene.verdict()
    check(verdict)
    broken = any(finite(run.value) is None for run in scene.candidate.runs)
    assert (verdict.decision == "crash") == broken
    compared = not broken and scene.incumbent is not None and scene.noise.sigma is not None
    assert (verdict.numbers is not None) == compared
    if verdict.numbers is not None:
        assert verdict.delta == verdict.numbers.d
        assert verdict.numbers.n == len(scene.candidate.runs)
        assert verdict.numbers.s >= 0
    if verdict.decision == "keep" and not verdict.simplification:
        assert verdict.delta is not None
        assert verdict.delta > 0


@steady
@given(st.sampled_from(POLICIES), st.lists(anything, min_size=1, max_size=5), st.none() | st.floats(0, 1e308))
def test_every_verdict_on_a_baseline_is_sound(policy: Policy, values: list[Scalar | None], prior: float | None) -> None:
    noise = pool([[number for value in values if (number := finite(value)) is not None]], prior)
    verdict = judge_baseline(replace(TASK, policy=policy), "e1", values, noise, seed=7)
    check(verdict)
    broken = any(finite(value) is None for value in values)
    assert verdict.decision == (
        "crash" if broken else "keep" if len(values) >= noise.baselines else "needs_confirmation"
    )


@steady
@given(scenes(anything, numbers))
def test_to_maximize_is_to_minimize_the_negative(scene: Scene) -> None:
    assert scene.moved(lambda value: -value).verdict("maximize") == scene.verdict()


@steady
@given(scenes(dyadic, dyadic, most=10.0), st.integers(-40, 40))
def test_the_unit_of_the_metric_plays_no_part(scene: Scene, exponent: int) -> None:
    unit = 2.0**exponent
    before, after = scene.verdict(), scene.moved(lambda value: value * unit, unit).verdict()
    assert same_decision(before, after)
    if before.numbers is not None and after.numbers is not None:
        assert after.numbers.z == before.numbers.z
        assert after.numbers.d == before.numbers.d * unit


@steady
@given(scenes(dyadic, dyadic, most=10.0), dyadic)
def test_the_level_of_the_metric_plays_no_part(scene: Scene, shift: float) -> None:
    before, after = scene.verdict(), scene.moved(lambda value: value + shift).verdict()
    assert same_decision(before, after)
    if before.numbers is not None and after.numbers is not None:
        assert after.numbers.d == before.numbers.d


def same_decision(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts differ in nothing but the size of their numbers."""
    first, second = (replace(each, delta=None, numbers=None, reason="", accepted_loss=0.0) for each in (one, other))
    return first == second


@pytest.mark.parametrize("unit", [1e-150, 1e-12, 1.0, 1e12, 1e150])
@pytest.mark.parametrize(("gain", "state"), [(3.0, "keep"), (0.6, "needs_confirmation"), (-1.0, "near_miss")])
def test_small_and_large_metrics_are_judged_alike(unit: float, gain: float, state: str) -> None:
    best = Incumbent("e0", 10 * unit, 1, False)
    candidate = Candidate("e9", (Replicate((10 - gain) * unit, "e0", 10 * unit, 1),))  # s = sqrt(2)
    assert judge_candidate(TASK, candidate, best, Noise(prior=unit)).state == state


@pytest.mark.parametrize(
    ("value", "base", "state"), [(-1e308, 1e308, "keep"), (1e308, -1e308, "discard"), (1e308, 1e308, "near_miss")]
)
@pytest.mark.parametrize("n", [1, 2])
def test_differences_that_overflow_keep_their_sign(value: float, base: float, state: str, n: int) -> None:
    candidate = Candidate("e9", (Replicate(value, "e0", base, 2),) * n)
    best = Incumbent("e0", base, 2, True)
    assert judge_candidate(TASK, candidate, best, Noise(prior=1.0)).state == state


def test_a_thousand_identical_values_are_as_good_as_one_level() -> None:
    runs = (Replicate(0.1, "e0", 0.1, 1000),) * 1000
    noise = pool([[0.1] * 1000])
    best = standing("e0", None, [0.1] * 1000)
    verdict = judge_candidate(TASK, Candidate("e9", runs), best, noise)
    assert (best.mean, noise.sigma, verdict.state, verdict.delta) == (0.1, 0.0, "near_miss", 0.0)
