"""Scores by row in the store: apart from trials, with their end, and none in a store of the version before."""

import time
from pathlib import Path

import pytest

from mcp_server.machine.store import Store
from mcp_server.machine.store.schema import scores_by_row
from mcp_server.research.experiment import Ending, Experiment, Run
from mcp_server.research.rows import Rows, RowScores
from mcp_server.research.task import Task
from tests.machine.store.versions import store_before

pytestmark = pytest.mark.anyio

TASK = Task(*("loss", "minimize", 20, "train.py", "python train.py", "/usr/bin/python3", ("train.py",)))
RUN = Run("mar8", "autoresearch/mar8", "c0", TASK, "cpu", {}, 1.0)
LEFT = '{"of": "a", "validation": [[2.5, 4], [1, 2]], "hidden": [[3], [1]]}'


def experiment(number: int) -> Experiment:
    name = f"mar8-{number}"
    return Experiment(*(name, "mar8", number, "ada", "c1", "c0", "better", "other", name, 1.0))


async def ended(store: Store, number: int, rows: str) -> str:
    await store.experiments.add(experiment(number))
    await store.trials.enqueue(f"mar8-{number}", 7, "cpu")
    trial = await store.trials.claim("cpu:0", "cpu", 1)
    assert trial is not None
    ending = Ending("finished", time.time(), metrics={"loss": 2.0}, verification="verified", rows=rows)
    assert await store.trials.finish(trial.id, ending, False)
    assert not await store.trials.finish(trial.id, ending, False)  # recorded before: nothing twice
    return trial.id


async def test_rows_come_into_the_case_of_what_they_are_compared_with(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "research.db") as store:
        await store.runs.add(RUN)
        name, without, unread = [await ended(store, n, rows) for n, rows in ((1, LEFT), (2, ""), (3, '{"of": 1}'))]
        case = await store.verdicts.case("mar8-1")
        assert case.rows == {name: RowScores("a", Rows((2.5, 4.0), (1.0, 2.0)), Rows((3.0,), (1.0,)))}
        assert (await store.verdicts.case("mar8-2")).rows == (await store.verdicts.case("mar8-3")).rows == {}
        assert [(await store.trials.of(f"mar8-{n}"))[0].id for n in (1, 2, 3)] == [name, without, unread]


async def test_a_store_of_the_version_before_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "research.db"
    async with store_before(path, scores_by_row) as connection:
        await connection.execute(
            "INSERT INTO experiments (id, tag, number, agent, commit_sha, base_commit, hypothesis, category, request,"
            " registered_at, status, description, source, diff_summary, lines_added, lines_removed, changes)"
            " VALUES ('mar8-1', 'mar8', 1, 'ada', 'c1', 'c0', 'h', 'other', 'r', 1, 'trained', '', '', '', 0, 0, '{}')"
        )
        await connection.execute(
            "INSERT INTO trials (id, experiment_id, attempt, seed, device_type, status, came_from, commit_sha,"
            " queued_at) VALUES ('mar8-1.1', 'mar8-1', 1, 42, 'cpu', 'finished', 'registered', 'c1', 1)"
        )
    async with Store.open(path) as store:
        case = await store.verdicts.case("mar8-1")
        assert ([trial.id for trial in case.subject.trials], case.rows) == (["mar8-1.1"], {})
