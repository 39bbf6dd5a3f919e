"""What to try next: the strategy, the categories, and a few concrete proposals about this very script."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest

from mcp_server.errors import InvalidInput
from mcp_server.research import proposals
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import Run, Status
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

AT_LEAST, AT_MOST = 3, 5
"""How many proposals are made: at most five in the spirit of the mode; below three, others are added."""


@dataclass(frozen=True)
class Lesson:
    """What an agent learned from an experiment, in its own words."""

    experiment_id: str
    status: Status
    lesson: str


@dataclass(frozen=True)
class Suggestion:
    """The answer to "what now?".

    Attributes:
        strategy: the mode; `reason`, `explore_ratio` and `temperature` say why and how boldly.
        ranking: every allowed category, in the order in which the mode would try them.
        suggestions: three to five proposals (or why there are fewer), each a sentence or two.
        pending_confirmations: ids to be run again before anything new; none under the greedy policy.
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


def suggest(run: Run, evidence: Evidence) -> Suggestion:
    """Say what to try next in a run. Equal evidence gives equal suggestions."""
    task, strategy = run.task, choose(run, evidence)
    return Suggestion(
        strategy=strategy.mode,
        reason=strategy.reason,
        explore_ratio=strategy.explore_ratio,
        temperature=strategy.temperature,
        ranking=ranking(task, evidence, strategy.mode),
        category_stats=category_stats(task, evidence),
        underexplored_categories=underexplored(task, evidence),
        high_yield_categories=high_yield(evidence),
        near_miss_pairs=near_miss_pairs(task, evidence),
        trend=trend(task, evidence),
        suggestions=tuple(_texts(run, evidence, strategy)),
        pending_confirmations=(),
        lessons=tuple(Lesson(e.id, e.status, e.lesson) for e in evidence.lessons),
    )


def _texts(run: Run, evidence: Evidence, strategy: Strategy) -> Iterator[str]:
    """The proposals as text: first what stands in the way, then those of the mode, then others to make up three."""
    if evidence.best is None:
        failed = f" ({evidence.finished} finished without a score)" if evidence.finished else ""
        yield f"baseline: measure the script as it is first: register with no change, then train and complete.{failed}"
    scene = Scene(run.task, evidence)
    try:
        scene = Scene(run.task, evidence, effective(outline(evidence.source or ""), run.device_kind))
    except InvalidInput as problem:
        yield f"other: {problem}"
    allowed = set(run.task.scope)
    fitting = _distinct(p for p in _of_mode(scene, strategy) if p.category in allowed)
    others = _distinct(p for p in chain(_exploring(scene), _exploiting(scene)) if p.category in allowed)
    chosen = list(fitting)[:AT_MOST]
    seen = {proposal.topic for proposal in chosen}
    chosen += [p for p in others if p.topic not in seen][: max(0, AT_LEAST - len(chosen))]
    yield from (proposal.text for proposal in chosen) if chosen else _in_general(scene)


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
