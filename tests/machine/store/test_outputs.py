"""Which outputs of trainings may go."""

import sqlite3
from pathlib import Path

import pytest

from mcp_server.machine.folders import Folders
from mcp_server.machine.recording import prune
from mcp_server.machine.store import Store
from mcp_server.machine.store.trials import OUTPUTS_KEPT
from mcp_server.machine.store.verdicts import Decision
from mcp_server.research.experiment import Ending, Experiment, Run
from mcp_server.research.task import Task

pytestmark = pytest.mark.anyio

TASK = Task("loss", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",))


async def begin(store: Store, tag: str = "mar8") -> None:
    await store.runs.add(Run(tag, f"autoresearch/{tag}", "c0", TASK, "cpu", {}, 1.0))


async def trained(store: Store, folders: Folders, number: int, kept: bool = False) -> None:
    """Train the next experiment, leave an output, judge it, and delete what may go."""
    name = f"mar8-{number}"
    await store.experiments.add(
        Experiment(name, "mar8", number, "ada", f"c{number}", "c0", "better", "other", f"r{number}", 1.0)
    )
    trial = await store.trials.enqueue(name, 42, "cpu")
    claimed = await store.trials.claim("cpu:0", "cpu", 1)
    assert claimed is not None
    folders.out(trial.id).mkdir(parents=True)
    folders.log(trial.id).touch()
    await store.trials.finish(trial.id, Ending("finished", 2.0, 0, {"loss": 1.0}), crashed=False)
    verdict = Decision("keep" if kept else "discard", "so", 1.0, None, False, {"loss": 1.0})
    await store.verdicts.decide(name, lambda case: verdict)
    await prune(store, folders, claimed)


def left(folders: Folders) -> list[int]:
    """The experiments of which there is an output."""
    return sorted(int(path.parent.name.split("-")[1][:-2]) for path in folders.state.glob("trials/*/out"))


async def test_the_best_and_the_latest_outputs_stay(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "state")
    async with Store.open(folders.store) as store:
        await begin(store)
        for number in range(1, 31):
            await trained(store, folders, number, kept=number in (1, 3))
        assert left(folders) == [3, *range(31 - OUTPUTS_KEPT, 31)]
        await trained(store, folders, 31, kept=True)  # the best of before is not even among the latest
        await trained(store, folders, 32)
        assert left(folders) == [*range(33 - OUTPUTS_KEPT, 33)]
        assert len(list(folders.state.glob("trials/*/log.txt"))) == 32


async def test_the_output_of_a_training_under_way_stays(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "state")
    async with Store.open(folders.store) as store:
        await begin(store)
        for number in range(1, 31):
            await trained(store, folders, number, kept=number == 1)
        again = await store.trials.enqueue("mar8-1", 43, "cpu")
        await store.trials.claim("cpu:0", "cpu", 1)
        folders.out(again.id).mkdir(parents=True)
        await trained(store, folders, 31, kept=True)
        assert folders.out(again.id).exists()


async def test_no_table_is_read_whole(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "state")
    async with Store.open(folders.store) as store:
        await begin(store)
        asked: list[str] = []
        original = store.trials._database.all

        async def listening(query: str, parameters: object = ()) -> list[sqlite3.Row]:
            asked.extend(row["detail"] for row in await original(f"EXPLAIN QUERY PLAN {query}", parameters))  # type: ignore[arg-type]
            return await original(query, parameters)  # type: ignore[arg-type]

        store.trials._database.all = listening  # type: ignore[method-assign]
        assert await store.trials.outdated("mar8") == []
        tables = [step for step in asked if step.startswith("SCAN") and step.split()[1] in ("experiments", "trials")]
        assert asked
        assert not tables
