"""The console script `autoresearch`: the server, the doctor, the demo, and every operation as a verb.

Exit codes: 0 done, 1 refused or failed (one line on stderr), 2 usage, 130 interrupted.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_server import __version__
from mcp_server.errors import ResearchError
from mcp_server.interfaces.options import DevicesOption, ExecutorOption, JsonOption, RayAddressOption, RepoOption
from mcp_server.interfaces.task import task
from mcp_server.interfaces.waiting import wait_for
from mcp_server.settings import Settings

if TYPE_CHECKING:
    from mcp_server.operations import Operation

OWN = ("serve", "demo", "doctor", "night", "task", "--version")
"""With these as the first word, the operations need not be loaded: agents start servers often."""


def main() -> None:
    """Run the command line of this process."""
    if sys.platform == "win32":
        sys.exit(
            "autoresearch: Windows is served through WSL2. Run `wsl --install`, and install autoresearch in there."
        )
    try:
        build(sys.argv[1:])(prog_name="autoresearch")
    except ResearchError as error:
        sys.exit(f"autoresearch: {' '.join(str(error).split())}")


def build(words: Sequence[str] = ()) -> typer.Typer:
    """The program, with as many of its commands as these words of the command line may need."""
    app = typer.Typer(
        help="Research on a training script by experiment, through the night: an MCP server, and the same by hand.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    for command in (serve, demo, night, doctor):
        app.command()(command)
    app.add_typer(task)
    if not words or words[0] not in OWN:
        from mcp_server.interfaces.verbs import add_verbs

        add_verbs(app, act, *words[:1])
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autoresearch {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None: ...


def serve(
    http: Annotated[bool, typer.Option("--http", help="Serve HTTP: MCP, REST and a dashboard")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: 8765", min=0, max=65535)] = None,
    allow_commands: Annotated[
        bool, typer.Option("--allow-commands", help="HTTP callers may set command, script and task")
    ] = False,
    note_calls: Annotated[
        Path | None, typer.Option(help="File to note the last tool called in, for a program that watches the agent")
    ] = None,
    repo: RepoOption = None,
    devices: DevicesOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
) -> None:
    """Serve MCP over stdio, or with --http at /mcp, beside REST at /api, a dashboard at / and /healthz."""
    from mcp_server.interfaces.serve import serve_http, serve_stdio

    settings = Settings.load(repo, devices, executor, ray_address)
    if http:
        if note_calls:
            raise typer.BadParameter("it is for stdio, where one agent calls", param_hint="--note-calls")
        serve_http(settings, host or "127.0.0.1", 8765 if port is None else port, allow_commands)
    elif host is not None or port is not None or allow_commands:
        raise typer.BadParameter("these need --http", param_hint="--host, --port, --allow-commands")
    else:
        serve_stdio(settings, note_calls)


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder to work in; default: .autoresearch/demo of the working directory")
    ] = Path(".autoresearch/demo"),
    seconds: Annotated[float, typer.Option(help="Seconds of each training", min=0.5, max=600)] = 5.0,
    devices: DevicesOption = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the final screen as this SVG image")] = None,
) -> None:
    """Watch a scripted agent research: real server, trainings and numbers; no GPU, network or language model."""
    from mcp_server.demo.demo import Demo
    from mcp_server.interfaces.tables import console

    demonstration = Demo(folder, seconds, devices=devices or "cpu:1", picture=picture)
    wait_for(demonstration.run(console()), "autoresearch: stopped; no process is left")


def night(
    agent: Annotated[str, typer.Option(help="claude, codex, builtin, or a command to run")],
    tag: Annotated[
        str | None, typer.Option(help="The run; default: the newest, or a new one named after today")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Time of day to end at, e.g. 08:00")] = None,
    experiments: Annotated[
        int | None, typer.Option(help="Experiments to end after, with their verdicts", min=1)
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(help="Hours of training to end after, summed over devices", min=0.0001)
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Of a new run: the key that the script prints")] = None,
    direction: Annotated[str | None, typer.Option(help="Of a new run: minimize or maximize")] = None,
    time_budget_seconds: Annotated[float | None, typer.Option(help="Of a new run: seconds of one training")] = None,
    train_script: Annotated[str | None, typer.Option(help="Of a new run: the script to edit and run")] = None,
    task: Annotated[str | None, typer.Option(help="Of a new run: name or path of a task")] = None,
    plan: Annotated[str | None, typer.Option(help="Of a new run: path of an experiment plan")] = None,
    goal: Annotated[str, typer.Option(help="What to find or improve, in your words")] = "",
    patience: Annotated[
        float, typer.Option(help="Minutes without output, call or training until the agent is started anew", min=0.01)
    ] = 15.0,
    repo: RepoOption = None,
    devices: DevicesOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
) -> None:
    """Keep an agent at work until a limit is reached: start it again when it stops, asks, fails or hangs."""
    from datetime import datetime

    from mcp_server.interfaces.tables import console
    from mcp_server.night.agents import Agent
    from mcp_server.night.command import Command
    from mcp_server.night.limits import Limits, next_time

    moment = None if until is None else next_time(until, datetime.now().astimezone())
    limits = Limits(moment, experiments, None if gpu_hours is None else gpu_hours * 3600)
    named = {
        "metric": metric,
        "direction": direction,
        "time_budget_seconds": time_budget_seconds,
        "train_script": train_script,
        "task": task,
        "plan": plan,
    }
    setting = {name: value for name, value in named.items() if value is not None}
    command = Command(Agent.named(agent), limits, tag, goal, patience * 60, setting=setting)
    said = "autoresearch: left at once; `autoresearch night` with the same tag goes on"
    settings = Settings.load(repo, devices, executor, ray_address)
    if received := wait_for(command.run(settings, console()), said):
        raise typer.Exit(128 + received)


def doctor(
    repo: RepoOption = None,
    devices: DevicesOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check git, SQLite, devices, driver, data, disk and configuration, and say how to mend each."""
    from dataclasses import asdict

    from mcp_server.lab.doctor import check_machine

    checks = asyncio.run(check_machine(Settings.load(repo, devices, executor, ray_address)))
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2, ensure_ascii=False))
    else:
        from mcp_server.interfaces.tables import show_checks

        show_checks(checks)
    if failed := [check.name for check in checks if check.status == "fail"]:
        raise ResearchError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", "Do what stands there"
        )


def act(operation: "Operation", given: dict[str, Any], settings: Settings, as_json: bool) -> None:
    """Call an operation and print its answer."""
    from mcp_server.interfaces.answers import plain

    goes_on = ""
    if operation.waits:
        goes_on = (
            f"autoresearch: detached; the training of {given['experiment_id']} goes on. "
            f"Repeat the command to watch it, or end it with `autoresearch stop {given['experiment_id']}`."
        )
    answer = plain(wait_for(_call(operation, given, settings), goes_on), "program" if as_json else "person")
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    from mcp_server.interfaces.tables import show

    show(answer)


async def _call(operation: "Operation", given: dict[str, Any], settings: Settings) -> Any:
    from mcp_server.interfaces.entrance import Entrance

    async with Entrance(settings, terminal=True) as entrance:
        if not (operation.waits and sys.stderr.isatty()):
            return await entrance.call(operation, given)
        from mcp_server.interfaces.tables import live_line

        with live_line() as progress:
            return await entrance.call(operation, given, progress)
