"""From the arguments of `setup_run` and a commit to the task of a run."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from mcp_server.errors import InvalidInput, NotReady, Undecided
from mcp_server.lab.commands import check_commands, named_files
from mcp_server.lab.data import check_format, prepared_data
from mcp_server.lab.interpreters import environment_notes, interpreter_of
from mcp_server.lab.judging import with_judge
from mcp_server.lab.ledger import usable
from mcp_server.lab.sources import BUILTIN, Decisions, gather
from mcp_server.machine.git import (
    Repository,
    check_path,
    expand_inputs,
    find_inputs,
    is_data_file,
    pointers,
    submodules,
)
from mcp_server.research.data_files import check_data_file
from mcp_server.research.guard import check_pattern, matches
from mcp_server.research.knobs import read_knobs
from mcp_server.research.metrics import better_when
from mcp_server.research.shrinking import check_settings, files_of, find_memory_knobs
from mcp_server.research.task import Task, check_task
from mcp_server.research.variations import fitted, variations
from mcp_server.settings import Settings

HARNESS_MARK = re.compile(r"^HARNESS = \"autoresearch-mcp\"", re.MULTILINE)
"""The line by which our prepare.py is known."""

SCORING, ANEW = "scoring.py", ("rescore_command", "judge_command")
"""Where our scorer and judge are, and the fields that name them."""

MOST_PATTERNS = 100
MEMORY = {"batch_knob", "accumulation_knob", "checkpointing_knob"}
"""The fields that name what decides the memory of a training."""


@dataclass(frozen=True)
class Plan:
    """A task, and what was decided on the way that the user should know.

    Attributes:
        rows: the research config as a table, see `Decisions.rows`.
    """

    task: Task
    adjustments: tuple[str, ...]
    rows: tuple[dict[str, str], ...] = ()


def plan_run(repository: Repository, commit: str, settings: Settings, tag: str, given: Mapping[str, Any]) -> Plan:
    """Make the task from the given arguments, task file, autoresearch.toml, the built-in task and the repository.

    Raises:
        InvalidInput: a value is bad; or, as Undecided, the metric or budget is nowhere: the text is the question.
        NotReady: the built-in task has no prepared data.
    """
    found = gather(repository, given)
    try:
        return _plan(repository, commit, settings, tag, given, found)
    except Undecided:
        raise
    except InvalidInput as error:
        raise found.located(error) from None


def _plan(
    repository: Repository, commit: str, settings: Settings, tag: str, given: Mapping[str, Any], found: Decisions
) -> Plan:
    notes: list[str] = []
    builtin = _is_builtin(repository, commit, given, found)
    if builtin:
        ours = gather(repository, {"task": BUILTIN}, with_config=False).values
        for name, value in ours.items():
            found.decide(name, value, "built-in task gpt")
        if SCORING not in repository.files(commit):  # projects begun earlier have none
            found.values = {
                name: value for name, value in found.values.items() if name not in ANEW or value != ours[name]
            }
        if not found.values.get("external"):
            check_format(*prepared_data(settings), repository.read_file(commit, "prepare.py") or "")
    elif found.values.get("name") == BUILTIN:
        what = "task 'gpt' is not known here"
        raise InvalidInput(what, "Use it in a repository with our prepare.py and train.py", ["task"])
    values = found.values
    check_places(values)
    if not values.get("external"):
        _choose_script(repository, commit, found, notes)
        _choose_memory(repository, commit, found)
    _choose_metric(found, notes)
    task = check_task(Task(**{**_defaults(repository, values), **values, "builtin": builtin}))
    task = _with_results_file(repository, commit, tag, task, "results_file" in values)
    if not task.external:
        task = _with_readonly(repository, commit, task, found)
        _check_globs(repository, commit, task, notes)
        task = _with_inputs(repository, task, values.get("inputs"), notes)
        _check_memory(repository, commit, task, found)
        task = _with_elsewhere(repository, commit, task, notes)
        check_commands(repository.root, frozenset(repository.files(commit)), task)
        task = with_judge(repository, commit, task, notes)
        notes.extend(environment_notes(repository.root, repository.files(commit), task))
        task = _with_plan(repository, commit, task, found)
    return Plan(task, tuple(notes), tuple(found.rows(task)))


def check_places(values: dict[str, Any], results_file: str = "") -> None:
    """Raise InvalidInput unless every path and glob stays within the repository.

    Args:
        results_file: one that a run has already, and keeps whatever it is called.
    """
    for name in ("results_file", "train_script", "folder"):
        if values.get(name):
            path = str(values[name]).removeprefix("./").rstrip("/") if values[name] != "/" else "/"
            check = check_data_file if name == "results_file" else check_path
            free = path in ("", ".") if name == "folder" else name == "results_file" and path == results_file
            values[name] = ("" if name == "folder" else path) if free else check(path, name)
    for name in ("editable", "readonly", "inputs"):
        patterns = values.get(name) or ()
        if len(patterns) > MOST_PATTERNS:
            what = f"{name} has {len(patterns)} patterns"
            raise InvalidInput(what, f"Give at most {MOST_PATTERNS}, such as 'src/**'", [name])
        for number, pattern in enumerate(patterns):
            check_pattern(name, number, pattern)


def _is_builtin(repository: Repository, commit: str, given: Mapping[str, Any], found: Decisions) -> bool:
    """Whether the run is of the built-in task: our harness is there, and no other task, script or command was named."""
    values = found.values
    if given.get("task") not in (None, BUILTIN) or (values.get("name", BUILTIN) != BUILTIN):
        return False
    if values.get("command", "python train.py") != "python train.py" or "command" in given:
        return False
    if values.get("train_script", "train.py") != "train.py":
        return False
    harness = repository.read_file(commit, "prepare.py") if "prepare.py" in repository.files(commit) else None
    ours = harness is not None and HARNESS_MARK.search(harness) is not None
    return ours and repository.read_file(commit, "train.py") is not None


def _choose_script(repository: Repository, commit: str, found: Decisions, notes: list[str]) -> None:
    """Settle `train_script` and `command`, each from the other where only one is given."""
    values, files = found.values, set(repository.files(commit))
    script, folder = values.get("train_script"), values.get("folder")
    if folder and not any(file.startswith(f"{folder}/") for file in files):
        there = (repository.root / folder).is_dir()
        todo = f"Commit {folder}" if there else "Give the folder that the command runs in"
        raise InvalidInput(f"folder {folder!r} holds no committed file", todo, ["folder"])
    if script is None and values.get("command"):
        script = _researched(named_files(values["command"], folder or "", files, ".py"), files, values.get("editable"))
        if script is None and not values.get("editable"):
            raise InvalidInput(
                f"command {values['command']!r} names no committed script",
                "Give train_script, or the globs that may be edited as editable",
                ["command"],
            )
        found.decide("train_script", script or "", "named in the command")
    if script is None and not values.get("command"):
        script = f"{folder}/train.py" if folder else "train.py"
        if script not in files:
            raise Undecided(
                "It is not said which script trains",
                {"train_script": "which script should be researched"},
                "Then call setup_run(train_script=..., metric=..., direction=..., time_budget_seconds=...)",
            )
        notes.append(f"The training script is {script}.")
        found.decide("train_script", script, "found in the repository")
    if script is not None and script not in files:
        exists = (repository.root / script).exists()
        raise InvalidInput(
            f"train_script {script!r} is not in the commit that the run starts from",
            "Commit it first: runs start from the committed state" if exists else _instead(script, files),
            ["train_script"],
        )
    if script and (link := repository.here.folder / script).is_symlink():
        what = f"train_script {script!r} is a symbolic link to {str(link.readlink())!r}"
        raise InvalidInput(what, "Name the file that it leads to, in train_script and in the command", ["train_script"])
    if script and not values.get("command") and PurePosixPath(script).suffix not in ("", ".py"):
        what = f"train_script {script!r} is no Python script, and there is no command"
        raise InvalidInput(what, f"Give the command too, such as 'bash {script}'", ["train_script"])
    values["train_script"] = script or ""
    words = os.path.relpath(values["train_script"] or ".", folder or ".")
    found.decide("command", f"python {shlex.quote(words)}", "from the script")


def _choose_memory(repository: Repository, commit: str, found: Decisions) -> None:
    """Take the script's own names for batch and accumulation, where nobody has said what decides the memory."""
    script = found.values.get("train_script")
    if not script or not script.endswith(".py") or {"batch_knob", "checkpointing_knob"} & found.values.keys():
        return
    knobs = find_memory_knobs(repository.read_file(commit, script) or "")
    for name, knob in zip(("batch_knob", "accumulation_knob"), knobs or (), strict=False):
        found.decide(name, knob, "found in the script")


def _researched(named: list[str], files: set[str], editable: Sequence[str] | None) -> str | None:
    """The script whose constants are to be researched: one that the command names, unless another alone may change."""
    if not editable or any(matches(editable, path) for path in named):
        return next((path for path in named if not editable or matches(editable, path)), None)
    scripts = [path for path in files if path.endswith(".py") and matches(editable, path)]
    return scripts[0] if len(scripts) == 1 else None


def _with_readonly(repository: Repository, commit: str, task: Task, found: Decisions) -> Task:
    """The task with what decides and what scores made read-only, unless it is named as editable."""
    files = set(repository.files(commit))
    anew = (task.rescore_command, task.judge_command)
    commands = [command for command in (task.score_command, *anew, task.mutator, *task.checks) if command]
    judging = [path for command in commands for path in named_files(command, task.folder, files)]
    running = named_files(task.command, task.folder, files)
    judging += [path for path in running if not matches(task.editable, path)]
    guarded = [path for path in (*judging, *found.protected) if path in files and path not in task.editable]
    added = tuple(path for path in dict.fromkeys(guarded) if path not in task.readonly)
    if not added:
        return task
    source = found.sources.get("readonly")
    found.sources["readonly"] = f"{source}, and what scores" if source else "what scores and decides"
    return replace(task, readonly=(*task.readonly, *added))


def _choose_metric(found: Decisions, notes: list[str]) -> None:
    """Settle metric, direction and budget; never assume the metric or the budget."""
    values, questions = found.values, dict[str, str]()
    if "metric" not in values:
        questions["metric"] = "which metric does the training print, as 'name: value'"
    if "direction" not in values and "metric" in values and (guess := better_when(values["metric"])):
        found.decide("direction", guess, "guessed from the metric's name")
        notes.append(f"{values['metric']} is taken as a metric to {guess}.")
    if "direction" not in values:
        questions["direction"] = "is lower or higher better"
    if "time_budget_seconds" not in values:
        if values.get("external"):
            values["time_budget_seconds"] = 300.0
        else:
            questions["time_budget_seconds"] = "how many seconds may one training take"
    if questions:
        raise Undecided(
            "The metric and the budget of a run are never assumed",
            questions,
            "Then call again with the answers",
        )


def _with_plan(repository: Repository, commit: str, task: Task, found: Decisions) -> Task:
    """The task with its plan as the script takes it; a run is over when its baseline and its plan are done."""
    if not task.vary and not task.hold:
        return task
    source = repository.read_file(commit, task.train_script) if task.train_script else None
    if source is None:
        what = "a plan varies the constants of a script, and this task has none"
        raise InvalidInput(what, "Give train_script", ["vary" if task.vary else "hold"])
    task = fitted(task, source)
    if task.vary and task.max_experiments is None:
        count = 1 + len(list(variations(task, {name: knob.value for name, knob in read_knobs(source).items()})))
        found.decide("max_experiments", count, "baseline and plan")
        task = replace(task, max_experiments=count)
    return task


def _instead(script: str, files: set[str]) -> str:
    named = sorted(file for file in files if PurePosixPath(file).name == PurePosixPath(script).name)
    return f"Did you mean {named[0]!r}" if named else "Give a path relative to the top of the repository"


def _defaults(repository: Repository, values: Mapping[str, Any]) -> dict[str, Any]:
    script, folder = values.get("train_script", ""), values.get("folder", "")
    return {
        "train_script": "",
        "command": "true",
        "interpreter": str(interpreter_of(repository.root, str(PurePosixPath(script).parent if script else folder))),
        "editable": (script,) if script else (),
        "policy": "greedy" if values.get("external") else "noise_aware",
    }


def _check_globs(repository: Repository, commit: str, task: Task, notes: list[str]) -> None:
    files = repository.files(commit)
    for number, pattern in enumerate(task.editable):
        if not any(matches((pattern,), file) for file in files):
            raise InvalidInput(
                f"editable pattern {pattern!r} matches no committed file",
                "Give globs such as 'train.py' or 'src/**'",
                ("editable", number),
            )
    unmatched = [pattern for pattern in task.readonly if not any(matches((pattern,), file) for file in files)]
    notes.extend(f"readonly pattern {pattern!r} matches no committed file." for pattern in unmatched)
    if not task.editable:
        raise InvalidInput("editable is empty, so that nothing could be researched", "Give globs such as 'train.py'")


def _check_memory(repository: Repository, commit: str, task: Task, found: Decisions) -> None:
    """Raise InvalidInput where the user names settings that are not there; the built-in task's may be gone."""
    if task.builtin or not MEMORY & found.files.keys():
        return
    texts = {path: repository.read_file(commit, path) for path in files_of(task)}
    check_settings(task, {path: text for path, text in texts.items() if text is not None})


def _with_results_file(repository: Repository, commit: str, tag: str, task: Task, chosen: bool) -> Task:
    """The task with a results file that can be appended to: another by default, where the usual one is taken."""
    reason = usable(repository.root / task.results_file, task)
    if not (repository.root / task.results_file).resolve().is_relative_to(repository.root.resolve()):
        reason = reason or "leads out of the repository"
    if task.results_file in repository.files(commit):
        reason = "is a committed file"
    if not reason:
        return task
    if chosen:
        raise InvalidInput(f"results_file {task.results_file!r} {reason}", "Choose another name", ["results_file"])
    return _with_results_file(repository, commit, tag, replace(task, results_file=f"results-{tag}.tsv"), True)


def _with_inputs(repository: Repository, task: Task, declared: Sequence[str] | None, notes: list[str]) -> Task:
    """The task with the inputs that were declared, or else with what looks like data in the repository."""
    inputs, others = find_inputs(repository) if declared is None else (expand_inputs(repository, declared), [])
    if repository.here.folder != repository.root:
        notes.append(f"This is a linked work tree: data and environment are those of {str(repository.root)!r}.")
    notes.extend(
        f"Linked as input: {found.path} ({found.bytes / 1e6:.1f} MB, {found.files} files)." for found in inputs
    )
    if others:
        shown = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        notes.append(f"Not committed and not linked: {shown}. What trainings read of that belongs in `inputs`.")
    return replace(task, inputs=tuple(found.path for found in inputs))


def _with_elsewhere(repository: Repository, commit: str, task: Task, notes: list[str]) -> Task:
    """The task with the submodules that are filled as inputs; raises NotReady where data is still in Git LFS."""
    left = pointers(repository)
    if data := [path for path in left if is_data_file(path)]:
        more = f" and {len(data) - 1} more" if len(data) > 1 else ""
        raise NotReady(
            f"{data[0]!r}{more} holds a pointer of Git LFS and not the data",
            "Run `git lfs pull` in the repository, then call again",
        )
    if left:
        notes.append(f"Pointers of Git LFS, whose content is not here: {', '.join(left[:5])}. `git lfs pull` gets it.")
    inside = submodules(repository, commit)
    for path, filled in inside.items():
        notes.append(
            f"Linked as input: submodule {path}, as it is checked out now."
            if filled
            else f"Submodule {path} is empty here. If the training needs it: git submodule update --init {path}"
        )
    return replace(task, inputs=(*task.inputs, *(path for path, filled in inside.items() if filled)))
