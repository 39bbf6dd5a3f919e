"""A script whose score depends on the machine, and what happens to a machine."""

import sqlite3
from contextlib import closing

from mcp_server.lab.results import Completed
from tests.lab.researcher import Researcher
from tests.project import Project

DRIFTING = """\
import os
from pathlib import Path

LR = 0.1  # learning rate
WIDTH = 64  # channels
SEED = int(os.environ["AUTORESEARCH_SEED"])
LUCK = (0.001, -0.001, 0.002, -0.002, 0.0)

machine = float(Path("{machine}").read_text())
print("val_loss:", round(1 + abs(LR - 0.3) + LUCK[SEED % 5] + machine, 6))
"""
"""What the machine adds lies in a file outside, and WIDTH does nothing."""
LONG = 3600.0


def drift(project: Project, by: float) -> None:
    """Have the machine add so much to every score from now on."""
    (project.root.parent / "machine.txt").write_text(str(by))


def pass_time(project: Project) -> None:
    """Put all that was run so far into the past."""
    rewrite(
        project,
        "UPDATE trials SET queued_at = queued_at - ?1, started_at = started_at - ?1, ended_at = ended_at - ?1",
        LONG,
    )


def crowd(project: Project, *trials: str) -> None:
    """Have others taken a third of the time that trainings were ready for."""
    for name in trials:
        rewrite(project, "UPDATE trials SET cpu_seconds = 10, waited_seconds = 5 WHERE id = ?", name)


def rewrite(project: Project, statement: str, argument: object) -> None:
    """Change what trials have recorded; what has ended is immutable otherwise."""
    with closing(sqlite3.connect(project.root / ".autoresearch" / "research.db")) as database, database:
        guards = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'trials'"
        ).fetchall()
        for name, _ in guards:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(statement, [argument])
        for _, guard in guards:
            database.execute(guard)


async def follow(agent: Researcher) -> Completed | None:
    """Do what is proposed first; the verdict, if there is one."""
    first = (await agent.lab.reading.suggest(agent.tag)).proposals[0]
    if first["tool"] == "train":
        trained = await agent.lab.training.train(**first["arguments"], wait_seconds=60)
        assert trained.status == "trained", trained
        return None
    assert first["tool"] == "complete", first
    return await agent.lab.verdicts.complete(**first["arguments"])
