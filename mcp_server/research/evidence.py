"""What the strategy looks at: a bounded extract of a run's history, however long the history is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mcp_server.research.experiment import Category, Experiment

RECENT = 200
KEEPS = 50
NEAR_MISSES = 20
IN_FLIGHT = 64
LESSONS = 10
"""The most experiments that each field of Evidence holds; a store asks for no more, and more does no harm."""


@dataclass(frozen=True)
class Count:
    """How many experiments of a category are finished, and how many of these were kept."""

    tries: int = 0
    keeps: int = 0


@dataclass(frozen=True)
class Evidence:
    """The extract. "Finished" means keep, discard or crash; order of start is the order of `number`.

    Attributes:
        counts: for each category with a finished experiment, its Count.
        recent: the last RECENT finished experiments in order of start, the newest first.
        keeps: the last KEEPS kept experiments in order of start, the newest first.
        near_misses: the NEAR_MISSES near misses whose value is best, the best first.
        in_flight: the last IN_FLIGHT experiments that are registered and not finished, the newest first.
        lessons: the last LESSONS finished experiments that left a lesson, the newest first.
        best: the kept experiment with the best value.
        baseline: the kept experiment with the lowest number: what the run started from.
        source: the training script as it is in the best's commit (the run's base commit while there is no best);
            None where it cannot be read.
    """

    counts: Mapping[Category, Count] = field(default_factory=dict)
    recent: tuple[Experiment, ...] = ()
    keeps: tuple[Experiment, ...] = ()
    near_misses: tuple[Experiment, ...] = ()
    in_flight: tuple[Experiment, ...] = ()
    lessons: tuple[Experiment, ...] = ()
    best: Experiment | None = None
    baseline: Experiment | None = None
    source: str | None = None

    @property
    def finished(self) -> int:
        """How many experiments of the run are finished."""
        return sum(count.tries for count in self.counts.values())

    @cached_property
    def known(self) -> tuple[Experiment, ...]:
        """Every experiment in the extract once, the newest first: what must not be proposed again."""
        everything = {e.id: e for e in (*self.recent, *self.keeps, *self.near_misses, *self.in_flight)}
        return tuple(sorted(everything.values(), key=lambda e: e.number, reverse=True))
