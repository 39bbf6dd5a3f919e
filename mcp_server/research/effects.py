"""What is believed of the size of effects: of a change before it is measured, and of one that was."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

CLAIM = 0.97
"""From this probability on that something is better, a person is told that it is. Above 0.95, for where noise is far
above the gains the noise and the size of effects are known too little: of what had 0.95 there one in ten was false."""
SHAPE: Sequence[tuple[float, float, float]] = (
    (0.33, 0.0, 0.1),
    (0.38, -1.0, 0.7),
    (0.12, -3.0, 2.0),
    (0.12, 0.9, 0.6),
    (0.03, 2.5, 1.5),
    (0.02, 0.0, 8.0),
)
"""Weight, mean and standard deviation of each part of the effects, in units of their scale: a third of all changes
do next to nothing, half do harm, one in seven helps, and a few are far larger than the rest."""
SCALES = tuple(2.0**power for power in range(-4, 7))
"""The scales that are thought possible before anything was measured, in sigmas of one run, all equally likely."""
NEGLIGIBLE = 1e-3
"""A part with less than this share of the weight is left out."""


@dataclass(frozen=True)
class Belief:
    """What is believed of a difference after measuring it.

    Attributes:
        gain: the expected difference, positive is better, in units of the metric; shrunk, so that it is no more likely
            to be overstated than understated.
        error: the standard deviation of what is believed.
        probability: that the difference is above zero.
    """

    gain: float
    error: float
    probability: float

    @property
    def claimed(self) -> bool:
        """Whether it is likely enough to be told as a fact."""
        return self.probability >= CLAIM


@dataclass(frozen=True)
class Effects:
    """A mixture of normal distributions: each part's weight, mean and variance, in units of the metric."""

    parts: tuple[tuple[float, float, float], ...]

    def given(self, difference: float, variance: float) -> Belief:
        """The belief in an effect that was measured as `difference`, with the variance of that measurement."""
        weights, means, variances = [], [], []
        for weight, mean, spread in self.parts:
            both = variance + spread
            weights.append(math.log(weight / math.sqrt(both)) - (difference - mean) ** 2 / (2 * both))
            means.append((mean * variance + difference * spread) / both)
            variances.append(variance * spread / both)
        return _mixed(weights, means, variances)

    def blurred(self, variance: float) -> "Effects":
        """The effects with an independent error of that variance, which is the same in every measurement of one."""
        return Effects(tuple((weight, mean, spread + variance) for weight, mean, spread in self.parts))


def learnt(sigma: float, comparisons: Iterable[tuple[float, float]]) -> Effects:
    """What is believed of the next effect, given what was measured of those before it.

    The scale of effects is unknown; each of SCALES gets the weight that the measurements give it (an empirical Bayes
    estimate that keeps its uncertainty).

    Args:
        sigma: the standard deviation of one run, above zero.
        comparisons: of every change that was measured, how much better it came out and the variance of that.
    """
    weights = _scale_weights(sigma, comparisons)
    parts = [
        (weight * share, mean * sigma * scale, (spread * sigma * scale) ** 2)
        for weight, scale in zip(weights, SCALES, strict=True)
        if weight > NEGLIGIBLE
        for share, mean, spread in SHAPE
    ]
    return Effects(tuple(parts))


def likely_scale(sigma: float, comparisons: Iterable[tuple[float, float]]) -> float:
    """The scale of effects that is as likely too large as too small, in sigmas; the arguments are those of `learnt`."""
    below = 0.0
    for weight, scale in zip(_scale_weights(sigma, comparisons), SCALES, strict=True):
        below += weight
        if below >= 0.5:
            return scale
    return SCALES[-1]


def _scale_weights(sigma: float, comparisons: Iterable[tuple[float, float]]) -> Sequence[float]:
    """How likely each of SCALES is."""
    seen = tuple(comparisons)
    scores = [sum(_likelihood(sigma * scale, d, variance) for d, variance in seen) for scale in SCALES]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


@lru_cache(maxsize=2**14)
def _likelihood(scale: float, difference: float, variance: float) -> float:
    """The logarithm of the density of a measured difference."""
    logs = [height - (difference - mean) ** 2 * sharpness for height, mean, sharpness in _densities(scale, variance)]
    top = max(logs)
    return top + math.log(sum([math.exp(each - top) for each in logs]))


@lru_cache(maxsize=4096)
def _densities(scale: float, variance: float) -> tuple[tuple[float, float, float], ...]:
    """Of each part of SHAPE, measured: the logarithm of its height, its mean, and half of one over its variance."""
    found = []
    for share, mean, spread in SHAPE:
        both = variance + (spread * scale) ** 2
        found.append((math.log(share / math.sqrt(both)), mean * scale, 1 / (2 * both)))
    return tuple(found)


def _mixed(weights: Sequence[float], means: Sequence[float], variances: Sequence[float]) -> Belief:
    """The moments of a mixture, and its share above zero; the weights are logarithms."""
    top = max(weights)
    shares = [math.exp(weight - top) for weight in weights]
    total = sum(shares)
    gain = sum(share * mean for share, mean in zip(shares, means, strict=True)) / total
    square = sum(
        share * (variance + (mean - gain) ** 2) for share, mean, variance in zip(shares, means, variances, strict=True)
    )
    above = sum(
        share * above_zero(mean, variance) for share, mean, variance in zip(shares, means, variances, strict=True)
    )
    return Belief(gain, math.sqrt(square / total), above / total)


def above_zero(mean: float, variance: float) -> float:
    """The probability that a normal variable is above zero."""
    if variance <= 0:
        return 1.0 if mean > 0 else 0.0
    return 0.5 * math.erfc(-mean / math.sqrt(2 * variance))
