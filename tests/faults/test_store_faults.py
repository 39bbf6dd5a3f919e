"""What may become of the record: locked, on a full or unfit disk, newer than the program, damaged, gone."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from mcp import Client

from mcp_server.errors import NotReady
from mcp_server.lab import upkeep
from mcp_server.lab.lab import Lab
from mcp_server.machine.store import connection
from mcp_server.machine.store.backups import backups
from tests.faults.invariants import rows, violations
from tests.faults.scene import GATED, GOAL, TAG, Scene, begun, register, try_out, until
from tests.interfaces.agents import refused, use

pytestmark = pytest.mark.anyio
LOCKED_SECONDS = 20

LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the store, and lets it go by itself."""
    words = [sys.executable, "-c", LOCK, str(store), str(LOCKED_SECONDS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None
        locker.stdout.readline()
        yield


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True)


async def test_the_database_is_locked_for_20_seconds(scene: Scene) -> None:
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        baseline = await register(lab)
        await lab.training.train(baseline, wait_seconds=0)
        until(lambda: "at work" in scene.log(f"{baseline}.1"))
        with locked(scene.state / "research.db"):
            began = time.monotonic()
            scene.let_go()  # the worker cannot record the result now
            waiting = asyncio.create_task(register(lab, "meanwhile", knobs={"RATE": 0.2}))
            assert (await lab.reading.history(TAG)).total == 1  # who only reads does not wait
            assert time.monotonic() - began < LOCKED_SECONDS / 2
            assert await waiting == f"{TAG}-2"
            assert time.monotonic() - began > LOCKED_SECONDS / 2
        assert (await lab.training.train(baseline, wait_seconds=60)).metrics == {"loss": 9.9}
        assert (await lab.verdicts.complete(baseline)).status == "keep"
        for experiment_id in (baseline, f"{TAG}-2"):
            await lab.training.train(experiment_id, wait_seconds=60)
            await lab.verdicts.complete(experiment_id)
    until(lambda: not scene.workers())
    assert violations(scene) == []


def fill(disk: Path) -> Path:
    """Write a file until the disk is full."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue
    return file


async def register_many(lab: Lab) -> None:
    """Register until it is refused: a few fit into what SQLite has set aside."""
    for number in range(100):
        await register(lab, f"idea {number}", knobs={"RATE": 1.0 + number})


async def test_the_disk_is_full(scene: Scene, small_disk: Path) -> None:
    scene.rewrite(GATED)
    scene = replace(scene, elsewhere=small_disk / "state")
    async with begun(scene) as lab:
        baseline = await register(lab)
        await lab.training.train(baseline, wait_seconds=0)
        until(lambda: "at work" in scene.log(f"{baseline}.1"))
        filler = fill(small_disk)
        with pytest.raises(NotReady, match=r"(?i)full|no space left.*free"):
            await register_many(lab)
        fill(small_disk)
        scene.let_go()
        result = scene.state / "trials" / f"{baseline}.1" / "result.json"
        await asyncio.to_thread(until, result.exists)
        assert (await lab.reading.history(TAG)).total >= 1
        for file in small_disk.glob("filler*"):
            file.unlink()
        assert not filler.exists()
        trained = await lab.training.train(baseline, wait_seconds=60)
        assert (trained.status, trained.metrics) == ("trained", {"loss": 9.9})
        assert await try_out(lab, "there is room again", knobs={"RATE": 0.5}) == "keep"
        for row in rows(scene, "SELECT id FROM experiments WHERE status = 'registered'"):
            await lab.training.train(row["id"], wait_seconds=60)
        assert (await lab.verdicts.complete(baseline)).status in ("keep", "discard")
    until(lambda: not scene.workers())
    assert [wrong for wrong in violations(scene) if "not at its best" not in wrong] == []


async def test_a_state_folder_that_cannot_be_written(scene: Scene, small_disk: Path) -> None:
    scene = replace(scene, elsewhere=small_disk / "state")
    async with begun(scene) as lab:
        assert await try_out(lab) == "keep"
    until(lambda: not scene.workers())
    run("mount", "-o", "remount,ro", str(small_disk))
    async with Client(scene.server()) as client:
        said = await refused(client, "history", tag=TAG)
        assert "cannot be written" in said
        assert str(scene.state) in said
        run("mount", "-o", "remount,rw", str(small_disk))
        assert (await use(client, "history", tag=TAG))["total"] == 1
    until(lambda: not scene.alive())
    assert violations(scene) == []


@pytest.mark.parametrize("place", ["/proc/state", "/dev/null/state"])
async def test_a_state_folder_that_cannot_be_made(scene: Scene, place: str) -> None:
    async with Client(replace(scene, elsewhere=Path(place)).server()) as client:
        said = await refused(client, "setup_run", tag=TAG, **GOAL)
    assert f"the state folder '{place}' cannot be made" in said
    assert "AUTORESEARCH_STATE" in said
    assert scene.project.git("branch", "--list", "autoresearch/*") == ""


async def test_a_state_folder_on_a_network_file_system(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "file_system", lambda path: "nfs4")
    with pytest.raises(NotReady, match=r"nfs4, a network file system.*AUTORESEARCH_STATE"):
        async with Lab.open(scene.settings):
            pass
    assert not (scene.state / "research.db").exists()


async def test_a_newer_schema(scene: Scene) -> None:
    async with begun(scene):
        pass
    store = scene.state / "research.db"
    with closing(sqlite3.connect(store)) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = store.read_bytes()
    async with Client(scene.server()) as client:
        said = await refused(client, "setup_run", tag=TAG, resume=True)
    assert "schema 99" in said
    assert "Upgrade autoresearch-mcp" in said
    assert store.read_bytes() == before


def overwrite_pages(store: Path) -> None:
    content = store.read_bytes()
    store.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


def empty(store: Path) -> None:
    os.truncate(store, 0)


@pytest.mark.parametrize("damage", [overwrite_pages, empty, Path.unlink])
async def test_a_damaged_record_is_kept_and_restored_from_its_backup(
    scene: Scene, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "COPY_SECONDS", 3600.0)  # only at the end of a server
    async with begun(scene) as lab:
        assert await try_out(lab) == "keep"
        assert await try_out(lab, "better", knobs={"RATE": 0.2}) == "keep"
    store = scene.state / "research.db"
    assert len(backups(store)) == 1
    async with Lab.open(scene.settings) as lab:  # what is not in the backup
        await lab.setup.setup_run(tag=TAG, resume=True)
        assert await try_out(lab, "better still", knobs={"RATE": 0.3}) == "keep"
    until(lambda: not scene.workers())
    assert len(backups(store)) == 1
    damage(store)
    found = store.read_bytes() if store.exists() else None

    async with Client(scene.server()) as client:
        said = await refused(client, "setup_run", tag=TAG, resume=True)
        assert re.search("damaged|is gone|is empty", said), said
        assert str(store) in said
        assert (store.read_bytes() if store.exists() else None) == found
        command = re.search(r"`(cd .*)`", said)
        assert command, said
        run("sh", "-c", command[1])
        there = await use(client, "setup_run", tag=TAG, resume=True)
    assert there["counts"]["keep"] == 2
    assert f"was at {TAG}-3, which the record does not know" in there["adjustments"][0]
    if found is not None:
        (kept,) = scene.state.glob("damaged-*/research.db")
        assert kept.read_bytes() == found
    lost = scene.project.git("rev-parse", f"refs/autoresearch/{TAG}/{TAG}-3")
    async with Lab.open(scene.settings) as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        assert await register(lab, "once more", commit_sha=lost) == f"{TAG}-4"
        await lab.training.train(f"{TAG}-4")
        assert (await lab.verdicts.complete(f"{TAG}-4")).status == "keep"
    until(lambda: not scene.alive())
    assert scene.project.git("rev-parse", f"refs/autoresearch/{TAG}/{TAG}-3") == lost
    assert violations(scene) == [
        f"{TAG}-3.1: a result that the record does not know",
        "results.tsv has 4 lines for 3 verdicts",
    ]


async def test_backups_are_made_by_themselves_and_old_ones_go(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "COPY_SECONDS", 0.02)
    store = scene.state / "research.db"
    async with begun(scene) as lab:
        await asyncio.to_thread(until, lambda: backups(store))
        for minute in range(8):
            (newest, *_) = backups(store)
            aged = newest.with_name(f"research-20260308T0{minute}0000Z.db")
            newest.rename(aged)
            os.utime(aged, (0, 0))
            (store.parent / "backups" / ".killed.part").touch()
            os.utime(store.parent / "backups" / ".killed.part", (0, 0))
            await register(lab, f"idea {minute}", **({"knobs": {"RATE": 1.0 + minute}} if minute else {}))
            await asyncio.to_thread(until, lambda aged=aged: backups(store)[:1] > [aged])
        os.utime(backups(store)[0], (0, 0))
        await asyncio.to_thread(until, lambda: backups(store)[0].stat().st_mtime > 0)
    names = [copy.name for copy in backups(store) if "20260308" in copy.name]
    assert names == [f"research-20260308T0{hour}0000Z.db" for hour in (7, 6, 5)]
    assert not list((store.parent / "backups").glob(".*"))
    shutil.copy(backups(store)[0], scene.folder / "copy.db")
    with closing(sqlite3.connect(scene.folder / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM experiments").fetchall() == [(8,)]
