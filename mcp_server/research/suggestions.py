"""What to try next: the strategy, the categories, and a few concrete proposals about this very script."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.research import guidance, proposals
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import Run, Status
from mcp_server.research.marking import cited
from mcp_server.research.proposals import Proposal, Scene
from mcp_server.research.script import effective, outline
from mcp_server.research.strategy import (
    Mode,
    NearMissPair,
    Rank,
    Strategy,
    Trend,
    category_stats,
    choose,
    high_yield,
    near_miss_pairs,
    ranking,
    trend,
    underexplored,
)
from mcp_server.research.task import Category
from mcp_server.research.variations import planned

AT_LEAST, AT_MOST = 3, 5
"""How many proposals are made: at most five in the spirit of the mode; below three, others are added."""
LESSONS_SHOWN = 10
HYPOTHESIS = 300
"""Characters of a suggestion that become the hypothesis of its call."""
_ASIDE = re.compile(r"\.? Compare with|\. Never changed|\. Before: |: register with|; the estimator")
"""Where a suggestion goes on with what is not part of the idea."""


@dataclass(frozen=True)
class Lesson:
    """What an agent learned from an experiment, in its own words."""

    experiment_id: str
    status: Status
    lesson: str


@dataclass(frozen=True)
class Call:
    """A suggestion as the call of a tool that carries it out."""

    tool: str
    arguments: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class Suggestion:
    """The answer to "what now?".

    Attributes:
        strategy: the mode; `reason`, `explore_ratio` and `temperature` say why and how boldly.
        ranking: every allowed category, in the order in which the mode would try them.
        suggestions: three to five proposals (or why there are fewer), each a sentence or two.
        pending_confirmations: ids to be run again before anything new, the most promising first; none under the greedy
            policy.
        calls: those of the suggestions that a call carries out.
    """

    strategy: Mode
    reason: str
    explore_ratio: float
    temperature: float
    ranking: tuple[Rank, ...]
    category_stats: Mapping[Category, Count]
    underexplored_categories: tuple[Category, ...]
    high_yield_categories: tuple[Category, ...]
    near_miss_pairs: tuple[NearMissPair, ...]
    trend: Trend
    suggestions: tuple[str, ...]
    pending_confirmations: tuple[str, ...]
    lessons: tuple[Lesson, ...]
    calls: tuple[Call, ...]


def suggest(run: Run, evidence: Evidence) -> Suggestion:
    """Say what to try next in a run. Equal evidence gives equal suggestions."""
    task, strategy = run.task, choose(run, evidence)
    ranks = guidance.rank(run, evidence)
    chosen, remarks = _chosen(run, evidence, strategy, ranks)
    state = "" if task.policy == "greedy" else guidance.state(run, evidence, ranks)
    first = ranks[0].category if ranks else None
    lessons = sorted(evidence.lessons, key=lambda e: (e.category != first, -e.number))[:LESSONS_SHOWN]
    return Suggestion(
        strategy=strategy.mode,
        reason=f"{strategy.reason}. {state}" if state else strategy.reason,
        explore_ratio=strategy.explore_ratio,
        temperature=strategy.temperature,
        ranking=ranks,
        category_stats=category_stats(task, evidence),
        underexplored_categories=underexplored(task, evidence),
        high_yield_categories=high_yield(evidence),
        near_miss_pairs=near_miss_pairs(task, evidence),
        trend=trend(task, evidence),
        suggestions=(*remarks, *(proposal.text for proposal in chosen)),
        pending_confirmations=tuple(e.id for e in guidance.to_confirm(evidence)),
        lessons=tuple(Lesson(e.id, e.status, e.lesson) for e in lessons),
        calls=tuple(_call(run, proposal) for proposal in chosen if proposal.tool),
    )


def _call(run: Run, proposal: Proposal) -> Call:
    arguments = dict(proposal.arguments)
    if proposal.tool == "register":
        told = proposal.text.removeprefix(f"{proposal.category}: ")
        change, colon, _ = told.partition(": ")
        told = change if colon and " -> " in change else told
        hypothesis = _ASIDE.split(told, maxsplit=1)[0].rstrip(".")[:HYPOTHESIS]
        arguments = {"tag": run.tag, "category": proposal.category, "hypothesis": hypothesis} | arguments
    return Call(proposal.tool, arguments, proposal.text)


def _chosen(
    run: Run, evidence: Evidence, strategy: Strategy, ranks: Sequence[Rank]
) -> tuple[list[Proposal], list[str]]:
    """The proposals to show, and remarks: first what stands in the way, then the new ideas, at least three in all."""
    remarks: list[str] = []
    chosen: list[Proposal] = []
    if evidence.best is None:
        chosen += _baseline(run, evidence)
    if run.task.policy != "greedy":
        chosen += guidance.owed(run, evidence)
    scene = Scene(run.task, evidence)
    try:
        scene = Scene(run.task, evidence, effective(outline(evidence.source or ""), run.device_kind, run.task.command))
    except InvalidInput as problem:
        remarks.append(f"other: {problem}")
    last = [*guidance.questioned(run, scene), *guidance.closing(run, evidence)]
    chosen += list(_distinct(p for p in last if _leaves(p, run)))
    plan = list(islice(planned(scene), max(1, AT_MOST - len(chosen)))) if run.task.vary else []
    if plan:
        return [*chosen, *plan], remarks
    allowed = set(run.task.scope)
    sampling = run.task.policy != "greedy" and run.manual_mode is None and not strategy.conservative
    found = guidance.ideas(run, scene, ranks) if sampling else _of_mode(scene, strategy)
    fitting = _distinct(p for p in found if p.category in allowed and _leaves(p, run))
    chosen += (p for p in islice(proposals.reapplied(scene), 1) if _leaves(p, run))
    new = list(islice(fitting, max(1, AT_MOST - len(chosen))))
    more = chain(_exploring(scene), _exploiting(scene))
    others = _distinct(p for p in more if p.category in allowed and _leaves(p, run))
    seen = {proposal.topic for proposal in new}
    new += islice((p for p in others if p.topic not in seen), max(0, AT_LEAST - len(chosen) - len(new)))
    if not new:
        remarks += _in_general(scene)
    return [*chosen, *new], remarks


def _leaves(proposal: Proposal, run: Run) -> bool:
    """Whether a proposal leaves alone what the plan holds fixed."""
    return not any(name in proposal.arguments.get("knobs", {}) for name, _ in run.task.hold)


def _baseline(run: Run, evidence: Evidence) -> Iterator[Proposal]:
    """Measure what the run started from, whatever was edited in the workspace meanwhile; nothing while that goes on.

    There is no call where it crashed before, or came to nothing twice: it would again.
    """
    if evidence.start_crashes and any(e.status == "needs_confirmation" for e in evidence.pending):
        return  # what stands in for it is to be run again, and nothing comes before that
    if begun := evidence.begun:
        tool = {"registered": "train", "trained": "complete"}.get(begun.status)
        if tool:
            text = f"baseline: {begun.id} is {begun.status}: call {tool}({begun.id!r})."
            yield Proposal("baseline", "other", text, tool, {"experiment_id": begun.id})
        return
    failed = f" ({evidence.finished} finished without a score)" if evidence.finished else ""
    text = f"baseline: measure the script as it is first: register with no change, then train and complete.{failed}"
    if evidence.start_crashes:
        text = (
            f"baseline: the script as it is crashes{_why(evidence)}. Mend that: what trains well first is the baseline."
        )
        yield Proposal("baseline", "other", text)
        return
    before = [e.status for e in evidence.recent if e.unchanged and not e.imported]
    if "crash" in before or len(before) > 1:
        yield Proposal("baseline", "other", text)
    else:
        yield Proposal("baseline", "other", text, "register", {"commit_sha": run.base_commit})


def _why(evidence: Evidence) -> str:
    """What the last crash of the unchanged script came from, in brackets."""
    reason = next((e.reason for e in evidence.recent if e.unchanged and e.reason), "")
    return f" ({cited(reason.rstrip('.'), 300, 'the record says')})" if reason else ""


def _of_mode(scene: Scene, strategy: Strategy) -> Iterator[Proposal]:
    if strategy.conservative:
        return proposals.careful(scene)
    match strategy.mode:
        case "explore":
            return _exploring(scene)
        case "exploit":
            return _exploiting(scene)
        case "combine":
            return chain(proposals.combined(scene), proposals.halved(scene))
        case "ablation":
            return chain(proposals.ablated(scene), proposals.simplified(scene))


def _exploring(scene: Scene) -> Iterator[Proposal]:
    """One proposal of each category in turn, the least tried first, now a setting and now a change to the code."""
    queues: list[list[Proposal]] = []
    for rank in ranking(scene.task, scene.evidence, "explore"):
        settings, code = proposals.settings_in(scene, rank.category), proposals.code_in(scene, rank.category)
        kinds = (settings, code) if len(queues) % 2 == 0 else (code, settings)
        queue = [p for both in zip_longest(*kinds) for p in both if p]
        if rank.category == "simplification":
            queue = list(proposals.simplified(scene))
        if queue:
            queues.append(queue)
    for turn in zip_longest(*queues):
        yield from (proposal for proposal in turn if proposal)


def _exploiting(scene: Scene) -> Iterator[Proposal]:
    """Further the way of the last keeps, half the steps of near misses, then the categories that paid."""
    yield from proposals.continued(scene)
    yield from proposals.halved(scene)
    for rank in ranking(scene.task, scene.evidence, "exploit"):
        yield from proposals.settings_in(scene, rank.category)
        yield from proposals.code_in(scene, rank.category)


def _in_general(scene: Scene) -> Iterator[str]:
    """For a script in which nothing (more) is recognised: the categories to look into."""
    for rank in ranking(scene.task, scene.evidence, "explore")[:AT_LEAST]:
        yield (
            f"{rank.category}: {rank.tries} tried, {rank.keeps} kept. No further constant, class or function of "
            f"{scene.task.train_script} was recognised for it: read the script and change one thing of the kind; "
            f"{proposals.compare(scene)}."
        )


def _distinct(found: Iterable[Proposal]) -> Iterator[Proposal]:
    seen = set()
    for proposal in found:
        if proposal.topic not in seen:
            seen.add(proposal.topic)
            yield proposal
