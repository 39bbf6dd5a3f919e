"""Turning a proposed change into a commit with a hypothesis."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from annotated_types import MinLen

from mcp_server.errors import InvalidInput, ResearchError, UnknownId, WrongState
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.candidates import (
    Candidate,
    Committed,
    IdTaken,
    check_candidate,
    commit_candidate,
    from_combination,
    from_commit,
    from_edits,
    from_files,
    from_knobs,
)
from mcp_server.lab.claims import Claim, make_claim
from mcp_server.lab.novelty import check_new, check_seed, refuse_again, trace
from mcp_server.lab.results import Registered
from mcp_server.lab.views import view
from mcp_server.machine.git import Change
from mcp_server.machine.store.experiments import Count
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.task import Category, check_name

SIMILAR_SHOWN = 5
MAKERS: Mapping[str, Any] = {
    "edits": from_edits,
    "files": from_files,
    "knobs": from_knobs,
    "commit_sha": from_commit,
}
"""What makes a tree of each source but the workspace."""


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
        knobs: Annotated[
            dict[str, Any] | None, "Constants or options of the script to set {NAME: value}, e.g. LR, --lr"
        ] = None,
        combine: Annotated[list[str] | None, "Two experiment ids whose changes to put together on the best"] = None,
        revert: Annotated[str | None, "Id of a kept experiment whose change to take out of the best"] = None,
        commit_sha: Annotated[str | None, "A commit that already holds the change"] = None,
        parent_id: Annotated[str | None, "Experiment to build on; default: the best"] = None,
        agent: Annotated[str | None, "Whose workspace; needed only if several are yours"] = None,
    ) -> Registered:
        """Commit one change as an experiment: edits, files, knobs, combine, revert or commit_sha; without any, what you
        edited in the workspace. The first experiment of a run is the baseline and needs no change. Next: train.
        """
        run = await self._bench.store.runs.get(tag)
        sources = {"edits": edits, "files": files, "knobs": knobs, "combine": combine, "revert": revert}
        claim = make_claim(run, hypothesis, description, category, parent_id, **sources, commit_sha=commit_sha)
        author = await self._author(run, agent)
        if claim.source is None and not run.task.external:
            return await self._from_workspace(run, claim, author)
        request = claim.digest(author)
        if earlier := await self._bench.store.experiments.open_request(run.tag, request):
            return await self._answer(run, earlier)
        base = await self._base(run, parent_id)
        candidate = await self._candidate(run, claim, base, request)
        return await self._answer(run, await self._record(run, claim, author, candidate))

    async def _author(self, run: Run, agent: str | None) -> str:
        if not run.task.external or agent is None:
            return await self._bench.author(run, agent)
        await self._bench.store.runs.add_agent(run.tag, check_name("agent name", agent))
        return agent

    async def _candidate(self, run: Run, claim: Claim, base: Base, request: str) -> Candidate:
        """The tree that the claim's source makes of its base; in an external run, the commit that the caller made."""
        repository = self._bench.repository
        if run.task.external:
            commit = await self._bench.run(repository.resolve, claim.source[1] if claim.source else "HEAD")
            tree = await self._bench.run(repository.tree_of, commit)
            return Candidate(tree, base.commit, base.parent_id, request, commit)
        assert claim.source is not None
        name, value = claim.source
        if name in ("combine", "revert"):
            changes = [await self._change(run, each) for each in (value if name == "combine" else [value])]
            changes = [(new, old) for old, new in changes] if name == "revert" else changes
            tree = await self._bench.run(from_combination, repository, run, base.commit, changes)
            return Candidate(tree, base.commit, base.parent_id, request)
        tree = await self._bench.run(MAKERS[name], repository, run, base.commit, value)
        return Candidate(tree, base.commit, base.parent_id, request)

    async def _change(self, run: Run, experiment_id: str) -> tuple[str, str]:
        """The commits between which an experiment's change lies."""
        experiment = await self._of_run(run, experiment_id)
        return experiment.base_commit, experiment.commit

    async def _from_workspace(self, run: Run, claim: Claim, author: str) -> Registered:
        desk = await self._bench.desk(run, author, await self._branch.tip(run))
        async with desk.lock:
            tree = await self._bench.run(desk.workspace.snapshot)
            head = await self._bench.run(desk.workspace.head)
            request = claim.digest(author, tree)
            experiment = await self._bench.store.experiments.open_request(run.tag, request)
            if experiment is None:
                base = await self._workspace_base(run, claim, head)
                candidate = Candidate(tree, base.commit, base.parent_id, request)
                experiment = await self._record(run, claim, author, candidate)
            if head != experiment.commit:
                await self._bench.run(desk.workspace.adopt, experiment.commit)
        return await self._answer(run, experiment)

    async def _workspace_base(self, run: Run, claim: Claim, head: str) -> Base:
        """The commit that the workspace is at, which a given `parent_id` must agree with."""
        parent = await self._bench.store.experiments.parent_at(run.tag, head)
        if claim.parent_id is None:
            return Base(head, parent)
        base = await self._base(run, claim.parent_id)
        if base.commit != head:
            raise WrongState(
                f"The workspace is based on {parent or 'the base commit'}, not on {claim.parent_id}",
                "Leave parent_id out to register the workspace, or send the change as edits, files or knobs",
            )
        return base

    async def _base(self, run: Run, parent_id: str | None) -> Base:
        """The named experiment's commit, or the present best's, or the run's base commit."""
        if parent_id is None:
            best = await self._bench.store.experiments.best(run.tag)
            return Base(await self._branch.tip(run), best.id if best else None)
        parent = await self._of_run(run, parent_id)
        commit = parent.commit if parent.commit_known else await self._branch.tip(run)
        return Base(parent.branch_commit or commit, parent.id)

    async def _of_run(self, run: Run, experiment_id: str) -> Experiment:
        experiment = await self._bench.store.experiments.get(experiment_id)
        if experiment.tag != run.tag:
            raise UnknownId(
                f"Experiment {experiment_id!r} belongs to run {experiment.tag!r}", f"Name one of run {run.tag!r}"
            )
        return experiment

    async def _record(self, run: Run, claim: Claim, author: str, candidate: Candidate) -> Experiment:
        """Commit a candidate and record it: git first, so that a recorded experiment always has its commit."""
        bench = self._bench
        changes = await bench.run(check_candidate, bench.repository, run, candidate)
        await self._check_target(run)
        waiting = await bench.store.history.open(run.tag, 1)
        unchanged = not changes and not run.task.external
        novel = bool(changes) and not run.task.external
        admit = partial(_admit, run, unchanged, novel, waiting[0].id if waiting else None)
        admit(await bench.store.experiments.count(run.tag))
        found = await bench.run(trace, bench.repository, run, candidate, changes)
        if novel:
            await bench.run(check_seed, bench.repository, candidate, changes)
            await check_new(bench, run, candidate, found)
        now = time.time()
        try:
            number, committed = await self._commit(run, claim, author, candidate, changes, now)
        except IdTaken:
            last = await bench.run(bench.repository.last_number, run.tag)
            number, committed = await self._commit(run, claim, author, candidate, changes, now, last)
        experiment_id = f"{run.tag}-{number}"
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
            registered_at=now,
            parent_id=candidate.parent_id,
            description=claim.description,
            source=claim.place,
            diff_summary=committed.summary,
            lines_added=committed.added,
            lines_removed=committed.removed,
            changes=committed.changes,
        )
        try:
            recorded = await bench.store.experiments.add(experiment, found.change, found.knobs, admit)
        except ResearchError:  # refused; one who was cancelled does not know, and leaves the ref
            await bench.run(bench.repository.drop_ref, run.tag, experiment_id)
            raise
        if recorded.id != experiment_id:  # an equal call was faster
            await bench.run(bench.repository.drop_ref, run.tag, experiment_id)
        return recorded

    async def _commit(
        self,
        run: Run,
        claim: Claim,
        author: str,
        candidate: Candidate,
        changes: Sequence[Change],
        now: float,
        after: int = 0,
    ) -> tuple[int, Committed]:
        """Commit a candidate under the next number above `after`; raises IdTaken if a lost experiment has it."""
        number = await self._bench.store.runs.take_number(run.tag, after)
        experiment_id = f"{run.tag}-{number}"
        message = claim.message(experiment_id, author)
        repository = self._bench.repository
        committed = await self._bench.run(
            commit_candidate, repository, run, candidate, changes, experiment_id, message, now, new=True
        )
        return number, committed

    async def _check_target(self, run: Run) -> None:
        best = await self._bench.store.experiments.best(run.tag)
        if best and best.value is not None and run.task.reached(best.value):
            raise WrongState(
                f"Run {run.tag!r} has reached its target: {run.task.metric} {best.value:g}",
                f"Call report(tag={run.tag!r}) and show it to the user",
            )

    async def _answer(self, run: Run, experiment: Experiment) -> Registered:
        change = await self._bench.store.memory.change_of(run.tag, experiment.number)
        similar = await self._bench.store.memory.similar(run.tag, change, SIMILAR_SHOWN, besides=experiment.number)
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
            similar=[view(other.experiment) for other in similar],
            next_action=todo,
        )


def _admit(run: Run, unchanged: bool, novel: bool, waiting: str | None, count: Count) -> None:
    """Raise where a run may have no further experiment, or none without a change.

    Args:
        novel: it must be, see `check_new`: another server may have registered the same at this moment.
        waiting: an experiment without a verdict, if there is one.
    """
    if run.task.max_experiments is not None and count.total >= run.task.max_experiments:
        raise WrongState(
            f"Run {run.tag!r} has its {run.task.max_experiments} experiments (max_experiments)",
            f"Call report(tag={run.tag!r}) and show it to the user",
        )
    if novel and count.same is not None:
        refuse_again(count.same)
    if unchanged and count.settled:
        first = f"Call train({waiting!r}) if that was meant" if waiting else "Change something first"
        raise InvalidInput(
            f"There is no change against the base, and run {run.tag!r} has its baseline",
            f"{first}: edit the workspace, or send edits, files or knobs",
        )
