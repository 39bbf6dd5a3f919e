"""Copies of the store, made beside it while it is used; a person puts one in its place when the file is damaged."""

import os
import shlex
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

KEPT = 3
"""So many copies are kept, the newest."""
MOST_AGE = 3600.0
"""Seconds after which a copy is not fresh any more."""
_LOOK = 10_000
"""After so many steps of SQLite's machine it is asked whether to go on."""


def backups(store: Path) -> list[Path]:
    """The copies of the store at this path, newest first."""
    return sorted((store.parent / "backups").glob(f"{store.stem}-*.db"), reverse=True)


def is_stale(store: Path) -> bool:
    """Whether the newest copy is older than an hour, or there is none."""
    newest = next(iter(backups(store)), None)
    return newest is None or time.time() - newest.stat().st_mtime > MOST_AGE


def back_up(store: Path, ending: threading.Event) -> Path:
    """Copy the store while others read and write it, and drop all copies but the last `KEPT`.

    The copy is made row by row, so that a damaged file is never copied over a good copy.

    Args:
        ending: set to give the copy up.

    Raises:
        OSError: the folder cannot be written.
        sqlite3.Error: the store cannot be read, the disk is full, or the copy was given up.
    """
    folder = store.parent / "backups"
    folder.mkdir(exist_ok=True)
    name = f"{store.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
    unfinished = folder / f".{name}.{os.getpid()}.part"
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_progress_handler(ending.is_set, _LOOK)
            connection.execute("VACUUM INTO ?", [str(unfinished)])
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(folder / name)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in backups(store)[KEPT:]:
        old.unlink(missing_ok=True)
    return folder / name


def restore_advice(store: Path) -> str:
    """What to do about a store that is damaged, as an imperative sentence with the command."""
    newest = next(iter(backups(store)), None)
    if newest is None:
        return "There is no backup: move the file away to begin afresh; every commit is in git"
    # The write-ahead log of the damaged file must not be played into the copy.
    place, copy = shlex.quote(str(store.parent)), shlex.quote(f"backups/{newest.name}")
    words = f"cd {place} && mkdir damaged && mv {store.name}* damaged/ && cp {copy} {store.name}"
    return f"Stop every server and restore the newest of {len(backups(store))} backups: {words}"
