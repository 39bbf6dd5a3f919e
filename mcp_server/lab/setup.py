"""Setting a run up, or taking it up again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from annotated_types import Gt

from mcp_server.errors import InvalidInput, NotReady, WrongState
from mcp_server.lab.bench import Bench, Desk
from mcp_server.lab.branch import Branch
from mcp_server.lab.ledger import list_results
from mcp_server.lab.planning import Plan, plan_run
from mcp_server.lab.pool import Pool
from mcp_server.lab.reporting import SUMMARY
from mcp_server.lab.results import SetUp
from mcp_server.lab.resuming import check_resumed
from mcp_server.lab.sources import Decisions
from mcp_server.lab.views import plain, view
from mcp_server.machine.devices import Device
from mcp_server.machine.platforms import facts_of
from mcp_server.research.data_files import in_exports
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.platform import adjust
from mcp_server.research.task import Category, Direction, Policy, Task, check_name

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
OPEN_SHOWN = 20


class Setup:
    """Makes runs and workspaces."""

    def __init__(self, bench: Bench, pool: Pool, branch: Branch) -> None:
        self._bench = bench
        self._pool = pool
        self._branch = branch

    async def setup_run(
        self,
        *,
        tag: Annotated[str | None, "Name of the run; default: today, e.g. mar8"] = None,
        metric: Annotated[str | None, "Key that the script prints, e.g. val_bpb"] = None,
        direction: Annotated[Direction | None, "Which way the metric gets better"] = None,
        time_budget_seconds: Annotated[float | None, "Training seconds of one experiment", Gt(0)] = None,
        train_script: Annotated[str | None, "The script to edit and run, e.g. train.py"] = None,
        command: Annotated[str | None, "Command that trains; default: python <train_script>; no shell"] = None,
        folder: Annotated[str | None, "Folder of the repository that the command runs in; default: its top"] = None,
        end_at_budget: Annotated[bool | None, "True: end it at its budget, of which the script knows nothing"] = None,
        editable: Annotated[list[str] | None, "Globs an experiment may change; default: the script"] = None,
        readonly: Annotated[list[str] | None, "Globs never to change, whatever editable says"] = None,
        inputs: Annotated[list[str] | None, "Globs of untracked data to link; default: found by themselves"] = None,
        scope: Annotated[list[Category] | None, "Categories to research; default: all"] = None,
        policy: Annotated[Policy | None, "How keeps are decided"] = None,
        near_miss_threshold: Annotated[float | None, "Worse by less than this, in the metric: a near miss"] = None,
        max_experiments: Annotated[int | None, "Stop after so many experiments"] = None,
        target: Annotated[float | None, "Stop when the metric reaches this"] = None,
        results_file: Annotated[str | None, "Name of the table of results; default results.tsv"] = None,
        task: Annotated[str | None, "Name or path of a task"] = None,
        plan: Annotated[str | None, "Path of an experiment plan (YAML or JSON): vary, hold, metric, ..."] = None,
        base_ref: Annotated[str | None, "Commit to start from; default HEAD"] = None,
        agent: Annotated[str | None, "Your name, one workspace each; default: a free one"] = None,
        resume: Annotated[bool, "True: continue the run of this tag"] = False,
        preview: Annotated[bool, "True: only return the config and make nothing"] = False,
        external: Annotated[bool, "True: you run git and trainings yourself and report numbers to complete"] = False,
    ) -> SetUp:
        """Begin a run of experiments, or continue one with resume=true. Call this first.

        Makes the branch and a workspace folder to edit in. Next: register the unchanged baseline, train, complete.
        """
        chosen = _chosen(locals())
        name = check_name("tag", today() if tag is None else tag)
        if agent is not None:
            check_name("agent name", agent)
        await self._place_results(name, chosen)
        if resume:
            return await self._resume(name, chosen, base_ref, agent, preview)
        if not preview and (taken := await self._bench.store.runs.find(name)):
            raise WrongState(
                f"A run with tag {taken.tag!r} exists",
                f"Continue it with setup_run(tag={taken.tag!r}, resume=true), or choose another tag",
            )
        repository = self._bench.repository
        commit = await self._bench.run(repository.resolve, "HEAD" if base_ref is None else base_ref)
        planned = await self._bench.run(plan_run, repository, commit, self._bench.settings, name, chosen)
        devices = await self._pool.devices(anew=True)
        run = _new_run(name, commit, planned, devices)
        notes = [*planned.adjustments, *_device_notes(devices), *await self._left_out(run)]
        rows = [*planned.rows, *_platform_rows(run)]
        if preview:
            return await self._answer(run, None, None, notes, _CONFIRM.format(tag=name), rows)
        return await self._open(run, agent or "agent-1", notes, rows)

    async def _place_results(self, tag: str, chosen: dict[str, Any]) -> None:
        """Put a results file that a caller named into the folder for exports, unless the user named it themselves.

        The usual names at the top of the repository stay, and so does what the run has.
        """
        given = chosen.get("results_file")
        known = await self._bench.store.runs.find(tag)
        usual = {Task.results_file, f"results-{tag}.tsv", known.task.results_file if known else None}
        if given is not None and given not in usual and self._bench.confined:
            chosen["results_file"] = in_exports(given, "results_file")

    async def _open(self, run: Run, agent: str, notes: list[str], rows: Sequence[dict[str, str]]) -> SetUp:
        """Make what a run needs: its branch, its record, a first agent, and a workspace where the server has git."""
        if run.task.external:
            await self._bench.store.runs.add(run)
            await self._bench.store.runs.add_agent(run.tag, agent)
            return await self._answer(run, agent, None, notes, _FIRST_EXTERNAL, rows)
        await self._bench.run(self._bench.repository.create_branch, run.branch, run.base_commit)
        await self._bench.store.runs.add(run)
        desk = await self._bench.desk(run, agent, run.base_commit)
        return await self._answer(run, agent, desk, notes, _FIRST.format(tag=run.tag), rows)

    async def _resume(
        self, tag: str, given: Mapping[str, Any], base_ref: str | None, agent: str | None, preview: bool
    ) -> SetUp:
        run = await self._bench.store.runs.get(tag)
        told = await self._bench.run(check_resumed, self._bench.repository, run, given)
        if base_ref is not None and await self._bench.run(self._bench.repository.resolve, base_ref) != run.base_commit:
            raise InvalidInput(
                f"base_ref {base_ref!r} is not the commit that run {tag!r} started from ({run.base_commit[:12]})",
                "Leave base_ref out to resume, or begin a run under another tag",
            )
        if preview:
            return await self._answer(run, None, None, told, await self._next(run))
        notes = [*told, *await list_results(self._bench, run)]
        if run.task.external:
            known = await self._bench.store.runs.agents(run.tag)
            return await self._answer(run, agent or known[0], None, notes, await self._next(run))
        notes += await self._branch.settle(run)
        tip = await self._branch.tip(run)
        name, desk = await self._take_desk(run, agent, tip)
        async with desk.lock:
            notes += await self._bring_up(run, desk, tip)
        await self._pool.wake(run.device_type)
        return await self._answer(run, name, desk, notes, await self._next(run))

    async def _bring_up(self, run: Run, desk: Desk, tip: str) -> list[str]:
        """Move a workspace to the best where nothing would be lost; returns what the agent should know of it."""
        try:
            await self._bench.catch_up(desk, await self._bench.store.history.open(run.tag, OPEN_SHOWN))
        except WrongState as error:  # it holds files that are too large to be registered
            return [str(error)]
        head = await self._bench.run(desk.workspace.head)
        if not await self._bench.run(desk.workspace.is_clean):
            return ["The workspace holds edits that are not registered yet."]
        if head != tip and not await self._bench.store.experiments.open_at(run.tag, head):
            await self._bench.run(desk.workspace.move_to, tip)
        return []

    async def _take_desk(self, run: Run, agent: str | None, tip: str) -> tuple[str, Desk]:
        """The named agent's desk; else the one held already, the first that is free, or a new one."""
        if agent is not None:
            return agent, await self._bench.desk(run, agent, tip)
        held = self._bench.held(run.tag)
        if len(held) == 1 and not self._bench.shared:
            return held[0], await self._bench.desk(run, held[0], tip)
        known = await self._bench.store.runs.agents(run.tag)
        fresh = (f"agent-{number}" for number in range(1, len(known) + 2))
        for name in [*known, *[name for name in fresh if name not in known]]:
            if name not in held:
                try:
                    return name, await self._bench.desk(run, name, tip)
                except WrongState:
                    continue
        raise WrongState(f"Every workspace of run {run.tag!r} is in use", "Give a new agent name")

    async def _left_out(self, run: Run) -> list[str]:
        paths = await self._bench.run(self._bench.repository.uncommitted)
        outside = {run.task.results_file, *run.task.inputs}
        paths = [path for path in paths if path.rstrip("/") not in outside and not _is_ours(path)]
        if not paths:
            return []
        shown = ", ".join(paths[:20]) + (f" and {len(paths) - 20} more" if len(paths) > 20 else "")
        return [f"Uncommitted changes are left out, since a run starts from the committed state: {shown}."]

    async def _next(self, run: Run) -> str:
        """What a caller who has lost its memory should do now."""
        if run.task.external:
            waiting = await self._bench.store.history.open(run.tag, OPEN_SHOWN)
            if waiting:
                return f"Train {waiting[-1].id} yourself, then call complete({waiting[-1].id!r}, metrics={{...}})"
        for experiment in reversed(await self._bench.store.history.open(run.tag, OPEN_SHOWN)):
            if experiment.status in ("queued", "training"):
                return f"Call train({experiment.id!r}) to watch the training that is under way"
            if experiment.status == "trained":
                return f"Call complete({experiment.id!r}): it is trained and not judged"
            if experiment.status == "needs_confirmation":
                return f"Call train({experiment.id!r}): it waits for another run"
            if experiment.status == "registered":
                return f"Call train({experiment.id!r}): it is registered and not trained"
        if await self._bench.store.experiments.best(run.tag) is None:
            return _FIRST_EXTERNAL if run.task.external else _FIRST.format(tag=run.tag)
        return f"Call suggest(tag={run.tag!r}), then register the next idea"

    async def _answer(
        self,
        run: Run,
        agent: str | None,
        desk: Desk | None,
        notes: list[str],
        next_action: str,
        rows: Sequence[dict[str, str]] = (),
    ) -> SetUp:
        store = self._bench.store
        best = await store.experiments.best(run.tag)
        waiting: list[Experiment] = list(await store.history.open(run.tag, OPEN_SHOWN))
        return SetUp(
            tag=run.tag,
            branch=run.branch,
            workspace=str(desk.workspace.path) if desk else None,
            agent=agent,
            config={key: list(value) if isinstance(value, tuple) else value for key, value in asdict(run.task).items()},
            platform=dict(run.platform),
            devices=await self._pool.views(),
            adjustments=notes,
            best=view(best) if best else None,
            counts=plain(await store.history.counts(run.tag)),
            open_experiments=[view(experiment) for experiment in waiting],
            next_action=next_action,
            research_config=list(rows) or [*Decisions.made(run.task).rows(run.task), *_platform_rows(run)],
        )


CONFIG = (
    "metric",
    "direction",
    "time_budget_seconds",
    "train_script",
    "command",
    "folder",
    "end_at_budget",
    "editable",
    "readonly",
    "inputs",
    "scope",
    "policy",
    "near_miss_threshold",
    "max_experiments",
    "target",
    "results_file",
    "task",
    "plan",
)
"""The arguments that decide the research config."""

_FIRST = (
    "Call register(tag={tag!r}, hypothesis='baseline', category='other') without any change, then train and "
    "complete it: everything later is measured against this baseline"
)
_CONFIRM = (
    "Show research_config to the user as a table and ask whether it is right; then call setup_run(tag={tag!r}) with "
    "the same arguments and without preview"
)
_FIRST_EXTERNAL = "Measure the unchanged code, then register and complete it with its metrics: it is the baseline"


def _is_ours(path: str) -> bool:
    """Whether a path is the state folder, or the report of an earlier run."""
    return path.startswith(".autoresearch") or PurePosixPath(path).name.startswith(SUMMARY)


def today() -> str:
    """The tag of a run that is given none, such as `mar8`."""
    now = datetime.now(UTC).astimezone()
    return f"{MONTHS[now.month - 1]}{now.day}"


def _new_run(tag: str, commit: str, planned: Plan, devices: list[Device]) -> Run:
    if not devices:
        raise NotReady("No device is available", "Run `autoresearch doctor`")
    device = devices[0]
    facts = facts_of(device)
    return Run(
        tag=tag,
        branch=f"autoresearch/{tag}",
        base_commit=commit,
        task=planned.task,
        device_kind=device.kind,
        platform={
            "device_kind": device.kind,
            "device_name": device.name,
            "devices": str(len(devices)),
            "system": facts.system + (" (WSL2)" if facts.wsl2 else ""),
            **adjust(facts).shown(),
        },
        created_at=time.time(),
    )


def _chosen(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that were given and decide the research config."""
    given = {name: value for name, value in arguments.items() if value is not None}
    return {name: value for name, value in given.items() if name in CONFIG or (name == "external" and value)}


def _platform_rows(run: Run) -> list[dict[str, str]]:
    """What the platform decides, as rows of the research config."""
    names = [name for name in ("compile", "attention", "precision", "optimizer_state") if name in run.platform]
    return [{"field": name, "value": run.platform[name], "source": f"this {run.device_kind}"} for name in names]


def _device_notes(devices: list[Device]) -> list[str]:
    """What the user should know about the devices: which are too slow to expect much, and which are left out."""
    why = adjust(facts_of(devices[0])).why if devices else ()
    told = [f"Adjusted to {devices[0].kind}: {'; '.join(why)}. Scripts find this in variables."] if why else []
    others = sorted({device.name for device in devices if device.type != devices[0].type})
    if others:
        return [
            f"The run is on {devices[0].name}; {', '.join(others)} stay out of it, since results of different types of "
            "device are never compared.",
            *told,
        ]
    if devices and devices[0].kind == "cpu":
        cores = ", ".join(f"{device.label} with {len(device.cores)} cores" for device in devices)
        return [f"No GPU is used: trainings run on the CPU ({cores}).", *told]
    return told
