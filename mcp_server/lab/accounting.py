"""Gathering what a report tells of a run, in bounded memory however long the run is."""

import time
from dataclasses import replace

from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.gathering import gather
from mcp_server.machine.git import combine
from mcp_server.research.case import error_of
from mcp_server.research.comparison import present_numbers
from mcp_server.research.effort import noise_by_load, starved_text
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.report import FAILURES, IMPROVEMENTS, LESSONS, Account

KEEPS = 50
"""So many keeps, the latest, are looked at for those that the best does not contain."""


async def account_of(bench: Bench, branch: Branch, run: Run, since: float | None = None) -> Account:
    """The account of a run, or of what came after `since` (seconds since the epoch)."""
    store = bench.store
    after = 0 if since is None else await store.periods.last_before(run.tag, since)
    source = None
    if run.task.train_script:
        source = await bench.run(bench.repository.read_file, await branch.tip(run), run.task.train_script)
    evidence = await gather(bench, run, source)
    categories = await store.periods.categories(run.tag, after)
    return Account(
        run=run,
        evidence=evidence,
        counts=await store.periods.counts(run.tag, after),
        now=time.time(),
        categories=categories,
        improvements=await store.periods.gains(run.tag, after, IMPROVEMENTS),
        failures={
            category: await store.periods.failures(run.tag, category, after, FAILURES) for category in categories
        },
        lessons=await store.periods.lessons(run.tag, after, LESSONS),
        displaced=await displaced(bench, branch, run),
        training_seconds=await store.history.training_seconds(run.tag),
        since=since,
        before=await store.periods.best_at(run.tag, after) if since is not None else None,
        error=error_of(run, evidence.best, evidence.noise),
        ended=await ended(bench, run),
        imported=await store.periods.imported(run.tag),
        starved=starved_text(*await store.efforts.starved(run.tag)),
        load=noise_by_load(run, await store.efforts.repeats(run.tag)),
    )


async def ended(bench: Bench, run: Run) -> str:
    """Why a run is over, in a few words; empty while it goes on."""
    task = run.task
    best = await bench.store.experiments.best(run.tag)
    if best and best.value is not None and task.reached(best.value):
        return f"it has reached its target, {task.metric} {task.target:g}"
    if task.max_experiments is None:
        return ""
    count = await bench.store.experiments.count(run.tag)
    if count.total < task.max_experiments or await bench.store.history.open(run.tag, 1):
        return ""
    return f"it has its {task.max_experiments} experiments (max_experiments)"


async def displaced(bench: Bench, branch: Branch, run: Run, fitting: bool = False) -> list[Experiment]:
    """The keeps whose change the present best does not have, the newest first: worth applying again.

    Each has the numbers that all runs of it and of its base give now; one that is no better by these is left out,
    unless it was kept for having fewer lines.

    Args:
        fitting: only those whose change fits the best as it is.
    """
    keeps = await bench.store.history.keeps(run.tag, KEEPS)
    contained = {keep.id for keep in await branch.lineage(run, keeps[-1].decided if keeps else None)}
    others = [keep for keep in keeps if keep.id not in contained and keep.commit_known and not keep.unchanged]
    tip = await branch.tip(run)
    trees = [(keep, await bench.run(_together, bench, tip, keep)) for keep in others]
    present = await bench.run(bench.repository.tree_of, tip) if trees else None
    found = [keep for keep, tree in trees if tree != present and (tree is not None or not fitting)]
    now = [await _as_it_is_now(bench, run, keep) for keep in found]
    return [keep for keep in now if keep.delta is None or keep.delta > 0 or keep.lines_added < keep.lines_removed]


async def _as_it_is_now(bench: Bench, run: Run, keep: Experiment) -> Experiment:
    """A kept experiment with the present numbers in place of those of its verdict's moment."""
    if run.task.external:
        return keep
    numbers = present_numbers(run, await bench.store.verdicts.case(keep.id))
    return keep if numbers is None else replace(keep, delta=numbers.d, numbers=numbers)


async def removable(bench: Bench, branch: Branch, run: Run, evidence: Evidence) -> frozenset[str]:
    """Of the kept changes that do not hold any more, those that can be taken out of the best without a conflict."""
    if evidence.assessment is None or not evidence.assessment.doubtful:
        return frozenset()
    tip = await branch.tip(run)
    keeps = [e for e in evidence.keeps if e.id in evidence.assessment.doubtful and e.commit_known]
    trees = [(e, await bench.run(combine, bench.repository, tip, [(e.commit, e.base_commit)])) for e in keeps]
    present = await bench.run(bench.repository.tree_of, tip) if trees else None
    return frozenset(e.id for e, without in trees if without.tree not in (None, present))


def _together(bench: Bench, tip: str, keep: Experiment) -> str | None:
    """The tree of a commit with the change of a keep; None where that does not fit."""
    return combine(bench.repository, tip, [(keep.base_commit, keep.commit)]).tree
