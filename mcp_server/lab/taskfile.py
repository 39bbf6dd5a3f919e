"""Task files: what a `task.yaml` or an `autoresearch.toml` may say, and what is said of a wrong one, with its line."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mcp_server.errors import InvalidInput
from mcp_server.lab.marked import LineOf, marked_toml, marked_yaml
from mcp_server.research.patterns import check_syntax
from mcp_server.research.task import Category, Direction, Policy, check_metric, split_command

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""The name of a variable of the environment."""

LARGEST = 200_000
"""Bytes of a task file; a larger one is something else."""

HOMES: Mapping[str, tuple[str, ...]] = {
    "editable": ("artifacts", "editable"),
    "command": ("runner.command", "command"),
    "train_script": ("runner.script", "train_script"),
    "time_budget_seconds": ("runner.budget_seconds", "time_budget_seconds"),
    "metric": ("scorer.metric", "metric"),
    "direction": ("scorer.direction", "direction"),
    "max_files": ("mutation.max_files",),
    "max_lines": ("mutation.max_lines",),
    "mutator_network": ("mutation.network",),
    "mutator_writable": ("mutation.writable",),
    "folder": ("runner.folder",),
    "startup_seconds": ("runner.startup_seconds",),
    "end_at_budget": ("runner.end_at_budget",),
    "environment": ("runner.environment",),
    "metric_pattern": ("scorer.pattern",),
    "score_command": ("scorer.command",),
    "rescore_command": ("scorer.rescore",),
    "judge_command": ("scorer.judge",),
    "secondary": ("scorer.secondary",),
    "seed_variables": ("seeding.variables",),
    "fixed_seed": ("seeding.fixed",),
    "batch_knob": ("runner.memory.batch",),
    "accumulation_knob": ("runner.memory.accumulation",),
    "checkpointing_knob": ("runner.memory.checkpointing",),
    **{
        name: (name,)
        for name in (
            *("name", "task", "mutator", "inputs", "checks", "policy", "readonly", "scope", "max_experiments"),
            *("target", "results_file", "near_miss_threshold", "vary", "hold", "grid"),
        )
    },
}
"""Where a task file may say what becomes a field of a Task, the usual place first."""

PLACED = ("editable", "readonly", "inputs")
"""Values whose globs count from the folder of the task file."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_values(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_command(value: Any) -> Any:
    words = isinstance(value, list) and value and all(isinstance(word, str) for word in value)
    return shlex.join(value) if words else value


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_truth(value: Any) -> Any:
    """Python takes true for 1, and YAML takes yes for true."""
    if isinstance(value, bool):
        raise ValueError("It should be a number")
    return value


def _checked(check: Callable[[str], Any]) -> AfterValidator:
    """A check that raises InvalidInput, as pydantic takes it, so that the line is told."""

    def checked(value: str) -> str:
        try:
            check(value)
        except InvalidInput as error:
            raise ValueError(error.todo) from None
        return value

    return AfterValidator(checked)


Texts = Annotated[list[str], BeforeValidator(_as_list)]
Names = Annotated[list[Annotated[str, Field(pattern=VARIABLE)]], BeforeValidator(_as_list)]
Command = Annotated[str, BeforeValidator(_as_command), _checked(split_command)]
Commands = Annotated[list[Command], BeforeValidator(_as_list)]
Values = dict[
    Annotated[str, Field(pattern=VARIABLE)], Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[^\x00]*$")]
]
Amount = Annotated[float, BeforeValidator(_no_truth), AllowInfNan(False)]
Whole = Annotated[int, BeforeValidator(_no_truth)]
Metric = Annotated[str, _checked(check_metric)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mutation(_Part):
    """What one experiment may change at most, lines added and removed together; and what the mutator may besides."""

    max_files: Whole | None = Field(default=None, ge=1)
    max_lines: Whole | None = Field(default=None, ge=1)
    network: bool = False
    writable: Texts = []


class Memory(_Part):
    """Constants of the script that decide how much memory a training takes."""

    batch: str = ""
    accumulation: str = ""
    checkpointing: str = ""


class Runner(_Part):
    """How an experiment is run; without a command, the scorer alone is."""

    command: Command | None = None
    script: str | None = None
    folder: str | None = None
    budget_seconds: Amount | None = Field(default=None, gt=0)
    startup_seconds: Amount | None = Field(default=None, ge=0)
    end_at_budget: bool = False
    environment: Values = {}
    memory: Memory = Memory()


class Scorer(_Part):
    """Where the score comes from: a line `metric: value`, what a pattern finds, or what a command prints.

    A result that would be kept is scored anew where `rescore` and `judge` are given.
    """

    metric: Metric | None = None
    direction: Direction | None = None
    pattern: Annotated[str, _checked(check_syntax)] | None = None
    command: Command | None = None
    rescore: Command | None = None
    judge: Command | None = None
    secondary: Annotated[list[Metric], BeforeValidator(_as_list)] = []


class Seeding(_Part):
    """In which variables the seed is found beside AUTORESEARCH_SEED, and which it is if it never changes."""

    variables: Names = []
    fixed: Whole | None = Field(default=None, ge=0, lt=2**31)


class TaskFile(_Part):
    """All that a task file may say. Its last fields are those of `setup_run` under their own names."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    task: str | None = None
    artifacts: Texts | None = None
    mutation: Mutation = Mutation()
    mutator: Command | None = None
    inputs: Texts | None = None
    runner: Runner = Runner()
    scorer: Scorer = Scorer()
    checks: Commands = []
    policy: Policy | None = None
    seeding: Seeding = Seeding()
    readonly: Texts | None = None
    scope: list[Category] | None = None
    max_experiments: Whole | None = Field(default=None, ge=1)
    target: Amount | None = None
    results_file: str | None = None
    near_miss_threshold: Amount | None = Field(default=None, ge=0)
    metric: Metric | None = None
    direction: Direction | None = None
    time_budget_seconds: Amount | None = Field(default=None, gt=0)
    train_script: str | None = None
    command: Command | None = None
    editable: Texts | None = None
    vary: dict[str, Annotated[list[Any], BeforeValidator(_as_values)]] = {}
    hold: dict[str, Any] | list[str] = {}
    grid: bool = False

    def homes(self) -> dict[str, str]:
        """Where each thing stands that the file decides, by the name of a Task's field.

        Raises:
            InvalidInput: something is said twice, under two names, or is of no use without another.
        """
        if self.grid and not self.vary:
            raise InvalidInput("grid is given, and vary is not", "Name what to vary, or leave grid out", ["grid"])
        found = {}
        for name, homes in HOMES.items():
            said = [home for home in homes if self._says(home)]
            if len(said) > 1:
                what = f"{said[1]} and {said[0]} say the same thing twice"
                raise InvalidInput(what, f"Leave {said[1]} out", [said[1]])
            if said:
                found[name] = said[0]
        if "command" not in found and "score_command" in found:
            found["command"] = found.pop("score_command")
        return found

    def value(self, home: str) -> Any:
        """What stands somewhere in the file, as a Task holds it: lists and mappings as tuples."""
        value = attrgetter(home)(self)
        if home == "hold" and isinstance(value, list):
            value = dict.fromkeys(value)
        return (
            tuple((name, _frozen(each)) for name, each in value.items()) if isinstance(value, dict) else _frozen(value)
        )

    def _says(self, home: str) -> bool:
        """Whether the file decides it: an empty list or a plain `false` is a decision too."""
        part: Any = self
        for name in home.split("."):
            if name not in part.model_fields_set:
                return False
            part = getattr(part, name)
        return part is not None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Said:
    """What a task file decides, by the names of the fields of a Task, and where it does.

    Attributes:
        homes: where each value stands, by the same names.
    """

    values: dict[str, Any]
    homes: Mapping[str, str]
    _name: str
    _line_of: LineOf

    def place(self, at: Sequence[int | str]) -> str:
        """Where a value stands, such as `task.yaml, line 7, runner.folder`.

        Args:
            at: the name of a field, and which of its values, by number or name.
        """
        home = self.homes.get(str(at[0]), str(at[0]))
        return f"{self._name}, line {self._line_of((*home.split('.'), *at[1:]))}, {home}"


def read_task_file(path: Path) -> Said:
    """What a task file decides; `.toml` files are read as TOML and all others as YAML.

    Raises:
        InvalidInput: it cannot be read, or says something that it may not; the message names the line.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InvalidInput(f"{path.name} has more than {LARGEST} bytes", "Name a task file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}", "Name an existing task file") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path.name} is not UTF-8 text", "Name a task file") from None
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # JSON may be indented so, and YAML may not
    content, line_of = (marked_toml if path.suffix == ".toml" else marked_yaml)(path.name, text)
    if not isinstance(content, Mapping):
        raise InvalidInput(
            f"{path.name}, line 1: a task is a mapping of names to values, not a {type(content).__name__}",
            "Begin with `name: ...`; docs/tasks.md has an example",
        )
    try:
        file = TaskFile.model_validate(content)
        homes = file.homes()
    except ValidationError as error:
        raise _refusal(path.name, error, line_of) from None
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}, line {line_of(error.at)}: {error.what}", error.todo) from None
    return Said({name: file.value(home) for name, home in homes.items()}, homes, path.name, line_of)


def _refusal(name: str, error: ValidationError, line_of: LineOf) -> InvalidInput:
    """One sentence on the first thing that is wrong."""
    problems = error.errors(include_url=False)
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    path = problem["loc"]
    where = f"{name}, line {line_of(path)}"
    said = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return InvalidInput(f"{where}: a task has no {said!r}", _instead(path))
    shown = repr(problem["input"])
    what = f"{where}: {said} is {shown if len(shown) <= 80 else shown[:79] + '…'}"
    if problem["type"] == "literal_error":
        return InvalidInput(what, f"Choose from {problem['ctx']['expected']}")
    if problem["type"] in ("model_type", "dict_type"):
        return InvalidInput(what, "It should be a mapping of names to values")
    if problem["type"] == "string_pattern_mismatch":
        return InvalidInput(what, f"It should be of the form {problem['ctx']['pattern']}")
    return InvalidInput(what, re.sub(r"^\w+ should", "It should", problem["msg"].removeprefix("Value error, ")))


def _instead(path: Sequence[int | str]) -> str:
    """Where what was meant belongs, or what may stand there."""
    model: Any = PARTS.get(".".join(str(part) for part in path[:-1]), TaskFile)
    key = str(path[-1])
    homes = [f"{part}.{key}" for part, inner in PARTS.items() if key in inner.model_fields]
    if homes:
        return f"It belongs in {homes[0]}"
    close = get_close_matches(key, model.model_fields, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}" if close else f"It takes {', '.join(model.model_fields)}"


PARTS: Mapping[str, type[BaseModel]] = {
    "runner": Runner,
    "runner.memory": Memory,
    "scorer": Scorer,
    "mutation": Mutation,
    "seeding": Seeding,
}
