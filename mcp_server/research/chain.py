"""A chain of kept changes, each built on the one before: what all their runs together say of every step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mcp_server.research.effects import Belief, Effects, above_zero

SWEEPS = 4
"""How often each step is weighed anew in the light of the others; more changes little."""
WIDEST = 1e12
"""The variance of a step of which nothing is believed yet, in variances of one run."""


@dataclass(frozen=True)
class Level:
    """One code of the chain, measured.

    Attributes:
        name: the experiment's id.
        mean: of all its runs, the one that it was selected by included; larger is better.
        runs: how many these are.
        pairs: how many of its runs were made beside runs of the level before, see `pairing`.
        ahead: by how much it is better in these, the mean; larger is better.
        spread: the variance of one pair's difference.
        apart: mean and number of its runs that are in no pair, with the level before or the one after; None where all
            runs count as such.
        sampled: the standard error of its gain over the level before that no run makes smaller: which rows of a text
            both were scored on, see `rows.RowGain`.
    """

    name: str
    mean: float
    runs: int
    pairs: int = 0
    ahead: float = 0.0
    spread: float = 0.0
    apart: tuple[float, int] | None = None
    sampled: float = 0.0

    @property
    def alone(self) -> tuple[float, int]:
        """Mean and number of the runs that say by themselves where it stands."""
        return (self.mean, self.runs) if self.apart is None else self.apart


@dataclass(frozen=True)
class Chain:
    """What is believed of a chain of levels, the baseline first.

    Attributes:
        levels: as they were measured.
        means, variances: of the belief in each level, larger is better.
        steps: the belief in the gain of each level over the one before; one fewer than there are levels.
        total: the belief in the gain of the last level over the first.
    """

    levels: tuple[Level, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    steps: tuple[Belief, ...]
    total: Belief


@dataclass(frozen=True)
class _Normal:
    """A normal distribution by its precision (one over the variance) and precision times mean."""

    precision: float
    shift: float

    def times(self, other: "_Normal") -> "_Normal":
        return _Normal(self.precision + other.precision, self.shift + other.shift)

    def moved(self, step: "_Normal", sign: float) -> "_Normal":
        """The distribution of this variable plus or minus an independent step."""
        if self.precision <= 0 or step.precision <= 0:
            return _Normal(0.0, 0.0)
        variance = 1 / self.precision + 1 / step.precision
        mean = self.shift / self.precision + sign * step.shift / step.precision
        return _Normal(1 / variance, mean / variance)


def believed(levels: Sequence[Level], sigma: float, effects: Effects, sampled: float = 0.0) -> Chain:
    """The beliefs in a chain: the runs of every level inform all others through the effects of the steps between.

    Each step's belief is approximated by a normal distribution, in turn, given the rest (expectation propagation;
    Minka 2001), so that a level kept for its luck is pulled back by what is known of effects and of its successors.

    Args:
        levels: the baseline first; each has at least one run that is in no pair.
        sigma: the standard deviation of one run, above zero.
        effects: what is believed of a step before it is measured.
        sampled: as `Level.sampled`, of the last level's gain over the first; where there are two, the last one's own
            counts.
    """
    centre = levels[0].mean
    seen = [_Normal(runs / sigma**2, runs / sigma**2 * (mean - centre)) for mean, runs in (x.alone for x in levels)]
    paired = [_of_pairs(level) for level in levels[1:]]
    sites = [_Normal(1 / (WIDEST * sigma**2), 0.0)] * (len(levels) - 1)
    steps = [Belief(0.0, 0.0, 0.0)] * len(sites)
    errors = [level.sampled**2 for level in levels[1:]]
    for _ in range(SWEEPS):
        after = _backward(seen, sites)
        before = _Normal(0.0, 0.0)
        for i in range(len(sites)):
            before = before.times(seen[i])
            steps[i], sites[i] = _weighed(before, after[i + 1], paired[i], effects, errors[i])
            before = before.moved(sites[i], 1.0)
    return _summed(tuple(levels), centre, seen, sites, tuple(steps), sampled**2)


def _backward(seen: Sequence[_Normal], sites: Sequence[_Normal]) -> list[_Normal]:
    """What each level's own runs and those after it say of it."""
    after = list(seen)
    for i in range(len(sites) - 1, -1, -1):
        after[i] = seen[i].times(after[i + 1].moved(sites[i], -1.0))
    return after


def _of_pairs(level: Level) -> _Normal:
    """What pairs alone say of the step to a level."""
    precision = level.pairs / level.spread if level.pairs else 0.0
    return _Normal(precision, precision * level.ahead)


def _weighed(
    before: _Normal, after: _Normal, paired: _Normal, effects: Effects, error: float
) -> tuple[Belief, _Normal]:
    """The belief in a step between what is known of both its ends and of their pairs, and what that adds to the ends'
    as a normal.

    Args:
        error: the variance that lies between the effect of a step and what runs on one choice of rows show of it.
    """
    difference = after.shift / after.precision - before.shift / before.precision
    variance = 1 / after.precision + 1 / before.precision
    whole = _Normal(1 / variance, difference / variance).times(paired)
    measured, exactness = whole.shift / whole.precision, 1 / whole.precision
    belief = effects.given(measured, exactness + error)
    shown = effects.blurred(error).given(measured, exactness) if error else belief
    precision = max(1 / shown.error**2 - 1 / variance, 1e-6 / variance)
    return belief, _Normal(precision, (precision + 1 / variance) * shown.gain - difference / variance)


def _summed(
    levels: tuple[Level, ...],
    centre: float,
    seen: Sequence[_Normal],
    sites: Sequence[_Normal],
    steps: tuple[Belief, ...],
    error: float,
) -> Chain:
    """The marginal beliefs of levels, and that of last minus first, to whose variance `error` is added."""
    after = _backward(seen, sites)
    before = _Normal(0.0, 0.0)
    means, variances, kept = [], [], 1.0
    for i, own in enumerate(seen):
        all_of_it = before.times(after[i])
        means.append(centre + all_of_it.shift / all_of_it.precision)
        variances.append(1 / all_of_it.precision)
        before = before.times(own)
        if i < len(sites):
            moved = before.moved(sites[i], 1.0)
            # The covariance of the first level with the last is its variance times the share that every step passes on.
            kept *= sites[i].precision / (sites[i].precision + after[i + 1].precision)
            before = moved
    gain = means[-1] - means[0]
    covariance = variances[0] * kept
    variance = max(0.0, variances[0] + variances[-1] - 2 * covariance) + error
    total = steps[0] if len(steps) == 1 else Belief(gain, math.sqrt(variance), above_zero(gain, variance))
    return Chain(levels, tuple(means), tuple(variances), steps, total if steps else Belief(0.0, 0.0, 0.0))
