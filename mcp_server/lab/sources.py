"""What the user decides of a run, and where: in arguments, then in a task file, then in autoresearch.toml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server.errors import InvalidInput
from mcp_server.machine.git import Repository
from mcp_server.machine.starter import task_files
from mcp_server.research.task import Task

if TYPE_CHECKING:
    from mcp_server.lab.taskfile import Said

CONFIG_FILE = "autoresearch.toml"
ARGUMENT = "argument"
BUILTIN = "gpt"


@dataclass
class Decisions:
    """Values by the names of a Task's fields, and where each comes from.

    Attributes:
        protected: the files that decide, relative to the repository: no experiment may change them.
        files: what the file says that a value comes from.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    protected: list[str] = field(default_factory=list)
    files: dict[str, "Said"] = field(default_factory=dict)

    def decide(self, name: str, value: Any, source: str, file: "Said | None" = None) -> None:
        """Take a value unless an earlier source has decided."""
        if name not in self.values:
            self.values[name] = value
            self.sources[name] = source
            if file is not None:
                self.files[name] = file

    def located(self, error: InvalidInput) -> InvalidInput:
        """The error with the place in a file at which its value stands, where it comes from a file."""
        file = self.files.get(str(error.at[0])) if error.at else None
        return error if file is None else InvalidInput(f"{file.place(error.at)}: {error.what}", error.todo)

    @classmethod
    def made(cls, task: Task) -> "Decisions":
        """The decisions of a run that was set up before."""
        return cls(sources=dict.fromkeys(task.__dataclass_fields__, "as set up"))

    def rows(self, task: Task) -> list[dict[str, str]]:
        """The research config as a table: field, value, where it came from."""
        return [
            {"field": name, "value": _shown(getattr(task, name)), "source": self.sources.get(name, "default")}
            for name in task.__dataclass_fields__
            if name in ALWAYS_SHOWN or (name in self.sources and getattr(task, name) not in (None, "", (), False))
        ]


ALWAYS_SHOWN = (
    *("metric", "direction", "time_budget_seconds", "train_script", "command", "interpreter", "editable", "readonly"),
    *("inputs", "scope", "policy", "near_miss_threshold", "max_experiments", "target", "results_file"),
)


def gather(repository: Repository, given: Mapping[str, Any], with_config: bool = True) -> Decisions:
    """Collect what was decided: by arguments, the plan and the task that they name, and autoresearch.toml.

    Raises:
        InvalidInput: a file says something that it may not, or is not there.
    """
    found = Decisions()
    for name, value in given.items():
        if name not in ("task", "plan"):
            found.decide(name, tuple(value) if isinstance(value, list) else value, ARGUMENT)
    if given.get("task"):
        found.decide("task", given["task"], ARGUMENT)
    if given.get("plan"):
        _take_plan(repository, str(given["plan"]), found)
    config = _config_file(repository) if with_config else None
    if config is not None:
        found.protected.append(CONFIG_FILE)
        if "task" in config.values:
            found.decide("task", config.values["task"], CONFIG_FILE, config)
    if named := found.values.get("task"):
        try:
            _take_task(repository, str(named), found)
        except InvalidInput as error:
            raise found.located(error) from None
    for name, value in config.values.items() if config else ():
        found.decide(name, value, CONFIG_FILE, config)
    found.values.pop("task", None)
    return found


def _config_file(repository: Repository) -> "Said | None":
    """What the user's autoresearch.toml says, where there is one: that of the work tree the user stands in."""
    from mcp_server.lab.taskfile import read_task_file

    path = repository.here.folder / CONFIG_FILE
    return read_task_file(path) if path.is_file() else None


def _take_plan(repository: Repository, named: str, found: Decisions) -> None:
    """Take what an experiment plan decides. Its paths count from the top."""
    from mcp_server.lab.taskfile import read_task_file

    top = repository.here.folder
    given = Path(named).expanduser()
    path = next((place.resolve() for place in (given, top / given) if place.is_file()), None)
    if path is None:
        raise InvalidInput(f"plan {named[:200]!r} is no file", "Give the path of a YAML or JSON file")
    said = read_task_file(path)
    if path.is_relative_to(top.resolve()):
        found.protected.append(path.relative_to(top.resolve()).as_posix())
    for name, value in said.values.items():
        if name != "name":
            found.decide(name, value, f"plan {path.name}", said)


def _take_task(repository: Repository, named: str, found: Decisions) -> None:
    from mcp_server.lab.taskfile import PLACED, read_task_file

    path, folder = find_task(repository, named)
    said = read_task_file(path)
    values = dict(said.values)
    if "task" in values:
        what = f"{said.place(['task'])}: a task names another, {values['task']!r}"
        raise InvalidInput(what, f"Only {CONFIG_FILE} and plans may")
    if folder:
        values["folder"] = placed(folder, values.get("folder") or ".").removesuffix("/.")
        for name in PLACED:
            if name in values:
                values[name] = tuple(placed(folder, pattern) for pattern in values[name])
        if "train_script" in values:
            values["train_script"] = placed(folder, values["train_script"])
    if path.is_relative_to(repository.here.folder):
        found.protected.append(path.relative_to(repository.here.folder).as_posix())
    for name, value in values.items():
        found.decide(name, value, f"task {named}", said)


def placed(folder: str, pattern: str) -> str:
    """A glob of a task file as it reads from the top of the repository."""
    pattern = pattern.removeprefix("./")
    if not folder:
        return pattern
    wild_anywhere = "/" not in pattern.strip("/") and any(char in pattern for char in "*?[") and pattern[:1] != "/"
    return f"{folder}/**/{pattern}" if wild_anywhere and pattern != "**" else f"{folder}/{pattern.lstrip('/')}"


def find_task(repository: Repository, named: str) -> tuple[Path, str]:
    """The file of a task, and the folder in which it lies, from the top of the repository; empty for the top, for a
    file outside of it, and for the built-in task, wherever that is installed.

    Raises:
        InvalidInput: there is none of that name.
    """
    top = repository.here.folder
    given = Path(named).expanduser()
    places = [given, given / "task.yaml", top / given, top / given / "task.yaml"]
    if len(given.parts) == 1:
        places += [top / "tasks" / named / "task.yaml", top / "tasks" / f"{named}.yaml"]
    builtin = task_files()
    if named in builtin:
        places.append(builtin[named])
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None:
        own = sorted(file.parent.name for file in (top / "tasks").glob("*/task.yaml"))
        raise InvalidInput(
            f"task {named!r} is not known here",
            f"Give the path of a task file, or one of {', '.join([*own, *builtin])}",
            ["task"],
        )
    if named in builtin and path == builtin[named].resolve():
        return path, ""
    folder = path.parent.relative_to(top.resolve()).as_posix() if path.is_relative_to(top.resolve()) else "."
    return path, "" if folder == "." else folder


def _shown(value: Any) -> str:
    """A value as a person reads it."""
    match value:
        case None | "" | ():
            return "none"
        case tuple():
            return ", ".join(" = ".join(map(_shown, each)) if isinstance(each, tuple) else str(each) for each in value)
        case float():
            return f"{value:g}"
    return str(value)
