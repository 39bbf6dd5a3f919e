"""The ways in which a change can be proposed, each made into a tree, checked, and committed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.machine.git import (
    Change,
    Conflict,
    Edit,
    Repository,
    apply_edits,
    check_changes,
    combine,
    tree_with_files,
)
from mcp_server.research.experiment import KnobValue, Run
from mcp_server.research.knobs import changed_knobs, write_knobs
from mcp_server.research.marking import cited
from mcp_server.research.variations import held

SUMMARISED = 6
CONFLICTS_SHOWN = 5
CONFLICT_CHARACTERS = 400


@dataclass(frozen=True)
class Candidate:
    """A tree to try, and what it is based on.

    Attributes:
        request: the digest of the arguments of `register`.
        commit: the caller's own commit, in an external run.
        also: further parents of the commit, which it keeps reachable.
    """

    tree: str
    base_commit: str
    parent_id: str | None
    request: str
    commit: str | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Committed:
    """A candidate as a commit."""

    commit: str
    summary: str
    added: int
    removed: int
    changes: Mapping[str, tuple[KnobValue, KnobValue]] = field(default_factory=dict)


def from_edits(repository: Repository, run: Run, base: str, edits: Sequence[Mapping[str, Any]]) -> str:
    """The tree of a base commit with some texts replaced; raises InvalidInput."""
    made = []
    for number, edit in enumerate(edits, 1):
        if set(edit) != {"path", "old", "new"} or not all(isinstance(value, str) for value in edit.values()):
            raise InvalidInput(
                f"edit {number} has the keys {sorted(edit)}", "Give each edit exactly the texts path, old and new"
            )
        made.append(Edit(edit["path"], edit["old"], edit["new"]))
    return tree_with_files(repository, base, apply_edits(repository, base, made))


def from_files(repository: Repository, run: Run, base: str, files: Mapping[str, str]) -> str:
    """The tree of a base commit with whole files replaced; raises InvalidInput."""
    return tree_with_files(repository, base, files)


def from_knobs(repository: Repository, run: Run, base: str, knobs: Mapping[str, Any]) -> str:
    """The tree of a base commit with constants of the training script set; raises InvalidInput."""
    script = run.task.train_script
    source = repository.read_file(base, script) if script else None
    if source is None:
        raise InvalidInput(f"run {run.tag!r} has no training script to set knobs in", "Send edits or files instead")
    return tree_with_files(repository, base, {script: write_knobs(source, knobs)})


def from_commit(repository: Repository, run: Run, base: str, commit: str) -> str:
    """The tree of an existing commit; raises InvalidInput if there is none of that name."""
    return repository.tree_of(repository.resolve(commit))


def from_combination(repository: Repository, run: Run, base: str, changes: Sequence[tuple[str, str]]) -> str:
    """The tree of a base commit with several changes, each from a commit to a commit; InvalidInput names conflicts."""
    combined = combine(repository, base, changes)
    if combined.tree is None:
        shown = "; ".join(conflict_text(conflict) for conflict in combined.conflicts[:CONFLICTS_SHOWN])
        more = len(combined.conflicts) - CONFLICTS_SHOWN
        raise InvalidInput(
            f"The changes do not fit together: {shown}{f'; and {more} more' if more > 0 else ''}",
            "Nothing was changed. Make the combined change yourself, as edits or files",
        )
    return combined.tree


def conflict_text(conflict: Conflict) -> str:
    """A conflict in words: where it is, what stands there and what the change would put there."""
    place = f"{conflict.path} lines {conflict.start}-{conflict.end}" if conflict.start else conflict.path
    most = CONFLICT_CHARACTERS // 2
    present, change = cited(conflict.present, most, "present"), cited(conflict.change, most, "the change")
    sides = f" ({present}, against {change})" if conflict.start else ""
    return f"{place} of {conflict.commit[:7]}: {conflict.reason}{sides}"


def check_candidate(repository: Repository, run: Run, candidate: Candidate) -> Sequence[Change]:
    """What a candidate changes; raises InvalidInput where the task forbids it. External runs are free to change all."""
    changes = repository.changed(candidate.base_commit, candidate.tree)
    if not run.task.external:
        check_changes(run.task, changes)
        script = run.task.train_script
        texts = [repository.read_file(tree, script) for tree in (candidate.base_commit, candidate.tree) if script]
        if texts and (fixed := held(run.task, texts[0], texts[1])):
            raise InvalidInput(
                f"{', '.join(fixed)} is held fixed by the plan of run {run.tag!r}",
                "Undo that change, and vary something else: call suggest",
            )
    return changes


class IdTaken(WrongState):
    """An id belongs to an experiment that the record has lost: it was restored from a backup, or begun afresh."""


def commit_candidate(
    repository: Repository,
    run: Run,
    candidate: Candidate,
    changes: Sequence[Change],
    experiment_id: str,
    message: str,
    when: float,
    new: bool = False,
) -> Committed:
    """Commit a checked candidate, and keep the commit reachable under the experiment's id.

    A candidate without a change is its base commit; in an external run it is the caller's commit.

    Args:
        new: whether the experiment has no commit yet.

    Raises:
        IdTaken: it has one nevertheless, of an experiment that the record does not know.
    """
    commit = candidate.commit or candidate.base_commit
    if candidate.commit is None and changes:
        parents = [candidate.base_commit, *candidate.also]
        commit = repository.commit_tree(candidate.tree, parents, message, when)
    if not repository.keep_ref(run.tag, experiment_id, commit, new):
        raise IdTaken(f"{experiment_id} has a commit already, which the record does not know", "Register it again")
    knobs = changed_constants(repository, run, candidate, changes)
    return Committed(
        commit=commit,
        summary=summary_of(changes, knobs),
        added=sum(change.added for change in changes),
        removed=sum(change.removed for change in changes),
        changes=knobs,
    )


def changed_constants(
    repository: Repository, run: Run, candidate: Candidate, changes: Sequence[Change]
) -> Mapping[str, tuple[KnobValue, KnobValue]]:
    """The constants of the training script that a candidate changes."""
    script = run.task.train_script
    if script not in [change.path for change in changes]:
        return {}
    old, new = repository.read_file(candidate.base_commit, script), repository.read_file(candidate.tree, script)
    return changed_knobs(old, new) if old is not None and new is not None else {}


def summary_of(changes: Sequence[Change], knobs: Mapping[str, tuple[KnobValue, KnobValue]]) -> str:
    """One line that says what changed: constants by name, then files with their lines."""
    if not changes:
        return "no change"
    parts = [f"{name} {old!r} -> {new!r}" for name, (old, new) in list(knobs.items())[:SUMMARISED]]
    parts += [f"{change.path} +{change.added} -{change.removed}" for change in changes[:SUMMARISED]]
    left = max(0, len(knobs) - SUMMARISED) + max(0, len(changes) - SUMMARISED)
    return ", ".join(parts) + (f" and {left} more" if left else "")
