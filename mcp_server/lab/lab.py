"""`Lab`: the parts that know how to do things, over one repository and one store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.finalizing import Finalizing
from mcp_server.lab.importing import Importing
from mcp_server.lab.lending import Lending
from mcp_server.lab.pool import Pool
from mcp_server.lab.reading import Reading
from mcp_server.lab.registering import Registering
from mcp_server.lab.reporting import Reporting
from mcp_server.lab.setup import Setup
from mcp_server.lab.tracking import Tracking
from mcp_server.lab.training import Training
from mcp_server.lab.upkeep import kept_up
from mcp_server.lab.verdicts import Verdicts
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository, ensure_state_folder
from mcp_server.machine.store import Store
from mcp_server.settings import Settings


class Lab:
    """One method per operation, grouped by what it knows. Made by `Lab.open`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pool = pool = Pool(bench)
        branch = Branch(bench)
        self.setup = Setup(bench, pool, branch)
        self.importing = Importing(bench, self.setup)
        self.registering = Registering(bench, branch)
        self.training = Training(bench, pool, branch)
        self.reporting = Reporting(bench, branch)
        self.verdicts = Verdicts(bench, branch, self.reporting)
        self.finalizing = Finalizing(bench, branch)
        self.reading = Reading(bench, pool, branch)
        self.lending = Lending(bench)
        self.tracking = Tracking(bench, pool, self.setup, self.verdicts)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, shared: bool = False, confined: bool = False) -> AsyncIterator["Lab"]:
        """Open the repository around `settings.repo` and its store; raises NotReady where there is none.

        Args:
            shared: several agents will call this lab, as over HTTP.
            confined: files that callers name go into the folder for exports.
        """
        repository = await asyncio.to_thread(Repository.discover, settings.repo)
        folders = Folders.of(settings, repository.root)
        ensure_state_folder(folders.state)
        async with Store.open(folders.store) as store:
            bench = Bench(settings, repository, folders, store, shared, confined)
            try:
                lab = cls(bench)
                async with kept_up(folders.store, lab.pool):
                    yield lab
            finally:
                bench.close()
