"""The choice of an executor."""

from pathlib import Path

from mcp_server.errors import InvalidInput
from mcp_server.machine.executor import Executor
from mcp_server.machine.local_executor import LocalExecutor
from mcp_server.settings import Settings

EXECUTORS = ("local", "ray")


def executor_of(settings: Settings, state: Path) -> Executor:
    """The executor that the settings name, for the repository with this state folder.

    Raises:
        InvalidInput: there is none of this name.
        NotReady: what it needs is not installed.
    """
    if settings.executor == "local":
        return LocalExecutor(settings)
    if settings.executor == "ray":
        from mcp_server.machine.cluster.executor import RayExecutor

        return RayExecutor(settings, state)
    raise InvalidInput(f"executor {settings.executor!r} is unknown", f"Choose from {', '.join(EXECUTORS)}")
