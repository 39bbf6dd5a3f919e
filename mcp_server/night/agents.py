"""The programs that can be kept at work: any command, and presets for those that people have."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.environment import MARK, worker_environment
from mcp_server.settings import Settings

SERVER = "autoresearch"
PROMPT, PROMPT_FILE, MCP_CONFIG = "{prompt}", "{prompt_file}", "{mcp_config}"

PRESETS: Mapping[str, tuple[str, ...]] = {
    # Without --verbose and stream-json it says nothing until it ends, which cannot be told from hanging.
    "claude": (
        *("claude", "--print", "--verbose", "--output-format", "stream-json"),
        *("--mcp-config", MCP_CONFIG, "--strict-mcp-config"),
        *("--permission-mode", "acceptEdits"),
        *("--allowedTools", f"mcp__{SERVER},Read,Glob,Grep,Edit,Write"),
    ),
    # The server is named by settings, since it reads no JSON file; `-` takes the prompt from the input.
    "codex": (
        "codex",
        "exec",
        "--json",
        "--skip-git-repo-check",
        "--sandbox",
        "workspace-write",
        "{codex_config}",
        "-",
    ),
    "builtin": (sys.executable, "-P", "-m", "mcp_server.night.builtin", MCP_CONFIG, "{tag}", "{left}"),
}
"""Agents by name. They get the prompt on their input, and work in the folder of the run's workspaces."""

INSTALL: Mapping[str, str] = {
    "claude": "Install Claude Code (npm install -g @anthropic-ai/claude-code) and log in once with `claude`",
    "codex": "Install Codex (npm install -g @openai/codex) and log in once with `codex login`",
}

CODEX_TOOL_SECONDS = 300


@dataclass(frozen=True)
class Agent:
    """A program that researches.

    Attributes:
        name: what the screen calls it.
        words: its command line, with placeholders in braces.
        preset: it is one of `PRESETS`.
        finishes: exit code 0 means that nothing is left to be done; a mind is never done.
    """

    name: str
    words: tuple[str, ...]
    preset: bool = False
    finishes: bool = False

    @classmethod
    def named(cls, command: str) -> "Agent":
        """The preset of that name, or the command, which is split as a shell would and not run by one.

        Raises:
            InvalidInput: the command cannot be split.
            NotReady: the program is not installed.
        """
        if command in PRESETS:
            agent = cls(command, PRESETS[command], preset=True, finishes=command == "builtin")
        else:
            try:
                words = tuple(shlex.split(command))
            except ValueError as error:
                raise InvalidInput(f"agent is {command!r}: {error}", "Close its quotes") from None
            if not words:
                raise InvalidInput("agent is empty", f"Give a command, or one of {', '.join(PRESETS)}")
            agent = cls(Path(words[0]).name, words)
        program = agent.words[0]
        if shutil.which(program) is None:
            todo = INSTALL.get(program, "Install it, or give its whole path")
            raise NotReady(f"The agent's program {program!r} is not found on PATH", todo)
        return agent

    @property
    def reads_input(self) -> bool:
        """Whether the prompt comes on its input, because no placeholder takes it."""
        return not any(place in word for word in self.words for place in (PROMPT, PROMPT_FILE))

    def command(self, prompt: Path, mcp_config: Path, tag: str, left: int | None = None) -> list[str]:
        """The words to start it with.

        Args:
            prompt: the file that holds the prompt.
            mcp_config: the file that names the server.
            left: how many experiments the night is still to have; None where nothing limits them.
        """
        values = {PROMPT_FILE: str(prompt), MCP_CONFIG: str(mcp_config), "{tag}": tag}
        values["{left}"] = "" if left is None else str(left)
        words: list[str] = []
        for word in self.words:
            if word == "{codex_config}":
                words += _codex_settings(json.loads(mcp_config.read_text())["mcpServers"][SERVER])
                continue
            for place, value in values.items():
                word = word.replace(place, value)
            words.append(word.replace(PROMPT, prompt.read_text()) if PROMPT in word else word)
        return words


def environment(settings: Settings, mark: str) -> dict[str, str]:
    """What an agent sees: all that its user does, and the mark by which its processes are known."""
    return dict(os.environ) | worker_environment(settings) | {MARK: mark}


def server_config(settings: Settings, calls: Path, mark: str) -> dict[str, Any]:
    """The MCP configuration in the form that most clients read.

    Many clients hand a server next to nothing of their environment, so that all it needs stands here: no more than
    trainings see.

    Args:
        calls: the file in which the server notes the last call.
    """
    words = ["-P", "-m", "mcp_server", "serve", "--repo", str(settings.repo), "--note-calls", str(calls)]
    seen = worker_environment(settings) | {MARK: mark}
    return {"mcpServers": {SERVER: {"command": sys.executable, "args": words, "env": seen}}}


def _codex_settings(server: Mapping[str, Any]) -> list[str]:
    """The server as options of Codex, whose values are TOML; variables go by name, since anybody can read options."""
    settings = {
        "command": json.dumps(server["command"]),
        "args": json.dumps(server["args"]),
        "env_vars": json.dumps(sorted(server["env"])),
        "required": "true",
        "tool_timeout_sec": str(CODEX_TOOL_SECONDS),
        "default_tools_approval_mode": '"approve"',  # nobody is there to approve: it would cancel every call
    }
    return [word for name, value in settings.items() for word in ("-c", f"mcp_servers.{SERVER}.{name}={value}")]
