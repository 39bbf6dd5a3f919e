"""Single proposals, each with what it rests on: settings of the script, its code, earlier experiments."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import Experiment, KnobValue
from mcp_server.research.ideas import Place, places
from mcp_server.research.knobs import written
from mcp_server.research.marking import cited, shown
from mcp_server.research.moves import Heading, Move, halfway, heading, moves
from mcp_server.research.script import Outline, Setting, words_of
from mcp_server.research.strategy import near_miss_pairs
from mcp_server.research.task import Category, Task
from mcp_server.research.verdict import show

SAFEST: tuple[Category, ...] = ("scheduling", "optimizer", "regularization")
"""Categories whose settings rarely crash a training."""
WORTH_ANOTHER_LOOK = -0.5
"""A near miss with a smaller z is no better on another base."""
NEXT_TO_NOTHING = 0.08
"""A step of less than this share of a value is not worth a training."""


@dataclass(frozen=True)
class Proposal:
    """One thing to do. Of proposals with the same `topic`, only the first is shown.

    Attributes:
        tool, arguments: the call that does it, of `register` without tag, hypothesis and category; no tool where it
            takes a mind.
    """

    topic: str
    category: Category
    text: str
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """All that a proposal is made from."""

    task: Task
    evidence: Evidence
    outline: Outline = field(default_factory=Outline)

    @property
    def values(self) -> dict[str, KnobValue]:
        """The present values of the script's settings."""
        return {setting.knob.name: setting.knob.value for setting in self.outline.settings}

    def past(self, name: str) -> list[Experiment]:
        """The known experiments that changed a setting, the newest first."""
        return [e for e in self.evidence.known if name in e.changes]

    def seen(self, setting: Setting) -> set[str]:
        """The values of a setting that were measured, or are being measured, as `repr` writes them."""
        name = setting.knob.name
        return {repr(value) for e in self.past(name) for value in e.changes[name]}

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where the ideas for the code fit."""
        return tuple(places(self.outline, self.evidence.source or "", self.evidence.known))


def told(scene: Scene, e: Experiment) -> str:
    """An experiment in a few words: its id, what it changed, and how that came out."""
    changes = [f"{name} {shown(written(old))} -> {shown(written(new))}" for name, (old, new) in e.changes.items()]
    words = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
    if not words:
        words = cited(e.hypothesis, 70) if e.hypothesis else "no change"
    return f"{e.id} ({words}: {_outcome(e)})"


def open_moves(scene: Scene, setting: Setting) -> list[Move]:
    """Moves of a setting to values never measured, and not in a direction in which a value is known to be worse."""
    seen = scene.seen(setting)
    closed = {heading(setting.knob.value, value) for value, _ in worse_values(scene, setting)} - {None}
    candidates = moves(setting, scene.values)
    return [move for move in candidates if repr(move.value) not in seen and move.heading not in closed]


def worse_values(scene: Scene, setting: Setting) -> Iterator[tuple[KnobValue, Experiment]]:
    """Values of a setting that came out worse than the present best, with the experiments that changed only it."""
    best = scene.evidence.best
    for e in scene.past(setting.knob.name):
        if len(e.changes) != 1:
            continue
        old, new = e.changes[setting.knob.name]
        known = best is not None and best.value is not None and e.value is not None
        if _made_worse(e) or (known and scene.task.improvement(e.value, best.value) < 0):  # type: ignore[union-attr,arg-type]
            yield new, e
        if e.status == "keep":
            yield old, e


def of_setting(scene: Scene, setting: Setting, value: KnobValue, advice: str = "") -> Proposal:
    """Propose a value for a setting."""
    knob = setting.knob
    unit = f": {shown(knob.comment, 100)}" if knob.comment else ""
    try_this = shown(written(value, knob.text))
    text = (
        f"{knob.name} = {shown(knob.text)} (line {knob.line}{unit}). Try {try_this}{advice}. "
        f"{_rests_on(scene, setting)}"
    )
    return knob_proposal(knob.name, setting.category, text, {knob.name: value} if setting.settable else {})


def knob_proposal(topic: str, category: Category, text: str, knobs: Mapping[str, KnobValue]) -> Proposal:
    """Propose values for knobs; with none of them, it is for the agent to make the change."""
    call: tuple[str, Mapping[str, Any]] = ("register", {"knobs": dict(knobs)}) if knobs else ("", {})
    return Proposal(topic, category, f"{category}: {text}", *call)


def settings_in(scene: Scene, category: Category) -> Iterator[Proposal]:
    """A proposal for each setting of a category that has an open move, those never tried first."""
    settings = [s for s in scene.outline.settings if s.category == category and not _only_speed(s)]
    for setting in sorted(settings, key=lambda s: len(scene.past(s.knob.name))):
        for move in open_moves(scene, setting)[:1]:
            yield of_setting(scene, setting, move.value)


def code_in(scene: Scene, category: Category) -> Iterator[Proposal]:
    """Proposals to change the code, in a category."""
    for place in scene.places:
        if place.idea.category == category:
            yield _of_place(scene, place)


def continued(scene: Scene) -> Iterator[Proposal]:
    """Go on where the last keeps went: the same setting, further the same way."""
    for e in scene.evidence.keeps:
        for setting, old, new in _single_change(scene, e):
            if repr(setting.knob.value) != repr(new):
                continue
            onward = [m for m in open_moves(scene, setting) if m.heading and m.heading == heading(old, new)]
            if onward:
                yield of_setting(scene, setting, onward[0].value, f", further the way that {e.id} went")
            else:
                yield from _between(scene, setting, heading(old, new))


def _between(scene: Scene, setting: Setting, way: Heading | None) -> Iterator[Proposal]:
    """Half the way to the nearest value that is known to be worse, unless that is next to nothing."""
    present = setting.knob.value
    if not isinstance(present, int | float):
        return
    beyond = [
        (abs(value - present), value, e)
        for value, e in worse_values(scene, setting)
        if isinstance(value, int | float) and way is not None and heading(present, value) == way
    ]
    for _, value, e in sorted(beyond, key=lambda each: each[0])[:1]:
        middle = halfway(present, value)
        if not isinstance(middle, int | float) or repr(middle) in scene.seen(setting):
            continue
        if abs(middle - present) >= NEXT_TO_NOTHING * abs(present):
            yield of_setting(
                scene, setting, middle, f", between it and {shown(written(value))} of {e.id}, which was worse"
            )


def halved(scene: Scene) -> Iterator[Proposal]:
    """Half the step of a near miss."""
    for e in scene.evidence.near_misses:
        for setting, old, new in _single_change(scene, e):
            middle = halfway(setting.knob.value, new)
            seen = {
                repr(value) for other in scene.past(setting.knob.name) for value in other.changes[setting.knob.name]
            }
            if repr(setting.knob.value) == repr(old) and middle is not None and repr(middle) not in seen:
                yield of_setting(scene, setting, middle, f", about half the step of {e.id}")


def combined(scene: Scene) -> Iterator[Proposal]:
    """Put two near misses together."""
    by_id = {e.id: e for e in scene.evidence.near_misses}
    for pair in near_miss_pairs(scene.task, scene.evidence):
        a, b = by_id[pair.first], by_id[pair.second]
        yield together(scene, a, b)


def together(scene: Scene, a: Experiment, b: Experiment) -> Proposal:
    """Propose to put the changes of two experiments together on the present best."""
    text = f"put {told(scene, a)} and {told(scene, b)} together: register with combine {json.dumps([a.id, b.id])}."
    call = {"combine": [a.id, b.id]}
    return Proposal(f"{a.id}+{b.id}", "combination", f"combination: {text}", "register", call)


def reapplied(scene: Scene) -> Iterator[Proposal]:
    """Put a kept change that the best was made without on top of it, unless that was tried."""
    best = scene.evidence.best
    for e in scene.evidence.displaced:
        named = re.compile(rf"\b{re.escape(e.id)}\b")
        tried = any(
            o.number > e.number and named.search(f"{o.hypothesis} {o.description}") for o in scene.evidence.known
        )
        if best is None or tried:
            continue
        text = f"{told(scene, e)} is not in the best, {best.id}, which was made without it: put it on top: register"
        call = {"combine": [e.id, best.id]}
        yield Proposal(
            f"+{e.id}",
            e.category,
            f"{e.category}: {text} with combine {json.dumps(call['combine'])}.",
            "register",
            call,
        )


def ablated(scene: Scene) -> Iterator[Proposal]:
    """Take back a kept change that is still in place: under noise the weakest z first, else the smallest gain."""
    evidence = scene.evidence
    keeps = [e for e in evidence.keeps if e != evidence.baseline and e.delta is not None]
    for e in sorted(keeps, key=lambda e: e.numbers.z if e.numbers else e.delta or 0.0):
        present = {name: old for name, (old, new) in e.changes.items() if repr(scene.values.get(name)) == repr(new)}
        if (e.changes and not present) or _was_ablated(scene, e, present):
            continue
        how = ", ".join(f"set {name} back to {shown(written(old))}" for name, old in present.items())
        what = how or f"take its change out again ({shown(e.diff_summary) or 'see its diff'})"
        text = f"ablation: does {told(scene, e)} still pay? On the present best, {what}; all else stays."
        knobs = present if present.keys() == e.changes.keys() and _only_knobs(e) else {}
        yield replace(knob_proposal(f"-{e.id}", "ablation", "", knobs), text=text)


def taken_out(scene: Scene) -> Iterator[Proposal]:
    """Take a kept change that does not hold any more out of the best, those least likely to gain anything first.

    What is left is measured and judged like any other change. None while such an experiment is under way, and none of
    a change that was taken out before or that is there for having fewer lines.
    """
    evidence, assessment = scene.evidence, scene.evidence.assessment
    if assessment is None or any(e.category == "ablation" for e in evidence.in_flight):
        return
    keeps = {e.id: e for e in evidence.keeps}
    for e in (keeps[name] for name in assessment.doubtful if name in keeps):
        present = {name: old for name, (old, new) in e.changes.items() if repr(scene.values.get(name)) == repr(new)}
        if e.lines_added < e.lines_removed or _was_ablated(scene, e, present):
            continue
        whole = bool(present) and present.keys() == e.changes.keys() and _only_knobs(e)
        if not whole and e.id not in evidence.removable:
            continue
        call: dict[str, Any] = {"knobs": present} if whole else {"revert": e.id}
        ((how, what),) = call.items()
        text = f"ablation: {told(scene, e)} does not hold any more ({assessment.steps[e.id].brief()})"
        text += f": take it out of the best: register with {how} {json.dumps(what)}."
        yield Proposal(f"-{e.id}", "ablation", text, "register", call)


def rescued(scene: Scene) -> Iterator[Proposal]:
    """Near misses that were measured on an older best: on the present one they may do better."""
    best = scene.evidence.best
    for e in scene.evidence.near_misses:
        olds = {name: old for name, (old, _) in e.changes.items()}
        fits = all(repr(scene.values.get(name)) == repr(old) for name, old in olds.items())
        if best is None or e.numbers is None or e.numbers.base == best.id or not _only_knobs(e) or not fits:
            continue
        if e.numbers.z < WORTH_ANOTHER_LOOK:
            continue
        again = {name: new for name, (_, new) in e.changes.items()}
        if any(o.number > e.number and o.changes == e.changes and o.parent_id == best.id for o in scene.evidence.known):
            continue
        text = f"once more {told(scene, e)}: that was on {e.numbers.base}, and the best is {best.id} now"
        yield knob_proposal(f"again {e.id}", e.category, f"{text}: register with knobs {json.dumps(again)}.", again)


def simplified(scene: Scene) -> Iterator[Proposal]:
    """Switch something off, or make the longest part shorter."""
    for setting in scene.outline.settings:
        off = {int: 0, float: 0.0}.get(type(setting.knob.value))
        says_so = re.search(r"\b0\b[^;,]{0,12}\b(no|none|off)\b", setting.knob.comment)
        if says_so and setting.knob.value and off is not None and repr(off) not in scene.seen(setting):
            switch = of_setting(scene, setting, off, ": if the score holds, its code can go")
            yield replace(switch, category="simplification", text=f"simplification: {switch.text.split(': ', 1)[1]}")
    for part in sorted(scene.outline.parts, key=lambda part: -part.lines)[:1]:
        text = (
            f"simplification: {part.name} (line {part.line}) is the longest part with {part.lines} lines: take out one "
            f"refinement of it and see whether the score holds; {compare(scene)}."
        )
        yield Proposal(part.name, "simplification", text)


def careful(scene: Scene) -> Iterator[Proposal]:
    """After many crashes: what crashed last, less memory if that was it, then near steps of the safest settings."""
    crashes = [e for e in scene.evidence.recent if e.status == "crash"]
    for e in crashes[:1]:
        why = f" {cited(e.reason, 200, 'The record says')}." if e.reason else ""
        todo = "Mend it if the mistake is small, else leave it"
        text = f"{e.category}: {told(scene, e)} was the last to crash.{why} {todo}."
        yield Proposal(e.id, e.category, text)
    if any(re.search(r"memory|\boom\b", e.reason, re.I) for e in crashes):
        yield from _less_memory(scene)
    for turn in zip_longest(*(settings_in(scene, category) for category in SAFEST)):
        yield from (proposal for proposal in turn if proposal)


def _less_memory(scene: Scene) -> Iterator[Proposal]:
    for setting in scene.outline.settings:
        value = setting.knob.value
        if _only_speed(setting) and isinstance(value, int) and value > 1:
            yield of_setting(scene, setting, value // 2, " so that other changes fit into memory")


def _of_place(scene: Scene, place: Place) -> Proposal:
    category = place.idea.category
    count = scene.evidence.changing.get(category)
    so_far = (
        f"{count.keeps} of {count.tries} tries of {category} were kept" if count else "Nothing of the kind was tried"
    )
    text = f"{category}: in {place.part.name} (line {place.line}), {place.idea.text}. {so_far}; {compare(scene)}."
    return Proposal(place.part.name + place.idea.known, category, text)


def _rests_on(scene: Scene, setting: Setting) -> str:
    past = scene.past(setting.knob.name)[:2]
    if not past:
        return f"Never changed so far; {compare(scene)}."
    return f"Before: {', '.join(told(scene, e) for e in past)}."


def compare(scene: Scene) -> str:
    """Which experiment a new one is to be compared with."""
    best = scene.evidence.best
    if best is None or best.value is None:
        return "compare with the baseline"
    which = "baseline" if best == scene.evidence.baseline else "best"
    return f"compare with {best.id} ({which}, {scene.task.metric} {show(best.value)})"


def _outcome(e: Experiment) -> str:
    match e.status:
        case "keep":
            return f"kept, better by {show(e.delta)}" if e.delta else "kept"
        case "discard":
            lost = f" by {show(-e.delta)}" if e.delta else ""
            return f"a near miss, short{lost or ' by nothing'}" if e.near_miss else f"worse{lost}"
        case "crash":
            return "crashed"
    return "under way"


def _made_worse(e: Experiment) -> bool:
    return e.status == "crash" or (e.status == "discard" and not e.near_miss)


def _single_change(scene: Scene, e: Experiment) -> Iterator[tuple[Setting, KnobValue, KnobValue]]:
    """The setting that an experiment changed with both values, if it changed just one."""
    if len(e.changes) == 1:
        ((name, (old, new)),) = e.changes.items()
        setting = scene.outline.setting(name)
        if setting:
            yield setting, old, new


def _only_knobs(e: Experiment) -> bool:
    return bool(e.changes) and (e.source == "knobs" or e.lines_added == len(e.changes) == e.lines_removed)


def _was_ablated(scene: Scene, e: Experiment, back: dict[str, KnobValue]) -> bool:
    for other in scene.evidence.known:
        went_back = back and all(name in other.changes and other.changes[name][1] == old for name, old in back.items())
        named = other.category == "ablation" and re.search(rf"\b{re.escape(e.id)}\b", other.hypothesis)
        if other.number > e.number and (went_back or named):
            return True
    return False


def _only_speed(setting: Setting) -> bool:
    """The batch of one device: it decides speed and memory, not what is learned."""
    return re.search(r"device_batch|micro_?batch", words_of(setting.knob.name)) is not None


def _clip(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
