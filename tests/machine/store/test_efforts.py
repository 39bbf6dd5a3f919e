"""What trainings took, in stores of this version and of the one before, and which of them were starved."""

import sqlite3
import time
from pathlib import Path

import aiosqlite
import pytest

from mcp_server.machine.store import Store
from mcp_server.machine.store.schema import first_tables
from mcp_server.research.experiment import MAX_LOST, Ending, Experiment, Run
from mcp_server.research.task import Task

pytestmark = pytest.mark.anyio

TASK = Task(*("loss", "minimize", 20, "train.py", "python train.py", "/usr/bin/python3", ("train.py",)))
RUN = Run("mar8", "autoresearch/mar8", "c0", TASK, "cpu", {}, 1.0)


def experiment(number: int) -> Experiment:
    name = f"mar8-{number}"
    return Experiment(*(name, "mar8", number, "ada", "c1", "c0", "better", "other", name, 1.0))


async def begun(store: Store, *numbers: int) -> None:
    await store.runs.add(RUN)
    for number in numbers:
        await store.experiments.add(experiment(number))


async def test_a_store_of_the_version_before_has_trials_without_effort(tmp_path: Path) -> None:
    path = tmp_path / "research.db"
    async with aiosqlite.connect(path) as connection:
        await first_tables(connection)
        await connection.execute("PRAGMA user_version = 1")
        await connection.execute(
            "INSERT INTO runs (tag, branch, base_commit, task, device_kind, platform, created_at)"
            " VALUES ('mar8', 'b', 'c0', '{}', 'cpu', '{}', 1)"
        )
        await connection.execute(
            "INSERT INTO experiments (id, tag, number, agent, commit_sha, base_commit, hypothesis, category, request,"
            " registered_at, status, description, source, diff_summary, lines_added, lines_removed, changes)"
            " VALUES ('mar8-1', 'mar8', 1, 'ada', 'c1', 'c0', 'h', 'other', 'r', 1, 'keep', '', '', '', 0, 0, '{}')"
        )
        await connection.execute(
            "INSERT INTO trials (id, experiment_id, attempt, seed, device_type, status, came_from, commit_sha,"
            " queued_at, cpu_seconds) VALUES ('mar8-1.1', 'mar8-1', 1, 42, 'cpu', 'finished', 'registered', 'c1', 1, 7)"
        )
        await connection.commit()
    async with Store.open(path) as store:
        (trial,) = await store.trials.of("mar8-1")
        assert (trial.cpu_seconds, trial.effort_seconds, trial.counted_by, trial.starved) == (7.0, 0.0, "", False)
        assert await store.efforts.starved("mar8") == (0, None)
    with sqlite3.connect(path) as again, pytest.raises(sqlite3.IntegrityError, match="immutable"):
        again.execute("UPDATE trials SET effort_seconds = 1")
    again.close()


async def test_a_starved_trial_is_queued_again_as_often_as_one_that_was_lost_and_counted_apart(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "research.db") as store:
        await begun(store, 1)
        await store.trials.enqueue("mar8-1", 7, "cpu")
        again = []
        for number in range(2 * (MAX_LOST + 1) - 1):
            trial = await store.trials.claim("cpu:0", "cpu", 1)
            assert trial is not None
            starved = number % 2 == 0
            ending = Ending(
                *("lost", time.time()), error=f"starved {number}" if starved else "killed", starved=starved,
                wall_seconds=5.0, cpu_seconds=1.0, effort_seconds=2.0, waited_seconds=3.0, counted_by="sampled",
            )  # fmt: skip
            again.append(await store.trials.lose(trial.id, ending))
        assert again == [True] * (2 * MAX_LOST) + [False]
        assert (await store.experiments.get("mar8-1")).status == "trained"
        count, latest = await store.efforts.starved("mar8")
        assert latest is not None
        assert (count, latest.error, latest.seed) == (MAX_LOST + 1, "starved 4", 7)
        took = (latest.wall_seconds, latest.cpu_seconds, latest.effort_seconds, latest.waited_seconds)
        assert (*took, latest.counted_by) == (5.0, 1.0, 2.0, 3.0, "sampled")


async def test_repeats_are_the_finished_trainings_of_experiments_that_have_several(tmp_path: Path) -> None:
    path = tmp_path / "research.db"

    async def trained(store: Store, name: str, *endings: Ending) -> None:
        await store.trials.enqueue(name, None, "cpu")
        for ending in endings:
            trial = await store.trials.claim("cpu:0", "cpu", 1)
            assert trial is not None
            await (
                store.trials.lose(trial.id, ending) if ending.starved else store.trials.finish(trial.id, ending, False)
            )

    async with Store.open(path) as store:
        await begun(store, 1, 2)
        await trained(store, "mar8-1", Ending("lost", 1.0, starved=True), Ending("finished", 2.0, 0, {"loss": 1.0}))
        await trained(store, "mar8-2", Ending("finished", 3.0, 0, {"loss": 2.0}))
        assert await store.efforts.repeats("mar8") == []
        with sqlite3.connect(path) as other:
            other.execute("UPDATE experiments SET status = 'needs_confirmation' WHERE id = 'mar8-1'")
        other.close()
        await trained(store, "mar8-1", Ending("finished", 4.0, 0, {"loss": 3.0}))
        assert [trial.id for trial in await store.efforts.repeats("mar8")] == ["mar8-1.2", "mar8-1.3"]
        assert await store.efforts.repeats("other") == []
