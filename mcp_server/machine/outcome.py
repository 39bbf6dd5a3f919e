"""What a training's exit and its log mean, in words that say what to do.

An error is a sentence of ours: what it has from the log stands in it as a quotation.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine import demanding
from mcp_server.machine.child import Exit
from mcp_server.machine.measuring import Measured, read_metrics
from mcp_server.research.experiment import Ending, Scalar, TrialStatus
from mcp_server.research.metrics import clean, left_out, parse_progress, quoted
from mcp_server.research.patterns import LONGEST_LINE, is_linear
from mcp_server.research.task import Task
from mcp_server.research.verdict import finite

LONGEST_ERROR = 2500
SHOWN = 5
"""Paths that an error names."""
LONGEST_QUOTE, LONGEST_PROGRESS = 1000, 200
LOOKED_AT = 64 * 1024
"""Characters at the end of a log in which the reason of a failure is looked for."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|can't allocate memory|cannot allocate memory|^MemoryError|std::bad_alloc",
    re.I | re.M,
)
NO_MEMORY = "Out of memory"
"""What the error of a training begins with that failed for want of it."""
_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True)
class Changed:
    """What a training changed that it had to leave alone: inputs, fixed files of its checkout, installed packages."""

    inputs: Sequence[str] = ()
    fixed: Sequence[str] = ()
    packages: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether it changed any of these."""
        return bool(self.inputs or self.fixed or self.packages)

    def fault(self) -> str:
        """Why that makes the trial worth nothing; empty where nothing was changed."""
        told = {"the inputs": self.inputs, "the read-only files": self.fixed, "the installed packages": self.packages}
        for what, names in told.items():
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                todo = "Write only new files, and below AUTORESEARCH_OUT."
                return f"Invalid: {what} {', '.join(names[:SHOWN])}{more} changed while it trained. {todo}"
        return ""


def ending(
    task: Task,
    end: Exit,
    text: str,
    ended_at: float,
    checkout: Path,
    changed: Changed,
    hint: str | None,
    measured: Measured | None = None,
) -> Ending:
    """The ending of a trial.

    Args:
        text: all that is kept of its log.
        ended_at: seconds since the epoch.
        checkout: the folder that it ran in.
        changed: what it changed although it had to leave it alone.
        hint: what to do about a file that it missed, see `git.missing_hint`.
        measured: what checks and scorer said, where they were run.
    """
    metrics, unread = read_metrics(task, text), left_out(text)
    if task.score_command:
        metrics = {**metrics, **(measured.metrics if measured else {})}
        unread = measured.left_out if measured else 0
        if measured is None or task.metric not in measured.metrics:
            metrics.pop(task.metric, None)  # the training's own word on its score
    if measured and measured.by != "itself":
        end = Exit(measured.by, None, end.seconds)
    for folder in (checkout, checkout.resolve()):
        text = text.replace(f"{folder}/", "")
    status, error = _status(task, end, text, metrics, unread, changed, hint)
    starved = status == "failed" and error.startswith(NO_MEMORY)
    if measured and not changed and ended_well(task, end) and (measured.rejection or measured.failure):
        metrics.pop(task.metric, None)
        status, error = ("finished", measured.rejection) if measured.rejection else ("failed", measured.failure)
    error = clean(error, len(error) + 1).strip()
    return Ending(status, ended_at, end.code, metrics, error[:LONGEST_ERROR], starved)


def ended_well(task: Task, end: Exit) -> bool:
    """Whether what a training printed counts: it ended by itself with success, or at its budget as the task says."""
    return end.code == 0 if end.by == "itself" else end.by == "deadline" and task.end_at_budget


def _status(
    task: Task, end: Exit, text: str, metrics: dict[str, Scalar], unread: int, changed: Changed, hint: str | None
) -> tuple[TrialStatus, str]:
    """The status and, for all but a good end, why; `unread` lines were too long to look for the metric in them."""
    if end.by == "stop":
        return "stopped", f"Stopped on request after {end.seconds:.0f} s{shown(text)}."
    if end.by == "shutdown":
        return "lost", f"Its worker was told to end after {end.seconds:.0f} s{shown(text)}."
    if end.by == "deadline" and not task.end_at_budget:
        return "timed_out", (
            f"Ended after {task.deadline_seconds:g} s: a training may take twice its budget of "
            f"{task.time_budget_seconds:g} s and {task.startup_seconds:g} s besides. Make it watch "
            f"AUTORESEARCH_TIME_BUDGET, or begin a run with end_at_budget. At its end {_quote(text)}"
        )
    if not ended_well(task, end):
        return "failed", _failure(end, text, hint)
    if fault := changed.fault():
        return "failed", fault
    if task.metric not in metrics:
        todo = _how_to_print(task, unread)
        return "failed", f"It printed no metric {task.metric}: {todo}{_printed(metrics)}. At its end {_quote(text)}"
    value = metrics[task.metric]
    if finite(value) is None:
        return "failed", f"Its {task.metric} is {value!r}, which is not a finite number: the training diverged."
    return "finished", ""


def shown(text: str) -> str:
    """How far a training had come that did not end by itself, by its log; empty where that does not say."""
    seen = parse_progress(text[-LOOKED_AT:])
    return f", when it had shown {quoted(seen.text, LONGEST_PROGRESS)}" if seen else ""


def _how_to_print(task: Task, unread: int) -> str:
    """What to do about a metric that was not found."""
    todo = f'print a line "{task.metric}: value" at the end'
    if task.metric_pattern:
        within = "" if is_linear(task.metric_pattern) else f" within {demanding.SECONDS:g} s"
        todo = f"nothing matches the pattern {task.metric_pattern!r}{within}"
    if not unread:
        return todo
    lines = "1 line" if unread == 1 else f"{unread:,} lines"
    return f"{todo} ({lines} of more than {LONGEST_LINE:,} characters not read: print it in a short line of its own)"


def _printed(metrics: dict[str, Scalar]) -> str:
    """The names that were printed instead of the metric."""
    names = [name for name, value in metrics.items() if not isinstance(value, str)]
    return f" (printed were {', '.join(names[-SHOWN:])})" if names else ""


def _failure(end: Exit, text: str, hint: str | None) -> str:
    code = end.code
    how = f"Exit code {code}" if code is None or code >= 0 else f"Killed by {_signal(-code)}"
    if _OUT_OF_MEMORY.search(text[-LOOKED_AT:]) or (code == -signal.SIGKILL and end.starved):
        return f"{NO_MEMORY} ({how}): use a smaller batch or model; {_quote(text)}"
    if code == -signal.SIGKILL:
        how += " (perhaps by the system, for want of memory)"
    return f"{how}: {_quote(text)}. {hint or ''}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _quote(text: str) -> str:
    return quoted(last_words(text), LONGEST_QUOTE)


def last_words(text: str) -> str:
    """The exception that ends a log's last traceback, with its place in the task's own code; else the last lines."""
    text = clean(text[-LOOKED_AT:], LOOKED_AT)
    start = text.rfind(_TRACEBACK)
    lines = [line for line in text[max(start, 0) :].splitlines() if not re.fullmatch(r"[\s^~]*", line)]
    frames = [index for index, line in enumerate(lines) if re.match(r'  File ".*", line \d+', line)]
    if start < 0 or not frames:
        return " / ".join(line.strip()[-200:] for line in lines[-4:]) or "(it printed nothing)"
    raised = [line for line in lines[frames[-1] + 1 :] if not line.startswith(" ")]
    ours = [index for index in frames if not lines[index].startswith('  File "/')] or frames
    place = [line.strip() for line in lines[ours[-1] : ours[-1] + 2] if line.startswith(" ")]
    return f"{' '.join(raised)[:600]} ({': '.join(place)[:300]})"
