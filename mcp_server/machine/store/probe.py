"""Whether SQLite can do on some file system what the store needs of it."""

import sqlite3
import tempfile
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
