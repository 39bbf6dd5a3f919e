"""Reading: everything that looks at the record and changes nothing."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Literal

from annotated_types import Ge, Le

from mcp_server.errors import InvalidInput, NotReady, UnknownId
from mcp_server.lab.accounting import displaced, removable
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.claiming import claiming
from mcp_server.lab.exporting import export_target, write_export
from mcp_server.lab.gathering import gather
from mcp_server.lab.pool import Pool
from mcp_server.lab.results import (
    Best,
    Diff,
    Exported,
    HistoryPage,
    NearMisses,
    RunList,
    RunView,
    Suggested,
    Summary,
)
from mcp_server.lab.views import plain, told, told_steps, view, when
from mcp_server.machine.starter import starter_files
from mcp_server.research import suggestions
from mcp_server.research.case import error_of, noise_of
from mcp_server.research.cleaning import clean
from mcp_server.research.effort import noise_by_load, starved_text
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import FINISHED, Experiment, Run, Status
from mcp_server.research.guidance import claim_text, noise_text
from mcp_server.research.kept import kept_words
from mcp_server.research.marking import Document, Words, fenced
from mcp_server.research.strategy import choose
from mcp_server.research.suggestions import Suggestion
from mcp_server.research.task import Category
from mcp_server.research.verdict import finite

Tag = Annotated[str | None, "The run; default: the newest"]

PROGRAM = "program.md"
PROGRESSION = 50
LAST = 5
GREEDY_NOISE = "not measured: policy greedy keeps whatever came out better once"
RUNS_SHOWN = 100


class Reading:
    """Answers questions about the record."""

    def __init__(self, bench: Bench, pool: Pool, branch: Branch) -> None:
        self._bench = bench
        self._pool = pool
        self._branch = branch

    async def suggest(self, tag: Tag = None) -> Suggested:
        """Say what to try next and why: the strategy, categories by promise, concrete values for this very script."""
        run = await self._bench.store.runs.named(tag)
        source = await self._script(run, await self._branch.tip(run))
        gathered = await gather(self._bench, run, source)
        others = tuple(await displaced(self._bench, self._branch, run, fitting=True))
        leaving = await removable(self._bench, self._branch, run, gathered)
        evidence = replace(gathered, displaced=others, removable=leaving)
        suggestion = suggestions.suggest(run, evidence)
        fields = asdict(suggestion)
        return Suggested(
            strategy=suggestion.strategy,
            reason=suggestion.reason,
            ranking=list(fields["ranking"]),
            category_stats=fields["category_stats"],
            underexplored_categories=list(suggestion.underexplored_categories),
            high_yield_categories=list(suggestion.high_yield_categories),
            near_miss_pairs=list(fields["near_miss_pairs"]),
            trend=fields["trend"] | {"values": list(suggestion.trend.values)},
            suggestions=list(suggestion.suggestions),
            pending_confirmations=list(suggestion.pending_confirmations),
            lessons=[
                Words(f"{lesson.experiment_id} ({lesson.status}): {lesson.lesson}") for lesson in suggestion.lessons
            ],
            proposals=[{"tool": c.tool, "arguments": dict(c.arguments), "text": c.text} for c in suggestion.calls],
            next_action=_first_step(run, evidence, suggestion),
        )

    async def history(
        self,
        tag: Tag = None,
        status: Status | None = None,
        category: Category | None = None,
        limit: Annotated[int, "How many", Ge(1), Le(200)] = 20,
        cursor: Annotated[str | None, "next_cursor of the page before"] = None,
        detail: Literal["concise", "full"] = "concise",
    ) -> HistoryPage:
        """List experiments, newest first. detail=full adds reasons, metrics, changes and lessons."""
        run = await self._bench.store.runs.named(tag)
        before = _number(cursor)
        history = self._bench.store.history
        found = await history.page(run.tag, status, category, before, limit + 1)
        assessment = (await claiming(self._bench, self._branch, run)).assessment
        page = found[:limit]
        more = str(page[-1].number) if len(found) > limit else None
        return HistoryPage(
            experiments=[view(experiment, detail, assessment) for experiment in page],
            total=await history.total(run.tag, status, category),
            next_cursor=more,
            next_action=f"Call history({_same(run, status, category)}, cursor={more!r}) for older ones"
            if more
            else f"Call suggest(tag={run.tag!r})",
        )

    async def near_misses(self, tag: Tag = None, limit: Annotated[int, "How many", Ge(1), Le(200)] = 20) -> NearMisses:
        """List discarded experiments that came close to the best: candidates to refine or combine."""
        run = await self._bench.store.runs.named(tag)
        history = self._bench.store.history
        best = await self._bench.store.experiments.best(run.tag)
        value = best.value if best and best.value is not None else 0.0
        found = await history.near_misses(run.tag, value, limit)
        todo = "Refine one, or combine two of different categories" if found else f"Call suggest(tag={run.tag!r})"
        return NearMisses(
            near_misses=[view(experiment) for experiment in found],
            total=await history.near_miss_total(run.tag),
            next_action=todo,
        )

    async def summary(self, tag: Tag = None) -> Summary:
        """Show a run at a glance: best against baseline, counts, progression, categories, devices."""
        run = await self._bench.store.runs.named(tag)
        store, task = self._bench.store, run.task
        history = store.history
        best, baseline = await store.experiments.best(run.tag), await history.baseline(run.tag)
        gain = _gain(run, best, baseline)
        start = baseline.value if baseline else None
        counts = await history.counts(run.tag)
        first = 1 if baseline else 0  # which was not tried as a change, nor kept as one
        finished = sum(counts.get(status, 0) for status in FINISHED) - first
        changes = _changes(await history.categories(run.tag), baseline)
        keeps = await history.keeps(run.tag, PROGRESSION)
        evidence = await gather(self._bench, run, None)
        strategy = choose(run, evidence)
        noise = noise_text(evidence, task.metric) if task.policy != "greedy" else GREEDY_NOISE
        return Summary(
            tag=run.tag,
            metric=task.metric,
            direction=task.direction,
            baseline=start,
            best=view(best, "concise", evidence.assessment) if best else None,
            improvement=gain,
            improvement_percent=None if gain is None or not start else finite(100 * gain / abs(start)),
            counts=plain(counts),
            experiments=sum(counts.values()),
            max_experiments=task.max_experiments,
            elapsed_seconds=round(time.time() - run.created_at, 1),
            training_minutes=round(await history.training_seconds(run.tag) / 60, 2),
            keep_rate=round((counts.get("keep", 0) - first) / finished, 4) if finished else None,
            last_five=[view(e, "concise", evidence.assessment) for e in await history.decided(run.tag, LAST)],
            progression=[
                {"experiment_id": keep.id, "value": keep.value, "delta": keep.delta, "change": Words(keep.hypothesis)}
                | {"told": kept_words(keep, evidence.assessment)}
                for keep in reversed(keeps)
            ],
            categories={name: asdict(count) for name, count in changes.items()},
            strategy=f"{strategy.mode}: {strategy.reason}",
            devices=await self._pool.views(),
            noise=" ".join(filter(None, (noise, noise_by_load(run, await store.efforts.repeats(run.tag))))),
            accepted_loss=await history.accepted_loss(run.tag),
            next_action=f"Call suggest(tag={run.tag!r})",
            starved=starved_text(*await store.efforts.starved(run.tag)),
            claim=told(evidence.assessment),
            claims=told_steps(evidence.assessment),
            told=claim_text(evidence),
        )

    async def best(self, tag: Tag = None) -> Best:
        """Show the best experiment and its commit."""
        run = await self._bench.store.runs.named(tag)
        best = await self._bench.store.experiments.best(run.tag)
        commit = best.commit if best and not best.commit_known else await self._branch.tip(run)
        todo = f"Call register(tag={run.tag!r}, ...) with a change to it" if best else "Register and train the baseline"
        error = error_of(run, best, noise_of(run, *await self._bench.store.history.noise(run.tag)))
        assessment = (await claiming(self._bench, self._branch, run)).assessment
        shown = view(best, "full", assessment) if best else None
        return Best(shown, commit, run.branch, todo, error, told(assessment))

    async def diff(self, experiment_a: str, experiment_b: str) -> Diff:
        """Compare two experiments by id, e.g. mar8-3: metric deltas (b minus a) and the unified diff of their code."""
        a = await self._bench.store.experiments.get(experiment_a)
        b = await self._bench.store.experiments.get(experiment_b)
        first, second = await self._metrics(a), await self._metrics(b)
        deltas = {name: second[name] - first[name] for name in first if name in second}
        if elsewhere := " and ".join(each.id for each in (a, b) if not each.commit_known):
            todo = f"The commit of {elsewhere} is not in this repository: fetch it to compare the code with git"
            return Diff(a.id, b.id, deltas, "", todo)
        text = await self._bench.run(self._bench.repository.diff, a.commit, b.commit)
        return Diff(
            a.id, b.id, deltas, Document(text), f"Call register(parent_id={b.id!r}, ...) to build on the second"
        )

    async def list_runs(self) -> RunList:
        """List all runs of this repository, newest first, e.g. to find a tag to continue."""
        runs = []
        for run in await self._bench.store.runs.newest(RUNS_SHOWN):
            best = await self._bench.store.experiments.best(run.tag)
            runs.append(
                RunView(
                    tag=run.tag,
                    branch=run.branch,
                    metric=run.task.metric,
                    direction=run.task.direction,
                    created_at=when(run.created_at) or "",
                    best_value=best.value if best else None,
                    experiments=await self._bench.store.history.total(run.tag),
                    agents=list(await self._bench.store.runs.agents(run.tag)),
                )
            )
        todo = f"Call setup_run(tag={runs[0].tag!r}, resume=true) to continue the newest" if runs else "Call setup_run"
        return RunList(runs, todo)

    async def export(
        self,
        tag: Tag = None,
        format: Literal["tsv", "jsonl", "markdown", "csv", "latex"] = "tsv",  # noqa: A002 - the name that users know
        path: Annotated[str | None, "New file in .autoresearch/exports, e.g. a.csv; default: return the text"] = None,
    ) -> Exported:
        """Export a run as results.tsv, JSON lines, a Markdown report, or a table for a paper (csv, latex)."""
        run = await self._bench.store.runs.named(tag)
        target = None if path is None else export_target(self._bench, path)
        written = None if target is None else str(self._bench.repository.root / target)
        text, count = await write_export(self._bench, self._branch, run, format, target)
        return Exported(
            format=format,
            experiments=count,
            text=None if text is None else Document(text),
            path=written,
            next_action="Show it to the user" if text else f"Tell the user where it is: {written}",
        )

    async def tags(self, prefix: str) -> list[str]:
        """Tags of runs that begin with `prefix`, newest first."""
        return await self._bench.store.runs.matching(prefix)

    async def program(self) -> str:
        """The rules of the trade: the repository's program.md as it now is, or else the one that we ship."""
        own = self._bench.repository.root / PROGRAM
        path = own if own.is_file() else starter_files()[PROGRAM]
        try:
            return await self._bench.run(path.read_text, encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise NotReady(f"{path} cannot be read: {error}", "Follow the server's instructions instead") from None

    async def best_script(self, tag: str) -> str:
        """The training script as it is in the best experiment of a run."""
        run = await self._bench.store.runs.named(tag)
        best = await self._bench.store.experiments.best(run.tag)
        if best is not None and not best.commit_known:
            raise UnknownId(f"The commit {best.commit!r} is not in this repository", "Fetch it from its agent")
        source = await self._script(run, await self._branch.tip(run))
        if source is None:
            raise UnknownId(f"Run {run.tag!r} has no single training script", "Call best for its commit")
        return source

    async def experiment_diff(self, experiment_id: str) -> str:
        """The unified diff of an experiment against what it was based on, fenced as the data that it is."""
        experiment = await self._bench.store.experiments.get(experiment_id)
        if not experiment.commit_known:
            raise UnknownId(f"The commit {experiment.commit!r} is not in this repository", "Fetch it from its agent")
        text = await self._bench.run(self._bench.repository.diff, experiment.base_commit, experiment.commit)
        return fenced(clean(text, len(text) + 1), "diff")

    async def _script(self, run: Run, commit: str) -> str | None:
        if not run.task.train_script:
            return None
        return await self._bench.run(self._bench.repository.read_file, commit, run.task.train_script)

    async def _metrics(self, experiment: Experiment) -> dict[str, float]:
        """The numbers of an experiment: those judged, or those of its latest training."""
        metrics = experiment.metrics
        if not metrics and (trial := await self._bench.store.trials.latest(experiment.id)):
            metrics = trial.metrics
        return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def _first_step(run: Run, evidence: Evidence, suggestion: Suggestion) -> str:
    if suggestion.calls and suggestion.calls[0].tool in ("train", "complete"):
        return suggestion.calls[0].text
    missing = evidence.best is None and evidence.begun is None
    first = "Begin with the baseline: register without any change" if missing else "Choose one"
    return f"{first}, then register(tag={run.tag!r}, ...) and train"


def _same(run: Run, status: Status | None, category: Category | None) -> str:
    """The arguments of a question, to be asked again."""
    given = {"tag": run.tag, "status": status, "category": category}
    return ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)


def _changes(counts: Mapping[Category, Count], baseline: Experiment | None) -> Mapping[Category, Count]:
    """The counts of the changes that were tried: of all experiments with a verdict but the baseline."""
    if baseline is None:
        return counts
    own = counts[baseline.category]
    rest = {**counts, baseline.category: Count(own.tries - 1, own.keeps - 1)}
    return {category: count for category, count in rest.items() if count.tries}


def _gain(run: Run, best: Experiment | None, baseline: Experiment | None) -> float | None:
    if best is None or baseline is None or best.value is None or baseline.value is None:
        return None
    return run.task.improvement(best.value, baseline.value)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        raise InvalidInput(f"cursor {cursor!r} is not one of ours", "Give next_cursor as the page before answered it")
    return int(cursor)
