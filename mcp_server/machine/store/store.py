"""`Store`: the queries about runs, experiments and trials, over one database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine.store.connection import Database
from mcp_server.machine.store.efforts import Efforts
from mcp_server.machine.store.experiments import Experiments
from mcp_server.machine.store.fleet import Fleet
from mcp_server.machine.store.history import History
from mcp_server.machine.store.memory import Memory
from mcp_server.machine.store.periods import Periods
from mcp_server.machine.store.retries import Retries
from mcp_server.machine.store.runs import Runs
from mcp_server.machine.store.trials import Trials
from mcp_server.machine.store.verdicts import Verdicts


@dataclass(frozen=True)
class Store:
    """What is remembered, by what it is about."""

    runs: Runs
    experiments: Experiments
    trials: Trials
    history: History
    periods: Periods
    memory: Memory
    verdicts: Verdicts
    fleet: Fleet
    retries: Retries
    efforts: Efforts

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["Store"]:
        """Open the store at `path`, creating or upgrading it; raises NotReady if it cannot be used."""
        async with Database.open(path) as database:
            yield cls(
                Runs(database),
                Experiments(database),
                Trials(database),
                History(database),
                Periods(database),
                Memory(database),
                Verdicts(database),
                Fleet(database),
                Retries(database),
                Efforts(database),
            )
