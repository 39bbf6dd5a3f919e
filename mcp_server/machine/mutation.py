"""A mutator at work: a command that writes a candidate into a workspace."""

import os
from collections.abc import Mapping
from pathlib import Path

from mcp_server.machine import child, processes
from mcp_server.machine.environment import MARK, command_words, scrubbed
from mcp_server.machine.logfile import BoundedLog
from mcp_server.research.task import Task
from mcp_server.settings import Settings

SECONDS = 900.0
"""A mutator may take so long: it may be an agent that reads and thinks."""


async def mutate(
    settings: Settings, task: Task, workspace: Path, output: Path, given: Mapping[str, str]
) -> tuple[child.Exit, str]:
    """Run the task's mutator in a workspace, and end all that it leaves running; how it ended and what it printed.

    Args:
        output: the file for what it prints; also the mark by which its processes are known, so that what a killed
            loop left of an earlier one is ended first.
        given: further variables that it sees.
    """
    mark = str(output)
    await processes.end(mark)
    kept = scrubbed(os.environ, settings.keep_environment)
    place = workspace / task.folder
    environment = {
        **kept,
        **dict(task.environment),
        **given,
        MARK: mark,
        "PATH": os.pathsep.join([str(Path(task.interpreter).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(place), *filter(None, [kept.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = BoundedLog(output)
    try:
        end = await child.run(command_words(task, task.mutator), place, environment, log, SECONDS, _never)
        return end, log.text()
    finally:
        log.close()


async def _never() -> child.EndedBy | None:
    return None
