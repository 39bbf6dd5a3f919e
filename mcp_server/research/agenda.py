"""What comes before a new idea, and which earlier findings are worth joining or questioning."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.plateau import on_plateau, remeasure_due
from mcp_server.research.task import Category, Task

COMBINE_SHARE = 0.15
"""At most this share of the proposals are combinations."""


@dataclass(frozen=True)
class Pending:
    """An experiment with status needs_confirmation and no run under way; z is that of its last verdict."""

    name: str
    z: float


@dataclass(frozen=True)
class Due:
    """A run that is owed before anything new is tried."""

    kind: Literal["re-measure", "confirm"]
    name: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """What an experiment seemed to bring: d and s of its last verdict, in units of the metric."""

    name: str
    category: Category
    d: float
    s: float

    @property
    def z(self) -> float:
        """d / s; without any noise the sign of d alone decides."""
        if self.s:
            return self.d / self.s
        return math.copysign(math.inf, self.d) if self.d else 0.0

    @property
    def shrunk(self) -> float:
        """d pulled to zero by its uncertainty: d * d^2 / (d^2 + s^2)."""
        ratio = self.s / self.d if self.d else 0.0
        return self.d / (1 + ratio * ratio)


def due(
    task: Task, incumbent: Incumbent | None, non_keeps: int, remeasuring: bool, pending: Iterable[Pending]
) -> tuple[Due, ...]:
    """The runs that are owed, in the order to be served: a re-measure of the incumbent, then confirmations by z.

    Args:
        non_keeps: discards decided since the last keep; crashes do not count.
        remeasuring: whether a run of the incumbent is under way.
    """
    owed = []
    if incumbent is not None and not remeasuring and remeasure_due(task, incumbent, non_keeps):
        reason = f"{non_keeps} experiments since the last keep, and the best rests on one run: measure it once more"
        owed.append(Due("re-measure", incumbent.name, reason))
    by_z = sorted(pending, key=lambda each: -each.z)
    owed += [Due("confirm", each.name, f"z {each.z:.2f} in its last verdict: run it again") for each in by_z]
    return tuple(owed)


def may_combine(non_keeps: int, proposals: int, combined: int) -> bool:
    """Whether a combination may be proposed: on a plateau, and while they stay within their share of the proposals.

    Args:
        non_keeps: discards decided since the last keep; crashes do not count.
        proposals: experiments registered in this run, but for the baseline.
        combined: those of them with category `combination`.
    """
    return on_plateau(non_keeps) and combined + 1 <= COMBINE_SHARE * (proposals + 1)


def pair_to_combine(
    findings: Iterable[Finding], tried: Collection[frozenset[str]] = ()
) -> tuple[Finding, Finding] | None:
    """The two findings most worth trying together: of different categories, with the largest sum of shrunk gains.

    Args:
        findings: near misses; those that did not seem to bring anything are passed over.
        tried: pairs of names that were tried together.
    """
    gains = [finding for finding in findings if finding.d > 0]
    pairs = [
        (a, b)
        for a, b in combinations(gains, 2)
        if a.category != b.category and frozenset((a.name, b.name)) not in tried
    ]
    return max(pairs, key=lambda pair: pair[0].shrunk + pair[1].shrunk, default=None)


def keep_to_question(keeps: Iterable[Finding], ablated: Collection[str] = ()) -> Finding | None:
    """The kept change with the weakest z whose removal was not tried yet; the baseline is none of `keeps`."""
    left = [keep for keep in keeps if keep.name not in ablated]
    return min(left, key=lambda keep: keep.z, default=None)
