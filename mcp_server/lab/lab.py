"""`Lab`: the parts that know how to do things, over one repository and one store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_server.lab.reading import Reading
from mcp_server.lab.registering import Registering
from mcp_server.lab.setup import Setup
from mcp_server.lab.training import Training
from mcp_server.lab.verdicts import Verdicts
from mcp_server.settings import Settings


class Lab:
    """One method per operation, grouped by what it knows."""

    setup: Setup
    registering: Registering
    training: Training
    verdicts: Verdicts
    reading: Reading

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Lab"]:
        """Open the repository and its store; raises NotReady where there is none."""
        raise NotImplementedError
        yield
