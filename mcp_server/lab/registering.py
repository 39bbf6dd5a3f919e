"""Turning a proposed change into a commit with a hypothesis."""

from typing import Annotated, Any

from annotated_types import MinLen

from mcp_server.lab.results import Registered
from mcp_server.research.experiment import Category, KnobValue


class Registering:
    async def register(
        self,
        *,
        tag: Annotated[str, "The run"],
        hypothesis: Annotated[str, "What you expect and why, in one sentence", MinLen(1)],
        category: Category,
        description: Annotated[str, "What was changed"] = "",
        edits: Annotated[list[dict[str, str]] | None, "Replacements [{path, old, new}]; old must occur once"] = None,
        files: Annotated[dict[str, str] | None, "Whole new texts {path: text}"] = None,
        knobs: Annotated[dict[str, Any] | None, "Constants of the script to set {NAME: value}"] = None,
        combine: Annotated[list[str] | None, "Two experiment ids to merge (not yet available)"] = None,
        commit_sha: Annotated[str | None, "A commit that already holds the change"] = None,
        parent_id: Annotated[str | None, "Experiment to build on; default: the best"] = None,
        agent: Annotated[str | None, "Whose workspace; needed only if several are yours"] = None,
    ) -> Registered:
        """Commit one change as an experiment. Without edits, files, knobs or commit_sha it takes what you edited in
        the workspace. The first experiment of a run is the baseline and needs no change. Next: train.
        """
        raise NotImplementedError
