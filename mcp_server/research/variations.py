"""A structured experiment plan: the constants that vary, those that are held fixed, and what is left to try."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

from mcp_server.errors import InvalidInput
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import Knob, as_knob, read_knobs, same, written
from mcp_server.research.proposals import Proposal, Scene, compare, knob_proposal
from mcp_server.research.task import Task

MOST = 500
"""The most variations that a plan may have."""

Variation = Mapping[str, KnobValue]


def fitted(task: Task, source: str) -> Task:
    """The task with the values of its plan as the script would hold them; raises InvalidInput where they do not fit.

    Args:
        source: the training script as the run finds it.
    """
    knobs = read_knobs(source)
    if both := [name for name, _ in task.vary if name in dict(task.hold)]:
        raise InvalidInput(f"the plan varies {both[0]} and holds it fixed", "Name it in one of them", ("hold", both[0]))
    vary = []
    for name, values in task.vary:
        if not values:
            what = f"the plan has no values for {name}"
            raise InvalidInput(what, "Give at least one, such as [0.01, 0.02]", ("vary", name))
        held = [_knob("vary", name, value, knobs) for value in values]
        vary.append((name, tuple(value for at, value in enumerate(held) if not any(same(value, e) for e in held[:at]))))
    for name, wanted in task.hold:
        present = _knob("hold", name, knobs[name].value if wanted is None and name in knobs else wanted, knobs)
        if not same(present, knobs[name].value):
            raise InvalidInput(
                f"the plan holds {name} at {written(present)}, and {task.train_script} has {knobs[name].text}",
                "Set it in the script and commit that, or hold it without a value",
                ("hold", name),
            )
    found = replace(task, vary=tuple(vary), hold=tuple((name, knobs[name].value) for name, _ in task.hold))
    count = len(list(islice(variations(found, {name: knob.value for name, knob in knobs.items()}), MOST + 1)))
    if count > MOST:
        what = f"the plan has more than {MOST} variations"
        raise InvalidInput(what, "Vary fewer constants, or leave out `grid`", ["vary"])
    if task.vary and not count:
        raise InvalidInput("the plan varies nothing: each value is what the script has", "Give other values", ["vary"])
    return found


def _knob(part: str, name: str, value: object, knobs: Mapping[str, Knob]) -> KnobValue:
    """A value of the plan as the script would hold it; an error names the part of the plan."""
    try:
        return as_knob(name, value, knobs)
    except InvalidInput as error:
        raise InvalidInput(error.what, error.todo, (part, name)) from None


def variations(task: Task, present: Variation) -> Iterator[Variation]:
    """Every variation of a plan but that which the script has: one constant at a time, or all of their combinations.

    Args:
        present: the constants of the script.
    """
    if not task.grid:
        for name, values in task.vary:
            yield from ({name: value} for value in values if not same(value, present.get(name)))
        return
    names = [name for name, _ in task.vary]
    for values in product(*(values for _, values in task.vary)):
        each = dict(zip(names, values, strict=True))
        if not all(same(value, present.get(name)) for name, value in each.items()):
            yield each


def planned(scene: Scene) -> Iterator[Proposal]:
    """What of the plan is still to be tried on the present best, in its order."""
    present = scene.values
    tried = list(_tried(scene.evidence, present))
    left = [
        each
        for each in variations(scene.task, present)
        if not any(all(same(other.get(name), value) for name, value in each.items()) for other in tried)
    ]
    for each in left:
        changes = {name: value for name, value in each.items() if not same(value, present.get(name))}
        setting = next((found for name in changes if (found := scene.outline.setting(name))), None)
        category = setting.category if setting and setting.category in scene.task.scope else "other"
        words = ", ".join(f"{name} {written(present.get(name))} -> {written(value)}" for name, value in changes.items())
        text = f"{words}: as planned, {len(left)} left. C{compare(scene)[1:]}."
        yield knob_proposal(f"plan {words}", category, text, changes)


def held(task: Task, old: str | None, new: str | None) -> list[str]:
    """The constants that a change of the script touches although the plan holds them fixed."""
    if not task.hold or old == new:
        return []
    try:
        knobs = read_knobs(new or "")
    except InvalidInput:  # the training will say what is wrong with it
        return []
    return [name for name, value in task.hold if name not in knobs or not same(knobs[name].value, value)]


def _tried(evidence: Evidence, present: Variation) -> Sequence[Variation]:
    """All constants of what was trained or is under way."""
    under_way = [{**present, **{name: new for name, (_, new) in e.changes.items()}} for e in evidence.in_flight]
    return [*(point.values for point in evidence.points), *under_way]
