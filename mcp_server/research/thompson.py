"""Which kind of change to try next: discounted Thompson sampling over the categories."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import Run
from mcp_server.research.strategy import Rank, choose, ranking
from mcp_server.research.task import CATEGORIES, Category

DISCOUNT = 0.97
KEPT, NOT_KEPT = 3.0, 1.0
"""What a kept proposal adds to alpha, and any other to beta."""


class Draws(Protocol):
    """A source of random numbers, seeded by the caller: random.Random is one."""

    def betavariate(self, alpha: float, beta: float, /) -> float:
        """A number from 0 to 1 from the Beta distribution."""
        ...


@dataclass(frozen=True)
class Arm:
    """What is believed of a category's chance to be kept, as a Beta distribution."""

    alpha: float = 1.0
    beta: float = 1.0

    @property
    def expected(self) -> float:
        """The mean of the distribution."""
        return self.alpha / (self.alpha + self.beta)


def arms(newest_first: Iterable[tuple[Category, bool]]) -> dict[Category, Arm]:
    """The arms after the finished proposals, each a category and whether it was kept; a crash was not.

    Every proposal fades what came before it, in all categories, to 0.97 of its weight, then adds 3 to alpha or 1 to
    beta. Baselines, re-measures and confirmations are no proposals. The last 200 are enough: 0.97^200 = 0.002.
    """
    known: dict[Category, Arm] = {}
    weight = 1.0
    for category, kept in newest_first:
        arm = known.get(category, Arm())
        gain, loss = (KEPT * weight, 0.0) if kept else (0.0, NOT_KEPT * weight)
        known[category] = Arm(arm.alpha + gain, arm.beta + loss)
        weight *= DISCOUNT
    return known


def sampled(
    scope: Sequence[Category], known: Mapping[Category, Arm], counts: Mapping[Category, Count], draws: Draws
) -> tuple[Rank, ...]:
    """Every category of the scope in the order in which to try them: one draw from each arm, the largest first.

    Args:
        known: the arms; a category without one was never tried.
        counts: tries and keeps of all finished experiments, for people to read.
    """
    ranks = []
    for category in scope:
        arm, count = known.get(category, Arm()), counts.get(category, Count())
        score = round(draws.betavariate(arm.alpha, arm.beta), 4)
        reason = f"{count.keeps} of {count.tries} kept; of late about {arm.expected:.0%} expected, {score:.0%} drawn"
        ranks.append(Rank(category, count.tries, count.keeps, score, reason))
    return tuple(sorted(ranks, key=lambda rank: (-rank.score, CATEGORIES.index(rank.category))))


def ranked(run: Run, evidence: Evidence, draws: Draws) -> tuple[Rank, ...]:
    """The ranking to suggest by: sampled, or the mode's own under the greedy policy and a mode set by hand."""
    if run.task.policy == "greedy" or run.manual_mode is not None:
        return ranking(run.task, evidence, choose(run, evidence).mode)
    proposals = (e for e in evidence.recent if evidence.baseline is None or e.id != evidence.baseline.id)
    known = arms((e.category, e.status == "keep") for e in proposals)
    return sampled(run.task.scope, known, evidence.changing, draws)
