"""The artifact loop: a task's mutator proposes, the lab measures and judges, and what is accepted comes home.

Everything lies in `work/` beside the task file. The private repository there holds a snapshot of the task's folder, the
record and the sandboxes; the folder itself is touched only to bring an accepted change back.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_server.errors import InvalidInput, NotReady, ResearchError, Undecided, WrongState
from mcp_server.lab.commands import check_program
from mcp_server.lab.interpreters import interpreter_of
from mcp_server.lab.lab import Lab
from mcp_server.lab.loop_record import LoopRecord
from mcp_server.lab.results import Completed, SetUp
from mcp_server.lab.taskfile import HOMES, read_task_file
from mcp_server.machine.git import (
    Hold,
    Snapshots,
    Workspace,
    ensure_state_folder,
    expand_inputs,
    find_inputs,
    link_environment,
    paths_of,
)
from mcp_server.machine.git.links import link_inputs
from mcp_server.machine.mutation import Mutator
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.metrics import clean
from mcp_server.research.task import CATEGORIES, Category
from mcp_server.settings import Settings

WAIT_SECONDS = 3600.0
MOST_RUNS = 50
"""Trainings of one experiment; a verdict asks for far fewer."""
LONGEST_HYPOTHESIS = 300
MUTATOR_LOG = "mutator.log"
MOST_FAILURES = 5
"""Of a mutator in a row, after which the loop ends: it has no ideas left, or is broken."""

_SAID = re.compile(r"^\s*(hypothesis|category)\s*:\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)

Tell = Callable[[Mapping[str, Any]], None]
"""Called with each line of the record when it is written."""


@dataclass(frozen=True)
class Outcome:
    """How the run of a loop stands; the values are None before the baseline is measured."""

    tag: str
    metric: str
    baseline: float | None
    best: float | None
    experiments: int
    accepted: int
    results: str
    branch: str


class ArtifactLoop:
    """Iterations of one task. Made by `ArtifactLoop.open`; a loop that was killed goes on where it was."""

    def __init__(self, lab: Lab, snapshots: Snapshots, file: Path, record: LoopRecord) -> None:
        self._lab = lab
        self._snapshots = snapshots
        self._file = file
        self._record = record
        self._tell: Tell = lambda line: None
        self._run: Run | None = None
        self._setup: SetUp | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, file: Path, devices: str | None = None) -> AsyncIterator["ArtifactLoop"]:
        """Open the work folder beside a task file.

        Raises:
            InvalidInput: the task file is wrong, or has no mutator.
            WrongState: another loop works on this task.
        """
        file = (file / "task.yaml" if file.is_dir() else file).absolute()
        said = read_task_file(file)
        if "mutator" not in said.values:
            raise InvalidInput(
                f"{file.name} names no mutator", "Give one, or let an agent change it: setup_run(task=...)"
            )
        try:
            check_program(("mutator",), said.values["mutator"], interpreter_of(file.parent).parent)
        except InvalidInput as error:
            raise InvalidInput(f"{said.place(error.at)}: {error.what}", error.todo) from None
        work = ensure_state_folder(file.parent / "work")
        try:
            hold = Hold(work / "loop.lock")
        except BlockingIOError:
            raise WrongState(f"Another loop works in {str(work)!r}", "Wait for it, or stop it") from None
        with hold:
            declared = said.values.get("inputs") or ()
            snapshots = Snapshots(file.parent, work / "repository", ["/work/", *paths_of(declared)])
            link_environment(file.parent, snapshots.repository.root)
            settings = replace(Settings.load(snapshots.repository.root, devices), state=None)
            async with Lab.open(settings) as lab:
                yield cls(lab, snapshots, file, LoopRecord(work))

    async def run(self, iterations: int, tell: Tell) -> None:
        """Go on with the run of the folder's present state, or begin one with its baseline; then iterate.

        It ends early where the task's target or number of experiments is reached.

        Raises:
            NotReady: the baseline fails, or the mutator does again and again.
            WrongState: the folder was changed while an accepted change was on its way into it.
        """
        self._tell = tell
        await self._begin()
        await self._finish_open()
        await self._baseline()
        failures = 0
        for _ in range(iterations):
            if await self._done():
                return
            failures = 0 if await self._iterate() else failures + 1
            if failures == MOST_FAILURES:
                raise NotReady(
                    f"The mutator failed {failures} times in a row", f"Read {str(self._record.work / MUTATOR_LOG)!r}"
                )

    async def _begin(self) -> None:
        """Continue the newest run, if the folder is as that left it; else begin one from the folder as it is."""
        bench, snapshots = self._lab.bench, self._snapshots
        tree = await bench.run(snapshots.take)
        newest = next(iter(await bench.store.runs.newest(1)), None)
        if newest is not None and not await self._is_over_before_it_began(newest):
            self._run = newest
            self._setup = await self._lab.setup.setup_run(tag=newest.tag, resume=True)
            home = self._record.home(newest.tag) or newest.base_commit
            if not await bench.run(snapshots.strangers, tree, home, await self._tip()):
                await self._note_verdicts()
                await self._deliver()
                return
        number = len(await bench.store.runs.newest(100_000)) + 1
        commit = await bench.run(snapshots.commit, tree, f"The artifacts before run {number}\n", time.time())
        await bench.run(self._link_inputs)
        tag = f"{_name(self._file)}-{number}"
        try:
            self._setup = await self._lab.setup.setup_run(tag=tag, task=self._file.name, base_ref=commit)
        except Undecided as error:
            lacking = "; ".join(f"{question} ({HOMES[name][0]})" for name, question in error.questions.items())
            raise InvalidInput(f"{self._file.name} does not say: {lacking}", "Write that into it") from None
        self._run = await bench.store.runs.get(tag)
        self._record.remember_home(tag, commit)

    async def _is_over_before_it_began(self, run: Run) -> bool:
        """Whether a run has had all of its experiments, and not one that could be its baseline."""
        store, limit = self._lab.bench.store, run.task.max_experiments
        if limit is None or await store.experiments.best(run.tag) is not None:
            return False
        return (await store.experiments.count(run.tag)).total >= limit and not await store.history.open(run.tag, 1)

    def _link_inputs(self) -> None:
        declared = read_task_file(self._file).values.get("inputs")
        view = self._snapshots.view
        found = find_inputs(view)[0] if declared is None else expand_inputs(view, declared)
        paths = [each.path for each in found if each.path != "work"]
        link_inputs(self._snapshots.folder, self._snapshots.repository.root, paths)

    async def _finish_open(self) -> None:
        """Bring what a killed loop left under way to its end, and throw away what its mutator left half done."""
        bench, run = self._lab.bench, self._present
        for experiment in reversed(await bench.store.history.open(run.tag, 100)):
            await self._settle(experiment)
        await bench.run((await self._workspace()).restore)

    async def _baseline(self) -> None:
        """Measure the artifacts as they are, until that is judged."""
        run = self._present
        if await self._lab.bench.store.experiments.best(run.tag) is not None:
            return
        made = await self._lab.registering.register(tag=run.tag, hypothesis="the baseline", category="other")
        verdict = await self._settle(await self._lab.bench.store.experiments.get(made.experiment_id))
        if verdict.status != "keep":
            raise NotReady(
                f"The baseline was not measured: {verdict.reason}", "Mend the task's runner, scorer or checks"
            )

    async def _done(self) -> bool:
        run, store = self._present, self._lab.bench.store
        best = await store.experiments.best(run.tag)
        limit = run.task.max_experiments
        full = limit is not None and (await store.experiments.count(run.tag)).total >= limit
        return full or (best is not None and best.value is not None and run.task.reached(best.value))

    async def _iterate(self) -> bool:
        """One candidate: written by the mutator in the sandbox, measured, judged, and brought home if accepted.

        Returns whether the mutator succeeded.
        """
        started = time.monotonic()
        run, bench, path = self._present, self._lab.bench, (await self._workspace()).path
        mutator = Mutator(bench.settings, bench.repository, run.task, path, self._record.work / MUTATOR_LOG)
        end, text = await mutator.run(await self._about())
        said = {name.casefold(): value for name, value in _SAID.findall(text)}
        hypothesis = clean(said.get("hypothesis") or "what the mutator proposes", LONGEST_HYPOTHESIS)
        if end.code != 0:
            last = clean(text, 500).strip().splitlines()[-1:] or ["it printed nothing"]
            how = f"Ended after {end.seconds:.0f} s" if end.by == "deadline" else f"Exit code {end.code}"
            await self._refuse("mutator_failed", hypothesis, f"{how}: {last[0]}", started)
            return False
        try:
            category = said.get("category", "other").casefold()
            made = await self._lab.registering.register(
                tag=run.tag, hypothesis=hypothesis, category=_category(category, run)
            )
        except ResearchError as error:
            await self._refuse("refused", hypothesis, str(error), started)
        else:
            await self._settle(await bench.store.experiments.get(made.experiment_id), started)
        return True

    async def _refuse(self, status: str, hypothesis: str, reason: str, started: float) -> None:
        """Note an iteration that came to no experiment, and clear the sandbox."""
        await self._lab.bench.run((await self._workspace()).restore)
        self._tell(self._record.add_refusal(self._present, status, hypothesis, reason, time.monotonic() - started))

    async def _settle(self, experiment: Experiment, started: float | None = None) -> Completed:
        """Train an experiment, again as often as its verdict asks, and bring it home if it is accepted."""
        waiting, verdict = [experiment.id], None
        for _ in range(MOST_RUNS):
            experiment_id = waiting[-1]
            trained = await self._lab.training.train(experiment_id, wait_seconds=WAIT_SECONDS)
            if trained.status in ("queued", "training", "stopped", "error"):
                continue
            completed = await self._lab.verdicts.complete(experiment_id)
            verdict = completed if experiment_id == experiment.id else verdict
            if completed.status != "needs_confirmation":
                waiting.pop()
                waiting += [other for other in completed.reopened if other not in waiting]
            if not waiting:
                break
        await self._note_verdicts(started)
        await self._deliver()
        if verdict is None:
            raise NotReady(f"{experiment.id} was trained {MOST_RUNS} times without a verdict", "Look at its log")
        return verdict

    async def _note_verdicts(self, started: float | None = None) -> None:
        """Append the verdicts that the record lacks."""
        store, run = self._lab.bench.store, self._present
        baseline = await store.history.baseline(run.tag)
        seconds = time.monotonic() - started if started is not None else None
        for experiment in await store.history.decided_after(run.tag, self._record.known(run.tag), 1_000_000):
            if line := self._record.add_verdict(run, experiment, baseline, seconds):
                self._tell(line)

    async def _deliver(self) -> None:
        """Bring the folder to the best."""
        run, tip = self._present, await self._tip()
        home = self._record.home(run.tag) or run.base_commit
        if home != tip:
            await self._lab.bench.run(self._snapshots.deliver, home, tip)
            self._record.remember_home(run.tag, tip)

    async def _about(self) -> dict[str, str]:
        """What a mutator is told, in variables."""
        run = self._present
        best = await self._lab.bench.store.experiments.best(run.tag)
        number = self._record.iterations(run.tag) + 1
        return {
            "AUTORESEARCH_ITERATION": str(number),
            "AUTORESEARCH_SEED": str(number),
            "AUTORESEARCH_METRIC": run.task.metric,
            "AUTORESEARCH_DIRECTION": run.task.direction,
            "AUTORESEARCH_BEST": "" if best is None or best.value is None else f"{best.value:g}",
            "AUTORESEARCH_RESULTS": str(self._record.file),
        }

    async def outcome(self) -> "Outcome":
        """How the run stands."""
        run, store = self._present, self._lab.bench.store
        best, baseline = await store.experiments.best(run.tag), await store.history.baseline(run.tag)
        counts = await store.history.counts(run.tag)
        return Outcome(
            tag=run.tag,
            metric=run.task.metric,
            baseline=baseline.value if baseline else None,
            best=best.value if best else None,
            experiments=sum(counts.values()),
            accepted=max(0, counts.get("keep", 0) - 1),
            results=str(self._record.file),
            branch=f"{run.branch} in {self._snapshots.repository.root!s}",
        )

    @property
    def _present(self) -> Run:
        assert self._run is not None
        return self._run

    async def _tip(self) -> str:
        """The commit of the best."""
        bench, run = self._lab.bench, self._present
        return await bench.run(bench.repository.branch_tip, run.branch) or run.base_commit

    async def _workspace(self) -> Workspace:
        assert self._setup is not None
        assert self._setup.agent is not None
        return (await self._lab.bench.desk(self._present, self._setup.agent, await self._tip())).workspace


def _name(file: Path) -> str:
    """A tag's beginning, from the name of the task or of its folder."""
    name = str(read_task_file(file).values.get("name") or file.parent.name)
    return re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", name).strip("-._")[:40] or "task"


def _category(said: str, run: Run) -> Category:
    """The category that a mutator names, if it is one of the run's."""
    return next((each for each in CATEGORIES if each == said and each in run.task.scope), "other")
