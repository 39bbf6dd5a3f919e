"""Folders in which a program left what others would wait for, or fall over."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.lab.logs import read_end, read_whole
from mcp_server.machine.trees import DEEPEST, content_digest, open_regular, remove, too_deep, walk

DIG = """\
import os, sys
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[2])):
    os.mkdir(sys.argv[3]); open("f", "w").close(); os.chdir(sys.argv[3])
os.chmod("..", 0o500)
"""


def dig(folder: Path, levels: int, name: str = "d") -> None:
    """Make folders within folders, by a program of its own, since their path is too long for others."""
    folder.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-I", "-c", DIG, str(folder), str(levels), name], check=True)


@pytest.mark.parametrize(("levels", "name"), [(1, "d"), (80, "d"), (1200, "d"), (18, "d" * 240), (70, "d" * 255)])
def test_a_folder_is_deleted_however_deep_it_is(tmp_path: Path, levels: int, name: str) -> None:
    top, beside = tmp_path / "top", tmp_path / "beside"
    beside.write_text("stays")
    dig(top, levels, name)
    (top / "link").symlink_to(beside)
    (top / "loop").symlink_to(top)
    os.mkfifo(top / "pipe")
    remove(top)
    assert not top.exists()
    assert beside.read_text() == "stays"


def test_walking_ends_at_a_depth(tmp_path: Path) -> None:
    dig(tmp_path / "deep", 1200)
    dig(tmp_path / "flat", DEEPEST - 1)
    found = [place for place, _, _ in walk(tmp_path / "deep")]
    assert len(found) == DEEPEST + 1
    assert (too_deep(tmp_path / "deep"), too_deep(tmp_path / "flat")) == (True, False)
    remove(tmp_path / "deep")


@pytest.mark.parametrize("name", ["d" * 240, "\N{BLACK SQUARE}" * 80])
def test_what_the_system_has_no_path_for_is_too_deep(tmp_path: Path, name: str) -> None:
    """Far fewer levels than are looked into; every folder that is, is read."""
    dig(tmp_path / "deep", 18, name)
    dig(tmp_path / "flat", 6, name)
    assert (too_deep(tmp_path / "deep"), too_deep(tmp_path / "flat")) == (True, False)
    assert len([place for place, _, names in walk(tmp_path / "deep") if names == ["f"]]) >= 14
    remove(tmp_path / "deep")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
def test_what_cannot_be_read_is_too_deep(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not too_deep(tmp_path)
    (tmp_path / "a" / "b").chmod(mode)
    assert too_deep(tmp_path)
    remove(tmp_path / "a")


def test_a_walk_sees_what_the_systems_walk_sees(tmp_path: Path) -> None:
    for name in ("a/b/c.py", "a/d", "e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "to").symlink_to(tmp_path)

    found, known = walk(tmp_path), os.walk(str(tmp_path))
    seen, expected = ({place: {*folders, *names} for place, folders, names in places} for places in (found, known))
    assert seen == expected


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder", "nothing"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link":
            path.symlink_to(__file__)
        case "folder":
            path.mkdir()
    with pytest.raises(OSError, match=kind):
        open_regular(path)


def test_the_digest_is_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)
    first = content_digest(path)
    assert content_digest(path) == first
    with path.open("r+b") as file:
        file.seek(2_999_999)
        file.write(b"x")
    assert content_digest(path) != first
    os.truncate(path, 1 << 42)  # 4 TiB, nothing of which is on the disk: it would take hours to read
    huge = content_digest(path)
    assert huge == content_digest(path)
    with path.open("r+b") as file:
        file.seek(1 << 41)
        file.write(b"x")
    assert content_digest(path) != huge


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system does not tell of holes")
@pytest.mark.parametrize("fails", [("SEEK_DATA", 0), ("SEEK_DATA", 2**21), ("SEEK_HOLE", 0), ("SEEK_HOLE", 2**21)])
def test_what_a_disk_does_not_tell_of_holes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: tuple[str, int]
) -> None:
    """An error other than that nothing but a hole follows, as some file systems over a network give."""
    name, place = fails
    seek = os.lseek

    def failing(descriptor: int, position: int, how: int) -> int:
        if how == getattr(os, name) and position >= place:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return seek(descriptor, position, how)

    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**22)
        file.write(b"at the start")
        file.seek(2**21)
        file.write(b"after the hole")
    monkeypatch.setattr("mcp_server.machine.trees.os.lseek", failing)
    digests = [content_digest(path)]
    for at in (1, 2**21 + 1, 2**22 - 1):
        with path.open("r+b") as some:
            some.seek(at)
            some.write(b"x")
        digests.append(content_digest(path))
    assert len(set(digests)) == 4


@pytest.mark.parametrize("kind", ["pipe", "device", "nothing"])
def test_a_log_that_is_none_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.txt"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
    for read in (read_end(path), read_whole(path, None)):
        assert ("cannot be read" in read.text) == (kind != "nothing")
    path.unlink(missing_ok=True)
    path.write_bytes(b"one\r\ntwo\xff\n")
    assert (read_end(path).total, read_whole(path, "two").text) == (2, "two\N{REPLACEMENT CHARACTER}\n")
