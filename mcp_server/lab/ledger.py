"""The results file in the user's repository: a line for every verdict, in their order."""

from collections.abc import Sequence
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.lab.bench import Bench
from mcp_server.machine.git import locked
from mcp_server.research.experiment import Run
from mcp_server.research.tables import to_tsv
from mcp_server.research.task import Task

BATCH = 500
LOCK_SECONDS = 10.0


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


async def list_results(bench: Bench, run: Run) -> list[str]:
    """Append every verdict that the results file lacks; returns what stood in the way, for the user to read."""
    path = bench.repository.root / run.task.results_file
    history, runs = bench.store.history, bench.store.runs
    while batch := await history.decided_after(run.tag, await runs.listed(run.tag), BATCH):
        lines = list(to_tsv(batch, run.task))[1:]
        try:
            await bench.run(_append, path, bench.folders.state / "results.lock", run.task, lines)
        except (OSError, NotReady) as error:
            return [f"{run.task.results_file} could not be written ({error}); `autoresearch export` gives its content."]
        last = batch[-1].decided
        assert last is not None
        await runs.set_listed(run.tag, last)
    return []


def _append(path: Path, lock: Path, task: Task, lines: Sequence[str]) -> None:
    """Append lines, except those that a server killed at this very place has written already."""
    if reason := usable(path, task):
        raise NotReady(f"it {reason}", "Move it away")
    with locked(lock, LOCK_SECONDS):
        path.parent.mkdir(parents=True, exist_ok=True)
        present = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        known = next(count for count in range(len(lines), -1, -1) if present[len(present) - count :] == lines[:count])
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if present else header(task)) + "".join(lines[known:]))
