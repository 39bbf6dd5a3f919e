"""`autoresearch task`: artifacts improved by a task's own mutator, with no agent in the loop."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_server.interfaces.options import DevicesOption
from mcp_server.interfaces.waiting import wait_for

if TYPE_CHECKING:
    from mcp_server.lab.artifact_loop import Outcome

task = typer.Typer(name="task", help="Improve the artifacts of a task file, mutator included.", no_args_is_help=True)

SAID = "autoresearch: stopped; nothing is lost, and the same command goes on where it was"


@task.callback()
def _group() -> None: ...


@task.command()
def run(
    file: Annotated[Path, typer.Argument(help="The task file, or the folder with its task.yaml")],
    iterations: Annotated[int, typer.Option(help="How often to mutate, measure and judge", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line of the record as JSON")] = False,
    devices: DevicesOption = None,
) -> None:
    """Measure the artifacts as they are, then let the task's mutator propose changes; what is better is brought home.

    Each iteration adds a line to work/results.jsonl beside the task file, and leaves the folder alone unless its change
    is accepted. A loop that was killed goes on where it was.
    """
    outcome = wait_for(_loop(file, iterations, devices, _print_json if as_json else _print_line), SAID)
    if as_json:
        _print_json({"outcome": asdict(outcome)})
    else:
        typer.echo(
            f"{outcome.metric} {_number(outcome.baseline)} -> {_number(outcome.best)}: "
            f"{outcome.accepted} changes accepted of {max(0, outcome.experiments - 1)} measured.\n"
            f"Record: {outcome.results}\nEvery change as a commit: {outcome.branch}"
        )


async def _loop(file: Path, iterations: int, devices: str | None, tell: Any) -> "Outcome":
    from mcp_server.lab.artifact_loop import ArtifactLoop

    async with ArtifactLoop.open(file, devices) as loop:
        await loop.run(iterations, tell)
        return await loop.outcome()


def _print_json(line: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(line, ensure_ascii=False))


def _print_line(line: Mapping[str, Any]) -> None:
    """One line of the record as a person reads it."""
    value = "" if line["value"] is None else f"  {line['metric']} {_number(line['value'])}"
    seconds = "" if line["seconds"] is None else f"  {line['seconds']:.1f} s"
    reason = f"  ({line['reason']})" if line["reason"] and not line["accepted"] else ""
    typer.echo(f"{line['iteration']:>4}  {line['status']:<14}{value}{seconds}  {line['hypothesis']}{reason}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
