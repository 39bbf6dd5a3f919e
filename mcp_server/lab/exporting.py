"""Writing a run's history out, a page at a time."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Literal

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.lab.accounting import account_of
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.claiming import claiming
from mcp_server.machine.beneath import open_beneath
from mcp_server.machine.git import exclude
from mcp_server.research.case import noise_of
from mcp_server.research.data_files import EXPORTS, check_data_file, in_exports
from mcp_server.research.experiment import Run
from mcp_server.research.kept import kept_words, told_line
from mcp_server.research.report import to_markdown
from mcp_server.research.tables import Layout, csv_layout, jsonl_layout, latex_layout, tsv_layout

Format = Literal["tsv", "jsonl", "markdown", "csv", "latex"]
LONGEST_TEXT = 60_000
"""Characters of an export that is returned as text; longer ones are cut with a note, and whole in a file."""


def export_target(bench: Bench, path: str) -> str:
    """Where in the repository an export goes: the folder for exports, or where the user wants it who asks on their own
    terminal.

    Raises InvalidInput where that is no place for data, or something is there.
    """
    target = in_exports(path) if bench.confined else check_data_file(path)
    if os.path.lexists(bench.repository.root / target):
        raise InvalidInput(f"{target!r} exists", "Give the name of a new file")
    return target


async def write_export(
    bench: Bench, branch: Branch, run: Run, form: Format, target: str | None
) -> tuple[str | None, int]:
    """Export a run to a new file of the repository, or return its text where `target` is None; also the number of
    experiments.

    Raises:
        InvalidInput: something is there already.
        NotReady: the file cannot be written.
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
    root = bench.repository.root
    if target.startswith(f"{EXPORTS}/") and bench.folders.state.parent != root:
        with suppress(OSError):  # elsewhere the state folder, which git does not see, is around it
            await bench.run(exclude, bench.repository, EXPORTS)
    try:
        opened = open_beneath(root, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            async for part in parts:
                file.write(part)
    except FileExistsError:
        raise InvalidInput(f"{target!r} exists", "Give the name of a new file") from None
    except OSError as error:
        raise NotReady(f"{target!r} cannot be written: {error.strerror}", "Give another path") from None
    return None, count


async def _parts(bench: Bench, branch: Branch, run: Run, form: Format) -> AsyncIterator[str]:
    if form == "markdown":
        yield to_markdown(await account_of(bench, branch, run))
        return
    layout = await _layout(bench, branch, run, form)
    yield layout.head
    async for experiment in bench.store.history.all(run.tag):
        yield layout.row(experiment)
    yield layout.end


async def _layout(bench: Bench, branch: Branch, run: Run, form: Format) -> Layout:
    if form == "jsonl":
        return jsonl_layout()
    assessment = (await claiming(bench, branch, run)).assessment
    if form == "tsv":
        return tsv_layout(run.task, lambda e, task: told_line(e, task, assessment))
    noise = noise_of(run, *await bench.store.history.noise(run.tag))
    sigma = None if run.task.policy == "greedy" else noise.sigma
    if form == "csv":
        return csv_layout(run.task, sigma, lambda e: kept_words(e, assessment))
    best = await bench.store.experiments.best(run.tag)
    return latex_layout(run, sigma, best.id if best else None)
