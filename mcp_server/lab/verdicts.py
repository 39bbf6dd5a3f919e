"""Verdicts: judging an experiment, and moving the branch and the workspace accordingly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from mcp_server.errors import InvalidInput, ResearchError, WrongState
from mcp_server.lab.bench import Bench, Desk
from mcp_server.lab.branch import Branch
from mcp_server.lab.claiming import claiming
from mcp_server.lab.decisions import decision, restatement
from mcp_server.lab.gathering import PENDING, gather
from mcp_server.lab.ledger import list_results, restate_results
from mcp_server.lab.pairs import next_run
from mcp_server.lab.reporting import Reporting, Standing
from mcp_server.lab.results import Completed, Crashed, Decided, StrategySet
from mcp_server.lab.texts import clean_text
from mcp_server.lab.views import reason_of, told, unjudged
from mcp_server.machine.store.verdicts import REOPENED, Restatement
from mcp_server.research import selection
from mcp_server.research.case import Case, Record, error_of, noise_of, without_weight
from mcp_server.research.claims import Assessment
from mcp_server.research.effort import noise_by_load, starved_text
from mcp_server.research.evidence import IN_FLIGHT
from mcp_server.research.experiment import FINISHED, Experiment, Run, Scalar, Trial, fresh_seed
from mcp_server.research.restating import restated, taken_back
from mcp_server.research.strategy import choose
from mcp_server.research.verdict import Action, should_abort

ACTIONS: Mapping[str, Action] = {"keep": "keep_commit", "needs_confirmation": "confirm"}
"""What `complete` does by the verdict; git_reset for all others."""


class Verdicts:
    """Judges experiments."""

    def __init__(self, bench: Bench, branch: Branch, reporting: Reporting) -> None:
        self._bench = bench
        self._branch = branch
        self._reporting = reporting

    async def complete(
        self,
        experiment_id: str,
        metrics: Annotated[dict[str, float] | None, "Only in external runs: the numbers you measured"] = None,
        lesson: Annotated[str | None, "What this experiment taught, for later"] = None,
    ) -> Completed:
        """Judge a trained experiment: keep advances the branch, discard leaves it. The workspace moves to the best
        unless you have edited it since register. Next: suggest, then register the next idea.
        """
        store = self._bench.store
        experiment = await store.experiments.get(experiment_id)
        run = await store.runs.get(experiment.tag)
        learnt = clean_text("lesson", lesson)
        trial = await store.trials.latest(experiment_id)
        if experiment.status not in FINISHED:
            _check_trained(run, experiment, trial)
        measured = _measured(run, experiment, trial, metrics)
        reopened: list[str] = []
        if experiment.status == "keep" and run.task.policy != "greedy":
            experiment, reopened = await self._take_in(run, experiment)
        else:
            reported = measured if run.task.external else None
            experiment = await store.verdicts.decide(experiment_id, lambda case: decision(run, case, reported))
        if learnt:
            await store.experiments.learn(experiment_id, learnt)
        return await self._verdict(run, experiment, reopened)

    async def crash(self, experiment_id: str, error: Annotated[str, "What went wrong, in a sentence"] = "") -> Crashed:
        """Record that an experiment failed and will not be judged. Refused for a healthy result."""
        store = self._bench.store
        experiment = await store.experiments.get(experiment_id)
        run = await store.runs.get(experiment.tag)
        reason = clean_text("error", error)
        if experiment.status != "crash":
            _check_may_crash(run, experiment, await store.trials.of(experiment_id))
            await store.experiments.crash(experiment_id, reason or "given up by the agent")
            experiment = await store.experiments.get(experiment_id)
        await list_results(self._bench, run)
        streak = await store.history.consecutive_crashes(run.tag)
        updated, _ = await self._move_workspace(run, experiment)
        standing = await self._reporting.after_verdict(run)
        return Crashed(
            experiment_id=experiment_id,
            status="crash",
            consecutive_crashes=streak,
            should_abort=should_abort(streak),
            action="git_reset",
            reason=reason_of(experiment),
            workspace_updated=updated,
            next_action=_at_the_end(run, standing) if standing.ended else _after_crash(run, streak),
        )

    async def set_strategy(
        self,
        tag: str,
        mode: Literal["explore", "exploit", "combine", "ablation", "auto"],
        reason: Annotated[str, "Why"] = "",
    ) -> StrategySet:
        """Set what suggest goes by: explore new categories, exploit the best, combine near misses, or ablation (remove
        what does not help). auto gives the choice back to the server.
        """
        run = await self._bench.store.runs.get(tag)
        why = clean_text("reason", reason)
        await self._bench.store.runs.set_mode(run.tag, None if mode == "auto" else mode, why)
        run = await self._bench.store.runs.get(tag)
        strategy = choose(run, await gather(self._bench, run, None))
        return StrategySet(
            mode=strategy.mode,
            reason=strategy.reason,
            explore_ratio=strategy.explore_ratio,
            temperature=strategy.temperature,
            manual=strategy.manual,
            next_action=f"Call suggest(tag={run.tag!r})",
        )

    async def _take_in(self, run: Run, experiment: Experiment) -> tuple[Experiment, list[str]]:
        """Take in what was measured of a kept experiment since its verdict.

        Also the near misses that this reopened, now or in an earlier call, and that still wait.
        """

        def look(case: Case, near_misses: list[Case]) -> Restatement | None:
            return restatement(run, case, near_misses)

        await list_results(self._bench, run)  # what is reopened loses its verdict, and is listed with the next one too
        taken_in = await self._bench.store.verdicts.restate(experiment.id, look, partial(restated, run))
        taken_in = await self._displaced(run, taken_in)
        waiting = await self._bench.store.history.pending(run.tag, PENDING)
        against = [
            e.id for e in waiting if e.reason.startswith(REOPENED) and e.numbers and e.numbers.base == taken_in.id
        ]
        return taken_in, against

    async def _displaced(self, run: Run, experiment: Experiment) -> Experiment:
        """Take back a best that is likely no better than what it was built on, by all runs of both.

        What was kept for having fewer lines need not be better.
        """
        best = await self._bench.store.experiments.best(run.tag)
        assessment = (await claiming(self._bench, self._branch, run)).assessment
        shorter = experiment.lines_added < experiment.lines_removed
        if best is None or best.id != experiment.id or shorter or assessment is None or not assessment.fallen:
            return experiment
        claim = assessment.steps[experiment.id]
        why = "for it is likely no better than what it was built on"
        reason = f"Displaced after {claim.runs} runs, {why}: {claim.words()}."
        return await self._bench.store.verdicts.displace(
            experiment.id, lambda case: taken_back(run, case, reason), partial(restated, run)
        )

    async def _verdict(self, run: Run, experiment: Experiment, reopened: list[str]) -> Completed:
        """Show the verdict, after bringing the branch and the agent's workspace up to date with it."""
        notes = await self._branch.settle(run)
        assessment = (await claiming(self._bench, self._branch, run)).assessment
        notes += await list_results(self._bench, run, assessment) or await restate_results(self._bench, run, assessment)
        experiment = await self._bench.store.experiments.get(experiment.id)
        updated, note = await self._move_workspace(run, experiment)
        best = await self._bench.store.experiments.best(run.tag)
        squares, dof = await self._bench.store.history.noise(run.tag)
        displaced = await self._branch.displaced(run, experiment) if experiment.status == "keep" else []
        streak = await self._bench.store.history.consecutive_crashes(run.tag)
        standing = await self._reporting.after_verdict(run)
        following = await self._next(run, experiment, best, streak, updated, reopened)
        return Completed(
            experiment_id=experiment.id,
            status=_decided(experiment),
            near_miss=experiment.near_miss,
            improved=experiment.status == "keep",
            delta=experiment.delta,
            value=experiment.value,
            best_value=best.value if best else None,
            action=ACTIONS.get(experiment.status, "git_reset"),
            reason=reason_of(experiment),
            workspace_updated=updated,
            origin=experiment.origin,
            next_action=_at_the_end(run, standing) if standing.ended else following,
            verification=experiment.label,
            sandboxed=experiment.sandboxed,
            numbers=asdict(experiment.numbers) if experiment.numbers else None,
            best_error=error_of(run, best, noise_of(run, squares, dof)),
            runs=experiment.runs,
            reopened=reopened,
            branch_commit=experiment.branch_commit,
            displaced=[other.id for other in displaced],
            notes=[
                *notes,
                *unjudged(run),
                *await self._set_aside(run, experiment),
                *([note] if note else []),
                *standing.notes,
            ],
            report=str(standing.summary) if standing.summary else None,
            claim=_told_of(experiment, assessment),
            best_claim=told(assessment),
        )

    async def _set_aside(self, run: Run, experiment: Experiment) -> list[str]:
        """What was measured and does not count, with the reason, what the noise of its repeats comes from, and how the
        runs of a kept experiment were chosen, where that was after its verdict.
        """
        trials = tuple(await self._bench.store.trials.of(experiment.id))
        starved = [trial for trial in trials if trial.starved]
        notes = [f"Does not count: {starved_text(len(starved), starved[-1])}"] if starved else []
        if experiment.status == "keep":
            aside = without_weight(Record(experiment, trials)).values()
            notes += [f"Not taken into the mean: {why}." for why in aside]
            said = selection.told(run.task, trials, await self._bench.store.efforts.repeats(run.tag))
            notes += [said] if said and said not in experiment.reason else []
        if sum(trial.status == "finished" for trial in trials) > 1:
            load = noise_by_load(run, await self._bench.store.efforts.repeats(run.tag))
            notes += [load] if f"repeats of {experiment.id} " in load else []
        return notes

    async def _next(
        self,
        run: Run,
        experiment: Experiment,
        best: Experiment | None,
        streak: int,
        updated: bool,
        reopened: list[str],
    ) -> str:
        """What the agent should do after a verdict."""
        if reopened:
            return f"Call train({reopened[0]!r}): measured against the new mean of the best, it may be better after all"
        if experiment.status != "needs_confirmation":
            return _after(run, experiment, streak, updated)
        history = self._bench.store.history
        if best is None and not experiment.unchanged and not await history.start_crashes(run.tag):
            under_way = await history.open(run.tag, IN_FLIGHT)
            begun = next((f"Train and complete {other.id!r}, the" for other in under_way if other.unchanged), None)
            return f"{begun or 'Register with no change and train and complete that'} baseline; then complete this one"
        trials = await self._bench.store.trials.of(experiment.id)
        if experiment.numbers and (pair := await next_run(self._bench, run, experiment, best, trials)):
            return pair
        seed = fresh_seed({trial.seed for trial in trials if trial.status not in ("stopped", "lost")})
        base = await self._branch.kept_ancestor(experiment)
        first = await history.first_keep(run.tag)
        stale = best is not None and (base.id if base else first) != best.id
        where = f" on top of {best.id}" if best and stale else ""
        return f"Call train({experiment.id!r}, seed={seed}) to run it again{where}, then complete it"

    async def _move_workspace(self, run: Run, experiment: Experiment) -> tuple[bool, str]:
        """Move the workspace of the experiment's agent to the best, unless it holds something newer.

        Returns whether it is at the best now, and otherwise why not.
        """
        if run.task.external:
            return False, ""
        try:
            async with self._bench.borrowed_desk(run, experiment.agent) as desk:
                if desk is None:
                    return False, f"Workspace {experiment.agent} is in use by another server and was not touched."
                return await self._move_desk(run, experiment, desk)
        except ResearchError as error:  # the verdict stands, whatever became of the workspace
            return False, f"The workspace was not moved: {error}"

    async def _move_desk(self, run: Run, experiment: Experiment, desk: Desk) -> tuple[bool, str]:
        tip = await self._branch.tip(run)
        async with desk.lock:
            await self._bench.catch_up(desk, [experiment])
            head = await self._bench.run(desk.workspace.head)
            if not await self._bench.run(desk.workspace.is_clean):
                return False, f"The workspace holds newer edits, on top of {head[:7]}; they stay."
            pending = await self._bench.store.experiments.open_at(run.tag, head)
            if pending is not None and pending.id != experiment.id and head != run.base_commit:
                return False, f"The workspace is at {pending.id}, which has no verdict yet; it stays."
            if head == tip or await self._bench.run(desk.workspace.move_to, tip):
                return True, ""
            return False, "The workspace was edited at this moment; the edits stay."


def _told_of(experiment: Experiment, assessment: Assessment | None) -> dict[str, Any] | None:
    """What may be told of a change against what it was made from; None of a baseline, and where nothing is known."""
    if assessment is None or experiment.numbers is None or experiment.status == "crash":
        return None
    return asdict(assessment.steps.get(experiment.id) or assessment.of(experiment.numbers))


def _check_trained(run: Run, experiment: Experiment, trial: Trial | None) -> None:
    """Raise WrongState unless there is a finished training to judge, or the run is external."""
    if experiment.status in ("queued", "training"):
        todo = "Wait for the end of it" if run.task.external else f"Call train({experiment.id!r}) until it is trained"
        raise WrongState(f"Experiment {experiment.id} is still {experiment.status}", todo)
    if run.task.external:
        return
    if trial is None or experiment.status not in ("trained", "needs_confirmation"):
        raise WrongState(
            f"Experiment {experiment.id} is {experiment.status} and has no result", f"Call train({experiment.id!r})"
        )
    if trial.status in ("stopped", "lost") and experiment.status == "trained":
        raise WrongState(
            f"The training of {experiment.id} was {'starved' if trial.starved else trial.status}, so that there is "
            f"nothing to judge: {trial.error}",
            f"Call train({experiment.id!r}) to run it again, or crash({experiment.id!r}) to give it up",
        )


def _check_may_crash(run: Run, experiment: Experiment, trials: Sequence[Trial]) -> None:
    """Raise WrongState where an experiment is healthy or still under way."""
    if run.task.external and experiment.status not in FINISHED:
        return
    name = repr(experiment.id)
    if experiment.status in FINISHED:
        raise WrongState(f"Experiment {name} has the verdict {experiment.status}", "Verdicts are final: go on")
    if experiment.status == "registered":
        raise WrongState(f"Experiment {name} was not trained yet", f"Call train({name}), or leave it as it is")
    if experiment.status in ("queued", "training"):
        raise WrongState(
            f"Experiment {name} is {experiment.status}", f"Call stop({name}) first, or train({name}) to wait"
        )
    if any(trial.status == "finished" for trial in trials):
        todo = "It waits for another run: call train, or leave it" if experiment.status == "needs_confirmation" else ""
        raise WrongState(
            f"Experiment {name} was trained well and has a result", todo or f"Call complete({name}) for the verdict"
        )


def _measured(
    run: Run, experiment: Experiment, trial: Trial | None, given: Mapping[str, float] | None
) -> Mapping[str, Scalar]:
    """The metrics to judge: those of the record, or in external runs those given.

    Raises InvalidInput where given numbers differ from the record, or are missing in an external run.
    """
    if not run.task.external:
        record = trial.metrics if trial else {}
        known = [record, *_judged(run, experiment)]
        wrong = {
            name: value
            for name, value in (given or {}).items()
            if not any(_equal(numbers.get(name), value) for numbers in known)
        }
        if wrong:
            name, value = next(iter(wrong.items()))
            raise InvalidInput(
                f"{name}={value} is not what was measured ({name}={record.get(name)})",
                f"Leave metrics out: numbers come from train({experiment.id!r}) alone",
            )
        return record
    if experiment.status in FINISHED:
        wrong = {
            name: value for name, value in (given or {}).items() if not _equal(experiment.metrics.get(name), value)
        }
        if wrong:
            numbers = ", ".join(f"{name} {value}" for name, value in experiment.metrics.items())
            raise InvalidInput(
                f"Experiment {experiment.id} was {f'completed with {numbers}' if numbers else 'given up'}",
                "Register a new experiment for a new measurement",
            )
        return experiment.metrics
    if not given or run.task.metric not in given:
        raise InvalidInput(
            f"metrics has no {run.task.metric!r}", f"Give metrics={{{run.task.metric!r}: VALUE}}, as you measured it"
        )
    return dict(given)


def _judged(run: Run, experiment: Experiment) -> Sequence[Mapping[str, Scalar]]:
    """The metrics that a verdict was given on, and the value that it gave; none before the verdict."""
    if experiment.status not in FINISHED:
        return []
    value = {} if experiment.value is None else {run.task.metric: experiment.value}
    return [experiment.metrics, value]


def _equal(record: Scalar | None, value: float) -> bool:
    if isinstance(record, str):  # what was infinite or no number is recorded as text
        return not math.isfinite(value) and record == str(value)
    return record is not None and math.isclose(record, value, rel_tol=1e-9, abs_tol=0.0)


def _decided(experiment: Experiment) -> Decided:
    assert experiment.status in ("keep", "discard", "needs_confirmation", "crash")
    return experiment.status


def _at_the_end(run: Run, standing: Standing) -> str:
    """What is left to do when a run is over."""
    where = f"show the user {standing.summary}" if standing.summary else f"show the user report(tag={run.tag!r})"
    return f"The run is over, {standing.ended}: {where}; finalize(tag={run.tag!r}) shows what to merge"


def _after(run: Run, experiment: Experiment, streak: int, updated: bool) -> str:
    if experiment.status == "crash":
        return _after_crash(run, streak)
    place = "" if updated or run.task.external else "; the workspace still holds other work"
    return f"Call suggest(tag={run.tag!r}), then register the next idea{place}"


def _after_crash(run: Run, streak: int) -> str:
    if should_abort(streak):
        return f"{streak} crashes in a row: go back to the best and try something small and safe; read logs first"
    return f"Fix a trivial mistake in a new experiment, or call suggest(tag={run.tag!r})"
