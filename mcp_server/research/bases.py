"""The level that a change is compared with, pulled towards what its chain makes likely; and whether noise is loud."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mcp_server.research.chain import Level, believed
from mcp_server.research.claims import LEAST
from mcp_server.research.effects import learnt, likely_scale
from mcp_server.research.noise import Noise, clamp
from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.task import Task
from mcp_server.research.verdict import show

OWN = 0.5
"""The weight of a base's own mean in its level. It is lucky, for it was selected; what is believed of it instead rests
on what effects are thought to be like. The mean of both errs least in the simulation, and is the safer for either."""
ENOUGH = 30
"""From so many comparisons on, they tell how large effects are."""
SMALL = 0.5
"""Effects of this scale, in sigmas of one run, are small against the noise."""
FARTHEST = 1e9
"""No level is taken to be farther from the first than so many sigmas: its square leaves the range of a float."""


def likely_levels(
    levels: Sequence[Level], noise: Noise, comparisons: Iterable[tuple[float, float, float]]
) -> Mapping[str, float]:
    """What is believed of the level of each kept change, larger is better, in units of the metric, by its id.

    Args:
        levels: of the chain that the best was made from, the baseline first.
        noise: of the task.
        comparisons: see `claims.assess`.

    Returns:
        nothing while there is no kept change but the baseline, or the noise is not known.
    """
    if noise.sigma is None or len(levels) < 2:
        return {}
    start = levels[0].mean
    sigma = max(noise.sigma, LEAST * max(abs(level.mean) for level in levels), sys.float_info.min)

    effects = learnt(1.0, _in_sigmas(comparisons, sigma))
    units = [Level(level.name, _scaled(level.mean - start, sigma), level.runs) for level in levels]
    means = believed(units, 1.0, effects).means
    return {level.name: clamp(start + mean * sigma) for level, mean in zip(levels, means, strict=True)}


def is_loud(noise: Noise, comparisons: Iterable[tuple[float, float, float]]) -> bool:
    """Whether the effects of changes are small against the noise, by enough comparisons to tell.

    Args:
        comparisons: see `claims.assess`.
    """
    if not noise.sigma:
        return False
    seen = _in_sigmas(comparisons, noise.sigma)
    return len(seen) >= ENOUGH and likely_scale(1.0, seen) <= SMALL


def _in_sigmas(comparisons: Iterable[tuple[float, float, float]], sigma: float) -> list[tuple[float, float]]:
    """Each comparison as its difference and the variance of that, in units of sigma."""
    return [(_scaled(d, sigma), 1 / n + 1 / n_b) for d, n, n_b in comparisons if n and n_b]


def _scaled(number: float, sigma: float) -> float:
    return max(-FARTHEST, min(FARTHEST, clamp(number) / sigma))


def pulled(task: Task, base: Incumbent, likely: Mapping[str, float], hidden: Mapping[str, float]) -> Incumbent:
    """A base whose means on both texts are between its own and the likely ones; its own where these are not known."""
    sign = -1.0 if task.direction == "minimize" else 1.0

    def between(own: float, level: float | None) -> float:
        return own if level is None else clamp(OWN * own + (1 - OWN) * sign * level)

    own_hidden = None if base.hidden is None else between(base.hidden, hidden.get(base.name))
    return replace(base, mean=between(base.mean, likely.get(base.name)), hidden=own_hidden)


LOUD_WORDS = "Effects are small against the noise here, so more is asked of a keep."


def in_words(base: Incumbent, compared: Incumbent) -> str:
    """That a base counts as better or worse than the mean of its runs, as a sentence; empty where it does not."""
    if compared.mean == base.mean:
        return ""
    return (
        f"{base.name} counts as {show(compared.mean)}, between the mean of its runs, {show(base.mean)}, and what its "
        "chain of kept changes makes likely."
    )
