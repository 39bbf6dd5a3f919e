"""Which kind of change to try next: discounted Thompson sampling over the categories."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mcp_server.research.evidence import Count
from mcp_server.research.strategy import Rank
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

    def aged(self) -> "Arm":
        """The arm after another proposal was completed, of whichever category."""
        return Arm(1 + DISCOUNT * (self.alpha - 1), 1 + DISCOUNT * (self.beta - 1))

    def after(self, kept: bool) -> "Arm":
        """The arm after a proposal of its own category."""
        return Arm(self.alpha + KEPT, self.beta) if kept else Arm(self.alpha, self.beta + NOT_KEPT)

    @property
    def expected(self) -> float:
        """The mean of the distribution."""
        return self.alpha / (self.alpha + self.beta)


def arms(outcomes: Iterable[tuple[Category, bool]]) -> dict[Category, Arm]:
    """The arms after the finished proposals, the oldest first: category, and whether it was kept; crashes were not.

    Baselines, re-measures and confirmations are no proposals. The last 200 are enough: 0.97^200 = 0.002.
    """
    known: dict[Category, Arm] = {}
    for category, kept in outcomes:
        known = {each: arm.aged() for each, arm in known.items()}
        known[category] = known.get(category, Arm()).after(kept)
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
        reason = f"{count.keeps} of {count.tries} kept; of late about {arm.expected:.0%} expected"
        score = round(draws.betavariate(arm.alpha, arm.beta), 4)
        ranks.append(Rank(category, count.tries, count.keeps, score, reason))
    return tuple(sorted(ranks, key=lambda rank: (-rank.score, CATEGORIES.index(rank.category))))
