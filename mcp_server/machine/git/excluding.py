"""Keeping a file of ours out of the user's `git status`, without touching a file of theirs."""

import os
import re
from pathlib import Path

from mcp_server.machine.git.repository import Repository


def exclude(repository: Repository, path: str) -> None:
    """Name an untracked file in `info/exclude`, which all work trees share and which is never committed.

    Nothing happens where it stands there already. Raises OSError where that cannot be written.

    Args:
        path: relative to the top of a work tree.
    """
    file: Path = repository.common_dir / "info" / "exclude"
    line = "/" + re.sub(r"([\\*?\[ ])", r"\\\1", path)
    present = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    if line in present.splitlines():
        return
    file.parent.mkdir(exist_ok=True)
    text = f"{line}\n" if not present or present.endswith("\n") else f"\n{line}\n"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), "ab") as kept:
        kept.write(text.encode("utf-8", "surrogateescape"))
