"""Reading: everything that looks at the record and changes nothing."""

from typing import Annotated, Literal

from annotated_types import Ge, Le

from mcp_server.lab.results import Best, Diff, Exported, HistoryPage, NearMisses, RunList, Suggested, Summary
from mcp_server.research.experiment import Category, Status

Tag = Annotated[str | None, "The run; default: the newest"]


class Reading:
    async def suggest(self, tag: Tag = None) -> Suggested:
        """Say what to try next and why: the strategy, categories by promise, concrete values for this very script."""
        raise NotImplementedError

    async def history(
        self,
        tag: Tag = None,
        status: Status | None = None,
        category: Category | None = None,
        limit: Annotated[int, "How many", Ge(1), Le(200)] = 20,
        cursor: Annotated[str | None, "next_cursor of the page before"] = None,
        detail: Literal["concise", "full"] = "concise",
    ) -> HistoryPage:
        """List experiments, newest first."""
        raise NotImplementedError

    async def near_misses(
        self, tag: Tag = None, limit: Annotated[int, "How many", Ge(1), Le(200)] = 20
    ) -> NearMisses:
        """List discarded experiments that came close to the best: candidates to refine or combine."""
        raise NotImplementedError

    async def summary(self, tag: Tag = None) -> Summary:
        """Show a run at a glance: best against baseline, counts, progression, categories, devices."""
        raise NotImplementedError

    async def best(self, tag: Tag = None) -> Best:
        """Show the best experiment and its commit."""
        raise NotImplementedError

    async def diff(self, experiment_a: str, experiment_b: str) -> Diff:
        """Compare two experiments: metric deltas (b minus a) and the unified diff of their code."""
        raise NotImplementedError

    async def list_runs(self) -> RunList:
        """List all runs of this repository, newest first."""
        raise NotImplementedError

    async def export(
        self,
        tag: Tag = None,
        format: Literal["tsv", "jsonl", "markdown"] = "tsv",  # noqa: A002 - the name that users know
        path: Annotated[str | None, "File to write, relative to the repository; default: return the text"] = None,
    ) -> Exported:
        """Export a run as results.tsv, JSON lines or a Markdown report."""
        raise NotImplementedError
