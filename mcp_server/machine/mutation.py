"""A mutator at work: a command that writes a candidate into a workspace."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_server.machine import child, processes
from mcp_server.machine.environment import MARK, command_words, launched, scrubbed
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.logfile import BoundedLog
from mcp_server.machine.sandbox import View, exit_code, find_sandbox, walled
from mcp_server.machine.views import hidden_text, programs, shown_data
from mcp_server.research.task import Task
from mcp_server.settings import Settings

SECONDS = 900.0
"""A mutator may take so long: it may be an agent that reads and thinks."""


@dataclass(frozen=True)
class Mutator:
    """A task's mutator, and where it works.

    Attributes:
        workspace: the only folder that it may write, where walls can be built.
        output: the file for what it prints; also the mark by which its processes are known, so that what a killed
            loop left of an earlier one is ended first.
    """

    settings: Settings
    repository: Repository
    task: Task
    workspace: Path
    output: Path

    async def run(self, given: Mapping[str, str]) -> tuple[child.Exit, str]:
        """Run it, and end all that it leaves running; how it ended and what it printed.

        Args:
            given: further variables that it sees.
        """
        await processes.end(str(self.output))
        place = self.workspace / self.task.folder
        words = command_words(self.task, self.task.mutator)
        sandbox = find_sandbox(self.settings.sandbox)
        if sandbox:
            words = walled(sandbox, self._view(), place, launched("attached", "1", *words))
        log = BoundedLog(self.output)
        try:
            end = await child.run(words, place, self._environment(place, given), log, SECONDS, _never)
            text = log.text()
        finally:
            log.close()
        return (replace(end, code=exit_code(end.code)) if sandbox else end), text

    def _view(self) -> View:
        """What it sees: not the record, which it could learn verdicts from before they are given, nor what audits."""
        temporary = self.output.parent / "tmp"
        temporary.mkdir(exist_ok=True)
        state = Folders.of(self.settings, self.repository.root).state
        inputs = [(self.repository.root / path).resolve() for path in self.task.inputs]
        named = (Path(path).expanduser() for path in self.task.mutator_writable)
        return View(
            temporary=temporary,
            readable=[self.output.parent.parent, *shown_data(self.settings, self.task), *programs(self.task)],
            writable=[self.workspace, *(path for path in named if path.is_dir())],
            hidden=[state, self.settings.locks, *hidden_text(self.settings, self.task, inputs)],
            network=self.task.mutator_network,
        )

    def _environment(self, place: Path, given: Mapping[str, str]) -> dict[str, str]:
        kept = scrubbed(os.environ, self.settings.keep_environment) | dict(self.task.environment)
        return {
            **kept,
            **given,
            MARK: str(self.output),
            "PATH": os.pathsep.join([str(Path(self.task.interpreter).parent), kept.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(place), *filter(None, [kept.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


async def _never() -> child.EndedBy | None:
    return None
