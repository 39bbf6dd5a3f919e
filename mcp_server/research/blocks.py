"""Runs of a change and of its base in blocks that are near in time: their difference, from all runs of both.

Within a block, what the machine does to all of it cancels; between blocks it is one more source of noise, of known
size. Every run counts with the weight that follows from these variances alone (recovery of inter-block information;
Yates 1940), so that nobody chooses which run of a base a change is compared with: one more run of the base moves the
level that the change is held against, and takes the place of none.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mcp_server.research.experiment import Trial
from mcp_server.research.noise import Noise, clamp
from mcp_server.research.pairing import Spread, exact, is_near, pairs_of
from mcp_server.research.task import Task

LEAST = 1e-9
"""The least share of a run's variance that it has by itself: without any, all would hang on rounding."""
WIDEST = 1e6
"""The largest variance between times, in variances of one run; more changes nothing."""
FARTHEST = 1e100
"""The largest score that is calculated with, in standard deviations of a run."""


@dataclass(frozen=True)
class Sample:
    """One run of a comparison.

    Attributes:
        value: in units of the metric; larger is better.
        own: whether it is of the change, and not of its base.
        block: the number of its block.
        seed: of the run.
    """

    value: float
    own: bool
    block: int
    seed: int


@dataclass(frozen=True)
class Variances:
    """What the variance of a run is made of, as shares of sigma^2.

    Attributes:
        run: what no other run has in common with it.
        seed: what runs of a block with the same seed have in common beyond what all of it have.
        time: what all runs of a block have in common.
    """

    run: float
    seed: float
    time: float


@dataclass(frozen=True)
class Pairing:
    """The runs of a candidate and of its bases, of which some were made side by side.

    Attributes:
        pairs: how many of the candidate's runs have one of the base beside them: same seed, near in time.
        texts: for each text that was scored, and each base, all runs of both.
        spread: how far runs of one code differ near in time and between times.
        noise: of single runs.
    """

    pairs: int
    texts: tuple[tuple[tuple[Sample, ...], ...], ...]
    spread: Spread
    noise: Noise

    def counts(self, noise: Noise) -> bool:
        """Whether runs are compared by blocks: where the difference of a pair varies less than a single run does.

        That is settled by the noise, never by what the runs show.
        """
        return self.pairs > 0 and exact(noise, self.spread.noise(self.noise))

    def estimate(self, sigma: float) -> tuple[float, float]:
        """The gain and its standard error, in units of the metric; the smaller of the gains on both texts.

        Args:
            sigma: the standard deviation of one run, above zero.
        """
        variances = variances_of(self.spread, self.noise, sigma)
        return min(_together([contrast(part, variances, sigma) for part in bases]) for bases in self.texts)


def variances_of(spread: Spread, noise: Noise, sigma: float) -> Variances:
    """What the variance of a run is made of, by what was seen near in time, between times and in pairs.

    Args:
        sigma: the standard deviation of one run, above zero.
    """
    paired, near = spread.noise(noise).sigma, spread.near_noise(noise).sigma
    between = math.sqrt(spread.far / spread.far_dof) if spread.far_dof else 0.0
    run = 1.0 if paired is None else min(1.0, (paired / sigma) ** 2 / 2)
    within = run if near is None else min(1.0, max(run, (near / sigma) ** 2))
    time = min(WIDEST, max(1.0, min(WIDEST, between / sigma) ** 2) - within)
    return Variances(max(LEAST, run), within - run, time)


def contrast(samples: Sequence[Sample], variances: Variances, sigma: float) -> tuple[float, float]:
    """How much better a change is than its base, and the standard error, by generalised least squares.

    Args:
        samples: runs of both, at least one of each.
        sigma: the standard deviation of one run, above zero.
    """
    origin = samples[0].value
    blocks: dict[int, dict[int, list[tuple[bool, float]]]] = {}
    for each in samples:
        value = max(-FARTHEST, min(FARTHEST, clamp(each.value - origin) / sigma))
        blocks.setdefault(each.block, {}).setdefault(each.seed, []).append((each.own, value))
    found = [_information(tuple(block.values()), variances) for block in blocks.values()]
    own, of_both, all_of_it, value, values = (sum(column) for column in zip(*found, strict=True))
    determinant = own * all_of_it - of_both * of_both
    gain = (all_of_it * value - of_both * values) / determinant
    return clamp(gain * sigma), clamp(sigma * math.sqrt(all_of_it / determinant))


def _information(
    seeds: Sequence[Sequence[tuple[bool, float]]], variances: Variances
) -> tuple[float, float, float, float, float]:
    """What a block tells of the gain and of the level of all its runs.

    Args:
        seeds: for each seed, whether its runs are of the change, and their values.

    Returns:
        five products, each weighed with the inverse of the covariance (Sherman and Morrison 1950, for the seeds and
        then for the block): of the change's runs with themselves, of these with all runs, of all with themselves, of
        the change's with the values, and of all with the values.
    """
    own = one = whole = value = values = 0.0
    for runs in seeds:
        mine = [each for is_own, each in runs if is_own]
        n, y, total = len(mine), sum(mine), sum(each for _, each in runs)
        shared = variances.run + len(runs) * variances.seed
        own += (n - n * n * variances.seed / shared) / variances.run
        value += (y - n * total * variances.seed / shared) / variances.run
        one, whole, values = one + n / shared, whole + len(runs) / shared, values + total / shared
    rest = 1 + variances.time * whole
    share = variances.time / rest
    return own - share * one * one, one / rest, whole / rest, value - share * one * values, values / rest


def _together(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The gains over several bases as one, each weighed with one over its variance."""
    if len(found) == 1:
        return found[0]
    least = min(error for _, error in found)
    weights = [(least / error) ** 2 if error else 1.0 for _, error in found]
    whole = sum(weights)
    gain = sum(weight / whole * gain for weight, (gain, _) in zip(weights, found, strict=True))
    return clamp(gain), least / math.sqrt(whole)


def samples_of(
    task: Task, own: Sequence[Trial], base: Sequence[Trial], read: Callable[[Trial], float | None]
) -> tuple[Sample, ...]:
    """The runs of a change and of one of its bases that something is read of; empty where one of the two has none.

    Args:
        own, base: finished runs that count.
        read: the metric of a run as it is printed.
    """
    blocks, sign = blocks_of(task, own, base), -1.0 if task.direction == "minimize" else 1.0
    found = [
        Sample(sign * value, is_own, blocks[trial.id], trial.seed)
        for is_own, trials in ((True, own), (False, base))
        for trial in trials
        if (value := read(trial)) is not None
    ]
    return tuple(found) if {each.own for each in found} == {True, False} else ()


def blocks_of(task: Task, own: Sequence[Trial], base: Sequence[Trial]) -> Mapping[str, int]:
    """The number of the block of each run, by id: runs of the change near the first of them, with every run of the base
    that is near one of these, and what is left of the base by itself.
    """
    blocks: dict[str, int] = {}
    _fill(task, own, blocks)
    partners = {pair.beside.id: pair.own.id for pair in pairs_of(task, own, base)}
    alone = []
    for trial in base:
        near = [other for other in own if is_near(task, trial, other)]
        if near:
            closest = min(near, key=lambda other: abs((trial.started_at or 0.0) - (other.started_at or 0.0)))
            blocks[trial.id] = blocks[partners.get(trial.id, closest.id)]
        else:
            alone.append(trial)
    _fill(task, alone, blocks)
    return blocks


def _fill(task: Task, trials: Iterable[Trial], blocks: dict[str, int]) -> None:
    """Give each run the block of the first one that it is near, or a new one."""
    first: list[tuple[Trial, int]] = []
    for trial in sorted(trials, key=lambda each: each.started_at or 0.0):
        found = next((block for other, block in first if is_near(task, other, trial)), None)
        if found is None:
            found = max(blocks.values(), default=0) + 1
            first.append((trial, found))
        blocks[trial.id] = found
