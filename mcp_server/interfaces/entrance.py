"""The way in that every door shares: it opens the lab when first needed and calls operations on it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcp_server.errors import InvalidInput, ResearchError
from mcp_server.interfaces.arguments import check_arguments
from mcp_server.lab.lab import Lab
from mcp_server.operations import Operation
from mcp_server.settings import Settings

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Called while an operation waits: seconds done, seconds in all if known, a message."""

TRUSTED_ONLY: Mapping[str, tuple[str, ...]] = {
    "setup_run": ("command", "train_script", "task", "plan"),
    "import": ("path", "command", "train_script", "task"),
}
"""Arguments that choose what this machine executes, or reads: not for callers who came over the network."""

log = logging.getLogger(__name__)


class InternalError(ResearchError):
    """Something that nobody foresaw; the log of the server holds the traceback."""


class Entrance:
    """Opens the lab at the first call, so that a server starts at once and can say what is missing.

    Opening is tried again at each call, so that `git init` mends a folder that was no repository.

    Args:
        settings: where the repository is.
        trusted: whether callers may set the arguments in `TRUSTED_ONLY`.
        shared: whether several agents come in here, as over HTTP.
        terminal: whether the user themselves call, on their own terminal.
        calls: a file that each call leaves the name of its operation in, for whoever watches the caller.
    """

    def __init__(
        self,
        settings: Settings,
        trusted: bool = True,
        shared: bool = False,
        calls: Path | None = None,
        terminal: bool = False,
    ) -> None:
        self._settings = settings
        self._trusted = trusted
        self._shared = shared
        self._calls = calls
        self._terminal = terminal
        self._lab: Lab | None = None
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def lab(self) -> Lab:
        """The open lab; raises ResearchError while there is none to open."""
        async with self._opening:
            if self._lab is None:
                self._lab = await self._stack.enter_async_context(
                    Lab.open(self._settings, self._shared, confined=not self._terminal)
                )
            return self._lab

    async def call(self, operation: Operation, given: Mapping[str, Any], progress: Progress | None = None) -> Any:
        """Check the arguments and call the operation; raises only ResearchError."""
        if self._calls:
            with suppress(OSError):
                self._calls.write_text(operation.name)
        with boundary(operation.name):
            arguments = check_arguments(operation, given)
            if not self._trusted:
                _refuse_trusted_only(operation, arguments)
            if operation.waits:
                arguments["progress"] = progress
            return await operation.call(await self.lab(), **arguments)


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Let nothing out but ResearchError: what nobody foresaw is logged, and becomes an InternalError."""
    try:
        yield
    except ResearchError:
        raise
    except Exception as error:
        log.exception("%s failed", what)
        raise InternalError(
            f"{what} failed inside the server with {type(error).__name__}",
            "Call it again; if it stays, report it with the traceback in the log of the server",
        ) from error


def _refuse_trusted_only(operation: Operation, arguments: Mapping[str, Any]) -> None:
    if arguments.get("resume"):  # then they choose nothing: they must equal what the run has
        return
    for name in TRUSTED_ONLY.get(operation.name, ()):
        if arguments[name] is not None:
            raise InvalidInput(
                f"{name} cannot be set over HTTP (given {arguments[name][:200]!r})",
                "Leave it out, or start the server with --allow-commands",
            )
