"""What must hold after whatever happened, told from outside: by SQLite, git and the process table."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.store.backups import backups
from mcp_server.research.experiment import FINISHED
from tests.faults.scene import Scene

SHORT = 7
"""Characters of a commit in a results file."""


def violations(scene: Scene) -> list[str]:
    """Everything that is wrong in a place where nothing is under way any more."""
    return [wrong for invariant in INVARIANTS for wrong in invariant(scene)]


def _devices(scene: Scene) -> Iterator[str]:
    for alarm in scene.alarms():
        yield f"device used twice: {alarm}"
    for trial in rows(scene, "SELECT id, error FROM trials WHERE error LIKE '%used twice%'"):
        yield f"device used twice: {trial['id']}: {trial['error']}"
    for number in range(scene.devices):
        lock = DeviceLock(scene.locks, f"cpu:{number}")
        if lock.is_held() or lock.is_busy():
            yield f"cpu:{number} is held though nothing is under way"


def _processes(scene: Scene) -> Iterator[str]:
    for process in [*scene.workers(), *scene.trainings()]:
        yield f"left behind: {process}"


def _integrity(scene: Scene) -> Iterator[str]:
    """The record is sound, and so are its backups."""
    said = rows(scene, "PRAGMA integrity_check")
    if [tuple(row) for row in said] != [("ok",)]:
        yield f"integrity_check: {said}"
    for broken in rows(scene, "PRAGMA foreign_key_check"):
        yield f"foreign key: {tuple(broken)}"
    for copy in backups(scene.state / "research.db"):
        with closing(sqlite3.connect(copy)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                yield f"the backup {copy.name} is damaged"


def _statuses(scene: Scene) -> Iterator[str]:
    """Nothing is recorded as under way, and every verdict has its number."""
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
            result, row = json.loads((folder / "result.json").read_text()), recorded.get(folder.name)
            if row is None:
                yield f"{folder.name}: a result that the record does not know"
                continue
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
    """A results file has every verdict of the runs that list there, once, in order."""
    listing = "SELECT json_extract(task, '$.results_file') FROM runs WHERE runs.tag = experiments.tag"
    decided = "SELECT commit_sha FROM experiments WHERE decided IS NOT NULL"
    for file in rows(scene, "SELECT DISTINCT json_extract(task, '$.results_file') AS name FROM runs"):
        path = scene.project.root / file["name"]
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        listed = [line.split("\t")[0] for line in lines]
        wanted = [row["commit_sha"][:SHORT] for row in rows(scene, f"{decided} AND ({listing}) = ?", file["name"])]
        if sorted(listed) != sorted(wanted):
            yield f"{file['name']} has {len(listed)} lines for {len(wanted)} verdicts"
    for run in rows(scene, "SELECT tag, json_extract(task, '$.results_file') AS file FROM runs"):
        ours = rows(scene, f"{decided} AND tag = ? ORDER BY decided", run["tag"])
        remaining = iter((scene.project.root / run["file"]).read_text().splitlines()[1:] if ours else [])
        if not all(any(line.startswith(row["commit_sha"][:SHORT]) for line in remaining) for row in ours):
            yield f"the verdicts of {run['tag']} are not in order in {run['file']}"


INVARIANTS = (_devices, _processes, _integrity, _statuses, _results, _commits, _listing)


def rows(scene: Scene, query: str, *parameters: str) -> list[sqlite3.Row]:
    """The rows of a query on the record, read by SQLite alone."""
    with closing(sqlite3.connect(scene.state / "research.db", timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query, parameters).fetchall()
