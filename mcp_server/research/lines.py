"""What is known of one knob: the trials that lie on a line, alike in all knobs but that one."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import written
from mcp_server.research.ladders import Ladder

Cells = tuple[str, ...]
"""Values of knobs as Python writes them."""
Outcome = tuple[Mapping[str, KnobValue], float | None]
"""A trial's knobs and its loss: smaller is better, None where it failed."""
Line = list[tuple[KnobValue, float | None]]
"""The value of one knob and the loss of trials that are alike in all other knobs, oldest first."""


@dataclass(frozen=True)
class Point:
    """One trial: the knobs of its script, and what came out.

    Attributes:
        values: all knobs by name; those left out count as they are in the present best.
        value: the metric; None, or a number that is not finite, where there was no score.
        failed: out of memory, crashed, timed out.
    """

    values: Mapping[str, KnobValue]
    value: float | None
    failed: bool = False


@dataclass(frozen=True)
class Points:
    """The trials, beside the knobs of the present best.

    Attributes:
        points: oldest first.
        sign: 1 where a smaller metric is better, else -1.
    """

    present: Mapping[str, KnobValue]
    points: tuple[Point, ...]
    sign: int

    @cached_property
    def outcomes(self) -> Sequence[Outcome]:
        """Every trial's knobs and its loss."""
        return [(point.values, self._loss(point)) for point in self.points]

    def _loss(self, point: Point) -> float | None:
        scored = not point.failed and point.value is not None and math.isfinite(point.value)
        return self.sign * point.value if scored and point.value is not None else None

    def has(self, changes: Mapping[str, KnobValue]) -> bool:
        """Whether a trial had exactly the present knobs with these changes."""
        return self._cells_of(changes) in self._seen

    @cached_property
    def varied(self) -> frozenset[str]:
        """The knobs that had more than one value."""
        columns = zip(self.present, self._cells_of({}), *self._seen, strict=True)
        return frozenset(name for name, *cells in columns if len(set(cells)) > 1)

    @cached_property
    def _cells(self) -> Sequence[Cells]:
        return [self._cells_of(point.values) for point in self.points]

    @cached_property
    def _seen(self) -> frozenset[Cells]:
        return frozenset(self._cells)

    def _cells_of(self, values: Mapping[str, KnobValue]) -> Cells:
        return tuple([repr(values.get(name, value)) for name, value in self.present.items()])

    def lines(self, ladder: Ladder) -> Sequence[Line]:
        """The lines along a ladder, each with its trials' values and losses, oldest first."""
        found: dict[tuple[str, Cells, Cells], Line] = defaultdict(list)
        column = list(self.present).index(ladder.name)
        for (values, loss), cells in zip(self.outcomes, self._cells, strict=True):
            # Of a tuple, the other elements are part of what must be alike.
            rest = "" if ladder.element is None else repr(ladder.put(values.get(ladder.name), ladder.place))
            found[rest, cells[:column], cells[column + 1 :]].append((ladder.value_in(values), loss))
        return list(found.values())


@dataclass(frozen=True)
class Past:
    """What is known of a ladder.

    Attributes:
        tries: the trials that changed it alone.
        wins: those of them that beat everything before them on their line.
        regrets: values, each with how far its loss is from the best of its line; None where it failed. Where nothing
            changed it alone, the losses of all trials.
        gaps: rungs, each with how far the mean loss of its trials is from that of the present value on the same lines.
        latest: the least loss of each value, as Python writes it, on the newest line with more than one.
        failed: the values that failed where another value did not.
        closed: rungs that failed so, and those beyond; a later success at or beyond a value opens it again.
    """

    tries: int = 0
    wins: int = 0
    regrets: Sequence[tuple[KnobValue, float | None]] = ()
    gaps: Mapping[int, float] = field(default_factory=dict)
    latest: Mapping[str, float] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    closed: frozenset[int] = frozenset()

    @property
    def promise(self) -> float:
        """The share of changes that pay, as far as is known; 1/2 where nothing is."""
        return (self.wins + 1) / (self.tries + 2)


def past_of(ladder: Ladder, points: Points) -> Past:
    """What the points say of a ladder."""
    if ladder.name not in points.varied:
        return Past()
    lines = [line for line in points.lines(ladder) if len({repr(value) for value, _ in line}) > 1]
    scored = [line for line in lines if any(loss is not None for _, loss in line)]
    counts = [_count(line) for line in scored]
    regrets = [regret for line in scored for regret in _regrets(line)]
    if not regrets:
        regrets = [(ladder.value_in(values), loss) for values, loss in points.outcomes]
    failures = [value for line in scored for value, loss in line if loss is None]
    successes = [ladder.value_in(values) for values, loss in points.outcomes if loss is not None]
    blamed = [value for value in failures if not any(_beyond(ladder, other, value) for other in successes)]
    closed = [i for i, rung in enumerate(ladder.rungs) if any(_beyond(ladder, rung, value) for value in blamed)]
    return Past(
        tries=sum(tries for tries, _ in counts),
        wins=sum(wins for _, wins in counts),
        regrets=regrets,
        gaps=_gaps(ladder, scored),
        latest=_least(scored[-1]) if scored else {},
        failed=frozenset(map(written, blamed)),
        closed=frozenset(closed),
    )


def _count(line: Line) -> tuple[int, int]:
    """How many trials of a line changed the value of the best before them, and how many of these were better."""
    tries = wins = 0
    best, best_at = math.inf, repr(line[0][0])
    for value, loss in line:
        changed = repr(value) != best_at
        tries += changed
        if loss is not None and loss < best:
            wins += changed and best < math.inf
            best, best_at = loss, repr(value)
    return tries, wins


def _regrets(line: Line) -> Sequence[tuple[KnobValue, float | None]]:
    best = min(loss for _, loss in line if loss is not None)
    return [(value, None if loss is None else loss - best) for value, loss in line]


def _gaps(ladder: Ladder, lines: Sequence[Line]) -> Mapping[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        losses: dict[int, list[float]] = defaultdict(list)
        for value, loss in line:
            place = ladder.nearest(value)
            if place is not None and loss is not None:
                losses[place].append(loss)
        if ladder.place in losses:
            present = fmean(losses[ladder.place])
            for place, each in losses.items():
                found[place] += [loss - present for loss in each]
    return {place: fmean(each) for place, each in found.items()}


def _least(line: Line) -> Mapping[str, float]:
    losses: dict[str, float] = {}
    for value, loss in line:
        if loss is not None:
            losses[written(value)] = min(loss, losses.get(written(value), math.inf))
    return losses


def _beyond(ladder: Ladder, value: KnobValue, failed: KnobValue) -> bool:
    """Whether a value is one that failed, or farther from the present value the same way."""
    if repr(value) == repr(failed):
        return True
    numbers = [n for n in (ladder.present, failed, value) if isinstance(n, int | float) and not isinstance(n, bool)]
    if not ladder.ordered or len(numbers) < 3:
        return False
    present, wrong, other = numbers
    return present < wrong <= other or other <= wrong < present
