"""Concrete values for the knobs of a script, by slopes and a tree-structured Parzen estimator over all trials.

An agent tests one change at a time, so a proposal changes one knob of the present best, or two that both paid before.
Which knob is decided by its course; which value too while one side of the present value is open, else by the estimator.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mcp_server.errors import InvalidInput
from mcp_server.research.course import Course, course_of
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import written
from mcp_server.research.ladders import Ladder, ladders
from mcp_server.research.lines import Past, Point, Points, past_of
from mcp_server.research.script import Setting, effective, outline
from mcp_server.research.task import Category, Direction
from mcp_server.research.verdict import show

MOST_POINTS = 500
"""The last so many points are looked at."""
ASKED = 8
"""How often the estimator is asked for a value that is still open, before the nearest open one is taken."""
FARTHEST = 2
"""The estimator is trusted for so many rungs from what was tried."""
SHOWN = 3


@dataclass(frozen=True)
class Tuning:
    """Values to set in the present best, as `register(knobs=...)` takes them, and a sentence why.

    Attributes:
        promise: the chance that this pays, as far as can be told.
    """

    values: Mapping[str, KnobValue]
    category: Category
    reason: str
    promise: float = 0.0


@dataclass(frozen=True)
class Axis:
    """One number that may be changed, and what is known of it."""

    setting: Setting
    ladder: Ladder
    past: Past
    course: Course


@dataclass(frozen=True)
class Search:
    """All that may be tuned in the present best's script. Made by `search`.

    Attributes:
        axes: the most promising first.
        measured: the trials.
        seed: settles what else is left to chance.
    """

    axes: Sequence[Axis]
    measured: Points
    seed: int

    def promise(self, category: Category) -> float | None:
        """The chance that the most promising change in a category pays; None where nothing is open there."""
        mine = (axis for axis in self.axes if axis.setting.category == category)
        return next((axis.course.promise for axis in mine if _open(axis, self.measured)), None)

    def tunings(self, count: int = 3, categories: Sequence[Category] | None = None) -> tuple[Tuning, ...]:
        """Up to `count` changes, of all knobs or of those in some categories; none repeats the knobs of a point."""
        axes = [axis for axis in self.axes if categories is None or axis.setting.category in categories]
        return tuple(_proposals(axes, self.measured, self.seed, count))


def search(
    source: str,
    points: Sequence[Point],
    direction: Direction,
    seed: int,
    *,
    device_kind: str = "cpu",
    command: str = "",
    sigma: float = 0.0,
) -> Search:
    """See what may be tuned; nothing where the script is not Python or has no knobs. Equal arguments, equal answers.

    Args:
        source: the present best's script.
        points: the trials of the run, oldest first.
        device_kind: knobs whose comments say that they do nothing there are left alone; on a CPU, where a budget holds
            few steps, cheaper steps are tried first.
        command: that which trains; options that it gives are left alone.
        sigma: the standard deviation of one run of the metric.
    """
    try:
        found = effective(outline(source), device_kind, command).settings
        settings = [setting for setting in found if setting.settable]
    except InvalidInput:
        settings = []
    present = {setting.knob.name: setting.knob.value for setting in settings}
    measured = Points(present, tuple(points[-MOST_POINTS:]), 1 if direction == "minimize" else -1)
    axes: list[Axis] = []
    for setting in settings:
        for ladder in ladders(setting, present):
            past = past_of(ladder, measured)
            course = course_of(ladder, past, sigma, device_kind == "cpu", _lot(seed, ladder))
            axes.append(Axis(setting, ladder, past, course))
    axes.sort(key=lambda axis: (-axis.course.promise, -axis.past.promise, _lot(seed, axis.ladder)))
    return Search(axes, measured, seed)


def _proposals(axes: Sequence[Axis], measured: Points, seed: int, count: int) -> Iterator[Tuning]:
    """The single changes in the order of their promise; in the place of the last, two that both paid before."""
    singles: list[Tuning] = []
    paid: list[Tuning] = []
    for axis in axes:
        if len(singles) == count:
            break
        if any(axis.ladder.name in single.values for single in singles):
            continue
        rung = _rung(axis, measured, seed)
        if rung is not None:
            singles.append(_single(axis, rung, measured))
            paid += singles[-1:] if axis.past.wins else []
    pairs = (_pair(one, other) for one, other in combinations(paid, 2))
    fresh = next((pair for pair in pairs if not measured.has(pair.values)), None)
    if count > 2 and len(singles) == count and fresh:
        singles[-1] = fresh
    yield from singles


def _single(axis: Axis, rung: int, measured: Points) -> Tuning:
    knob, past = axis.setting.knob, axis.past
    value = axis.ladder.put(knob.value, rung)
    change = f"{knob.name} {knob.text or written(knob.value)} -> {written(value, knob.text)}"
    if not past.regrets:
        return Tuning(
            {knob.name: value}, axis.setting.category, f"{change}: {axis.course.reason}.", axis.course.promise
        )
    seen = sorted(past.latest.items(), key=lambda item: item[1])[:SHOWN]
    told = [f"{text} gave {show(loss * measured.sign)}" for text, loss in seen]
    told += [f"{text} failed" for text in sorted(past.failed)[:SHOWN]]
    count = f"{past.wins} of {past.tries} changes of it alone paid" if past.tries else "it was never changed alone"
    evidence = f"{count} ({', '.join(told)})" if told else count
    why = axis.course.reason if rung in axis.course.rungs else "the estimator over its trials expects most here"
    return Tuning({knob.name: value}, axis.setting.category, f"{change}: {evidence}; {why}.", axis.course.promise)


def _pair(one: Tuning, other: Tuning) -> Tuning:
    changes = [single.reason.split(": ", 1)[0] for single in (one, other)]
    return Tuning(
        {**one.values, **other.values},
        one.category,
        f"{' and '.join(changes)} together: changing each paid before.",
        max(one.promise, other.promise),
    )


def _rung(axis: Axis, measured: Points, seed: int) -> int | None:
    """The rung to try next; None where every one was tried or failed."""
    ladder, free = axis.ladder, _open(axis, measured)
    steady = next((rung for rung in axis.course.rungs if rung in free), None)
    if steady is not None:
        return steady
    known = {ladder.place, *(place for value, _ in axis.past.regrets if (place := ladder.nearest(value)) is not None)}
    if ladder.ordered:  # a few trials say little of what lies far from all of them
        free = {rung for rung in free if any(abs(rung - place) <= FARTHEST for place in known)}
    if not free:
        return None
    lot = _lot(seed, ladder)
    nearest = min(free, key=lambda rung: (abs(rung - ladder.place), (rung > ladder.place) == lot % 2))
    return next((rung for rung in _estimated(ladder, axis.past, lot) if rung in free), nearest)


def _open(axis: Axis, measured: Points) -> set[int]:
    """The rungs that were not tried with all else as it is, and that are not known to fail."""
    ladder, knob = axis.ladder, axis.setting.knob
    places = set(range(len(ladder.rungs))) - {ladder.place} - axis.past.closed
    return {rung for rung in places if not measured.has({knob.name: ladder.put(knob.value, rung)})}


def _estimated(ladder: Ladder, past: Past, seed: int) -> Iterator[int]:
    """What the estimator asks for, again and again; each answer makes the next one look elsewhere."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = len(ladder.rungs)
    space: BaseDistribution = IntDistribution(0, count - 1) if ladder.ordered else CategoricalDistribution(range(count))
    # Startup trials would be drawn from the whole ladder; the estimator's own prior is kinder to what is known.
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=0))
    for value, loss in past.regrets:
        place = ladder.nearest(value)
        if place is not None:
            # Pruned trials rank behind all that have a value: failures are looked at, and avoided.
            state = TrialState.PRUNED if loss is None else TrialState.COMPLETE
            study.add_trial(
                create_trial(state=state, value=loss, params={"rung": place}, distributions={"rung": space})
            )
    for _ in range(ASKED):
        yield int(study.ask({"rung": space}).params["rung"])


def _lot(seed: int, ladder: Ladder) -> int:
    """A number drawn for a ladder: it settles ties, and differs from seed to seed."""
    drawn = hashlib.sha256(f"{seed} {ladder.name} {ladder.element}".encode()).digest()
    return int.from_bytes(drawn[:4], "big")
