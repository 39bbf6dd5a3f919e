"""Writing a run's history out, a page at a time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from mcp_server.errors import NotReady
from mcp_server.machine.store.history import History
from mcp_server.research.experiment import FINISHED, Run
from mcp_server.research.report import results_line, to_jsonl, to_markdown, to_tsv

Format = Literal["tsv", "jsonl", "markdown"]
LONGEST_TEXT = 60_000
"""Characters of an export that is returned as text; longer ones are cut with a note, and whole in a file."""


async def write_export(history: History, run: Run, form: Format, target: Path | None) -> tuple[str | None, int]:
    """Export a run to a new file, or return its text where `target` is None; also the number of experiments.

    Raises NotReady if the file cannot be written.
    """
    count = await history.total(run.tag)
    parts = _parts(history, run, form)
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


async def _parts(history: History, run: Run, form: Format) -> AsyncIterator[str]:
    if form == "markdown":
        yield to_markdown(run, [experiment async for experiment in history.all(run.tag)])
        return
    if form == "tsv":
        yield "".join(to_tsv([], run.task))
    async for experiment in history.all(run.tag):
        if form == "jsonl":
            yield "".join(to_jsonl([experiment]))
        elif experiment.status in FINISHED:
            yield results_line(experiment, run.task) + "\n"
