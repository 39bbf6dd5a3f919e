"""One trial, from its checkout to its ending."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mcp_server.errors import ResearchError, WrongState
from mcp_server.machine import child, outcome, result
from mcp_server.machine.effort import Effort, Meter, digest_of
from mcp_server.machine.environment import confined, training_environment, training_words
from mcp_server.machine.faults import cause_of_failure, is_machines
from mcp_server.machine.git import check_out, missing_hint, restore, state_of
from mcp_server.machine.logfile import BoundedLog
from mcp_server.machine.measuring import Bay, Measured, measure
from mcp_server.machine.outcome import Changed
from mcp_server.machine.rig import HANDED_IN, Order, Rig, handed_in
from mcp_server.machine.sandbox import TEMPORARY, find_sandbox, walled
from mcp_server.machine.trees import remove, walk
from mcp_server.machine.views import training_view
from mcp_server.machine.watch import check_inputs, check_left, installed, note_left, state_of_files
from mcp_server.research.experiment import Ending
from mcp_server.research.guard import matches

COMPILED = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variables that name caches of compiled kernels, and folders of each training's own for them: all that lies in such a
cache is run as code, so that whoever reads what another wrote does what that one wants."""

IMPORTED = (".py", ".pyc", ".so", ".pth")
"""How the names of files end that Python imports or reads as it starts."""

CHANGED_LATER = (
    "The model that was handed in changed while the checks ran, whose time does not count as training. Let them leave "
    f"{', '.join(HANDED_IN)} in AUTORESEARCH_OUT as they are."
)

Ask = Callable[[], Awaitable[child.EndedBy | None]]


async def train(rig: Rig, order: Order, busy: int, ask: Ask) -> Ending:
    """Train what is ordered and say how it ended; what cannot even be started has ended as `failed`, or as `lost`
    where the machine was at fault.

    Args:
        busy: the descriptor of the device's busy lock, for the training to inherit.
        ask: see `child.run`.
    """
    task, folder = order.task, order.folder
    checkout = folder / "checkout"
    try:
        remove(folder)
        (folder / "out").mkdir(parents=True)
        rig.settings.cache.mkdir(parents=True, exist_ok=True)
        result.reserve(folder)
        log = BoundedLog(folder / "log.txt")
    except OSError as error:
        return _not_started(error, f"its folder {str(folder)!r} cannot be written: {error.strerror}")
    try:
        _check_base(rig, order)
        check_out(rig.repository, order.trial.commit, checkout, task.inputs)
        before = state_of(rig.repository.root, task.inputs)
        check_inputs(order.inputs, before)
        fixed = [path for path in rig.repository.files(order.trial.commit) if not matches(task.editable, path)]
        written, packages = state_of_files(checkout, fixed), installed(task.interpreter)
        check_left(order.left, packages)
        sandbox = find_sandbox(rig.settings.sandbox)
        bay = _bay(rig, order, sandbox, Bay(checkout / task.folder, _environment(rig, order), log, ask, [busy]))
        end, effort = await _run(rig, order, bay)
        text = log.text()
        after = state_of(rig.repository.root, task.inputs)
        changed = Changed(
            inputs=[path for path in task.inputs if after[path] != before[path]],
            fixed=[path for path, state in written.items() if state_of_files(checkout, [path]) != {path: state}],
            packages=sorted(installed(task.interpreter) ^ packages),
        )
        if changed.packages and not sandbox:
            note_left(order.left, changed.packages)
        measured = None if changed else await _measure(rig, order, end, bay)
        end_of_log = text[-outcome.LOOKED_AT :]
        hint = missing_hint(rig.repository.root, checkout, end_of_log, task.train_script) if end.code else None
        ending = outcome.ending(task, end, text, time.time(), checkout, changed, hint, measured)
        if why := cause_of_failure(end, text, ending.out_of_memory, folder, rig.device):
            ending = replace(ending, status="lost", error=f"The machine failed it: {why}.", out_of_memory=False)
        return replace(
            ending,
            sandboxed=bool(sandbox),
            wall_seconds=end.seconds,
            cpu_seconds=effort.cpu_seconds,
            effort_seconds=effort.seconds,
            waited_seconds=effort.waited_seconds,
            counted_by=effort.counted_by,
            cpu_users=effort.users,
            idle_seconds=effort.idle_seconds,
        )
    except (ResearchError, OSError, ValueError) as error:  # ValueError: what no program can be given
        log.write(f"{error}\n".encode("utf-8", "replace"))
        return _not_started(error, str(error))
    finally:
        log.close()


async def _run(rig: Rig, order: Order, bay: Bay) -> tuple[child.Exit, Effort]:
    """Run the training itself; returns how it ended, and what it took."""
    task = order.task
    by_cpu = task.builtin and rig.device.kind == "cpu"
    meter = Meter(rig.device, rig.lock.mark, by_cpu, handed_in(order), groups=rig.settings.groups)
    try:
        end = await bay.run(training_words(task), bay.log, task.deadline_seconds, meter)
        return end, meter.end()
    finally:
        meter.close()


def _check_base(rig: Rig, order: Order) -> None:
    """Raise WrongState where a commit differs from the start of its run in a file that no experiment may change."""
    if order.base_commit:
        task, trial = order.task, order.trial
        paths = [change.path for change in rig.repository.changed(order.base_commit, trial.commit)]
        wrong = [path for path in paths if not matches(task.editable, path) or matches(task.readonly, path)]
        if wrong:
            raise WrongState(
                f"commit {trial.commit[:7]} changes {', '.join(wrong[:5])}, which no experiment of this run may",
                "Register a change of the editable files alone",
            )


def _bay(rig: Rig, order: Order, sandbox: str | None, bay: Bay) -> Bay:
    """The same place on the device, behind walls where there are any."""
    bay = replace(bay, device=rig.device)
    if sandbox is None:
        return bay
    environment = {**bay.environment, **{name: f"{TEMPORARY}/{folder}" for name, folder in COMPILED.items()}}
    view = training_view(rig, order)

    def behind(words: Sequence[str]) -> list[str]:
        return walled(sandbox, view, bay.folder, confined(*words))

    return replace(bay, environment=environment, behind=behind)


def _environment(rig: Rig, order: Order) -> dict[str, str]:
    checkout, out = order.folder / "checkout", order.folder / "out"
    seen = training_environment(rig.settings, order.task, order.trial, rig.device, rig.lock.mark, checkout, out)
    return seen | {name: str(order.folder / "tmp" / folder) for name, folder in COMPILED.items()}


async def _measure(rig: Rig, order: Order, end: child.Exit, bay: Bay) -> Measured | None:
    """Run checks and scorer, where the task has them, after a training that ended well, on files as committed."""
    task = order.task
    if not (task.checks or task.score_command) or not outcome.ended_well(task, end):
        return None
    checkout = order.folder / "checkout"
    restore(rig.repository, order.trial.commit, checkout)
    _drop_code(checkout, {*rig.repository.files(order.trial.commit), *task.inputs})
    model = handed_in(order)
    before = digest_of(model)
    measured = await measure(task, bay, order.folder)
    if digest_of(model) != before:
        return replace(measured, rejection=CHANGED_LATER)
    return measured


def _drop_code(checkout: Path, known: set[str]) -> None:
    """Delete what a training put into its checkout for checks and scorer to import in place of what they mean."""
    for parent, _, names in walk(checkout):
        for path in (Path(parent, name) for name in names):
            imported = path.name.endswith(IMPORTED) or (path.is_symlink() and path.is_dir())
            if imported and path.relative_to(checkout).as_posix() not in known:
                path.unlink()


def _not_started(error: Exception, why: str) -> Ending:
    return Ending("lost" if is_machines(error) else "failed", time.time(), error=f"It could not be trained: {why}")
