"""Whether SQLite can do on some file system what the store needs of it."""

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

OLDEST = (3, 37)
"""The first SQLite with STRICT tables."""


def journal_mode(folder: Path) -> str:
    """The journal mode that SQLite settles for in `folder` when asked for WAL; raises OSError or sqlite3.Error."""
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as scratch:
        with closing(sqlite3.connect(Path(scratch) / "probe.db")) as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            connection.execute("CREATE TABLE probe (value INTEGER) STRICT")
        return str(mode)


def damage(store: Path, seconds: float) -> str | None:
    """What is wrong with a store; empty where nothing is, None where that takes longer than `seconds` to see."""
    ends = time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        return None if "interrupted" in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if said == "ok" else said
