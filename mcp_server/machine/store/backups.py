"""Copies of the store, made beside it while it is used; a person puts one in its place when the file is damaged."""

import calendar
import contextlib
import os
import shlex
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from mcp_server.errors import NotReady

NEWEST_KEPT, HOURS_KEPT = 2, 3
"""So many of the newest copies are kept, and of each of so many earlier hours the last."""
LEAST_AGE, MOST_AGE = 60.0, 3600.0
BYTES = 10_000_000
"""A copy is old after `LEAST_AGE` seconds for every so many bytes of the store: copying takes 0.2 % of the time."""
STAMP = "%Y%m%dT%H%M%SZ"
LEFT_BEHIND = 3600.0
"""Seconds after which what a killed process was copying is deleted."""
SMALL = 10_000_000
"""Bytes of a store that is copied within a tenth of a second."""
_LOOK = 10_000
"""After so many steps of SQLite's machine it is asked whether to go on."""


def backups(store: Path) -> list[Path]:
    """The copies of the store at this path, newest first."""
    return sorted((store.parent / "backups").glob(f"{store.stem}-*.db"), reverse=True)


def is_stale(store: Path) -> bool:
    """Whether the store was written since its newest copy, and that copy is old, or there is none.

    A copy that bears a time to come was made before the clock was set back: what was written since cannot be told.
    """
    written = [file.stat() for file in (store, store.with_name(f"{store.name}-wal")) if file.exists()]
    newest = next(iter(backups(store)), None)
    if newest is None or not written:
        return bool(written)
    made, now = newest.stat().st_mtime, time.time()
    size = sum(status.st_size for status in written)
    patience = min(MOST_AGE, LEAST_AGE * max(1.0, size / BYTES))
    return (made > now or max(status.st_mtime for status in written) > made) and abs(now - made) > patience


def _name(store: Path) -> str:
    """The name of the next copy: the time, or a second after that of the newest if the clock was set back since.

    By their names copies stand in the order in which they were made.
    """
    now = time.time()
    if newest := next(iter(backups(store)), None):
        with contextlib.suppress(ValueError):
            stamp = newest.stem.removeprefix(f"{store.stem}-")
            now = max(now, calendar.timegm(time.strptime(stamp, STAMP)) + 1)
    return f"{store.stem}-{time.strftime(STAMP, time.gmtime(now))}.db"


def is_small(store: Path) -> bool:
    """Whether a copy of the store takes no time worth speaking of."""
    return store.exists() and store.stat().st_size < SMALL


def back_up(store: Path, ending: threading.Event) -> Path:
    """Copy the store while others read and write it, and drop old copies.

    The copy is made row by row, so that a damaged file is never copied over a good copy.

    Args:
        ending: set to give the copy up.

    Raises:
        OSError: the folder cannot be written.
        sqlite3.Error: the store cannot be read, the disk is full, or the copy was given up.
    """
    folder = store.parent / "backups"
    folder.mkdir(exist_ok=True)
    for part in folder.glob(".*.part"):
        if abs(time.time() - part.stat().st_mtime) > LEFT_BEHIND:
            part.unlink(missing_ok=True)
    name = _name(store)
    unfinished = folder / f".{name}.{uuid4().hex}.part"
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_progress_handler(ending.is_set, _LOOK)
            connection.execute("VACUUM INTO ?", [str(unfinished)])
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(folder / name)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in set(backups(store)) - set(_kept(backups(store))):
        old.unlink(missing_ok=True)
    return folder / name


def _kept(copies: list[Path]) -> list[Path]:
    """Those of some copies, newest first, that are kept."""
    last_of_hour = {copy.name.rpartition("T")[0] + copy.name.rpartition("T")[2][:2]: copy for copy in copies[::-1]}
    return [*copies[:NEWEST_KEPT], *list(last_of_hour.values())[::-1][: HOURS_KEPT + 1]]


def restore_advice(store: Path) -> str:
    """What to do about a store that is damaged, as an imperative sentence with the command."""
    newest = next(iter(backups(store)), None)
    if newest is None:
        return "There is no backup: move the file away to begin afresh; every commit is in git"
    # The write-ahead log of the damaged file must not be played into the copy.
    place, copy = shlex.quote(str(store.parent)), shlex.quote(f"backups/{newest.name}")
    aside = f"damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    damaged = " ".join(sorted(shlex.quote(file.name) for file in store.parent.glob(f"{store.name}*")))
    put_aside = f"mkdir {aside} && mv {damaged} {aside} && " if damaged else ""
    words = f"cd {place} && {put_aside}cp {copy} {store.name}"
    return f"Stop every server and restore the newest of {len(backups(store))} backups: `{words}`"


def check_not_emptied(store: Path) -> None:
    """Raise NotReady where there are copies and no store, which SQLite would take for a new one.

    A store that is being made is empty for a moment, but has no copies.
    """
    if backups(store) and (not store.exists() or store.stat().st_size == 0):
        state = "is empty" if store.exists() else "is gone"
        raise NotReady(
            f"The store {store} {state}, though there are backups of it",
            f"{restore_advice(store)}; or move the folder backups away too, to begin afresh",
        )
