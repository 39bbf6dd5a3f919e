"""The user's scorer and judge, apart from all that an agent could have put beside them: their files and environment."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mcp_server.machine.environment import training_environment
from mcp_server.machine.git import Repository, check_out
from mcp_server.machine.rig import Order, Rig
from mcp_server.machine.sandbox import TEMPORARY
from mcp_server.research.task import Task

CODE = (".py", ".pyc", ".pyo", ".so", ".pyd", ".pth")
"""How the names of files end that Python imports, or reads as it starts."""
STEERING = ("PYTHON", "LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "BASH_ENV")
"""Beginnings of variables that have other code run, or run in another way."""
COMPILED = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def harness_environment(rig: Rig, order: Order, checkout: Path, role: str, walls: bool) -> dict[str, str]:
    """All that a scorer or a judge sees: nothing of the task's own variables, and nothing that has other code run.

    Args:
        checkout: of the harness, which is imported from.
        role: `scorer` or `judge`.
        walls: whether it runs behind walls.
    """
    task = replace(order.task, environment=_data(order.task), seed_variables=())
    mark = f"{rig.lock.mark}/{role}"
    out = order.folder / "out"
    seen = training_environment(rig.settings, task, order.trial, rig.device, mark, checkout, out)
    seen = {name: value for name, value in seen.items() if not name.startswith(STEERING)}
    place, own = checkout / task.folder, Path(TEMPORARY) if walls else order.folder / f"tmp-{role}"
    return seen | {
        "PYTHONPATH": os.pathsep.join([str(place), str(place / "src")]),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: str(own / name.lower()) for name in COMPILED},  # no code that a training left compiled
    }


def _data(task: Task) -> tuple[tuple[str, str], ...]:
    """Where the data lie, as a machine of a cluster says it; no task may."""
    return tuple((name, value) for name, value in task.environment if name == "AUTORESEARCH_DATA")


def check_out_harness(repository: Repository, commit: str, folder: Path, task: Task) -> None:
    """Write the files of a commit into a folder, without those that an agent brought, and link the data of the inputs.

    Code that is not committed is left out of the inputs, and so are links to code outside of the commit.

    Raises:
        NotReady: the disk is full, or a filter of .gitattributes fails.
    """
    check_out(repository, commit, folder)
    for path in task.left_out:
        (folder / path).unlink(missing_ok=True)
    for link in list(_links(folder)):
        target = _led(link)
        if target is None or not target.is_relative_to(folder.resolve()):
            link.unlink()
            if target is not None:
                _link(target, link)
    for path in task.inputs:
        if (folder / path).parent.resolve().is_relative_to(folder.resolve()):
            _link(repository.root / path, folder / path)


def _links(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        yield from (path for name in (*folders, *names) if (path := Path(parent, name)).is_symlink())


def _led(link: Path) -> Path | None:
    """Where a link leads; None where that is to itself."""
    try:
        return link.resolve()
    except RuntimeError:
        return None


def _link(source: Path, place: Path, around: tuple[Path, ...] = ()) -> None:
    """Link a file or a folder to a place as far as that is free, and nothing of it that Python would import.

    Args:
        around: the folders that it was found in; a link to one of them is left out.
    """
    if not source.is_dir():
        if source.exists() and not os.path.lexists(place) and not (_is_code(place) or _is_code(source.resolve())):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
    elif (real := source.resolve()) in around or place.is_symlink():
        return
    elif not os.path.lexists(place) and not _holds_code(source):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
    else:
        place.mkdir(parents=True, exist_ok=True)
        for child in sorted(source.iterdir()):
            if child.name != ".git":
                _link(child, place / child.name, (*around, real))


def _is_code(path: Path) -> bool:
    return path.name.endswith(CODE)


def _holds_code(folder: Path) -> bool:
    """Whether a folder has code in it, or a link to a folder, behind which there may be any."""
    for parent, folders, names in os.walk(folder):
        if any(Path(parent, name).is_symlink() for name in folders):
            return True
        for path in (Path(parent, name) for name in names):
            if _is_code(path) or (path.is_symlink() and _is_code(path.resolve())):
                return True
    return False
