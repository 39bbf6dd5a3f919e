"""Agents without a mind, each a whole program: they do what language models do at night."""

import sys
from dataclasses import dataclass
from pathlib import Path

PROMPTS = """\
import pathlib, sys

folder = pathlib.Path(FOLDER)
starts = len(list(folder.glob("prompt-*")))
(folder / f"prompt-{starts + 1}").write_text(sys.stdin.read())
"""
"""How all of them begin: what they are told is kept, and `starts` counts the starts before this one."""

RESEARCHER = """\
import asyncio, json
from mcp import Client, StdioServerParameters, stdio_client

async def ask(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content

async def research():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())["mcpServers"]["autoresearch"]
    server = StdioServerParameters(command=config["command"], args=config["args"], env=config["env"])
    async with Client(stdio_client(server)) as client:
        goal = {"metric": "val_loss", "direction": "minimize", "time_budget_seconds": 5, "policy": "greedy"}
        await ask(client, "setup_run", tag="mar8", **({"resume": True} if starts else goal))
        change = {"knobs": {"LR": 0.1 + starts / 10}} if starts else {}
        made = await ask(client, "register", tag="mar8", hypothesis=f"idea {starts}", category="other", **change)
        await ask(client, "train", experiment_id=made["experiment_id"], wait_seconds=60)
        await ask(client, "complete", experiment_id=made["experiment_id"])

asyncio.run(research())
"""
"""Makes one experiment in each start, a better one every time."""

HIDING = """\
import subprocess, time

hidden = "import pathlib, os, time; pathlib.Path(FOLDER, 'hidden').write_text(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", hidden.replace("FOLDER", repr(str(folder)))], start_new_session=True)
while not (folder / "hidden").exists() or not (folder / "hidden").read_text():
    time.sleep(0.01)
"""
"""Starts a process in a session of its own."""

HANGING = HIDING + "time.sleep(600)\n"


@dataclass(frozen=True)
class FakeAgent:
    """A program in a folder, which keeps what it was told there."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *parts: str) -> "FakeAgent":
        """Write the program; its parts follow each other."""
        folder.mkdir(parents=True)
        text = "".join([PROMPTS, *parts])
        (folder / "agent.py").write_text(text.replace("pathlib.Path(FOLDER)", f"pathlib.Path({str(folder)!r})"))
        return cls(folder)

    @property
    def command(self) -> str:
        """What to type after --agent."""
        return f"{sys.executable} {self.folder / 'agent.py'} {{mcp_config}}"

    @property
    def prompts(self) -> list[str]:
        """What it was told, one text for each start."""
        return [path.read_text() for path in sorted(self.folder.glob("prompt-*"))]
