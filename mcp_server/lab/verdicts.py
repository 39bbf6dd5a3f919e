"""Verdicts: judging an experiment, and moving the branch and the workspace accordingly."""

from typing import Annotated, Literal

from mcp_server.lab.results import Completed, Crashed, StrategySet


class Verdicts:
    async def complete(
        self,
        experiment_id: str,
        metrics: Annotated[dict[str, float] | None, "Only in external runs: the numbers you measured"] = None,
        lesson: Annotated[str | None, "What this experiment taught, for later"] = None,
    ) -> Completed:
        """Judge a trained experiment: keep advances the branch, discard leaves it. The workspace moves to the best
        unless you have edited it since register. Next: suggest, then register the next idea.
        """
        raise NotImplementedError

    async def crash(
        self, experiment_id: str, error: Annotated[str, "What went wrong, in a sentence"] = ""
    ) -> Crashed:
        """Record that an experiment failed and will not be judged. Refused for a healthy result."""
        raise NotImplementedError

    async def set_strategy(
        self,
        tag: str,
        mode: Literal["explore", "exploit", "combine", "ablation", "auto"],
        reason: Annotated[str, "Why"] = "",
    ) -> StrategySet:
        """Set the search strategy by hand; auto gives it back to the server."""
        raise NotImplementedError
