"""The one table of what a user can ask for. Tools, REST routes and command-line verbs are all made from it."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp_server.lab.finalizing import Finalizing
from mcp_server.lab.importing import Importing
from mcp_server.lab.lab import Lab
from mcp_server.lab.reading import Reading
from mcp_server.lab.registering import Registering
from mcp_server.lab.reporting import Reporting
from mcp_server.lab.setup import Setup
from mcp_server.lab.training import Training
from mcp_server.lab.verdicts import Verdicts


@dataclass(frozen=True)
class Operation:
    """A public operation.

    Attributes:
        part: the attribute of `Lab` whose class defines the method.
        method: the method; its signature holds the user's arguments, described by `Annotated` texts and bounds, and,
            where the operation waits, a keyword argument `progress` that the door injects.
        reads: it changes nothing.
        repeatable: calling it again with equal arguments changes nothing more.
    """

    part: str
    method: Callable[..., Awaitable[Any]]
    reads: bool = False
    repeatable: bool = True

    @property
    def name(self) -> str:
        """The name of the tool, route and verb."""
        return self.method.__name__.rstrip("_")  # `import` is a word of Python's own

    @property
    def description(self) -> str:
        """What it does, when to call it and what to call next, on one line."""
        return " ".join((self.method.__doc__ or "").split())

    @property
    def waits(self) -> bool:
        """Whether it takes a while and reports progress."""
        return "progress" in inspect.signature(self.method).parameters

    async def call(self, lab: Lab, **arguments: Any) -> Any:
        """Call the operation on an open lab; raises ResearchError."""
        return await self.method(getattr(lab, self.part), **arguments)


OPERATIONS: tuple[Operation, ...] = (
    Operation("setup", Setup.setup_run, repeatable=False),
    Operation("reading", Reading.suggest, reads=True),
    Operation("registering", Registering.register),
    Operation("training", Training.train),
    Operation("verdicts", Verdicts.complete),
    Operation("verdicts", Verdicts.crash),
    Operation("reading", Reading.history, reads=True),
    Operation("reading", Reading.near_misses, reads=True),
    Operation("reading", Reading.summary, reads=True),
    Operation("reading", Reading.best, reads=True),
    Operation("reading", Reading.diff, reads=True),
    Operation("reading", Reading.list_runs, reads=True),
    Operation("verdicts", Verdicts.set_strategy),
    Operation("training", Training.devices, reads=True),
    Operation("training", Training.logs, reads=True),
    Operation("training", Training.stop),
    Operation("reporting", Reporting.report),
    Operation("finalizing", Finalizing.finalize),
    Operation("reading", Reading.export),
    Operation("importing", Importing.import_),
)
