"""What runs trainings: the Python of the repository's own environment, else the server's."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mcp_server.research.guard import is_dependency_file
from mcp_server.research.task import Task

ENVIRONMENTS = (".venv", "venv")


def interpreter_of(root: Path, place: str = "") -> Path:
    """The Python of the nearest virtual environment, from a folder of the repository up to its top; else the server's.

    Args:
        place: the folder, from the top of the repository.
    """
    folder = root / place
    for parent in (folder, *folder.parents):
        for name in ENVIRONMENTS:
            own = parent / name / "bin" / "python"
            if os.access(own, os.X_OK):
                return own
        if parent == root:
            break
    return Path(sys.executable)


def environment_notes(root: Path, files: Sequence[str], task: Task) -> list[str]:
    """What the user should know of the Python that trains, where it may not be the expected one.

    Args:
        files: the committed files.
    """
    interpreter = Path(task.interpreter)
    if interpreter.is_relative_to(root):
        own = interpreter.relative_to(root).as_posix()
        return [] if own == ".venv/bin/python" else [f"Trainings run with {own}."]
    above = [str(parent) for parent in PurePosixPath(task.train_script or f"{task.folder}/x").parents]
    locks = {f"{parent}/uv.lock".removeprefix("./"): parent for parent in above}
    project = next((locks[lock] for lock in locks if lock in files), None)
    if project is not None:
        return [
            f"This is a uv project without an environment, so that trainings run with {interpreter}. If they need its "
            f"packages, run `uv sync` in {str(root / project)!r}, and begin the run after that."
        ]
    declared = [file for file in files if "/" not in file and is_dependency_file(file)]
    if not declared or task.builtin:
        return []
    return [
        f"The repository has no .venv, so that trainings run with {interpreter}. If they need what {declared[0]} "
        "names, make a .venv with it at the top of the repository, and begin the run after that."
    ]
