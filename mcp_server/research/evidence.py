"""What the strategy looks at: a bounded extract of a run's history, however long the history is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mcp_server.research.claims import Assessment
from mcp_server.research.experiment import FINISHED, Experiment, fresh_seed
from mcp_server.research.lines import Point
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.pairing import Beside
from mcp_server.research.task import Category, Task

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
        promising: the NEAR_MISSES near misses that seemed to gain most on what they were made from, the most first.
        in_flight: the last IN_FLIGHT experiments that are registered and not finished, the newest first.
        lessons: the last LESSONS finished experiments that left a lesson, the newest first.
        best: the kept experiment with the best value.
        baseline: the kept experiment with the lowest number: what the run started from.
        start_crashes: there is no best, and the code that the run started from crashed whenever it was measured: the
            first change that trains well stands in for the baseline.
        source: the training script as it is in the best's commit (the run's base commit while there is no best);
            None where it cannot be read.
        standing: the best as the base of others, with its mean; None while there is none, or under the greedy policy.
        noise: how much a score moves by itself, as far as was measured.
        discards: how many experiments were discarded since the last keep.
        pending: experiments that need confirmation and are not under way: a baseline, then what was not compared yet,
            then by z.
        seeds: those that the best was trained with.
        best_under_way: a run of the best is.
        bound_seeds: by the id of the best, and of each kept change in it, the seed that its next run must have, where
            it must, see `selection.bound_seed`.
        remeasuring: a run that measures the best again is under way, or came to nothing.
        remeasured: such a run has ended and is not yet in the best's mean.
        displaced: keeps whose change the best does not have, the newest first, where that was looked at.
        assessment: what may be told of the best and of the kept changes in it; None where nothing can be.
        level_seeds: by the id of each kept change in the best, and of the baseline, the seeds that it was run with.
        levels_busy: ids of those of which a run is under way.
        untaken: ids of those that were run again since their value was computed.
        removable: ids of kept changes that do not hold any more and that can be taken out of the best as it is, where
            that was looked at.
        side_by_side: why changes are to be confirmed beside the best; empty where they need not be.
        beside: by id of what waits for confirmation, how its next run comes to be beside one of the best.
        beside_new: the same of an experiment that is still to be found, where the machine drifts.
        unseen: no code was run at different times, so that a drift of the machine would not have been seen.
        unsettled: by id of what waits for one more run of the best, why, see `contention.unsettled`.
        settled: ids of what has waited for it, and can be judged.
        points: the knobs and outcomes of the latest trials, the oldest first.
    """

    counts: Mapping[Category, Count] = field(default_factory=dict)
    recent: tuple[Experiment, ...] = ()
    keeps: tuple[Experiment, ...] = ()
    near_misses: tuple[Experiment, ...] = ()
    promising: tuple[Experiment, ...] = ()
    in_flight: tuple[Experiment, ...] = ()
    lessons: tuple[Experiment, ...] = ()
    best: Experiment | None = None
    baseline: Experiment | None = None
    start_crashes: bool = False
    source: str | None = None
    standing: Incumbent | None = None
    noise: Noise = field(default_factory=Noise)
    discards: int = 0
    pending: tuple[Experiment, ...] = ()
    seeds: frozenset[int] = frozenset()
    best_under_way: bool = False
    bound_seeds: Mapping[str, int] = field(default_factory=dict)
    remeasuring: bool = False
    remeasured: bool = False
    displaced: tuple[Experiment, ...] = ()
    points: tuple[Point, ...] = ()
    assessment: Assessment | None = None
    level_seeds: Mapping[str, frozenset[int]] = field(default_factory=dict)
    levels_busy: frozenset[str] = frozenset()
    untaken: tuple[str, ...] = ()
    removable: frozenset[str] = frozenset()
    side_by_side: str = ""
    beside: Mapping[str, Beside] = field(default_factory=dict)
    beside_new: Beside = field(default_factory=Beside)
    unseen: bool = False
    unsettled: Mapping[str, str] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()

    @property
    def next_seed(self) -> int:
        """The seed of the next run of the best."""
        bound = self.bound_seeds.get(self.best.id) if self.best else None
        return fresh_seed(self.seeds) if bound is None else bound

    @property
    def finished(self) -> int:
        """How many experiments of the run are finished."""
        return sum(count.tries for count in self.counts.values())

    @property
    def begun(self) -> Experiment | None:
        """The baseline, where it is registered and has no verdict yet."""
        return next((e for e in (*self.pending, *self.in_flight) if e.unchanged), None)

    @cached_property
    def changing(self) -> Mapping[Category, Count]:
        """The counts without experiments that changed nothing: a baseline is no try of the category that it names."""
        counts = dict(self.counts)
        for e in {e.id: e for e in (*self.recent, *self.keeps, self.baseline) if e and e.unchanged}.values():
            count = counts.pop(e.category, Count())
            if count.tries > 1:
                counts[e.category] = Count(count.tries - 1, count.keeps - (e.status == "keep"))
        return counts

    @cached_property
    def known(self) -> tuple[Experiment, ...]:
        """Every experiment in the extract once, the newest first: what must not be proposed again."""
        everything = {e.id: e for e in (*self.recent, *self.keeps, *self.near_misses, *self.in_flight)}
        return tuple(sorted(everything.values(), key=lambda e: e.number, reverse=True))


def gather(task: Task, experiments: Iterable[Experiment], source: str | None = None) -> Evidence:
    """The evidence of a whole history in memory: what a simulation has, and what a store's queries must agree with."""
    newest = sorted(experiments, key=lambda e: e.number, reverse=True)
    finished = [e for e in newest if e.status in FINISHED]
    kept = [e for e in finished if e.status == "keep"]
    near = [e for e in finished if e.near_miss]
    counts: dict[Category, Count] = {}
    for e in finished:
        count = counts.get(e.category, Count())
        counts[e.category] = Count(count.tries + 1, count.keeps + (e.status == "keep"))

    def loss(e: Experiment) -> float:
        return 0.0 if e.value is None else -task.improvement(e.value, 0.0)

    return Evidence(
        counts=counts,
        recent=tuple(finished[:RECENT]),
        keeps=tuple(kept[:KEEPS]),
        near_misses=tuple(sorted(near, key=loss)[:NEAR_MISSES]),
        promising=tuple(sorted((e for e in near if e.delta is not None), key=lambda e: (-(e.delta or 0.0), e.number)))[
            :NEAR_MISSES
        ],
        in_flight=tuple([e for e in newest if e.status not in FINISHED][:IN_FLIGHT]),
        lessons=tuple([e for e in finished if e.lesson][:LESSONS]),
        best=min(kept, key=loss, default=None),
        baseline=kept[-1] if kept else None,
        source=source,
    )
