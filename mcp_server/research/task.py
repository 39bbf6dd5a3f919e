"""The task of a run: what may be edited, how it runs, how it is scored, its budget and its limits."""

import math
import re
import shlex
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mcp_server.errors import InvalidInput
from mcp_server.research.patterns import check_pattern

Category = Literal[
    "architecture",
    "optimizer",
    "hyperparams",
    "activation",
    "attention",
    "embedding",
    "normalization",
    "regularization",
    "scheduling",
    "initialization",
    "simplification",
    "combination",
    "ablation",
    "other",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

Direction = Literal["minimize", "maximize"]
Policy = Literal["noise_aware", "strict", "greedy"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

STARTUP_SECONDS = 120.0
"""What a training may spend before and after its budget: imports, compilation, evaluation."""

DEPENDENCY_FILES = (
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "requirements*.txt",
    "requirements/*.txt",
    "environment*.yml",
    "environment*.yaml",
    "Pipfile",
    "*.lock",
    "pylock*.toml",
    "package.json",
    "package-lock.json",
)
"""Read-only whatever `editable` says: a changed dependency changes what every other experiment meant."""

SHELL = ("|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>")
"""Words by which a shell would do more than start one program."""
LONGEST_COMMAND = 4000
"""Characters."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that Windows, and so a repository that is shared with it, cannot give to a file."""


@dataclass(frozen=True)
class Task:
    """The research config of a run, frozen at set-up.

    Attributes:
        command: the training command, split by shlex and never given to a shell.
        interpreter: absolute path of the Python that runs the command where it says `python`.
        inputs: paths of untracked data, relative to the repository, linked into every checkout.
        startup_seconds: allowance on top of twice the budget before a training is ended.
        name: what the task file calls the task; empty where there is none.
        folder: where in the repository the commands run, empty for its top. Globs and paths count from the top.
        end_at_budget: the command knows nothing of budgets: it is ended at its budget, and what it printed counts.
        max_files, max_lines: what one experiment may change at most, lines added and removed together.
        mutator: a command that writes a candidate, for the artifact loop.
        mutator_network: whether the mutator may use the network, as one that asks a language model must.
        mutator_writable: folders outside of its sandbox that the mutator may write, such as `~/.claude`.
        metric_pattern: a regular expression; the first group of its last match in the output is the metric.
        score_command: a command that prints the metric, run after the training; then no other line counts as it.
        rescore_command, judge_command: two commands that score a result anew, each other's output their input: one
            has what the training left and answers, the other has the data and asks. Both or none.
        secondary: further metrics to show beside the first.
        checks: commands that must succeed after the training, or else its score does not count.
        environment: names and values of further variables that the commands see.
        seed_variables: further variables in which the commands find their seed.
        fixed_seed: the seed that every training sees; None gives each trial its own.
        batch_knob, accumulation_knob, checkpointing_knob: constants of the script that decide how much memory it takes.
        vary: constants of the script and the values to try, as a plan has them; `grid`: in all their combinations.
        hold: constants that no experiment may change, and their values.
        left_out: files of the commit that the run begins with which experiments brought: no scorer or judge sees them.
        unjudged: why scores are not made anew although the task said how; else empty.
    """

    metric: str
    direction: Direction
    time_budget_seconds: float
    train_script: str
    command: str
    interpreter: str
    editable: tuple[str, ...]
    readonly: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    scope: tuple[Category, ...] = CATEGORIES
    policy: Policy = "noise_aware"
    near_miss_threshold: float = 0.002
    max_experiments: int | None = None
    target: float | None = None
    results_file: str = "results.tsv"
    startup_seconds: float = STARTUP_SECONDS
    builtin: bool = False
    external: bool = False
    name: str = ""
    folder: str = ""
    end_at_budget: bool = False
    max_files: int | None = None
    max_lines: int | None = None
    mutator: str = ""
    mutator_network: bool = False
    mutator_writable: tuple[str, ...] = ()
    metric_pattern: str = ""
    score_command: str = ""
    rescore_command: str = ""
    judge_command: str = ""
    secondary: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    seed_variables: tuple[str, ...] = ()
    fixed_seed: int | None = None
    batch_knob: str = ""
    accumulation_knob: str = ""
    checkpointing_knob: str = ""
    vary: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    hold: tuple[tuple[str, Any], ...] = ()
    grid: bool = False
    left_out: tuple[str, ...] = ()
    unjudged: str = ""

    @property
    def deadline_seconds(self) -> float:
        """Wall seconds after which a training is ended: twice the budget plus the start-up allowance."""
        if self.end_at_budget:
            return self.time_budget_seconds
        return 2 * self.time_budget_seconds + self.startup_seconds

    def improvement(self, value: float, reference: float) -> float:
        """How much better `value` is than `reference`, in units of the metric; positive is better."""
        return reference - value if self.direction == "minimize" else value - reference

    def reached(self, value: float) -> bool:
        """Whether `value` meets the target, if there is one."""
        return self.target is not None and self.improvement(value, self.target) >= 0


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be a tag or an agent's name (and so part of a git ref); else raise InvalidInput."""
    faulty = not _NAME.fullmatch(name) or ".." in name or name.lower().endswith((".", ".lock"))
    if faulty or _DEVICE.fullmatch(name):
        raise InvalidInput(
            f"{name[:200]!r} cannot be the name of {'an' if kind[0] in 'aeiou' else 'a'} {kind}",
            "Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit, "
            "without '..' and not ending in '.' or '.lock', for example 'mar8'",
        )
    return name


def check_task(task: Task) -> Task:
    """Return `task` if its values make sense together; else raise InvalidInput naming the argument."""
    check_metric(task.metric)
    if not math.isfinite(task.time_budget_seconds) or not 0 < task.time_budget_seconds <= 7 * 86400:
        what = f"time_budget_seconds is {task.time_budget_seconds}"
        raise InvalidInput(what, "Give the seconds of one training, e.g. 300", ["time_budget_seconds"])
    if not math.isfinite(task.near_miss_threshold) or task.near_miss_threshold < 0:
        raise InvalidInput(f"near_miss_threshold is {task.near_miss_threshold}", "Give a small number, e.g. 0.002")
    if task.max_experiments is not None and task.max_experiments < 1:
        raise InvalidInput(f"max_experiments is {task.max_experiments}", "Give at least 1, or leave it out")
    if task.target is not None and not math.isfinite(task.target):
        raise InvalidInput(f"target is {task.target}", "Give a finite number, or leave it out")
    _check_scope(task.scope)
    split_command(task.command)
    _check_scoring(task)
    if task.policy not in POLICIES:
        raise InvalidInput(f"policy {task.policy!r} is unknown", f"Choose from {', '.join(POLICIES)}", ["policy"])
    if task.external and task.policy != "greedy":
        raise InvalidInput(
            f"policy {task.policy!r} re-runs experiments, which an external run does by itself",
            "Use policy 'greedy'",
            ["policy"],
        )
    return task


OURS = (
    *("AUTORESEARCH_TIME_BUDGET", "AUTORESEARCH_SEED", "AUTORESEARCH_DEVICE", "AUTORESEARCH_OUT", "AUTORESEARCH_CACHE"),
    *("AUTORESEARCH_THREADS", "AUTORESEARCH_DEVICE_KEY", "CUDA_VISIBLE_DEVICES", "AUTORESEARCH_DATA"),
    *("AUTORESEARCH_SPLIT", "AUTORESEARCH_SANDBOXED", "AUTORESEARCH_SCRIPT", "AUTORESEARCH_BASELINE"),
)
"""Variables that every training gets from the server, so that no task can set them."""

_SCOPE = ("scope",)


def _check_scope(scope: tuple[Category, ...]) -> None:
    """Raise InvalidInput unless the scope is some categories, each named once."""
    if unknown := [category for category in scope if category not in CATEGORIES]:
        raise InvalidInput(f"scope names unknown categories {unknown}", f"Choose from {', '.join(CATEGORIES)}", _SCOPE)
    if twice := [category for category in dict.fromkeys(scope) if scope.count(category) > 1]:
        raise InvalidInput(f"scope names {', '.join(twice)} more than once", "Name each category once", _SCOPE)
    if not scope:
        raise InvalidInput("scope is empty", f"Leave it out, or choose from {', '.join(CATEGORIES)}", _SCOPE)


def _check_scoring(task: Task) -> None:
    """Raise InvalidInput where a limit or the way to the score makes no sense."""
    commands = (task.score_command, task.rescore_command, task.judge_command, task.mutator, *task.checks)
    for command in filter(None, commands):
        split_command(command)
    if ours := next((name for name, _ in task.environment if name in OURS), None):
        what = f"environment sets {ours}, which every training gets from the server"
        raise InvalidInput(what, "Leave it out", ("environment", ours))
    if bool(task.rescore_command) != bool(task.judge_command):
        given = "rescore_command" if task.rescore_command else "judge_command"
        raise InvalidInput("only one of scorer.rescore and scorer.judge is given", "Give both, or neither", [given])
    for name, limit in (("max_files", task.max_files), ("max_lines", task.max_lines)):
        if limit is not None and limit < 1:
            raise InvalidInput(f"{name} is {limit}", "Give at least 1, or leave it out")
    if not math.isfinite(task.startup_seconds) or not 0 <= task.startup_seconds <= 86400:
        raise InvalidInput(f"startup_seconds is {task.startup_seconds}", "Give seconds, e.g. 120", ["startup_seconds"])
    if task.metric_pattern:
        check_pattern(task.metric_pattern)


def check_metric(name: str) -> None:
    """Raise InvalidInput unless a metric can have this name."""
    if not re.fullmatch(r"[A-Za-z_][\w./@-]{0,63}", name, re.ASCII):
        near = re.sub(r"\W+", "_", name[:64], flags=re.ASCII).strip("_0123456789") or "val_loss"
        raise InvalidInput(
            f"metric {name[:200]!r} is not a name",
            f"Give the key that the script prints, e.g. {near}, which finds `{near.replace('_', ' ')} 0.9` too",
        )


def split_command(command: str) -> list[str]:
    """Split a command as a shell would, without running one; raises InvalidInput where that cannot be meant."""
    if len(command) > LONGEST_COMMAND or any(char in command for char in "\0\r\n"):
        said = f"has {len(command)} characters" if len(command) > LONGEST_COMMAND else f"{command!r} has several lines"
        raise InvalidInput(
            f"command {said}", "Put it into a script of the repository, and give the command that runs that"
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InvalidInput(f"command {command!r} cannot be split: {error}", "Close its quotes") from None
    if not words:
        raise InvalidInput("command is empty", "Give one, e.g. 'python train.py'")
    if operator := next((word for word in words if word in SHELL), ""):
        raise InvalidInput(
            f"command {command!r} has {operator}, and no shell reads it",
            "Leave that out, or wrap it: sh -c '...'",
        )
    return words
