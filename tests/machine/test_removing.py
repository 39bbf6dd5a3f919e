"""What a training leaves is walked over and deleted, however deep and however read-only it is."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_server.machine.faults import disk_is_full
from mcp_server.machine.leftovers import changed_bytes, entries
from mcp_server.machine.removing import below, discard

DEEP = """
import os
os.makedirs({folder}, exist_ok=True)
os.chdir({folder})
for _ in range({depth}):
    os.mkdir("d" * {length})
    os.chdir("d" * {length})
open("left.py", "w").close()
"""


def dig(folder: Path, depth: int, length: int = 1) -> None:
    """Make folders in folders, with a file in the last."""
    here = Path.cwd()
    try:
        exec(DEEP.format(folder=repr(str(folder)), depth=depth, length=length))
    finally:
        os.chdir(here)


@pytest.mark.skipif(sys.platform == "win32", reason="paths are short there")
@pytest.mark.parametrize(("depth", "length"), [(0, 1), (3, 1), (1500, 1), (60, 200)])
def test_folders_in_folders_are_deleted(tmp_path: Path, depth: int, length: int) -> None:
    """More deeply than Python calls itself, and by a longer path than the system takes."""
    folder = tmp_path / "left"
    dig(folder, depth, length)
    hidden = depth * length > 4000
    lying = entries([folder])
    assert (len(list(below(folder))) == depth + 1) != hidden
    assert (changed_bytes(lying, entries([folder])) > 10**9) == hidden, "what cannot be read may have changed"
    assert not disk_is_full(folder)
    discard(folder)
    assert not folder.exists()


def test_what_is_read_only_is_deleted_and_what_links_lead_to_is_not(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "left"
    theirs.mkdir()
    (theirs / "words.txt").write_text("the user's own")
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for place in (inner, folder / "a", folder):
        (place / "link").symlink_to(theirs)
        (place / "deep-0").mkdir()
        place.chmod(0o500)
    theirs.chmod(0o500)
    discard(folder)
    assert not folder.exists()
    assert (theirs.stat().st_mode & 0o777, (theirs / "words.txt").read_text()) == (0o500, "the user's own")


@pytest.mark.skipif(sys.platform == "win32", reason="paths are short there")
@pytest.mark.parametrize("variable", ["AUTORESEARCH_OUT", "HERE"])
def test_a_training_that_digs_ends_as_any_other(yard: Any, variable: str) -> None:
    """Nor is its device kept from the next."""
    code = DEEP.format(folder=f"os.path.join(os.environ.get({variable!r}, '.'), 'left')", depth=1500, length=1)
    dug, after = yard.queue(f"{code}\nprint('loss: 1')"), yard.queue("print('loss: 2')")
    yard.work()
    ended = [trial for each in (dug, after) for trial in yard.trials(each)]
    assert [trial.status for trial in ended] == ["finished"] * 2, ended
