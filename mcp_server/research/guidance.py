"""What to do next where scores are noisy: first what is owed, then ideas in the order that sampling gives."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from random import Random

from mcp_server.research import proposals
from mcp_server.research.agenda import COMBINE_SHARE, Finding, Pending, due, may_combine, pair_to_combine
from mcp_server.research.claims import RESERVE
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import Experiment, Run, fresh_seed
from mcp_server.research.marking import shown
from mcp_server.research.pairing import Beside
from mcp_server.research.plateau import PLATEAU, on_plateau
from mcp_server.research.proposals import Proposal, Scene
from mcp_server.research.strategy import Rank
from mcp_server.research.task import Category
from mcp_server.research.thompson import ranked
from mcp_server.research.tuning import Search, search
from mcp_server.research.verdict import show

VALUES_OF_FIRST, VALUES_OF_OTHERS = 2, 1
"""How many values of knobs are proposed in the category that comes first, and in each of the others."""
CLOSING_RUNS = 6
"""The most runs of one code that are asked for at the end."""
QUESTIONED = 3
"""So many experiments before the last, kept changes are questioned, whatever the budget."""
LONG_STUCK = 2
"""So many plateaus in a row are an end, where no budget is known."""
WITHOUT_VALUES = 0.3
"""What a category without knobs promises."""


def rank(run: Run, evidence: Evidence) -> tuple[Rank, ...]:
    """The categories in the order in which to try them; equal evidence gives an equal order."""
    return ranked(run, evidence, Random(_lot(evidence)))


def owed(run: Run, evidence: Evidence) -> Iterator[Proposal]:
    """The runs that come before anything new."""
    best = evidence.best
    if best is not None and evidence.remeasured:
        text = f"{best.id} was measured again: call complete({best.id!r}), which takes that into its mean."
        yield Proposal(best.id, best.category, text, "complete", {"experiment_id": best.id})
    for e in comparable(evidence):
        text = (
            f"{e.category}: {e.id} ({_short(e)}) waited for the baseline: call complete({e.id!r}), which compares it."
        )
        yield Proposal(e.id, e.category, text, "complete", {"experiment_id": e.id})
    yield from _beside_waiting(evidence)
    waiting = {e.id: e for e in to_confirm(evidence) if e.id not in evidence.unsettled and e.id not in evidence.settled}
    pending = [Pending(e.id, e.numbers.z if e.numbers else 0.0) for e in waiting.values()]
    standing = None if evidence.remeasured else evidence.standing
    yield from _untaken(evidence)
    for each in due(run.task, standing, evidence.discards, evidence.remeasuring, pending):
        if each.kind == "re-measure":
            assert best is not None
            seed = evidence.next_seed
            text = f"{each.reason}: call train({best.id!r}, seed={seed}), then complete({best.id!r})."
            yield Proposal(best.id, best.category, text, "train", {"experiment_id": best.id, "seed": seed})
        else:
            yield from _confirmed(evidence, waiting[each.name], each.reason)
    yield from _beside_new(evidence)


def _confirmed(evidence: Evidence, e: Experiment, reason: str) -> Iterator[Proposal]:
    """Run a change again; side by side with the best where that is needed."""
    best, beside = evidence.best, evidence.beside.get(e.id, Beside())
    said = reason if e.numbers else "the noise is not known well enough: run it again"
    if best is not None and beside.first is not None:
        yield _best_beside(best, beside.first, f"beside the next run of {e.id} ({evidence.side_by_side})")
    seed = beside.first if beside.seed is None else beside.seed
    chosen = {} if seed is None else {"seed": seed}
    call = f"train({e.id!r}{''.join(f', seed={each}' for each in chosen.values())})"
    where = f", side by side with {best.id}" if best and chosen else ""
    text = f"{e.category}: confirm {e.id} ({_short(e)}): {said}{where}: call {call}, then complete({e.id!r})."
    yield Proposal(e.id, e.category, text, "train", {"experiment_id": e.id, **chosen})


def _beside_waiting(evidence: Evidence) -> Iterator[Proposal]:
    """Judge what has waited for one more run of the best, and run that for what still waits."""
    best = evidence.best
    for e in evidence.pending:
        if e.id in evidence.settled:
            text = (
                f"{e.category}: {e.id} ({_short(e)}) waited for its base: call complete({e.id!r}), which compares it."
            )
            yield Proposal(e.id, e.category, text, "complete", {"experiment_id": e.id})
    if best is not None and evidence.unsettled and not evidence.best_under_way:
        names = ", ".join(evidence.unsettled)
        why = next(iter(evidence.unsettled.values()))
        yield _best_beside(best, evidence.next_seed, f"for {names}, which cannot be judged before: {why}")


def _beside_new(evidence: Evidence) -> Iterator[Proposal]:
    """Run the best where the machine drifts, so that what comes next is measured beside it, or to see if it does."""
    best, first = evidence.best, evidence.beside_new.first
    if best is None or evidence.remeasuring:
        return
    if first is not None:
        yield _best_beside(best, first, f"so that what comes next has a run beside it ({evidence.side_by_side})")
    elif evidence.unseen and on_plateau(evidence.discards):
        yield _best_beside(best, evidence.next_seed, "to see whether the machine drifts")


def _best_beside(best: Experiment, seed: int, why: str) -> Proposal:
    text = f"{best.id} once more, {why}: call train({best.id!r}, seed={seed})."
    return Proposal(f"beside {best.id}", best.category, text, "train", {"experiment_id": best.id, "seed": seed})


def _untaken(evidence: Evidence) -> Iterator[Proposal]:
    """Take in what was measured again of the baseline and of kept changes before the best."""
    best = evidence.best
    for name in evidence.untaken:
        if best is None or name != best.id:
            text = f"{name} was measured again: call complete({name!r}), which takes that into its mean."
            yield Proposal(name, "other", text, "complete", {"experiment_id": name})


def closing(run: Run, evidence: Evidence) -> Iterator[Proposal]:
    """A run at the end of the budget, or where nothing gets better, by which more can be told; at most one.

    It has a seed that the other side of the comparison was run with, where there is one: seed and moment are then
    shared, and what both do to a score cancels.
    """
    assessment = evidence.assessment
    if assessment is None or run.task.policy == "greedy" or not ends(run, evidence):
        return
    name = assessment.next_repeat
    levels = {level.name: level.runs for level in assessment.chain.levels}
    if name is None or name in evidence.levels_busy or levels[name] >= CLOSING_RUNS:
        return
    total = assessment.total
    why = f"so far {total.words()}" if total and not total.claimed else "the nearest to a claim among the kept changes"
    yield _once_more(evidence, name, why)


def _once_more(evidence: Evidence, name: str, why: str) -> Proposal:
    """Run a code of the chain again, with a seed that another one was run with where there is one."""
    own = evidence.level_seeds.get(name, frozenset())
    others = sorted({seed for seeds in evidence.level_seeds.values() for seed in seeds} - own)
    seed = evidence.bound_seeds.get(name, others[0] if others else fresh_seed(own))
    text = f"{name} once more, so that more can be told ({why}): call train({name!r}, seed={seed}), then complete it."
    return Proposal(f"closing {name}", "other", text, "train", {"experiment_id": name, "seed": seed})


def questioned(run: Run, scene: Scene) -> Iterator[Proposal]:
    """A kept change to take out of the best, at the end of the budget or where nothing gets better; at most one.

    The latest kept change is run again in its place: where that does not bear it out, the best is what it was built on.
    """
    evidence, assessment = scene.evidence, scene.evidence.assessment
    if assessment is None or run.task.policy == "greedy" or "ablation" not in run.task.scope:
        return
    left = run.task.max_experiments
    left = None if left is None else left - evidence.finished - len(evidence.in_flight)
    late = ends(run, evidence) or evidence.discards >= LONG_STUCK * PLATEAU or (left is not None and left <= QUESTIONED)
    if not late or (left is not None and left < 1):
        return
    last = assessment.chain.levels[-1]
    if last.name in assessment.doubtful[:1] and last.name not in evidence.levels_busy and last.runs < CLOSING_RUNS:
        yield _once_more(evidence, last.name, f"so far {assessment.steps[last.name].words()}")
        return
    yield from islice((p for p in proposals.taken_out(scene) if p.topic != f"-{last.name}"), 1)


def ends(run: Run, evidence: Evidence) -> bool:
    """Whether what is left of the budget is kept for the end; without a budget, whether the run is long stuck."""
    most = run.task.max_experiments
    if most is None:
        return evidence.discards >= LONG_STUCK * PLATEAU
    return evidence.finished + len(evidence.in_flight) >= (1 - RESERVE) * most


def to_confirm(evidence: Evidence) -> list[Experiment]:
    """Those that are to be run again, the most promising first: before there is a best, only the baseline itself.

    Running a change again is of no use while there is nothing to compare it with, unless it is to be the baseline.
    """
    if evidence.best is None:
        return [e for e in evidence.pending if e.unchanged or evidence.start_crashes][:1]
    known = [e for e in evidence.pending if e.numbers is not None]
    return sorted(known, key=lambda e: -(e.numbers.z if e.numbers else 0.0))


def comparable(evidence: Evidence) -> list[Experiment]:
    """Those that were run before there was a best, and can be judged now."""
    return [] if evidence.best is None else [e for e in evidence.pending if e.numbers is None]


def ideas(run: Run, scene: Scene, ranks: Sequence[Rank]) -> Iterator[Proposal]:
    """New experiments: a combination where the run is stuck, then values and code by category.

    The categories come in the order of their draw, each weighed with what the best value for its knobs promises: a draw
    knows nothing of the knobs, and one that was seen to pay is not left for one that shows nothing.
    """
    evidence = scene.evidence
    stuck = on_plateau(evidence.discards)
    if stuck:
        yield from _combination(run, scene)
    knobs = search(
        evidence.source or "",
        evidence.points,
        run.task.direction,
        _lot(evidence),
        device_kind=run.device_kind,
        command=run.task.command,
        sigma=evidence.noise.sigma or 0.0,
    )
    for place, each in enumerate(sorted(ranks, key=lambda each: -_weight(each, knobs))):
        code = chain(
            proposals.code_in(scene, each.category),
            proposals.simplified(scene) if each.category == "simplification" else (),
            proposals.ablated(scene) if each.category == "ablation" else (),
        )
        yield from _values(scene, knobs, each.category, VALUES_OF_OTHERS if place else VALUES_OF_FIRST)
        yield from [proposal for _, proposal in zip(range(1), code, strict=False)]
        if place == 0 or stuck:
            yield from [proposal for _, proposal in zip(range(1), proposals.rescued(scene), strict=False)]


def _weight(rank: Rank, knobs: Search) -> float:
    """A draw and what the knobs promise, in one number; half of it stays whatever was drawn."""
    promise = knobs.promise(rank.category)
    return (WITHOUT_VALUES if promise is None else promise) * (0.5 + rank.score)


def _values(scene: Scene, knobs: Search, category: Category, count: int) -> Iterator[Proposal]:
    """Values for the knobs of a category, none of which is under way already."""
    under_way = [{name: repr(new) for name, (_, new) in e.changes.items()} for e in scene.evidence.in_flight]
    for each in knobs.tunings(count, (category,)):
        if {name: repr(value) for name, value in each.values.items()} not in under_way:
            text = f"{each.reason} C{proposals.compare(scene)[1:]}."
            yield proposals.knob_proposal(" ".join(each.values), each.category, text, each.values)


def _combination(run: Run, scene: Scene) -> Iterator[Proposal]:
    evidence = scene.evidence
    tries = evidence.counts.get("combination")
    under_way = sum(e.category == "combination" for e in evidence.in_flight)
    combined = under_way + (tries.tries if tries else 0)
    if not may_combine(evidence.discards, evidence.finished + len(evidence.in_flight), combined):
        return
    near = {e.id: e for e in evidence.promising if e.numbers is not None}
    findings = [Finding(e.id, e.category, e.numbers.d, e.numbers.s) for e in near.values() if e.numbers]
    names = list(near)
    tried = {frozenset(found) for e in evidence.known if len(found := _named(e, names)) == 2}
    if pair := pair_to_combine(findings, tried):
        proposal = proposals.together(scene, near[pair[0].name], near[pair[1].name])
        if "combination" in run.task.scope:
            yield proposal


def state(run: Run, evidence: Evidence, ranks: Sequence[Rank]) -> str:
    """How the run stands, in a sentence or two."""
    if evidence.best is None or not ranks:
        return ""
    stuck = f"Plateau: {evidence.discards} discards since the last keep. " if on_plateau(evidence.discards) else ""
    said = f"{stuck}Sampling ranks {ranks[0].category} first ({ranks[0].reason}); what constants promise weighs as well"
    if stuck:
        said += f"; at most {COMBINE_SHARE:.0%} of the proposals combine"
    return f"{said}."


def noise_text(evidence: Evidence, metric: str) -> str:
    """What is known of the noise, and how the best stands in it, as a sentence."""
    noise, best = evidence.noise, evidence.standing
    if noise.sigma is None:
        return f"Nothing is known of the noise of {metric} yet: the baseline is run {noise.baselines} times."
    prior = f"a prior of {show(noise.prior)} and " if noise.prior is not None else ""
    repeats = "1 repeat" if noise.dof == 1 else f"{noise.dof} repeats"
    said = f"One run of {metric} has a standard deviation of {show(noise.sigma)}, from {prior}{repeats}"
    if best is None:
        return f"{said}."
    error = best.error(noise) or 0.0
    flag = "" if best.confirmed else ", unconfirmed and likely optimistic"
    return f"{said}; the best is {show(best.mean)} +- {show(error)} over {best.runs} run(s){flag}."


def claim_text(evidence: Evidence) -> str:
    """What may be told of the best against the baseline, as a sentence; empty where there is nothing to tell."""
    assessment = evidence.assessment
    if assessment is None or assessment.total is None:
        return ""
    claimed = sum(claim.claimed for claim in assessment.steps.values())
    return (
        f"Best against baseline, {assessment.total.words()}; kept changes in it: {len(assessment.steps)}, of which "
        f"{claimed} may be claimed by themselves."
    )


def _named(e: Experiment, names: Sequence[str]) -> set[str]:
    words = set(f"{e.hypothesis} {e.description}".replace(",", " ").replace(".", " ").split())
    return words & set(names)


def _short(e: Experiment) -> str:
    return shown(e.diff_summary, 80)


def _lot(evidence: Evidence) -> int:
    """A number that changes with every experiment, and with nothing else."""
    return 1009 * evidence.finished + len(evidence.in_flight)
