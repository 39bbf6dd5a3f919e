"""The built-in agent: it needs no language model, since it does what `suggest` proposes.

    python -m mcp_server.night.builtin MCP_CONFIG TAG [EXPERIMENTS]

It exits with 0 when nothing is left that it could do, and with 1 when a tool refused what cannot be refused.
"""

import asyncio
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client

from mcp_server.errors import ResearchError
from mcp_server.night.agents import SERVER
from mcp_server.night.follower import Follower
from mcp_server.research.experiment import FINISHED

NAME = "builtin"
POLL_SECONDS = 30.0
"""How long one call of `train` waits."""


class Lines:
    """Prints what the follower does, a line each, and counts the experiments that got their verdict."""

    def __init__(self) -> None:
        self.finished = 0

    def think(self, thought: str) -> None:
        """What will be done now."""
        _print(f"suggested: {thought}")

    def add(self, name: str, category: str, idea: str, change: str) -> None:
        """A new experiment."""
        _print(f"{name} {category}: {change}")

    def refuse(self, category: str, idea: str, why: str) -> None:
        """An experiment that the server does not accept."""
        _print(f"refused: {why}")

    def turn_to(self, name: str) -> None:
        """An experiment is trained."""
        _print(f"{name} trains")

    def training(self, answer: Mapping[str, Any]) -> None:
        """How the training is going."""
        done = answer["elapsed_seconds"]
        _print(f"{answer['status']}{'' if done is None else f' for {done:.0f} s'}")

    def decided(self, name: str, verdict: str, value: float | None, delta: float | None, reason: str) -> None:
        """The verdict."""
        self.finished += verdict in FINISHED
        _print(f"{name} {verdict}: {reason}")


async def research(client: Client, tag: str, most: float = math.inf) -> None:
    """Begin or continue the run, finish what is open, then follow what is suggested until nothing is.

    Args:
        most: after so many experiments with a verdict no other is begun.

    Raises:
        ResearchError: the run cannot be begun or continued, or a tool refused what stands in the record.
    """
    lines = Lines()
    follower = Follower(client, tag, lines, POLL_SECONDS)
    known = any(run["tag"] == tag for run in (await follower.ask("list_runs"))["runs"])
    run = await follower.ask("setup_run", tag=tag, agent=NAME, **({"resume": True} if known else {}))
    for experiment in reversed(run["open_experiments"]):
        if lines.finished >= most:
            break
        if experiment["status"] == "trained":
            await follower.judge(experiment["experiment_id"])
        else:
            await follower.measure(experiment["experiment_id"])
    if not run["counts"]["total"]:
        await follower.experiment("other", "The script as it is: the baseline", {})
    while lines.finished < most:
        if not await follower.follow((await follower.ask("suggest", tag=tag))["proposals"]):
            break
    else:
        _print("the experiments that were asked for are done")
        return
    _print("nothing is left that could be followed without a mind")


async def _serve_and_research(config: Path, tag: str, most: float) -> None:
    server = json.loads(config.read_text())["mcpServers"][SERVER]
    parameters = StdioServerParameters(command=server["command"], args=server["args"], env=server["env"])
    async with Client(stdio_client(parameters)) as client:
        await research(client, tag, most)


def _print(line: str) -> None:
    print(" ".join(line.split()), flush=True)  # noqa: T201 - the night reads it


def main(config: str, tag: str, left: str = "") -> None:
    """Research with the server that the configuration names, for so many experiments as are left."""
    try:
        asyncio.run(_serve_and_research(Path(config), tag, int(left) if left else math.inf))
    except* ResearchError as group:
        sys.exit(f"autoresearch: {group.exceptions[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
