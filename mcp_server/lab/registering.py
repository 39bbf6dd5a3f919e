"""Turning a proposed change into a commit with a hypothesis."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from mcp_server.errors import InvalidInput, UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.candidates import Candidate, commit_candidate, from_commit, from_edits, from_files, from_knobs
from mcp_server.lab.results import Registered
from mcp_server.lab.views import view
from mcp_server.machine.git import Workspace
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.task import CATEGORIES, Category

SIMILAR_AMONG = 200
SIMILAR_SHOWN = 5
LONGEST_TEXT = 4000


@dataclass(frozen=True)
class Base:
    """The commit that a change is applied to, and the experiment that it belongs to, if any."""

    commit: str
    parent_id: str | None


class Registering:
    """Makes experiments."""

    def __init__(self, bench: Bench, branch: Branch) -> None:
        self._bench = bench
        self._branch = branch

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
        run = await self._bench.store.runs.get(tag)
        source = _one_source(edits=edits, files=files, knobs=knobs, combine=combine, commit_sha=commit_sha)
        claim = _Claim(hypothesis.strip(), description.strip(), category, source, parent_id, agent)
        _check_claim(run, claim)
        if run.task.external:
            return await self._external(run, claim, commit_sha)
        author = await self._bench.author(run, agent)
        if source is None:
            return await self._from_workspace(run, claim, author)
        earlier = await self._bench.store.experiments.open_request(run.tag, _digest(claim, author, None))
        if earlier:
            return await self._answer(run, earlier)
        base = await self._base(run, parent_id)
        tree = await self._bench.run(_tree, self._bench, run, base.commit, source)
        candidate = Candidate(tree, base.commit, base.parent_id, _digest(claim, author, None))
        return await self._answer(run, await self._record(run, claim, author, candidate))

    async def _from_workspace(self, run: Run, claim: "_Claim", author: str) -> Registered:
        desk = await self._bench.desk(run, author, await self._branch.tip(run))
        async with desk.lock:
            workspace = desk.workspace
            tree = await self._bench.run(workspace.snapshot)
            head = await self._bench.run(workspace.head)
            request = _digest(claim, author, tree)
            experiment = await self._bench.store.experiments.open_request(run.tag, request)
            if experiment is None:
                base = await self._workspace_base(run, claim, head)
                experiment = await self._record(
                    run, claim, author, Candidate(tree, base.commit, base.parent_id, request)
                )
            if head != experiment.commit:
                await self._bench.run(_adopt_if_same, workspace, experiment.commit, tree)
        return await self._answer(run, experiment)

    async def _workspace_base(self, run: Run, claim: "_Claim", head: str) -> Base:
        """The commit that the workspace is at, which a given `parent_id` must agree with."""
        owner = await self._bench.store.experiments.of_commit(run.tag, head)
        if claim.parent_id is None:
            return Base(head, owner.id if owner else None)
        base = await self._base(run, claim.parent_id)
        if base.commit != head:
            raise WrongState(
                f"The workspace is based on {owner.id if owner else 'the base commit'}, not on {claim.parent_id}",
                "Leave parent_id out to register the workspace, or send the change as edits, files or knobs",
            )
        return base

    async def _base(self, run: Run, parent_id: str | None) -> Base:
        """The named experiment's commit, or the present best's, or the run's base commit."""
        if parent_id is None:
            best = await self._bench.store.experiments.best(run.tag)
            return Base(await self._branch.tip(run), best.id if best else None)
        parent = await self._bench.store.experiments.get(parent_id)
        if parent.tag != run.tag:
            raise UnknownId(f"Experiment {parent_id!r} belongs to run {parent.tag!r}", f"Name one of run {run.tag!r}")
        return Base(parent.branch_commit or parent.commit, parent.id)

    async def _record(self, run: Run, claim: "_Claim", author: str, candidate: Candidate) -> Experiment:
        """Commit a candidate and record it: git first, so that a recorded experiment always has its commit."""
        bench = self._bench
        unchanged = candidate.tree == await bench.run(bench.repository.tree_of, candidate.base_commit)
        if unchanged:
            await self._check_baseline(run)
        await self._check_limits(run)
        number = await bench.store.runs.take_number(run.tag)
        experiment_id = f"{run.tag}-{number}"
        message = _message(claim, experiment_id, author)
        committed = await bench.run(
            commit_candidate, bench.repository, run, candidate, experiment_id, message, time.time(), unchanged
        )
        experiment = Experiment(
            id=experiment_id,
            tag=run.tag,
            number=number,
            agent=author,
            commit=committed.commit,
            base_commit=candidate.base_commit,
            hypothesis=claim.hypothesis,
            category=claim.category,
            request=candidate.request,
            registered_at=time.time(),
            parent_id=candidate.parent_id,
            description=claim.description,
            source="workspace" if claim.source is None else claim.source[0],
            diff_summary=committed.summary,
            lines_added=committed.added,
            lines_removed=committed.removed,
            changes=committed.changes,
        )
        recorded = await bench.store.experiments.add(experiment)
        if recorded.id != experiment_id:  # an equal call was faster
            await bench.run(bench.repository.drop_ref, run.tag, experiment_id)
        return recorded

    async def _check_baseline(self, run: Run) -> None:
        """Refuse an experiment without a change, except as the first, or where all before it crashed."""
        history = self._bench.store.history
        counts = await history.counts(run.tag)
        if all(status == "crash" for status in counts):
            return
        pending = await history.open(run.tag, 1)
        first = f"Call train({pending[0].id!r}) if that was meant" if pending else "Change something first"
        raise InvalidInput(
            f"There is no change against the base, and run {run.tag!r} has its baseline",
            f"{first}: edit the workspace, or send edits, files or knobs",
        )

    async def _check_limits(self, run: Run) -> None:
        total = await self._bench.store.history.total(run.tag)
        if run.task.max_experiments is not None and total >= run.task.max_experiments:
            raise WrongState(
                f"Run {run.tag!r} has its {run.task.max_experiments} experiments (max_experiments)",
                f"Call summary(tag={run.tag!r}) and report to the user",
            )
        best = await self._bench.store.experiments.best(run.tag)
        if best and best.value is not None and run.task.reached(best.value):
            raise WrongState(
                f"Run {run.tag!r} has reached its target: {run.task.metric} {best.value:g}",
                f"Call summary(tag={run.tag!r}) and report to the user",
            )

    async def _external(self, run: Run, claim: "_Claim", commit_sha: str | None) -> Registered:
        """Record an experiment whose code and training belong to the caller."""
        if claim.source is not None and claim.source[0] != "commit_sha":
            raise InvalidInput(
                f"{claim.source[0]} cannot be used in an external run, where you run git yourself",
                "Commit the change and give commit_sha",
            )
        author = claim.agent or "agent-1"
        earlier = await self._bench.store.experiments.open_request(run.tag, _digest(claim, author, None))
        if earlier:
            return await self._answer(run, earlier)
        base = await self._base(run, claim.parent_id)
        repository = self._bench.repository
        commit = await self._bench.run(repository.resolve, commit_sha or "HEAD")
        tree = await self._bench.run(repository.tree_of, commit)
        candidate = Candidate(tree, base.commit, base.parent_id, _digest(claim, author, None), commit)
        await self._check_limits(run)
        return await self._answer(run, await self._record_external(run, claim, author, candidate, commit))

    async def _record_external(
        self, run: Run, claim: "_Claim", author: str, candidate: Candidate, commit: str
    ) -> Experiment:
        number = await self._bench.store.runs.take_number(run.tag)
        experiment_id = f"{run.tag}-{number}"
        await self._bench.run(self._bench.repository.keep_ref, run.tag, experiment_id, commit)
        return await self._bench.store.experiments.add(
            Experiment(
                id=experiment_id,
                tag=run.tag,
                number=number,
                agent=author,
                commit=commit,
                base_commit=candidate.base_commit,
                hypothesis=claim.hypothesis,
                category=claim.category,
                request=candidate.request,
                registered_at=time.time(),
                parent_id=candidate.parent_id,
                description=claim.description,
                source="external",
            )
        )

    async def _answer(self, run: Run, experiment: Experiment) -> Registered:
        recent = await self._bench.store.history.finished(run.tag, SIMILAR_AMONG)
        similar = [other for other in recent if experiment.changes and other.changes == experiment.changes]
        todo = (
            f"Train it yourself, then call complete({experiment.id!r}, metrics={{...}})"
            if run.task.external
            else f"Call train({experiment.id!r})"
        )
        return Registered(
            experiment_id=experiment.id,
            commit=experiment.commit,
            base_commit=experiment.base_commit,
            diff_summary=experiment.diff_summary,
            lines_added=experiment.lines_added,
            lines_removed=experiment.lines_removed,
            similar=[view(other) for other in similar[:SIMILAR_SHOWN]],
            next_action=todo,
        )


@dataclass(frozen=True)
class _Claim:
    """What the caller said of a change; `source` is the name and value of the argument that holds it."""

    hypothesis: str
    description: str
    category: Category
    source: tuple[str, Any] | None
    parent_id: str | None
    agent: str | None


def _one_source(**sources: Any) -> tuple[str, Any] | None:
    given = [(name, value) for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise InvalidInput(
            f"register got {' and '.join(name for name, _ in given)}", "Give one of them, or none for the workspace"
        )
    if given and given[0][0] == "combine":
        raise InvalidInput(
            f"combine={given[0][1]!r} is not available in this version",
            "Send the merged change as edits, files or knobs, with category 'combination'",
        )
    if given and not given[0][1]:
        raise InvalidInput(f"{given[0][0]} is empty", "Leave it out to register what you edited in the workspace")
    return given[0] if given else None


def _check_claim(run: Run, claim: _Claim) -> None:
    if not claim.hypothesis:
        raise InvalidInput("hypothesis is empty", "Say in one sentence what you expect and why")
    for name, text in (("hypothesis", claim.hypothesis), ("description", claim.description)):
        if len(text) > LONGEST_TEXT:
            raise InvalidInput(f"{name} has {len(text)} characters", f"Keep it below {LONGEST_TEXT}")
    if claim.category not in CATEGORIES:
        raise InvalidInput(f"category {claim.category!r} is unknown", f"Choose from {', '.join(CATEGORIES)}")
    # A baseline belongs to no category of changes, so `other` is in every scope.
    if claim.category not in run.task.scope and claim.category != "other":
        raise InvalidInput(
            f"category {claim.category!r} is outside the scope of run {run.tag!r}",
            f"Choose from {', '.join(run.task.scope)}",
        )


def _digest(claim: _Claim, author: str, tree: str | None) -> str:
    """A digest of the arguments of `register`, and of the workspace's files where they are the change."""
    said = [claim.hypothesis, claim.description, claim.category, claim.source, claim.parent_id, author, tree]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _message(claim: _Claim, experiment_id: str, author: str) -> str:
    parts = [claim.hypothesis]
    if claim.description:
        parts.append(claim.description)
    parts.append(f"Experiment: {experiment_id}\nCategory: {claim.category}\nAgent: {author}")
    return "\n\n".join(parts) + "\n"


def _adopt_if_same(workspace: Workspace, commit: str, tree: str) -> None:
    """Base the workspace on the commit made from it; edits made since then stay edits."""
    assert workspace.repository.tree_of(commit) == tree
    workspace.adopt(commit)


def _tree(bench: Bench, run: Run, base: str, source: tuple[str, Any]) -> str:
    """The tree that a source other than the workspace makes of a base commit."""
    name, value = source
    makers: Mapping[str, Any] = {
        "edits": from_edits,
        "files": from_files,
        "knobs": from_knobs,
        "commit_sha": from_commit,
    }
    tree: str = makers[name](bench.repository, run, base, value)
    return tree


__all__: Sequence[str] = ("Registering",)
