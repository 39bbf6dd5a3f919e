"""What an agent says of a change when it registers one, checked, and the digest by which a repeated call is known."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.lab.texts import clean_text
from mcp_server.research.experiment import Run
from mcp_server.research.task import CATEGORIES, Category


@dataclass(frozen=True)
class Claim:
    """A hypothesis and where its change is.

    Attributes:
        source: the name and value of the argument that holds the change; None means the workspace.
    """

    hypothesis: str
    description: str
    category: Category
    source: tuple[str, Any] | None
    parent_id: str | None

    @property
    def place(self) -> str:
        """Where the change is, in a word."""
        return self.source[0] if self.source else "workspace"

    def digest(self, author: str, tree: str | None = None) -> str:
        """A digest of what was said by whom, and of the workspace's tree where that is the change."""
        said = [self.hypothesis, self.description, self.category, self.source, self.parent_id, author, tree]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def message(self, experiment_id: str, author: str) -> str:
        """The message of the change's commit."""
        signature = f"Experiment: {experiment_id}\nCategory: {self.category}\nAgent: {author}"
        return "\n\n".join(part for part in (self.hypothesis, self.description, signature) if part) + "\n"


def make_claim(
    run: Run, hypothesis: str, description: str, category: Category, parent_id: str | None, **sources: Any
) -> Claim:
    """A claim about a change of a run; raises InvalidInput where the run or the sources forbid it."""
    hypothesis = clean_text("hypothesis", hypothesis)
    if not hypothesis:
        raise InvalidInput("hypothesis is empty", "Say in one sentence what you expect and why")
    if category not in CATEGORIES:
        raise InvalidInput(f"category {category!r} is unknown", f"Choose from {', '.join(CATEGORIES)}")
    # A baseline belongs to no category of changes, so `other` is in every scope.
    if category not in run.task.scope and category != "other":
        raise InvalidInput(
            f"category {category!r} is outside the scope of run {run.tag!r}",
            f"Choose from {', '.join(run.task.scope)}",
        )
    source = _one_source(run, sources)
    return Claim(hypothesis, clean_text("description", description), category, source, parent_id)


def _one_source(run: Run, sources: dict[str, Any]) -> tuple[str, Any] | None:
    given = [(name, value) for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise InvalidInput(
            f"register got {' and '.join(name for name, _ in given)}", "Give one of them, or none for the workspace"
        )
    if not given:
        return None
    name, value = given[0]
    if not value:
        raise InvalidInput(f"{name} is empty", "Leave it out to register what you edited in the workspace")
    if run.task.external and name != "commit_sha":
        raise InvalidInput(
            f"{name} cannot be used in an external run, where you run git yourself",
            "Commit the change and give commit_sha",
        )
    if name == "combine" and len(set(value)) != 2:
        raise InvalidInput(f"combine is {value!r}", "Give the ids of two different experiments")
    return name, value
