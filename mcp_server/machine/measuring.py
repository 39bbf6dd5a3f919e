"""What is run in a checkout after the training: the task's checks, and its scorer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mcp_server.machine import child, demanding
from mcp_server.machine.devices import Device
from mcp_server.machine.effort import Meter
from mcp_server.machine.environment import MARK, command_words
from mcp_server.machine.faults import check_not_killed, check_started, tried
from mcp_server.machine.logfile import BoundedLog
from mcp_server.machine.sandbox import exit_code
from mcp_server.research.experiment import Scalar
from mcp_server.research.metrics import find_metric, left_out, parse_metrics, quoted, spot_metric
from mcp_server.research.patterns import is_linear, last_group
from mcp_server.research.task import Task

LONGEST_QUOTE = 1000


@dataclass(frozen=True)
class Measured:
    """What checks and scorer said.

    Attributes:
        metrics: what the scorer printed.
        rejection: which check failed and how, so that the score does not count; empty where all passed.
        failure: why there is no score; empty where there is one.
        by: who ended the last command.
        left_out: lines of the scorer's output that were too long to be read.
    """

    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    rejection: str = ""
    failure: str = ""
    by: child.EndedBy = "itself"
    left_out: int = 0


@dataclass(frozen=True)
class Bay:
    """Where the commands run.

    Attributes:
        folder: their working directory.
        environment: all that they see.
        log: the log of the trial, to which their output is added.
        ask, inherited: see `child.run`.
        behind: puts walls around the words of a command; None where there are none.
        device: whose cores they run on: what others have of these does not count against a deadline.
    """

    folder: Path
    environment: Mapping[str, str]
    log: BoundedLog
    ask: Callable[[], Awaitable[child.EndedBy | None]]
    inherited: Sequence[int] = ()
    behind: Callable[[Sequence[str]], list[str]] | None = None
    device: Device | None = None

    async def run(
        self, words: Sequence[str], log: BoundedLog, deadline: float, meter: Meter | None = None
    ) -> child.Exit:
        """Run a command here with its output in `log`, for at most `deadline` seconds; see `child.run`.

        Raises:
            MachineFault: it never began, or what is around it was killed.
        """
        walls = self.behind
        end = await child.run(
            walls(words) if walls else words,
            self.folder,
            self.environment,
            log,
            deadline,
            self.ask,
            self.inherited,
            meter=meter,
        )
        check_started(end, "the command", walls is not None, log.text())
        return replace(end, code=exit_code(end.code)) if walls else end


async def measure(task: Task, bay: Bay, scratch: Path) -> Measured:
    """Run the checks and then the scorer; the first check that fails ends it.

    Args:
        scratch: a folder for the output of each command by itself.

    Raises:
        MachineFault: one of them was killed, as often as it was tried.
    """
    for number, check in enumerate(task.checks, 1):
        end, text = await _run(task, check, bay, scratch / f"check-{number}.txt")
        if end.by in ("stop", "shutdown"):
            return Measured(by=end.by)
        if end.code != 0:
            return Measured(rejection=f"The check {check!r} failed ({_how(task, end)}): {_quote(text)}")
    if not task.score_command:
        return Measured()
    end, text = await _run(task, task.score_command, bay, scratch / "score.txt")
    if end.by in ("stop", "shutdown"):
        return Measured(by=end.by)
    if end.code != 0:
        return Measured(failure=f"The scorer {task.score_command!r} failed ({_how(task, end)}): {_quote(text)}")
    return Measured(read_metrics(task, text), left_out=left_out(text))


def read_metrics(task: Task, text: str) -> dict[str, Scalar]:
    """The metrics in an output: its `key: value` lines, and the task's own by pattern or wherever they stand last."""
    metrics = parse_metrics(text)
    if task.builtin:
        return metrics
    for name in (task.metric, *task.secondary):
        pattern = task.metric_pattern if name == task.metric else ""
        search = last_group if is_linear(pattern) else demanding.last_group
        found = find_metric(pattern, text, search) if pattern else spot_metric(name, text)
        if isinstance(metrics.get(name), str) or pattern:  # a word is no score, such as a setting of the same name
            metrics.pop(name, None)
        metrics |= {} if found is None else {name: found}
    return metrics


async def _run(task: Task, command: str, bay: Bay, output: Path) -> tuple[child.Exit, str]:
    """Run a command, again where it was killed; what it printed goes to a file, and from there to the trial's log."""
    return await tried(lambda: _run_once(task, command, bay, output), lambda why: bay.log.write(f"{why}\n".encode()))


async def _run_once(task: Task, command: str, bay: Bay, output: Path) -> tuple[child.Exit, str]:
    log = BoundedLog(output)
    meter = Meter(bay.device, bay.environment[MARK], groups=False) if bay.device else None
    try:
        end = await bay.run(command_words(task, command), log, task.time_budget_seconds + task.startup_seconds, meter)
        text = log.text()
    finally:
        log.close()
    check_not_killed(end, f"The command {command!r}")
    bay.log.write(f"\n$ {command}\n{text}".encode())
    return end, text


def _how(task: Task, end: child.Exit) -> str:
    if end.by == "deadline":
        return f"ended after {task.time_budget_seconds + task.startup_seconds:g} s"
    return f"exit code {end.code}"


def _quote(text: str) -> str:
    return quoted(" / ".join(line.strip() for line in text.splitlines()[-6:]) or "(it printed nothing)", LONGEST_QUOTE)
