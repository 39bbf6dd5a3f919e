"""Handing a run's findings over: what was kept, and new branches with it on top of the main branch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.accounting import displaced
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.claiming import claiming
from mcp_server.lab.results import Finalized
from mcp_server.lab.views import told, told_steps
from mcp_server.machine.git import Conflict, Repository, combine
from mcp_server.research.case import error_of, noise_of
from mcp_server.research.claims import Assessment
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.handover import idea_message, squash_message
from mcp_server.research.marking import Words
from mcp_server.research.tables import words

Mode = Literal["show", "squash", "rebase", "branches"]


@dataclass(frozen=True)
class Step:
    """A kept idea as a change: from the keep that it was built on, to its own commit."""

    keep: Experiment
    old: str

    @property
    def change(self) -> tuple[str, str]:
        """The commits between which it lies."""
        return self.old, self.keep.commit


@dataclass(frozen=True)
class Findings:
    """A run's kept ideas, the oldest first, and what the messages of their commits tell."""

    run: Run
    steps: Sequence[Step]
    baseline: Experiment | None
    best: Experiment
    sigma: float | None
    assessment: Assessment | None = None


@dataclass
class Made:
    """New commits by the branches that are to show them, or the conflicts because of which there are none."""

    branches: dict[str, str] = field(default_factory=dict)
    stacked: list[str] = field(default_factory=list)
    conflicts: list[tuple[Experiment, Conflict]] = field(default_factory=list)


class Finalizing:
    """Makes branches for a maintainer to review and merge. It pushes nothing and moves nothing that is there."""

    def __init__(self, bench: Bench, branch: Branch) -> None:
        self._bench = bench
        self._branch = branch

    async def finalize(
        self,
        tag: Annotated[str | None, "The run; default: the newest"] = None,
        mode: Annotated[
            Mode, "show; squash: one commit; rebase: one commit an idea; branches: one branch an idea"
        ] = "show",
        onto: Annotated[str | None, "Branch or commit to build on; default: the main branch"] = None,
    ) -> Finalized:
        """Show what was kept, in order, and the final value; when asked, put it on the main branch as new branches
        autoresearch/<tag>-final or autoresearch/<tag>-idea-<n>. Nothing is pushed, merged or checked out.
        """
        run = await self._bench.store.runs.named(tag)
        findings = await self._findings(run)
        if mode == "show":
            if onto is not None:
                await self._bench.run(self._bench.repository.resolve, onto)
            return await self._answer(findings, mode, onto, Made(), [])
        if not findings.steps:
            raise WrongState(f"Run {run.tag!r} has kept nothing but its baseline", "Research on: call suggest")
        repository = self._bench.repository
        name = onto or await self._bench.run(repository.main_branch)
        if name is None:
            raise InvalidInput("It is not clear which branch is the main one", "Name it: finalize(onto=...)")
        commit = await self._bench.run(repository.resolve, name)
        made = await self._bench.run(_MAKERS[mode], repository, findings, commit)
        if not made.conflicts:
            if not made.branches:
                raise WrongState(f"{name} has all that run {run.tag!r} kept already", "There is nothing to hand over")
            await self._bench.run(repository.create_branches, made.branches)
        return await self._answer(findings, mode, name, made, await self._notes(findings, name, made))

    async def _findings(self, run: Run) -> Findings:
        lineage = await self._branch.lineage(run)
        if not lineage:
            raise WrongState(f"Run {run.tag!r} has kept nothing yet", "Register, train and complete its baseline first")
        olds = [run.base_commit, *(keep.commit for keep in lineage)]
        steps = [Step(keep, old) for keep, old in zip(lineage, olds, strict=False) if not keep.unchanged]
        noise = noise_of(run, *await self._bench.store.history.noise(run.tag))
        sigma = None if run.task.policy == "greedy" else noise.sigma
        baseline = await self._bench.store.history.baseline(run.tag)
        assessment = (await claiming(self._bench, self._branch, run)).assessment
        return Findings(run, steps, baseline, lineage[-1], sigma, assessment)

    async def _notes(self, findings: Findings, onto: str, made: Made) -> list[str]:
        """What a maintainer should know of the new branches."""
        run, repository = findings.run, self._bench.repository
        notes = [f"{name} holds the ideas before it too: alone it does not fit {onto}." for name in made.stacked]
        measured = await self._bench.run(repository.tree_of, findings.best.commit)
        final = made.branches.get(_final(run))
        if final and await self._bench.run(repository.tree_of, final) != measured:
            notes.append(
                f"{onto} is not what run {run.tag} began from, so that the files of {_final(run)} were never measured "
                "together: train them once before you merge."
            )
        return notes

    async def _answer(
        self, findings: Findings, mode: Mode, onto: str | None, made: Made, notes: list[str]
    ) -> Finalized:
        run, best = findings.run, findings.best
        others = await displaced(self._bench, self._branch, run)
        noise = noise_of(run, *await self._bench.store.history.noise(run.tag))
        assessment = findings.assessment
        claims = told_steps(assessment)
        return Finalized(
            tag=run.tag,
            mode=mode,
            onto=onto,
            metric=run.task.metric,
            baseline=findings.baseline.value if findings.baseline else None,
            value=best.value,
            error=error_of(run, best, noise),
            runs=best.runs,
            kept=[_kept(step.keep) | {"claim": claims.get(step.keep.id)} for step in findings.steps],
            displaced=[other.id for other in others],
            branches=[] if made.conflicts else [{"branch": n, "commit": c} for n, c in made.branches.items()],
            conflicts=[_shown(keep, conflict) for keep, conflict in made.conflicts],
            notes=[*notes, *_said(assessment)],
            next_action=_next(run, mode, made),
            claim=told(assessment),
        )


def _squash(repository: Repository, findings: Findings, onto: str) -> Made:
    """All ideas in one commit."""
    best = findings.best
    combined = combine(repository, onto, [(findings.run.base_commit, best.commit)])
    if combined.tree is None:
        return Made(conflicts=[(best, conflict) for conflict in combined.conflicts])
    if combined.tree == repository.tree_of(onto):
        return Made()
    ideas = [step.keep for step in findings.steps]
    message = squash_message(findings.run, findings.baseline, ideas, best, findings.sigma, findings.assessment)
    commit = repository.commit_tree(combined.tree, [onto], message, best.decided_at or 0.0)
    return Made({_final(findings.run): commit})


def _rebase(repository: Repository, findings: Findings, onto: str) -> Made:
    """A commit for each idea, in their order."""
    made, tip = Made(), onto
    for step in findings.steps:
        tip = _apply(repository, findings, step, tip, made) or tip
        if made.conflicts:
            return made
    if tip != onto:
        made.branches[_final(findings.run)] = tip
    return made


def _branches(repository: Repository, findings: Findings, onto: str) -> Made:
    """A branch for each idea: alone where it fits, otherwise on top of the ideas before it."""
    made, tip = Made(), onto
    for step in findings.steps:
        name = f"autoresearch/{findings.run.tag}-idea-{step.keep.number}"
        alone, among = Made(), Made()
        commit, stacked = (
            _apply(repository, findings, step, onto, alone),
            _apply(repository, findings, step, tip, among),
        )
        if alone.conflicts and among.conflicts:
            return alone
        if alone.conflicts:
            commit = stacked
            made.stacked.append(name)
        tip = stacked or tip
        if commit is not None:
            made.branches[name] = commit
    return made


def _apply(repository: Repository, findings: Findings, step: Step, tip: str, made: Made) -> str | None:
    """A commit of an idea on top of `tip`; None where it changes nothing there, or does not fit."""
    combined = combine(repository, tip, [step.change])
    if combined.tree is None:
        made.conflicts += [(step.keep, conflict) for conflict in combined.conflicts]
        return None
    if combined.tree == repository.tree_of(tip):
        return None
    message = idea_message(findings.run, step.keep, findings.sigma, findings.assessment)
    return repository.commit_tree(combined.tree, [tip], message, step.keep.decided_at or 0.0)


_MAKERS = {"squash": _squash, "rebase": _rebase, "branches": _branches}


def _final(run: Run) -> str:
    return f"{run.branch}-final"


def _kept(keep: Experiment) -> dict[str, Any]:
    return {
        "experiment_id": keep.id,
        "commit": keep.commit,
        "change": Words(words(keep)),
        "category": keep.category,
        "value": keep.value,
        "better_by": keep.delta,
        "runs": keep.runs,
    }


def _said(assessment: Assessment | None) -> list[str]:
    """What is claimed and what is provisional, in words."""
    if assessment is None or assessment.total is None:
        return []
    open_ = [name for name, claim in assessment.steps.items() if not claim.claimed]
    said = [f"Best against baseline, {assessment.total.words()}."]
    return [*said, f"Provisional by themselves: {', '.join(open_)}."] if open_ else said


def _shown(keep: Experiment, conflict: Conflict) -> dict[str, Any]:
    return {"experiment_id": keep.id, **asdict(conflict)} | {
        "present": Words(conflict.present),
        "change": Words(conflict.change),
    }


def _next(run: Run, mode: Mode, made: Made) -> str:
    if made.conflicts:
        other = "give onto the commit that the run began from, and merge that branch yourself"
        other = f"try mode='squash', or {other}" if mode != "squash" else other
        return f"Nothing was changed, for the hunks in conflicts do not fit: {other} (onto={run.base_commit[:12]!r})"
    if made.branches:
        return f"Tell the user to review and merge {', '.join(made.branches)}"
    return f"To hand it over, call finalize(tag={run.tag!r}, mode='squash'), 'rebase' or 'branches'"
