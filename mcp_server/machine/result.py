"""`result.json`: how a trial ended, on the disk before it is in the store, so that nothing can lose it."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from mcp_server.machine.trees import open_regular
from mcp_server.research.experiment import Ending, Trial

NAME = "result.json"
RESERVED = 64 * 1024
"""Bytes that are set aside while the trial runs, so that a disk filled by it still has room for its result."""


def reserve(folder: Path) -> None:
    """Set room aside for the result in a trial's folder; raises OSError if there is none."""
    with _unfinished(folder).open("wb") as file:
        file.write(bytes(RESERVED))
        os.fsync(file.fileno())


def write(folder: Path, trial: Trial, ending: Ending) -> None:
    """Write the result of a trial: all of it, or nothing. Raises OSError where the disk fails."""
    record = {"trial": trial.id, "started_at": trial.started_at, "ending": asdict(ending)}
    temporary = _unfinished(folder)
    with temporary.open("r+b" if temporary.exists() else "w+b") as file:
        file.truncate(file.write(json.dumps(record).encode()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # else a power cut may undo the renaming
    finally:
        os.close(descriptor)


def read(folder: Path, trial: Trial) -> Ending | None:
    """The result of this very trial, or None if there is none that can be read."""
    try:
        with open_regular(folder / NAME) as file:
            record = json.load(file)
        if (record["trial"], record["started_at"]) == (trial.id, trial.started_at):
            return Ending(**record["ending"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _unfinished(folder: Path) -> Path:
    return folder / f"{NAME}.part"
