"""Whether what a run is resumed with is what it was begun with."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.lab.planning import check_places
from mcp_server.lab.sources import ARGUMENT, BUILTIN, gather
from mcp_server.machine.git import Repository
from mcp_server.research.experiment import Run
from mcp_server.research.variations import fitted

UNCOMPARED = ("inputs",)
"""Fields that hold what was found for what was said: data come and go, and the run keeps what it was begun with."""


def check_resumed(repository: Repository, run: Run, given: Mapping[str, Any]) -> list[str]:
    """What the task and the plan that are given say otherwise than the run was begun with, with its line.

    That is no error: an argument may have come before them, or they were edited since, and the run goes on as it was
    begun. autoresearch.toml is not looked at.

    Raises:
        InvalidInput: an argument is another than the run was begun with.
    """
    if given.get("task") == BUILTIN:
        if not run.task.builtin:
            todo = "Leave task out to resume the run as it is"
            raise InvalidInput(f"run {run.tag!r} is not of the task {BUILTIN!r}", todo)
        given = {name: value for name, value in given.items() if name != "task"}
    found = gather(repository, given, with_config=False)
    notes = []
    try:
        check_places(found.values, run.task.results_file)
        for name, wanted in _wanted(repository, run, found.values):
            present = getattr(run.task, name)
            if name in UNCOMPARED or _agrees(name, wanted, present):
                continue
            what = f"{name} of run {run.tag!r} is {present!r}, not {wanted!r}"
            if found.sources[name] == ARGUMENT:
                raise InvalidInput(
                    what, f"Leave {name} out to resume the run as it is, or begin another under a new tag"
                )
            notes.append(f"{found.files[name].place([name])}: {what}: the run goes on as it was begun.")
    except InvalidInput as error:
        raise found.located(error) from None
    return notes


def _agrees(name: str, wanted: Any, present: Any) -> bool:
    if name == "readonly":  # what scores is there too
        return set(wanted) <= set(present)
    return bool(_plain(wanted) == _plain(present))


def _plain(value: Any) -> Any:
    """Paths and commands without what says nothing: `./train.py` is `train.py`."""
    if isinstance(value, str):
        return " ".join(word.removeprefix("./") for word in value.split(" "))
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _wanted(repository: Repository, run: Run, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What was given, as the run's task would hold it."""
    wanted = dict(values)
    plan = {name: wanted[name] for name in ("vary", "hold") if name in wanted}
    source = repository.read_file(run.base_commit, run.task.train_script) if plan and run.task.train_script else None
    if source is not None:
        task = fitted(replace(run.task, grid=bool(wanted.get("grid")), **plan), source)
        wanted |= {name: getattr(task, name) for name in plan}
    yield from wanted.items()
