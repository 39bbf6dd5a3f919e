"""Writing a run's history out, a page at a time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from mcp_server.errors import NotReady
from mcp_server.lab.accounting import account_of
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.research.case import noise_of
from mcp_server.research.experiment import Run
from mcp_server.research.report import to_markdown
from mcp_server.research.tables import Layout, csv_layout, jsonl_layout, latex_layout, tsv_layout

Format = Literal["tsv", "jsonl", "markdown", "csv", "latex"]
LONGEST_TEXT = 60_000
"""Characters of an export that is returned as text; longer ones are cut with a note, and whole in a file."""


async def write_export(
    bench: Bench, branch: Branch, run: Run, form: Format, target: Path | None
) -> tuple[str | None, int]:
    """Export a run to a new file, or return its text where `target` is None; also the number of experiments.

    Raises NotReady if the file cannot be written.
    """
    count = await bench.store.history.total(run.tag)
    parts = _parts(bench, branch, run, form)
    if target is None:
        text = ""
        async for part in parts:
            text += part
            if len(text) > LONGEST_TEXT:
                return text[:LONGEST_TEXT] + "\n[cut here: give a path to write all of it]\n", count
        return text, count
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            async for part in parts:
                file.write(part)
    except OSError as error:
        raise NotReady(f"{target} cannot be written: {error.strerror}", "Give another path") from None
    return None, count


async def _parts(bench: Bench, branch: Branch, run: Run, form: Format) -> AsyncIterator[str]:
    if form == "markdown":
        yield to_markdown(await account_of(bench, branch, run))
        return
    layout = await _layout(bench, run, form)
    yield layout.head
    async for experiment in bench.store.history.all(run.tag):
        yield layout.row(experiment)
    yield layout.end


async def _layout(bench: Bench, run: Run, form: Format) -> Layout:
    if form == "tsv":
        return tsv_layout(run.task)
    if form == "jsonl":
        return jsonl_layout()
    noise = noise_of(run, *await bench.store.history.noise(run.tag))
    sigma = None if run.task.policy == "greedy" else noise.sigma
    if form == "csv":
        return csv_layout(run.task, sigma)
    best = await bench.store.experiments.best(run.tag)
    return latex_layout(run, sigma, best.id if best else None)
