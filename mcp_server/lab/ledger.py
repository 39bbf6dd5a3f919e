"""The results file in the user's repository: a line for every verdict, in their order.

The lines of what is kept follow what may be told of it by now.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mcp_server.errors import NotReady, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.machine.beneath import open_beneath, replace_beneath
from mcp_server.machine.git import Hold, exclude
from mcp_server.research.claims import Assessment
from mcp_server.research.experiment import FINISHED, Experiment, Run
from mcp_server.research.kept import restated, same_line, told_line
from mcp_server.research.tables import to_tsv
from mcp_server.research.task import Task

BATCH = 500
LOCK_SECONDS = 10.0
RESTATED = 200
"""So many kept changes, the latest, have lines that say what may be told of them by now."""


def header(task: Task) -> str:
    """The first line of the results file of a task, with its end."""
    return "".join(to_tsv([], task))


def usable(path: Path, task: Task) -> str:
    """Why a file cannot be the results file of a task; empty if it can."""
    if path.is_symlink():
        return "is a symbolic link"
    if path.is_dir():
        return "is a folder"
    if any(parent.exists() and not parent.is_dir() for parent in path.parents):
        return "leads through a file"
    if path.exists() and path.stat().st_size:
        with path.open(encoding="utf-8", errors="replace") as file:
            if file.readline() != header(task):
                return f"exists and does not begin with the columns {header(task).split()}"
    return ""


async def list_results(bench: Bench, run: Run, assessment: Assessment | None = None) -> list[str]:
    """Append every verdict that the results file lacks; returns what stood in the way, for the user to read.

    Args:
        assessment: what may be told of the run, where that is known.
    """
    if not await _missing(bench, run):
        return []
    try:
        async with _alone(bench, bench.folders.state / "results.lock"):
            while batch := await _missing(bench, run):
                await _add(bench, run, batch, assessment)
    except (OSError, NotReady, WrongState) as error:
        return [_stood_in_the_way(run, error)]
    return []


async def restate_results(bench: Bench, run: Run, assessment: Assessment | None) -> list[str]:
    """Bring the lines of what is kept up to date with what may be told of it; returns what stood in the way."""
    keeps = await bench.store.history.keeps(run.tag, RESTATED)
    kept = [told_line(keep, run.task, assessment) for keep in keeps if not keep.imported]
    try:
        async with _alone(bench, bench.folders.state / "results.lock"):
            await bench.run(_restate, bench.repository.root, run.task, kept)
    except (OSError, NotReady, WrongState) as error:
        return [_stood_in_the_way(run, error)]
    return []


def _stood_in_the_way(run: Run, error: Exception) -> str:
    return f"{run.task.results_file} could not be written ({error}); `autoresearch export` gives its content."


async def _missing(bench: Bench, run: Run) -> Sequence[Experiment]:
    return await bench.store.history.decided_after(run.tag, await bench.store.runs.listed(run.tag), BATCH)


async def _add(bench: Bench, run: Run, batch: Sequence[Experiment], assessment: Assessment | None) -> None:
    """Append some verdicts and remember that; the lock must be held, for another server may have the same ones."""
    last = batch[-1].decided
    assert last is not None
    lines = [f"{told_line(each, run.task, assessment)}\n" for each in batch if each.status in FINISHED]
    await bench.run(_append, bench.repository.root, run.task, lines)
    with suppress(OSError):  # it is the user's to be tidy where git's own folder cannot be written
        await bench.run(exclude, bench.repository, run.task.results_file)
    await bench.store.runs.set_listed(run.tag, last)


@asynccontextmanager
async def _alone(bench: Bench, lock: Path) -> AsyncIterator[None]:
    """Hold a lock that servers share. No thread waits for it: threads are few, and its holder needs one."""
    async with bench.listing:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                hold = Hold(lock)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotReady(f"{lock} is held by another server", "Repeat the call") from None
            await asyncio.sleep(0.02)
        with hold:
            yield


def _append(root: Path, task: Task, lines: Sequence[str]) -> None:
    """Append lines, except those that a server killed at this very place has written already."""
    if reason := usable(root / task.results_file, task):
        raise NotReady(f"it {reason}", "Move it away")
    opened = open_beneath(root, task.results_file, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with os.fdopen(opened, "r+b", buffering=0) as file:
        present = file.read().decode("utf-8").splitlines(keepends=True)
        known = next(count for count in range(len(lines), -1, -1) if _ends_with(present, lines[:count]))
        text = ("" if present else header(task)) + "".join(lines[known:])
        end = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(text.encode())
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:  # the disk is full: no half of a line stays
            file.truncate(end)
            raise


def _ends_with(present: Sequence[str], lines: Sequence[str]) -> bool:
    last = present[max(0, len(present) - len(lines)) :]
    return len(last) == len(lines) and all(same_line(one, other) for one, other in zip(last, lines, strict=True))


def _restate(root: Path, task: Task, kept: Sequence[str]) -> None:
    """Write the file anew where a line of something kept is not as it is to be; nothing where there is no such file."""
    path = root / task.results_file
    if not path.exists() or usable(path, task):
        return
    with os.fdopen(open_beneath(root, task.results_file, os.O_RDONLY), "rb") as file:
        text = file.read()
    try:
        present = text.decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return
    anew = restated(present, kept)
    if anew != present:
        replace_beneath(root, task.results_file, "".join(anew))
