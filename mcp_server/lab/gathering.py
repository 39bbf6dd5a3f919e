"""Gathering what the strategy looks at."""

from dataclasses import replace

from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.claiming import LIVE, claiming
from mcp_server.lab.pairs import neighbour, waiting_for_base
from mcp_server.research.case import Record, noise_of, replicates, stand, without_weight
from mcp_server.research.evidence import IN_FLIGHT, KEEPS, LESSONS, NEAR_MISSES, RECENT, Evidence
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.lines import Point

PENDING = 20


async def gather(bench: Bench, run: Run, source: str | None) -> Evidence:
    """A bounded extract of a run's history; `source` is the text of the best training script."""
    history = bench.store.history
    best, baseline = await bench.store.experiments.best(run.tag), await history.baseline(run.tag)
    reference = best.value if best and best.value is not None else 0.0
    evidence = Evidence(
        counts=await history.categories(run.tag),
        recent=tuple(await history.finished(run.tag, RECENT)),
        keeps=tuple(await history.latest_keeps(run.tag, KEEPS)),
        near_misses=tuple(await history.near_misses(run.tag, reference, NEAR_MISSES)),
        promising=tuple(await history.promising(run.tag, NEAR_MISSES)),
        in_flight=tuple(await history.open(run.tag, IN_FLIGHT)),
        lessons=tuple(await history.lessons(run.tag, LESSONS)),
        best=best,
        baseline=baseline,
        source=source,
        discards=await history.discards_since_keep(run.tag),
        points=await _points(bench, run, baseline),
    )
    told = await claiming(bench, Branch(bench), run)
    evidence = replace(
        evidence,
        assessment=told.assessment,
        level_seeds=told.seeds,
        levels_busy=told.busy,
        untaken=told.untaken,
        bound_seeds=told.bound,
    )
    return evidence if run.task.policy == "greedy" else await _under_noise(bench, run, evidence)


async def _points(bench: Bench, run: Run, baseline: Experiment | None) -> tuple[Point, ...]:
    """The trials, and before them what an earlier session reported: the baseline is where that one stood at its end."""
    memory = bench.store.memory
    measured = await memory.points(run.tag, run.task.metric, run.device_type)
    if baseline is None or baseline.value is None:
        return tuple(measured)
    start = baseline.value
    reported = await memory.reported(run.tag)
    moved = [each if each.value is None else replace(each, value=each.value + start) for each in reported]
    return (*moved, *measured)


async def _under_noise(bench: Bench, run: Run, evidence: Evidence) -> Evidence:
    """The evidence with what counts where scores are noisy."""
    history, best = bench.store.history, evidence.best
    squares, dof = await history.noise(run.tag)
    evidence = replace(
        evidence,
        noise=noise_of(run, squares, dof),
        pending=tuple(await history.pending(run.tag, PENDING)),
    )
    if best is None:
        return replace(evidence, start_crashes=await history.start_crashes(run.tag))
    trials = tuple(await bench.store.trials.of(best.id))
    again = [trial.status for trial in trials if trial.came_from == "keep"]
    record = Record(best, trials)
    compared = [e.numbers for e in evidence.recent if e.numbers]
    near = await neighbour(bench, run, best, evidence.noise, compared)
    waiting = [e for e in evidence.pending if e.numbers is not None] if near and near.why else []
    beside = {e.id: near.beside(await bench.store.trials.of(e.id)) for e in waiting if near}
    unsettled, settled = await waiting_for_base(bench, run, evidence.pending, best, trials)
    return replace(
        evidence,
        unsettled=unsettled,
        settled=settled,
        side_by_side=near.why if near else "",
        beside=beside,
        beside_new=near.beside(()) if near else evidence.beside_new,
        unseen=bool(near and near.unseen),
        standing=stand(run, record),
        seeds=frozenset(trial.seed for trial in trials),
        best_under_way=any(trial.status in LIVE for trial in trials),
        remeasuring=any(status in ("queued", "training", "failed", "timed_out") for status in again)
        or bool(without_weight(record)),
        remeasured=len(replicates(run, record)) > best.runs,
    )
