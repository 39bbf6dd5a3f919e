"""The classic strategy: explore, exploit, combine or ablation, computed anew from the history each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from mcp_server.errors import InvalidInput
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.marking import cited
from mcp_server.research.task import CATEGORIES, Category, Task

Mode = Literal["explore", "exploit", "combine", "ablation"]
MODES: tuple[Mode, ...] = get_args(Mode)

LEARNING_THE_GROUND = 5
"""Below so many finished experiments the mode is explore."""
WINDOW = 10
"""The rules look at so many of the last finished experiments."""
TOO_MANY_CRASHES = 0.5
GOOD_KEEP_RATE = 0.3
STUCK_AFTER = 20
"""With more finished experiments than this and no keep in the window, the run is stuck."""
ENOUGH_NEAR_MISSES = 2
ENOUGH_TRIES = 3
"""A category with fewer tries is underexplored; one with as many can be called high-yield."""
TREND_KEEPS = 5
SHOWN_PAIRS = 5

TRIED_IN_TURN = CATEGORIES[:11]
"""The categories that can be underexplored. A combination or ablation needs something found before."""


@dataclass(frozen=True)
class Strategy:
    """How to choose the next experiment.

    Attributes:
        explore_ratio: share of new ground among the proposals, 0 to 1.
        temperature: how bold a change may be, 0 to 1.
        conservative: most of the recent experiments crashed; small and safe steps only.
        manual: set by hand, and held until set to `auto`.
    """

    mode: Mode
    explore_ratio: float
    temperature: float
    reason: str
    conservative: bool = False
    manual: bool = False


@dataclass(frozen=True)
class Rank:
    """A category's place; a higher score comes first.

    Under noise the score is a draw, and proposals are served by the draw times what the category's constants promise.
    """

    category: Category
    tries: int
    keeps: int
    score: float
    reason: str


@dataclass(frozen=True)
class Trend:
    """The last kept values, the oldest first, and what they say in words."""

    values: tuple[float, ...]
    verdict: Literal["improving", "flat or worsening", "too few keeps"]


@dataclass(frozen=True)
class NearMissPair:
    """Two near misses that may be worth more together.

    Attributes:
        loss: what both together lack to the present best, in units of the metric.
        different: whether they come from different categories, so that their effects are likely to add up.
    """

    first: str
    second: str
    categories: tuple[Category, Category]
    loss: float
    different: bool


def choose(run: Run, evidence: Evidence) -> Strategy:
    """The strategy of a run: the one set by hand while there is one, else the classic one."""
    if run.manual_mode is None:
        window = [experiment.status for experiment in evidence.recent[:WINDOW]]
        return classic(evidence.finished, window, len(evidence.near_misses))
    mode = check_mode(run.manual_mode)
    temperature = {"explore": 0.8, "exploit": 0.5, "combine": 0.5, "ablation": 0.3}[mode]
    reason = cited(run.manual_reason, whose="who set it said") if run.manual_reason else "set by hand"
    ratio = _explore_ratio(mode) if run.manual_ratio is None else run.manual_ratio
    if run.manual_temperature is not None:
        temperature = run.manual_temperature
    return Strategy(mode, ratio, temperature, f"{reason} (held until set to auto)", manual=True)


def classic(finished: int, window: Sequence[Status], near_misses: int) -> Strategy:
    """The classic rules, the first that applies.

    Args:
        finished: how many experiments are finished.
        window: the statuses of the last `WINDOW` of them in order of start.
        near_misses: how many near misses there are (2 and more are alike).
    """
    if finished == 0:
        return Strategy("explore", 0.7, 1.0, "Nothing is finished yet: measure the baseline, then look around")
    if finished < LEARNING_THE_GROUND:
        return _strategy("explore", 1.0, f"Only {finished} finished: learn the ground first")
    crashes, keeps, last = window.count("crash"), window.count("keep"), len(window)
    if crashes / last > TOO_MANY_CRASHES:
        reason = f"{crashes} of the last {last} crashed: conservative, small steps from what works"
        return Strategy("exploit", _explore_ratio("exploit"), 0.3, reason, conservative=True)
    if keeps == 0 and finished > STUCK_AFTER:
        stuck = f"No keep among the last {last}"
        if near_misses >= ENOUGH_NEAR_MISSES:
            return _strategy("combine", 0.5, f"{stuck}, but {near_misses} near misses: put two together")
        return _strategy("ablation", 0.3, f"{stuck} and nothing to combine: find out which kept changes still pay")
    if keeps / last > GOOD_KEEP_RATE:
        return _strategy("exploit", 0.5, f"{keeps} of the last {last} were kept: go on in that direction")
    return _strategy("explore", 0.8, f"{keeps} of the last {last} were kept: try something else")


def check_mode(mode: str) -> Mode:
    """Return `mode` if it is a mode of the strategy; else raise InvalidInput."""
    for known in MODES:
        if mode == known:
            return known
    raise InvalidInput(f"{mode!r} is not a mode", f"Use {', '.join(MODES)}, or auto to let the history decide")


def category_stats(task: Task, evidence: Evidence) -> dict[Category, Count]:
    """Tries and keeps of every category that the task allows or that was tried, in the order of `CATEGORIES`."""
    return {c: evidence.changing.get(c, Count()) for c in CATEGORIES if c in task.scope or c in evidence.changing}


def underexplored(task: Task, evidence: Evidence) -> tuple[Category, ...]:
    """Allowed categories of the first eleven with fewer than three tries, in their order."""
    return tuple(c for c in untried(category_stats(task, evidence)) if c in task.scope)


def high_yield(evidence: Evidence) -> tuple[Category, ...]:
    """Categories with at least three tries of which more than 30 % were kept, in the order of `CATEGORIES`."""
    return high_yielding(evidence.changing)


def untried(counts: Mapping[Category, Count]) -> tuple[Category, ...]:
    """Of the first eleven categories, those with fewer than three tries."""
    return tuple(c for c in TRIED_IN_TURN if counts.get(c, Count()).tries < ENOUGH_TRIES)


def high_yielding(counts: Mapping[Category, Count]) -> tuple[Category, ...]:
    """Categories with at least three tries of which more than 30 % were kept, in the order of `CATEGORIES`."""
    found = [(c, counts.get(c, Count())) for c in CATEGORIES]
    return tuple(c for c, n in found if n.tries >= ENOUGH_TRIES and n.keeps / n.tries > GOOD_KEEP_RATE)


def trend(task: Task, evidence: Evidence) -> Trend:
    """Whether the last five kept values, in order of start, still improve: the last must be better than the first."""
    values = [e.value for e in evidence.keeps[:TREND_KEEPS] if e.value is not None][::-1]
    if len(values) < 3:
        return Trend(tuple(values), "too few keeps")
    better = task.improvement(values[-1], values[0]) > 0
    return Trend(tuple(values), "improving" if better else "flat or worsening")


def near_miss_pairs(task: Task, evidence: Evidence) -> tuple[NearMissPair, ...]:
    """Pairs worth combining: different categories first, then by how little both lack to the best.

    Left out are pairs that set one knob to two values, and pairs that were already tried together.
    """
    usable = [e for e in evidence.near_misses if e.value is not None]
    tried = [(e.id, _words(e), _new_values(e)) for e in evidence.known]
    pairs = [
        _pair(task, a, b, evidence.best)
        for a, b in combinations(usable, 2)
        if not a.changes.keys() & b.changes.keys() and not _combined(a, b, tried)
    ]
    return tuple(sorted(pairs, key=lambda pair: (not pair.different, pair.loss))[:SHOWN_PAIRS])


def ranking(task: Task, evidence: Evidence, mode: Mode) -> tuple[Rank, ...]:
    """Every allowed category in the order in which this mode would try them."""
    near = [e.category for e in evidence.near_misses]
    kept = [e.category for e in evidence.keeps if e != evidence.baseline]
    ranks = []
    for c in task.scope:
        n = evidence.changing.get(c, Count())
        score, reason = {
            "explore": (1 / (1 + n.tries) - (c not in TRIED_IN_TURN), f"tried {n.tries} times"),
            "exploit": ((n.keeps + 1) / (n.tries + 3), f"{n.keeps} of {n.tries} kept"),
            "combine": (near.count(c), f"{near.count(c)} near misses"),
            "ablation": (kept.count(c), f"{kept.count(c)} kept changes to question"),
        }[mode]
        ranks.append(Rank(c, n.tries, n.keeps, round(score, 4), reason))
    return tuple(sorted(ranks, key=lambda rank: (-rank.score, CATEGORIES.index(rank.category))))


def _strategy(mode: Mode, temperature: float, reason: str) -> Strategy:
    return Strategy(mode, _explore_ratio(mode), temperature, reason)


def _explore_ratio(mode: Mode) -> float:
    return 0.8 if mode == "explore" else 0.3


def _pair(task: Task, a: Experiment, b: Experiment, best: Experiment | None) -> NearMissPair:
    reference = best.value if best and best.value is not None else 0.0
    loss = sum(task.improvement(reference, e.value) for e in (a, b) if e.value is not None)
    return NearMissPair(a.id, b.id, (a.category, b.category), loss, a.category != b.category)


def _combined(a: Experiment, b: Experiment, tried: Sequence[tuple[str, set[str], dict[str, object]]]) -> bool:
    """Whether some experiment has both: it made both knob changes, or its words name both."""
    names, values = {a.id, b.id}, {**_new_values(a), **_new_values(b)}
    changed = bool(a.changes and b.changes)
    return any(
        names <= words or (changed and values.items() <= made.items())
        for each, words, made in tried
        if each not in names
    )


def _words(e: Experiment) -> set[str]:
    return set(f"{e.hypothesis} {e.description}".replace(",", " ").replace(".", " ").split())


def _new_values(e: Experiment) -> dict[str, object]:
    return {name: new for name, (_, new) in e.changes.items()}
