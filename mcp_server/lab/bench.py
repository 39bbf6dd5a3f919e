"""What every part of the lab works with: one repository, its state folder and store, and the workspaces held here."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Hold, Repository, Workspace, hold_workspace
from mcp_server.machine.store import Store
from mcp_server.research.experiment import Experiment, Run
from mcp_server.settings import Settings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass
class Desk:
    """A workspace that this process holds; its lock keeps two calls from changing it at once."""

    workspace: Workspace
    hold: Hold
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Bench:
    """The things that the parts of the lab share.

    Attributes:
        shared: several agents call this process (HTTP), so that a workspace is handed out again only by its name.
        confined: files that callers name go into the folder for exports: they are not the user on their own terminal.
        desks: the workspaces that this process holds, by tag and agent.
        listing: held by the call that writes results files.
    """

    settings: Settings
    repository: Repository
    folders: Folders
    store: Store
    shared: bool = False
    confined: bool = False
    desks: dict[tuple[str, str], Desk] = field(default_factory=dict)
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Run blocking work (git, files, devices) beside the event loop."""
        return await asyncio.to_thread(functools.partial(function, *args, **kwargs))

    def held(self, tag: str) -> list[str]:
        """The agents of a run whose workspaces this process holds."""
        return [agent for held_tag, agent in self.desks if held_tag == tag]

    async def desk(self, run: Run, agent: str, commit: str) -> Desk:
        """Hold an agent's workspace, made at `commit` if it is new; raises WrongState if another process has it."""
        key = (run.tag, agent)
        path = self.folders.workspace(run.tag, agent)
        if key not in self.desks:
            hold = hold_workspace(path)
            try:
                workspace = await self._open(run, path, commit)
            except BaseException:
                hold.close()
                raise
            self.desks[key] = Desk(workspace, hold)
            await self.store.runs.add_agent(run.tag, agent)
        elif not (path / ".git").exists():  # somebody deleted the folder
            self.desks[key].workspace = await self._open(run, path, commit)
        return self.desks[key]

    async def _open(self, run: Run, path: Path, commit: str) -> Workspace:
        outside = (run.task.results_file,)
        return await self.run(Workspace.open_or_create, self.repository, path, commit, run.task.inputs, outside)

    async def catch_up(self, desk: Desk, experiments: Iterable[Experiment]) -> None:
        """Base a workspace on the one of some experiments whose files it has, as the server that was killed between
        recording it and this would have done; otherwise nothing happens. Its lock must be held."""
        head = await self.run(desk.workspace.head)
        candidates = [each for each in experiments if each.base_commit == head != each.commit]
        if not candidates or await self.run(desk.workspace.is_clean):
            return
        tree = await self.run(desk.workspace.snapshot)
        for experiment in candidates:
            if await self.run(self.repository.tree_of, experiment.commit) == tree:
                await self.run(desk.workspace.adopt, experiment.commit)
                return

    async def author(self, run: Run, agent: str | None) -> str:
        """The agent that a call speaks for: the named one, or the only one there can be; else InvalidInput."""
        known = await self.store.runs.agents(run.tag)
        if agent is not None:
            if agent in known:
                return agent
            raise InvalidInput(
                f"No agent is called {agent!r} in run {run.tag!r} (agents: {', '.join(known) or 'none'})",
                f"Call setup_run(tag={run.tag!r}, resume=true, agent={agent!r}) to get a workspace under that name",
            )
        candidates = self.held(run.tag) or list(known)
        if len(candidates) == 1:
            return candidates[0]
        raise InvalidInput(
            f"Run {run.tag!r} has the agents {', '.join(candidates) or 'none'}, and the call names none",
            "Give agent=NAME, the name that setup_run answered",
        )

    @asynccontextmanager
    async def borrowed_desk(self, run: Run, agent: str) -> AsyncIterator[Desk | None]:
        """An agent's existing workspace for a moment, given back unless it is held here anyway; None if another process
        has it."""
        if (run.tag, agent) in self.desks:
            yield await self.desk(run, agent, run.base_commit)
            return
        path = self.folders.workspace(run.tag, agent)
        try:
            hold = hold_workspace(path)
        except WrongState:
            yield None
            return
        with hold:
            yield Desk(await self._open(run, path, run.base_commit), hold)

    def close(self) -> None:
        """Let go of every workspace."""
        for desk in self.desks.values():
            desk.hold.close()
        self.desks.clear()
