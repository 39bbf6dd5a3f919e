"""An agent, as far as the lab can see one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_server.lab.lab import Lab
from mcp_server.lab.results import Completed, SetUp
from mcp_server.settings import Settings

GOAL: dict[str, Any] = {"metric": "val_loss", "direction": "minimize", "time_budget_seconds": 5.0, "policy": "greedy"}


@dataclass
class Researcher:
    """Calls the lab in the order that the instructions teach."""

    lab: Lab
    tag: str = "mar8"
    run: SetUp | None = None

    async def begin(self, **arguments: Any) -> SetUp:
        """Set the run up."""
        self.run = await self.lab.setup.setup_run(tag=self.tag, **{**GOAL, **arguments})
        return self.run

    @property
    def script(self) -> Path:
        """The training script in the workspace."""
        assert self.run is not None
        assert self.run.workspace is not None
        return Path(self.run.workspace) / "train.py"

    def edit(self, old: str, new: str) -> None:
        """Edit the script in the workspace."""
        text = self.script.read_text()
        assert old in text
        self.script.write_text(text.replace(old, new))

    async def propose(self, hypothesis: str, category: str = "hyperparams", **source: Any) -> str:
        """Register a change; its id."""
        arguments: dict[str, Any] = {"tag": self.tag, "hypothesis": hypothesis, "category": category, **source}
        return (await self.lab.registering.register(**arguments)).experiment_id

    async def attempt(self, hypothesis: str, category: str = "hyperparams", **source: Any) -> Completed:
        """Register a change, train it and ask for the verdict."""
        experiment_id = await self.propose(hypothesis, category, **source)
        trained = await self.lab.training.train(experiment_id, wait_seconds=60)
        assert trained.status in ("trained", "crash"), trained
        return await self.lab.verdicts.complete(experiment_id)

    async def baseline(self) -> Completed:
        """Measure the unchanged script."""
        return await self.attempt("the baseline", "other")


@asynccontextmanager
async def researching(settings: Settings, **arguments: Any) -> AsyncIterator[Researcher]:
    """A researcher with a run that has its baseline."""
    async with Lab.open(settings) as lab:
        researcher = Researcher(lab)
        await researcher.begin(**arguments)
        await researcher.baseline()
        yield researcher
