"""What the commands of a task name: programs of the machine and files of the repository."""

import itertools
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from mcp_server.errors import InvalidInput
from mcp_server.research.task import Task, split_command

MODULE_FILES = ("{}.py", "{}/__main__.py", "src/{}.py", "src/{}/__main__.py")
"""Where a module that is run by `python -m` may lie."""

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_SHELLS = ("bash", "sh", "zsh")
_WITH_VALUE = ("-X", "-W")
"""Options of Python whose value may be the next word."""

_NO_SCRIPT = ("-c", "-m")
"""Beginnings of words with which Python runs something else than a file."""


def named_files(command: str, folder: str, files: Collection[str], ending: str = "") -> list[str]:
    """The committed files that a command names, by path or as a module after `-m`.

    Args:
        folder: that in which it runs, from the top of the repository.
        files: the committed files.
    """
    words = split_command(command)
    modules = [word.replace(".", "/") for before, word in itertools.pairwise(words) if before == "-m"]
    forms = [form.format(module) for module in modules for form in MODULE_FILES]
    paths = [_from_top(folder, word) for word in (*words, *forms)]
    return [path for path in paths if path in files and path.endswith(ending)]


def check_commands(root: Path, files: Collection[str], task: Task) -> None:
    """Raise InvalidInput where a command of a task runs a program or a script that is not there.

    Args:
        root: the top of the repository.
        files: the committed files.
    """
    for at, command in _commands(task):
        # The artifact loop looks for its mutator by itself.
        if at[0] != "mutator" and "PATH" not in dict(task.environment):
            check_program(at, command, Path(task.interpreter).parent)
        path = _from_top(task.folder, _script(command))
        written_by_another = at[0] == "checks" and at[1] != 0
        if not written_by_another and not _is_there(root, path, files, task):
            exists = (root / path).is_file()
            raise InvalidInput(
                f"{at[0]} {command!r} runs {path!r}, which is no committed file",
                "Commit it: trainings see what is committed" if exists else "Give the path of a committed script",
                at,
            )


def _is_there(root: Path, path: str, files: Collection[str], task: Task) -> bool:
    """Whether trainings find a path: committed, also below a link, linked as input, or outside of what is committed."""
    if path in files or path in (".", task.folder) or PurePosixPath(path).is_absolute():
        return True
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    return (
        any(parent in files for parent in parents)
        or any(PurePosixPath(path).is_relative_to(place) for place in task.inputs)
        or any((root / parent / "pyvenv.cfg").exists() for parent in parents[:-1])
    )


def check_program(at: tuple[str | int, ...], command: str, scripts: Path) -> None:
    """Raise InvalidInput where a command begins with a program that is not there.

    Args:
        at: the field that the command belongs to, see `InvalidInput`.
        scripts: the folder with the programs of the Python that trains, which come first.
    """
    program = split_command(command)[0]
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", os.defpath)])
    if "/" not in program and program not in ("python", "python3") and shutil.which(program, path=path) is None:
        what = f"{at[0]} begins with {program!r}, which is not on PATH"
        todo = (
            f"Begin with `env {program}`, or use runner.environment"
            if "=" in program
            else "Install it, or give its path"
        )
        raise InvalidInput(what, todo, at)


def _commands(task: Task) -> Iterator[tuple[tuple[str | int, ...], str]]:
    names = ("command", "score_command", "rescore_command", "judge_command", "mutator")
    yield from (((name,), getattr(task, name)) for name in names if getattr(task, name))
    yield from ((("checks", number), command) for number, command in enumerate(task.checks))


def _script(command: str) -> str:
    """The file of Python or of a shell that a command runs; empty where it runs something else."""
    program, *words = split_command(command)
    if program in _SHELLS:
        return words[0] if words and words[0].endswith(".sh") else ""
    if "/" in program:
        return program
    if not _PYTHON.fullmatch(program):
        return ""
    for before, word in itertools.pairwise([program, *words]):
        if word == "-" or word.startswith(_NO_SCRIPT):
            return ""
        if not word.startswith("-") and before not in _WITH_VALUE:
            return word if word.endswith(".py") else ""
    return ""


def _from_top(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - no real path
