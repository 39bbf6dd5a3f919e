"""Concrete values for the knobs of a script, by a tree-structured Parzen estimator over all that was measured.

An agent tests one change at a time, so a proposal changes one knob of the present best, or two that both paid before.
Which knob is decided by how often changing it paid, and which value by the estimator.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mcp_server.errors import InvalidInput
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import written
from mcp_server.research.ladders import Ladder, ladders
from mcp_server.research.lines import Past, Point, Points, past_of
from mcp_server.research.script import Setting, effective, outline, words_of
from mcp_server.research.task import Category, Direction
from mcp_server.research.verdict import show

MOST_POINTS = 500
"""The last so many points are looked at."""
ASKED = 8
"""How often the estimator is asked for a value that is still open, before the nearest open one is taken."""
FIRST_STEP = 2
"""Rungs of the first step of a knob that was never varied, about a factor of two, so that it shows above the noise;
and the farthest from what was tried."""
SHOWN = 3


@dataclass(frozen=True)
class Tuning:
    """Values to set in the present best, as `register(knobs=...)` takes them, and a sentence why."""

    values: Mapping[str, KnobValue]
    category: Category
    reason: str


@dataclass(frozen=True)
class _Axis:
    """One number that may be changed, and what is known of it."""

    setting: Setting
    ladder: Ladder
    past: Past


def tune(
    source: str,
    points: Sequence[Point],
    direction: Direction,
    seed: int,
    *,
    count: int = 3,
    categories: Sequence[Category] | None = None,
    device_kind: str = "cpu",
) -> tuple[Tuning, ...]:
    """Propose up to `count` changes of the present best's knobs; none where the script has none or is not Python.

    Equal arguments give equal proposals. No proposal repeats the knobs of a point.

    Args:
        source: the present best's script.
        points: the trials of the run, oldest first.
        categories: the categories whose knobs may be changed; None for all.
        device_kind: knobs whose comments say that they do nothing there are left alone.
    """
    try:
        settings = [setting for setting in effective(outline(source), device_kind).settings if setting.settable]
    except InvalidInput:
        return ()
    present = {setting.knob.name: setting.knob.value for setting in settings}
    measured = Points(present, tuple(points[-MOST_POINTS:]), 1 if direction == "minimize" else -1)
    axes = [
        _Axis(setting, ladder, past_of(ladder, measured))
        for setting in settings
        if categories is None or setting.category in categories
        for ladder in ladders(setting, present)
    ]
    axes.sort(key=lambda axis: (-axis.past.promise, not _matters(axis.ladder), _lot(seed, axis.ladder)))
    return tuple(_proposals(axes, measured, seed, count))


def _proposals(axes: Sequence[_Axis], measured: Points, seed: int, count: int) -> Iterator[Tuning]:
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


def _single(axis: _Axis, rung: int, measured: Points) -> Tuning:
    knob, past = axis.setting.knob, axis.past
    value = axis.ladder.put(knob.value, rung)
    change = f"{knob.name} {knob.text or written(knob.value)} -> {written(value, knob.text)}"
    if not past.regrets:
        return Tuning({knob.name: value}, axis.setting.category, f"{change}: never varied so far, a first clear step.")
    seen = sorted(past.latest.items(), key=lambda item: item[1])[:SHOWN]
    told = [f"{text} gave {show(loss * measured.sign)}" for text, loss in seen]
    told += [f"{text} failed" for text in sorted(past.failed)[:SHOWN]]
    count = f"{past.wins} of {past.tries} changes of it alone paid" if past.tries else "it was never changed alone"
    evidence = f"{count} ({', '.join(told)})" if told else count
    reason = f"{change}: {evidence}; the estimator over its trials expects most here."
    return Tuning({knob.name: value}, axis.setting.category, reason)


def _pair(one: Tuning, other: Tuning) -> Tuning:
    changes = [single.reason.split(": ", 1)[0] for single in (one, other)]
    return Tuning(
        {**one.values, **other.values}, one.category, f"{' and '.join(changes)} together: changing each paid before."
    )


def _rung(axis: _Axis, measured: Points, seed: int) -> int | None:
    """The rung to try next; None where every one was tried or failed."""
    ladder = axis.ladder
    knob = axis.setting.knob
    free = {
        rung
        for rung in range(len(ladder.rungs))
        if rung not in axis.past.closed and not measured.has({knob.name: ladder.put(knob.value, rung)})
    } - {ladder.place}
    known = {ladder.place, *(place for value, _ in axis.past.regrets if (place := ladder.nearest(value)) is not None)}
    if ladder.ordered:  # a few trials say little of what lies far from all of them
        free = {rung for rung in free if any(abs(rung - place) <= FIRST_STEP for place in known)}
    if not free:
        return None
    lot = _lot(seed, ladder)
    asked = _estimated(ladder, axis.past, lot) if axis.past.regrets else iter(())
    step = 1 if axis.past.regrets else FIRST_STEP
    nearest = min(free, key=lambda rung: (abs(abs(rung - ladder.place) - step), (rung > ladder.place) == lot % 2))
    return next((rung for rung in asked if rung in free), nearest)


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


def _matters(ladder: Ladder) -> bool:
    """Whether the name says that this knob moves the metric of nearly every training."""
    return re.search(r"(?:^|_)(?:lrs?|learning_rate|batch|depth|layers?)(?:_|$)", words_of(ladder.name)) is not None


def _lot(seed: int, ladder: Ladder) -> int:
    """A number drawn for a ladder: it settles ties, and differs from seed to seed."""
    drawn = hashlib.sha256(f"{seed} {ladder.name} {ladder.element}".encode()).digest()
    return int.from_bytes(drawn[:4], "big")
