"""Continuing what somebody began elsewhere: the table of an earlier session becomes the first part of a run."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt

from mcp_server.errors import InvalidInput, ResearchError
from mcp_server.lab.bench import Bench
from mcp_server.lab.candidates import Candidate, changed_constants, summary_of
from mcp_server.lab.novelty import knob_values, trace
from mcp_server.lab.results import Imported
from mcp_server.lab.resuming import check_resumed
from mcp_server.lab.setup import Setup, today
from mcp_server.lab.sources import gather
from mcp_server.machine.git import Repository
from mcp_server.machine.store import experiments as store
from mcp_server.research.experiment import NO_CHANGE, Experiment, Run
from mcp_server.research.foreign import Row, Table, read_table
from mcp_server.research.marking import Words, cited
from mcp_server.research.task import Direction, check_name

LARGEST = 5_000_000
"""Bytes of a table."""
SHOWN = 20
AGENT = "import"
SETTINGS = ("direction", "time_budget_seconds", "train_script", "command", "task")


@dataclass(frozen=True)
class Place:
    """Where a row's commit is in this repository: nowhere, if `commit` is None."""

    commit: str | None = None
    base: str | None = None


class Importing:
    """Takes tables of experiments in."""

    def __init__(self, bench: Bench, setup: Setup) -> None:
        self._bench = bench
        self._setup = setup

    async def import_(
        self,
        path: Annotated[str, "The table: a results.tsv, or CSV with such columns"],
        *,
        tag: Annotated[str | None, "Name of the run to begin, or of one without experiments; default: today"] = None,
        metric: Annotated[str | None, "Its column of the metric; default: the first that may be one"] = None,
        direction: Annotated[Direction | None, "Which way the metric gets better"] = None,
        time_budget_seconds: Annotated[float | None, "Training seconds of one experiment", Gt(0)] = None,
        train_script: Annotated[str | None, "The script to edit and run, e.g. train.py"] = None,
        command: Annotated[str | None, "Command that trains; default: python <train_script>"] = None,
        task: Annotated[str | None, "Name or path of a task"] = None,
        base_ref: Annotated[str | None, "Commit to start from; default: the last that was kept"] = None,
    ) -> Imported:
        """Continue an earlier session from its results.tsv, also one kept by other tools: begins a run that knows what
        was tried. Its numbers are shown as reported, and the first experiment measures where it stands. Next: register.
        """
        given = {name: value for name, value in locals().items() if name in SETTINGS and value is not None}
        source = await self._bench.run(_read, self._bench.repository, path)
        name = check_name("tag", today() if tag is None else tag)
        run = await self._bench.store.runs.find(name)
        wanted = metric or (
            run.task.metric if run else await self._bench.run(_configured, self._bench.repository, given)
        )
        table = read_table(source, wanted)
        digest = f"import {hashlib.sha256(source.encode()).hexdigest()}"
        workspace = agent = None
        notes = list(table.skipped[:SHOWN])
        if len(table.skipped) > SHOWN:
            notes.append(f"{len(table.skipped) - SHOWN} more lines are left out.")
        if wanted is None and table.others:
            others = ", ".join(table.others[:SHOWN])
            notes.append(f"{table.metric} is taken for the metric; if it is not, give metric: there are {others} too.")
        if run is not None:
            notes += await self._bench.run(_check_same, self._bench.repository, run, metric, base_ref, given)
        else:
            base, note = await self._base(table, base_ref)
            made = await self._setup.setup_run(tag=name, metric=table.metric, base_ref=base, **given)
            workspace, agent, notes = made.workspace, made.agent, [*note, *made.adjustments, *notes]
            run = await self._bench.store.runs.get(name)
        if not await self._is_in(run, digest):
            await self._take_in(run, table, digest, path)
        return self._answer(run, table, workspace, agent, notes)

    async def _base(self, table: Table, base_ref: str | None) -> tuple[str, list[str]]:
        """The commit to begin from, and what to say of it."""
        kept = table.kept
        if base_ref is not None:
            return base_ref, []
        if kept is None:
            return "HEAD", []
        place = (await self._bench.run(_places, self._bench.repository, [kept]))[0]
        if place.commit is None:
            lost = f"{kept.commit!r} is not in this repository" if kept.commit else "it has no commit"
            return "HEAD", [
                f"The run starts from HEAD and not from the last that was kept "
                f"({cited(kept.description, 80, 'its table says')}): {lost}. "
                "Give base_ref for another commit."
            ]
        return place.commit, [f"The run starts from {place.commit[:12]}, the last that was kept there."]

    async def _is_in(self, run: Run, digest: str) -> bool:
        """Whether this very table was taken in before."""
        first = await self._bench.store.history.first(run.tag)
        return first is not None and first.imported and first.request.startswith(digest)

    async def _take_in(self, run: Run, table: Table, digest: str, origin: str) -> None:
        bench = self._bench
        places = await bench.run(_places, bench.repository, table.rows)
        count = len(table.rows)
        first = await bench.store.runs.take_number(run.tag, count=count)
        made = await bench.run(_experiments, bench.repository, run, table, places, first, digest, Path(origin).name)
        for each, place in zip(made, places, strict=True):
            if place.commit is not None:
                await bench.run(bench.repository.keep_ref, run.tag, each.experiment.id, place.commit)
        await bench.store.experiments.take_in(run.tag, made)

    def _answer(self, run: Run, table: Table, workspace: str | None, agent: str | None, notes: list[str]) -> Imported:
        counts: dict[str, int] = {}
        for row in table.rows:
            counts[row.status] = counts.get(row.status, 0) + 1
        kept = [row for row in table.rows if row.status == "keep" and row.value is not None]
        todo = "Call " if workspace else f"Call setup_run(tag={run.tag!r}, resume=true) for a workspace, then "
        best = max(kept, key=lambda row: run.task.improvement(row.value or 0.0, 0.0), default=None)
        return Imported(
            tag=run.tag,
            branch=run.branch,
            workspace=workspace,
            agent=agent,
            metric=run.task.metric,
            imported=len(table.rows),
            counts=counts,
            best_reported=None if best is None else {"value": best.value, "what": Words(best.description)},
            base_commit=run.base_commit,
            notes=notes,
            next_action=f"{todo}register(tag={run.tag!r}, hypothesis='baseline', category='other') without any change, "
            "train and complete it: what was reported is never compared with what is measured here",
        )


def _read(repository: Repository, path: str) -> str:
    """The text of a table; a relative path counts from where the user stands, then from the top of the repository."""
    given = Path(path).expanduser()
    found = next((place for place in (given, repository.here.folder / given) if place.is_file()), None)
    if found is None:
        raise InvalidInput(f"{path[:200]!r} is no file", "Give the path of a results.tsv")
    try:
        if found.stat().st_size > LARGEST:
            raise InvalidInput(f"{path!r} has more than {LARGEST} bytes", "Give a table of experiments")
        return found.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path!r} cannot be read: {error.strerror}", "Give the path of a results.tsv") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path!r} is not UTF-8 text", "Give the path of a results.tsv") from None


def _configured(repository: Repository, given: Mapping[str, Any]) -> str | None:
    """The metric that the named task or autoresearch.toml decides."""
    metric: str | None = gather(repository, given).values.get("metric")
    return metric


def _check_same(
    repository: Repository, run: Run, metric: str | None, base_ref: str | None, given: Mapping[str, Any]
) -> list[str]:
    """What the given task says otherwise than the run; raises InvalidInput where an argument does."""
    notes = check_resumed(repository, run, given)
    for name, wanted, present in (
        ("metric", metric, run.task.metric),
        ("base_ref", base_ref and repository.resolve(base_ref), run.base_commit),
    ):
        if wanted and wanted.casefold() != present.casefold():
            raise InvalidInput(
                f"{name} of run {run.tag!r} is {present!r}, not {wanted!r}", "Leave it out, or give a new tag"
            )
    return notes


def _places(repository: Repository, rows: Sequence[Row]) -> list[Place]:
    """Where the commits of rows are."""
    return [_place(repository, row) for row in rows]


def _place(repository: Repository, row: Row) -> Place:
    if not row.commit:
        return Place()
    try:
        commit = repository.resolve(row.commit)
    except ResearchError:
        return Place()
    try:
        return Place(commit, repository.resolve(f"{commit}~1"))
    except ResearchError:
        return Place(commit, commit)


def _experiments(
    repository: Repository, run: Run, table: Table, places: list[Place], first: int, digest: str, origin: str
) -> list[store.Imported]:
    """The rows as experiments, numbered from `first` on and decided before all that the run decides itself."""
    now, best, made = time.time(), None, []
    count = len(table.rows)
    for position, (row, place) in enumerate(zip(table.rows, places, strict=True)):
        number = first + position
        delta = None
        if row.value is not None and best is not None:
            delta = run.task.improvement(row.value, best)
        experiment = Experiment(
            id=f"{run.tag}-{number}",
            tag=run.tag,
            number=number,
            agent=AGENT,
            commit=place.commit or row.commit or "unknown",
            base_commit=place.base or run.base_commit,
            hypothesis=row.description,
            category=row.category,
            request=f"{digest} {row.line}",
            registered_at=now,
            status=row.status,
            source="import",
            metrics={} if row.memory_gb is None else {"peak_vram_mb": row.memory_gb * 1024},
            origin="reported",
            value=row.value,
            delta=delta,
            best_before=best,
            reason=f"As it was reported in {origin}, line {row.line}; not measured here.",
            decided=position - count + 1,
            decided_at=now,
        )
        if row.status == "keep" and row.value is not None:
            best = row.value
        made.append(_with_change(repository, run, experiment, place, is_first=position == 0))
    return made


def _with_change(
    repository: Repository, run: Run, experiment: Experiment, place: Place, is_first: bool
) -> store.Imported:
    """What an imported experiment changed, as far as its commit is here and can be read."""
    if is_first and experiment.status == "keep":  # where that session began
        commit = place.commit or run.base_commit
        knobs_then = knob_values(repository, run, commit) if place.commit else {}
        return store.Imported(
            replace(experiment, base_commit=commit, diff_summary=NO_CHANGE), store.NOTHING, knobs_then
        )
    if place.commit is None or place.base is None:
        return store.Imported(experiment)
    try:
        changes = repository.changed(place.base, place.commit)
        candidate = Candidate(repository.tree_of(place.commit), place.base, None, experiment.request)
        knobs = changed_constants(repository, run, candidate, changes)
        found = trace(repository, run, candidate, changes)
    except ResearchError:  # a file that is no text
        return store.Imported(experiment)
    told = replace(
        experiment,
        diff_summary=summary_of(changes, knobs),
        lines_added=sum(change.added for change in changes),
        lines_removed=sum(change.removed for change in changes),
        changes=knobs,
    )
    return store.Imported(told, found.change, found.knobs)
