"""Gathering what the strategy looks at."""

from mcp_server.lab.bench import Bench
from mcp_server.research.evidence import IN_FLIGHT, KEEPS, LESSONS, NEAR_MISSES, RECENT, Evidence
from mcp_server.research.experiment import Run


async def gather(bench: Bench, run: Run, source: str | None) -> Evidence:
    """A bounded extract of a run's history; `source` is the text of the best training script."""
    history = bench.store.history
    best = await bench.store.experiments.best(run.tag)
    reference = best.value if best and best.value is not None else 0.0
    return Evidence(
        counts=await history.categories(run.tag),
        recent=tuple(await history.finished(run.tag, RECENT)),
        keeps=tuple(await history.keeps(run.tag, KEEPS)),
        near_misses=tuple(await history.near_misses(run.tag, reference, NEAR_MISSES)),
        in_flight=tuple(await history.open(run.tag, IN_FLIGHT)),
        lessons=tuple(await history.lessons(run.tag, LESSONS)),
        best=best,
        baseline=await history.baseline(run.tag),
        source=source,
    )
