"""What must hold after whatever happened, told from outside: by SQLite, git and the process table."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from mcp_server.machine.locks import DeviceLock
from mcp_server.research.experiment import FINISHED
from tests.faults.scene import Scene


def violations(scene: Scene) -> list[str]:
    """Everything that is wrong in a place where nothing is under way any more."""
    return [*_devices(scene), *_processes(scene), *_store(scene), *_results(scene), *_commits(scene), *_listing(scene)]


def _devices(scene: Scene) -> Iterator[str]:
    if scene.alarm.exists():
        yield f"used twice: {scene.alarm.read_text().split()}"
    for number in range(2):
        lock = DeviceLock(scene.locks, f"cpu:{number}")
        if lock.is_held() or lock.is_busy():
            yield f"cpu:{number} is held though nothing is under way"


def _processes(scene: Scene) -> Iterator[str]:
    for process in [*scene.workers(), *scene.trainings()]:
        yield f"left behind: {process}"


def _store(scene: Scene) -> Iterator[str]:
    said = rows(scene, "PRAGMA integrity_check")
    if [tuple(row) for row in said] != [("ok",)]:
        yield f"integrity_check: {said}"
    for broken in rows(scene, "PRAGMA foreign_key_check"):
        yield f"foreign key: {tuple(broken)}"
    for trial in rows(scene, "SELECT id, status FROM trials WHERE status IN ('queued', 'training')"):
        yield f"{trial['id']} is {trial['status']} with nothing running"
    torn = "SELECT id, status FROM experiments WHERE status IN ('queued', 'training')"
    for experiment in rows(scene, torn):
        yield f"{experiment['id']} is {experiment['status']} with nothing running"
    for experiment in rows(scene, "SELECT id, status, decided FROM experiments"):
        if (experiment["status"] in FINISHED) != (experiment["decided"] is not None):
            yield f"{experiment['id']} is {experiment['status']}, numbered {experiment['decided']}"


def _results(scene: Scene) -> Iterator[str]:
    """Every result on the disk is in the record as it is, and no checkout is left."""
    recorded = {row["id"]: row for row in rows(scene, "SELECT id, started_at, status, metrics FROM trials")}
    for folder in sorted((scene.state / "trials").glob("*")):
        if (folder / "checkout").exists():
            yield f"{folder.name}: its checkout is left"
        if (folder / "result.json").exists():
            result, row = json.loads((folder / "result.json").read_text()), recorded[folder.name]
            same = (row["status"], json.loads(row["metrics"])) == (
                result["ending"]["status"],
                result["ending"]["metrics"],
            )
            if not same and result["started_at"] == row["started_at"]:
                yield f"{folder.name}: {result['ending']['status']} on the disk, {row['status']} in the record"


def _commits(scene: Scene) -> Iterator[str]:
    """Every experiment has its commit under its ref, and every keep is in its run's branch."""
    git = scene.project.git
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch").splitlines()
    refs = dict(line.split(" ") for line in listed)
    for row in rows(scene, "SELECT * FROM experiments"):
        if refs.get(f"refs/autoresearch/{row['tag']}/{row['id']}") != row["commit_sha"]:
            yield f"{row['id']}: its commit {row['commit_sha']} is not under its ref"
    for run in rows(scene, "SELECT tag, branch FROM runs"):
        history = git("rev-list", run["branch"]).split()
        keeps = rows(scene, "SELECT * FROM experiments WHERE status = 'keep' AND tag = ? ORDER BY decided", run["tag"])
        for keep in keeps:
            if keep["commit_sha"] not in history or keep["branch_commit"] not in history:
                yield f"{keep['id']} is kept and not in the branch"
        if keeps and keeps[-1]["branch_commit"] != history[0]:
            yield f"{run['branch']} is not at its best, {keeps[-1]['id']}"
    broken = git("fsck", "--connectivity-only", "--no-dangling")
    if broken:
        yield f"git fsck: {broken}"


def _listing(scene: Scene) -> Iterator[str]:
    """The results file has every verdict once, in order."""
    for run in rows(scene, "SELECT tag, json_extract(task, '$.results_file') AS file FROM runs"):
        decided = rows(
            scene, "SELECT * FROM experiments WHERE tag = ? AND decided IS NOT NULL ORDER BY decided", run["tag"]
        )
        path = scene.project.root / run["file"]
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        listed = [line.split("\t")[0] for line in lines]
        if [row["commit_sha"][: len(commit)] for row, commit in zip(decided, listed, strict=False)] != listed or len(
            listed
        ) != len(decided):
            yield f"{run['file']} has {len(listed)} lines for {len(decided)} verdicts of {run['tag']}"


def rows(scene: Scene, query: str, *parameters: str) -> list[sqlite3.Row]:
    """The rows of a query on the record, read by SQLite alone."""
    with closing(sqlite3.connect(scene.state / "research.db", timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query, parameters).fetchall()
