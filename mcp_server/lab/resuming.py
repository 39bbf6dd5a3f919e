"""Whether what a run is resumed with is what it was begun with."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.lab.planning import check_places
from mcp_server.lab.sources import ARGUMENT, BUILTIN, gather
from mcp_server.machine.git import Repository, expand_inputs
from mcp_server.research.experiment import Run
from mcp_server.research.variations import fitted

GROWN = ("readonly", "inputs")
"""Fields that hold what was said, and what was found beside it."""


def check_resumed(repository: Repository, run: Run, given: Mapping[str, Any]) -> None:
    """Raise InvalidInput where an argument, a task or a plan says something else than the run was begun with.

    A task or plan that was edited since is told with its line; autoresearch.toml is not looked at.
    """
    if given.get("task") == BUILTIN:
        if not run.task.builtin:
            todo = "Leave task out to resume the run as it is"
            raise InvalidInput(f"run {run.tag!r} is not of the task {BUILTIN!r}", todo)
        given = {name: value for name, value in given.items() if name != "task"}
    found = gather(repository, given, with_config=False)
    try:
        check_places(found.values)
        for name, wanted in _wanted(repository, run, found.values):
            source, present = found.sources[name], getattr(run.task, name)
            same = set(wanted) <= set(present) if name in GROWN else wanted == present
            if not same:
                left_out = name if source == ARGUMENT else source.partition(" ")[0]
                raise InvalidInput(
                    f"{name} of run {run.tag!r} is {present!r}, not {wanted!r}",
                    f"Leave {left_out} out to resume the run as it is, or begin another under a new tag",
                    [name],
                )
    except InvalidInput as error:
        raise found.located(error) from None


def _wanted(repository: Repository, run: Run, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What was given, as the run's task would hold it."""
    wanted = dict(values)
    if "inputs" in wanted:
        wanted["inputs"] = tuple(each.path for each in expand_inputs(repository, wanted["inputs"]))
    plan = {name: wanted[name] for name in ("vary", "hold") if name in wanted}
    source = repository.read_file(run.base_commit, run.task.train_script) if plan and run.task.train_script else None
    if source is not None:
        task = fitted(replace(run.task, grid=bool(wanted.get("grid")), **plan), source)
        wanted |= {name: getattr(task, name) for name in plan}
    yield from wanted.items()
