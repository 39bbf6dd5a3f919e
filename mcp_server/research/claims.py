"""What may be told of a run as likely true, from all runs of its chain of kept changes; beside what is provisional."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mcp_server.research.chain import Chain, Level, believed
from mcp_server.research.effects import CLAIM, Belief, Effects, above_zero, learnt
from mcp_server.research.experiment import Numbers
from mcp_server.research.noise import Noise, clamp
from mcp_server.research.pairing import equal_runs, exact
from mcp_server.research.verdict import show

RUNS_FOR_CLAIM = 2
"""What was run once was selected for that run, and nothing is claimed of it."""
REPEATS_FOR_CLAIM = 6
"""Degrees of freedom of the noise from which something is claimed."""
QUANTILE = 1.8807936081512509
"""Of the normal distribution at CLAIM."""
UPPER = 1.2815515655446004
"""Of the normal distribution at 0.9."""
FALLS_BELOW = 0.3
"""A best that is less likely than this to be better than what it was made from is displaced."""
RESERVE = 0.02
"""The share of a run's budget that is kept for its end."""
LEAST = 1e-9
"""The least noise that is reckoned with, relative to the size of the metric: 0 cannot be divided by."""


@dataclass(frozen=True)
class Claim:
    """What is believed of a gain, and whether that is told as a fact.

    Attributes:
        claimed: whether it is; everything else is provisional.
        probability: that the gain is above zero.
        gain, error: expected gain and its standard deviation, in units of the metric; shrunk, so never the best run's.
        runs, base_runs: of the code, and of what it is compared with.
        smallest_gain: the least that so many runs could show with probability CLAIM, in units of the metric.
        pairs: how many of the runs are compared with a run of the base beside them, see `pairing`.
    """

    claimed: bool
    probability: float
    gain: float
    error: float
    runs: int
    base_runs: int
    smallest_gain: float
    pairs: int = 0

    def words(self) -> str:
        """The claim in words, for a sentence."""
        return (
            f"{self._said()}, probability of a gain {_percent(self)} "
            f"({self.runs} and {self.base_runs} runs{self._paired()}, which can show {show(self.smallest_gain)})"
        )

    def brief(self) -> str:
        """The claim in few words, for the cell of a table."""
        return f"{self._said()}, p {_percent(self)}"

    def _paired(self) -> str:
        return f", {self.pairs} of them side by side" if self.pairs else ""

    def _said(self) -> str:
        kind = "claimed" if self.claimed else "provisional"
        size = f"{show(abs(self.gain))} ± {show(self.error)}"
        return f"{kind}: {'better' if self.gain >= 0 else 'worse'} by {size}"


@dataclass(frozen=True)
class Assessment:
    """What may be told of a chain.

    Attributes:
        steps: by the id of each kept change, the claim of its gain over what it was built on.
        total: the claim of the last level's gain over the first; None while there is only one level.
        chain, effects: in units of `sigma`, the standard deviation of one run that is used here.
    """

    chain: Chain
    steps: Mapping[str, Claim]
    total: Claim | None
    effects: Effects
    sigma: float
    noise: Noise

    def of(self, numbers: Numbers) -> Claim:
        """The claim of a change that is not in the chain, by the numbers of its verdict."""
        runs, base_runs = equal_runs(numbers)
        variance = 1 / runs + 1 / base_runs
        belief = self.effects.given(_scaled(numbers.d, self.sigma), variance)
        return _claim(belief, numbers.n, numbers.n_b, self.sigma, self.noise, variance, numbers.pairs)

    @property
    def fallen(self) -> bool:
        """Whether the best, run more than once, is likely no better than what it was made from."""
        last = list(self.steps.values())[-1:]
        return any(each.probability < FALLS_BELOW and each.runs >= RUNS_FOR_CLAIM for each in last)

    @property
    def doubtful(self) -> tuple[str, ...]:
        """The kept changes that do not hold any more, those least likely to gain anything first."""
        found = {name: each.probability for name, each in self.steps.items() if each.probability < FALLS_BELOW}
        return tuple(sorted(found, key=lambda name: found[name]))

    @property
    def next_repeat(self) -> str | None:
        """The code of which one more run brings a claim nearest: the best against the baseline before single changes.

        Of the two that are compared it is the one with fewer runs. None where all is claimed, or nothing likely enough.
        """
        levels = self.chain.levels
        if self.total is None:
            return None
        if not self.total.claimed:
            return _fewer(levels[-1], levels[0]).name
        open_ = [i for i, each in enumerate(self.steps.values()) if not each.claimed]
        chances = [each.probability for each in self.steps.values()]
        if not open_:
            return None
        nearest = max(open_, key=lambda i: chances[i])
        return _fewer(levels[nearest + 1], levels[nearest]).name


def assess(
    levels: Sequence[Level],
    noise: Noise,
    comparisons: Iterable[tuple[float, float, float]],
    pair_noise: Noise | None = None,
    sampled: float = 0.0,
) -> Assessment | None:
    """Assess a chain of kept changes.

    Args:
        levels: the baseline first, then the kept changes, each made from the one before.
        noise: of the task, where every set of runs of one code counts in full.
        comparisons: of the measured changes, whatever became of them: the gain that was seen, the runs of the change
            and those of its base (where pairs were compared, see `equal_runs`). They tell how large effects are in this
            run.
        pair_noise: of the difference of a pair; the levels' pairs count as pairs where this is known well, from
            REPEATS_FOR_CLAIM degrees of freedom on, and small.
        sampled: as `Level.sampled`, of the last level's gain over the first, in units of the metric.

    Returns:
        None where there is no baseline, or the noise is not known at all.
    """
    sigma = cautious(noise)
    if sigma is None or not levels:
        return None
    sigma = max(sigma, LEAST * max(abs(level.mean) for level in levels), sys.float_info.min)
    # In units of sigma, whatever the metric's own are: squares of huge or tiny numbers leave the range of a float.
    effects = learnt(1.0, [(_scaled(d, sigma), 1 / n + 1 / n_b) for d, n, n_b in comparisons if n and n_b])
    start = levels[0].mean
    known = pair_noise is not None and pair_noise.dof >= REPEATS_FOR_CLAIM and exact(noise, pair_noise)
    paired = cautious(pair_noise) if known and pair_noise else None
    units = [_in_units(each, start, sigma, paired) for each in levels]
    ends = _scaled(sampled, sigma) if len(units) > 2 else units[-1].sampled
    chain = believed(units, 1.0, effects, ends)
    steps = {
        level.name: _claim(belief, level.runs, before.runs, sigma, noise, _variance(level, before), level.pairs)
        for level, before, belief in zip(units[1:], units, chain.steps, strict=False)
    }
    total = _total(chain, effects, sigma, noise, ends) if steps else None
    return Assessment(chain, steps, total, effects, sigma, noise)


def _in_units(level: Level, start: float, sigma: float, paired: float | None) -> Level:
    """A level in units of sigma above the first one; without its pairs where these are no more exact.

    Args:
        paired: the standard deviation of a pair's difference, in units of the metric.
    """
    unit = replace(level, mean=_scaled(clamp(level.mean - start), sigma), sampled=_scaled(level.sampled, sigma))
    if paired is None or level.apart is None:
        return replace(unit, apart=None, pairs=0)
    mean, runs = level.apart
    return replace(
        unit,
        apart=(_scaled(clamp(mean - start), sigma), runs),
        ahead=_scaled(level.ahead, sigma),
        spread=max(LEAST, (paired / sigma) ** 2),
    )


def _variance(level: Level, before: Level) -> float:
    """That of the measured difference of two levels, in squares of sigma."""
    (_, own), (_, others) = level.alone, before.alone
    apart = 1 / own + 1 / others
    drawn = 1 / (1 / apart + level.pairs / level.spread) if level.pairs else 1 / level.runs + 1 / before.runs
    return drawn + level.sampled**2


def _total(chain: Chain, effects: Effects, sigma: float, noise: Noise, sampled: float) -> Claim:
    """The claim of the last level against the first; `sampled` in sigmas."""
    first, last = chain.levels[0], chain.levels[-1]
    if len(chain.levels) == 2:
        return _claim(chain.total, last.runs, first.runs, sigma, noise, _variance(last, first), last.pairs)
    variance = 1 / last.runs + 1 / first.runs + sampled**2
    return _claim(_ends(chain, effects, variance), last.runs, first.runs, sigma, noise, variance)


def _ends(chain: Chain, effects: Effects, variance: float) -> Belief:
    """The belief in the gain of the last level over the first, no likelier than the runs of these two alone make it.

    Steps none of which is likely look surer together than they are when each is taken for normal: most are nothing.
    """
    first, last = chain.levels[0], chain.levels[-1]
    direct = effects.given(last.mean - first.mean, variance)
    return replace(chain.total, probability=min(chain.total.probability, direct.probability))


def smaller(validation: Assessment, hidden: Assessment | None) -> Assessment:
    """Of every gain what both texts bear out: what was learnt by heart of one gains nothing on the other.

    As in a verdict, it is the smaller of both gains, and as sure as the less sure of them.

    Args:
        validation, hidden: of the same chain on both texts; None where there is no hidden one.
    """
    if hidden is None:
        return validation
    steps = {name: _less(claim, hidden.steps[name]) for name, claim in validation.steps.items()}
    total = None
    if validation.total is not None and hidden.total is not None:
        total = _less(validation.total, hidden.total)
    return replace(validation, steps=steps, total=total)


def _less(one: Claim, other: Claim) -> Claim:
    """The less likely of two claims, with the smaller gain, and no likelier than its error leaves that."""
    less, sure = sorted((one, other), key=_sureness)
    if sure.gain >= less.gain:
        return less
    probability = min(less.probability, above_zero(sure.gain / less.error, 1.0)) if less.error else less.probability
    return replace(less, gain=sure.gain, probability=probability, claimed=less.claimed and probability >= CLAIM)


def _sureness(claim: Claim) -> tuple[float, float]:
    """The order of claims, the least likely first; of two that are both as good as certain, by the share of error."""
    return claim.probability, claim.gain / claim.error if claim.error else math.copysign(math.inf, claim.gain)


def cautious(noise: Noise) -> float | None:
    """The standard deviation of one run for a claim, in units of the metric; None where nothing is known of it.

    The larger of what the repeats say alone and together with the prior, which may be far off; of either the upper
    bound that holds with probability 0.9 for the repeats there are. For of many changes those are claimed first whose
    repeats came out close together by luck.
    """
    if noise.sigma is None:
        return None
    alone = noise.sum_of_squares / noise.dof if noise.dof else 0.0
    freedom = max(noise.dof, REPEATS_FOR_CLAIM)
    # The quantile of chi-squared, relative to its mean (Wilson and Hilferty 1931).
    low = (1 - 2 / (9 * freedom) - UPPER * math.sqrt(2 / (9 * freedom))) ** 3
    return clamp(max(math.sqrt(alone), noise.sigma) / math.sqrt(low))


def smallest_gain(sigma: float, runs: float, base_runs: float) -> float:
    """The least gain that so many runs can show with probability CLAIM, before anything is known of effects."""
    return QUANTILE * sigma * math.sqrt(1 / runs + 1 / base_runs)


def _claim(
    belief: Belief, runs: int, base_runs: int, sigma: float, noise: Noise, variance: float, pairs: int = 0
) -> Claim:
    """The claim of a belief; `variance` is that of the measured difference, in squares of sigma."""
    enough = min(runs, base_runs) >= RUNS_FOR_CLAIM and noise.dof >= REPEATS_FOR_CLAIM
    gain, error = clamp(belief.gain * sigma), clamp(belief.error * sigma)
    least = clamp(QUANTILE * sigma * math.sqrt(variance))
    return Claim(enough and belief.claimed, belief.probability, gain, error, runs, base_runs, least, pairs)


def _scaled(number: float, sigma: float) -> float:
    """A difference in units of sigma, within what can be squared."""
    return max(-1 / LEAST, min(1 / LEAST, number / sigma))


def _fewer(one: Level, other: Level) -> Level:
    return one if one.runs <= other.runs else other


def _percent(claim: Claim) -> str:
    """The probability in words that stay on their side of CLAIM."""
    if claim.probability >= 0.995:
        return "over 0.99"
    text = f"{claim.probability:.2f}"
    return text if (float(text) >= CLAIM) == (claim.probability >= CLAIM) else f"{claim.probability:.4f}"
