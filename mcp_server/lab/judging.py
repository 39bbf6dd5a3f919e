"""Whether a task's scorer and judge are the user's own, which no experiment can have changed."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mcp_server.errors import InvalidInput
from mcp_server.lab.commands import MODULE_FILES
from mcp_server.machine.git import Repository
from mcp_server.machine.git.repository import Entry
from mcp_server.machine.provenance import Provenance, provenance
from mcp_server.research.guard import FOLDER, HARNESS, SUBMODULE, SYMLINK, matches
from mcp_server.research.imports import imported_modules, places_of
from mcp_server.research.task import Task, split_command

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_SHELLS = ("bash", "sh", "zsh")
_PLAIN_OPTION = re.compile(r"-[uBOsEIqvbP]+")
"""Options of Python that lead to no other code."""
STARTED = ("sitecustomize", "usercustomize")
"""Modules that every Python imports as it starts, where there are any."""
MOST_SHOWN = 5
MOST_LINKS = 40
REPORTED = "Results of this run say `reported`, and none is verified: {why}. {todo}."
TODO = (
    "Begin the run at a commit in which you, and no experiment, committed scorer, judge and what they import, and keep "
    "these out of editable"
)


@dataclass(frozen=True)
class Harness:
    """The files that score and judge.

    Attributes:
        files: those of the commit, the commands' own first, then what they import.
        fault: why they are not the user's own; empty where they are.
    """

    files: tuple[str, ...]
    fault: str = ""


def with_judge(repository: Repository, commit: str, task: Task, notes: list[str]) -> Task:
    """The task with its scorer and judge as they may be trusted.

    What they import becomes read-only, unless the user names it as editable. What agents brought is left out of where
    they run. Where they themselves are not the user's own, nothing is scored anew, and a note says why.
    """
    if not task.rescore_command:
        return task
    entries = repository.entries(commit)
    known = provenance(repository, commit)
    harness = find_harness(repository, commit, task, entries, known)
    named = (*task.editable, task.train_script)
    added = [path for path in harness.files if path not in named and _changeable(task, (path,))]
    fixed = replace(task, readonly=(*task.readonly, *added))
    why = harness.fault or _changeable(fixed, harness.files)
    if why:
        notes.append(REPORTED.format(why=why, todo=TODO))
        return replace(task, rescore_command="", judge_command="", unjudged=why)
    if added:
        notes.append(
            f"Read-only, since scorer or judge import it: {_listed(added)}. Where experiments shall change it, name "
            "it in editable; results then say `reported`."
        )
    if strange := sorted(path for path in known.brought if path != task.train_script):
        notes.append(f"Scorer and judge do not see what experiments brought into the commit: {_listed(strange)}.")
    return replace(fixed, left_out=tuple(sorted(known.brought)))


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:MOST_SHOWN]) + (" and others" if len(paths) > MOST_SHOWN else "")


def find_harness(
    repository: Repository, commit: str, task: Task, entries: Mapping[str, Entry], known: Provenance
) -> Harness:
    """The files that score and judge, and whether all of them are the user's own."""
    found: dict[str, None] = {}
    waiting: list[str] = []
    for command in (task.rescore_command, task.judge_command):
        started = scripts_of(command, task, entries)
        if not started:
            return Harness((), f"{command!r} runs no script that is committed")
        if path := next((path for path in started if path in known.brought), None):
            return Harness((), f"{path} is as an experiment made it in commit {known.brought[path][:7]}")
        waiting += started
    tree = _Tree(repository, commit, entries, known)
    roots = (PurePosixPath(task.folder), PurePosixPath(task.folder, "src"), *map(_parent, waiting))
    folders = tuple(dict.fromkeys(map(_folder, roots)))
    at_start = [path for name in STARTED for path in places_of(name, "", folders)]
    waiting += [path for path in at_start if path in entries and path not in known.brought]
    try:
        while waiting:
            path = tree.real(waiting.pop(0))
            if path not in found:
                found[path] = None
                waiting += tree.imported(path, folders)
    except _Foreign as foreign:
        return Harness(tuple(found), str(foreign))
    return Harness(tuple(found))


class _Foreign(Exception):  # noqa: N818 - a finding
    """Something that is imported is not the user's own."""


@dataclass(frozen=True)
class _Tree:
    """The files of a commit, and whose they are."""

    repository: Repository
    commit: str
    entries: Mapping[str, Entry]
    known: Provenance

    def real(self, path: str) -> str:
        """A path without links, as it is in the commit; raises _Foreign where one leads out of the commit."""
        for _ in range(MOST_LINKS):
            parts = [*reversed(PurePosixPath(path).parents), PurePosixPath(path)][1:]
            link = next((str(part) for part in parts if self._mode(str(part)) == SYMLINK), "")
            if not link:
                return path
            target = self.repository.read_file(self.commit, link) or ""
            led = os.path.normpath(os.path.join(_parent(link), target))  # noqa: PTH118 - no real path
            if led.startswith(("/", "..")):
                raise _Foreign(f"{link} is a link to {target!r}, which is not committed")
            path = str(PurePosixPath(led) / PurePosixPath(path).relative_to(link))
        raise _Foreign(f"{path} is a link that leads to itself")

    def imported(self, path: str, roots: tuple[str, ...]) -> Iterator[str]:
        """The committed files that a file imports; raises _Foreign where one is not the user's own."""
        try:
            source = self.repository.read_file(self.commit, path) or ""
        except InvalidInput:  # it is no text
            return
        folders = tuple(dict.fromkeys((_folder(_parent(path)), *roots)))
        for module in imported_modules(source):
            for place in places_of(module, path, folders):
                inside = [str(parent) for parent in PurePosixPath(place).parents]
                if lost := next((parent for parent in inside if self._mode(parent) == SUBMODULE), None):
                    raise _Foreign(
                        f"{path} imports {module} of the submodule {lost}, whose files are not committed here"
                    )
                place = self.real(place)
                if place in self.known.replaced:
                    by = self.known.brought[place][:7]
                    raise _Foreign(f"{path} imports {place}, which is as an experiment made it in commit {by}")
                if place in self.known.deleted:
                    raise _Foreign(f"{path} imports {place}, which was deleted since an experiment began with it")
                if place in self.entries and place not in self.known.brought:
                    yield place

    def _mode(self, path: str) -> str:
        return self.entries[path].mode if path in self.entries else ""


def scripts_of(command: str, task: Task, entries: Mapping[str, Entry]) -> list[str]:
    """The committed script that a command runs, behind the packages that hold it; empty where it runs anything else."""
    program, *words = split_command(command)
    if program == "uv" and words[:1] == ["run"]:
        program, words = ("python", words[2:]) if words[1:2] == ["python"] else ("python", words[1:])
    if _PYTHON.fullmatch(program) or program == task.interpreter:
        while words and _PLAIN_OPTION.fullmatch(words[0]):
            words = words[1:]
        if words[:1] == ["-m"] and len(words) > 1:
            module = words[1].replace(".", "/")
            forms = [form.format(module) for form in MODULE_FILES]
            packages = [path for root in ("", "src") for path in places_of(words[1], "", (root,))]
            run = [path for path in forms if _from_top(task, path) in entries]
            return [path for path in (_from_top(task, each) for each in (*packages, *run)) if path in entries]
    elif program not in _SHELLS:
        words = [program] if "/" in program else []
    path = _from_top(task, words[0]) if words else ""
    return [path] if path in entries and entries[path].mode not in (FOLDER, SUBMODULE) else []


def _changeable(task: Task, files: tuple[str, ...]) -> str:
    """Which of the files an experiment may change, as a sentence; empty where it may change none."""
    for path in files:
        guarded = matches(task.readonly, path) or (task.builtin and PurePosixPath(path).name in HARNESS)
        if matches(task.editable, path) and not guarded:
            return f"experiments may change {path}, which scores or is imported by what does"
    return ""


def _from_top(task: Task, path: str) -> str:
    return os.path.normpath(os.path.join(task.folder, path))  # noqa: PTH118 - no real path


def _folder(path: PurePosixPath) -> str:
    """A folder from the top of the repository; empty for the top itself."""
    return "" if path == PurePosixPath() else str(path)


def _parent(path: str) -> PurePosixPath:
    return PurePosixPath(path).parent
