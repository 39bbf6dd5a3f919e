"""What must stay as it is: a run's inputs from training to training, and fixed files and programs while one runs."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mcp_server.errors import NotReady, WrongState
from mcp_server.machine.git import state_of


def check_inputs(record: Path, states: Mapping[str, str]) -> None:
    """Compare the states of a run's inputs with those recorded in its file, which the run's first training makes.

    Args:
        record: the run's file, see `Folders.inputs`.
        states: see `git.state_of`.

    Raises:
        WrongState: an input is not what it was.
        NotReady: the file cannot be written or read.
    """
    if not states:
        return
    try:
        if not record.exists():
            _create(record, states)
        first = json.loads(record.read_text(encoding="utf-8"))
        changed = [path for path, state in states.items() if first.get(path, state) != state]
    except (OSError, ValueError, AttributeError) as error:
        raise NotReady(
            f"the record of the run's inputs {str(record)!r} cannot be used: {error}",
            "Make its place writable, or delete it if the inputs are what they were",
        ) from None
    if changed:
        raise WrongState(
            f"the inputs {', '.join(changed)} are not what they were in the run's first training, so that no result "
            "could be compared with earlier ones",
            "Restore them with their modification times, or begin a new run: setup_run with another tag",
        )


def record_inputs(record: Path, root: Path, inputs: Sequence[str]) -> None:
    """Write down what the inputs below `root` are now, in place of what was known of them."""
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    _create(record, state_of(root, inputs))


def state_of_files(folder: Path, files: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What tells whether any of these files is written, replaced or deleted later, even where that is undone.

    Files that are not there are left out.
    """
    states: dict[str, tuple[int, ...]] = {}
    for name in files:
        try:
            status = (folder / name).lstat()
        except OSError:
            continue
        states[name] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return states


def installed(interpreter: str) -> frozenset[str]:
    """The names of what is installed for a Python, versions included: what `pip install` changes."""
    prefix = Path(interpreter).parents[1]
    places = [
        place
        for pattern in ("lib/python*/site-packages", "lib64/python*/site-packages")
        for place in prefix.glob(pattern)
    ]
    return frozenset(path.name for place in places for path in place.iterdir() if path.name != "__pycache__")


def check_left(record: Path, present: Iterable[str]) -> None:
    """Raise WrongState where something that a training of the run installed, as `note_left` recorded, is still there.

    Args:
        record: the run's file, see `Order.left`.
        present: see `installed`.
    """
    if not record.exists():
        return
    left = sorted(set(record.read_text(encoding="utf-8").splitlines()).intersection(present))
    if left:
        raise WrongState(
            f"{', '.join(left)} was installed while an experiment of this run trained, and may change what all later "
            "ones score",
            "Uninstall it, or begin a new run if that was you: setup_run with another tag",
        )


def note_left(record: Path, names: Iterable[str]) -> None:
    """Record what was installed while an experiment trained."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)


def _create(record: Path, states: Mapping[str, str]) -> None:
    """Write the record, all of it or nothing, unless another worker was faster."""
    record.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=record.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(dict(states), file)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, record)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
