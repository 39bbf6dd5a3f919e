"""Changes found again by what they are, and the points that a run has measured."""

import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.machine.store import Store
from mcp_server.machine.store.verdicts import Decision, Moved
from mcp_server.research.experiment import Ending, Experiment, Run, Scalar, TrialStatus
from mcp_server.research.lines import Point
from mcp_server.research.memory import Fingerprint, fingerprint
from mcp_server.research.task import Task

pytestmark = pytest.mark.anyio

SCRIPT = "LR = 0.1\nDEPTH = 4\nBETAS = (0.8, 0.95)\nloss = train(LR, DEPTH)\n"
TASK = Task("loss", "minimize", 5.0, "train.py", "python train.py", "python", ("train.py",))


def change(old: str, new: str) -> Fingerprint:
    return fingerprint({"train.py": (SCRIPT, SCRIPT.replace(old, new))})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "research.db") as opened:
        for tag in ("mar8", "mar9"):
            await opened.runs.add(Run(tag, f"autoresearch/{tag}", "base", TASK, "cpu", {}, 0.0))
        yield opened


async def remember(store: Store, number: int, made: Fingerprint, tag: str = "mar8", lr: float = 0.1) -> Experiment:
    """Record an experiment and what it changed."""
    experiment = Experiment(
        f"{tag}-{number}", tag, number, "ada", f"c{number}", "base", "better", "other", f"r{number}", 0.0
    )
    return await store.experiments.add(experiment, made, {"LR": lr, "BETAS": (0.8, 0.95), "NAME": None})


async def train(store: Store, experiment: Experiment, status: TrialStatus, **metrics: Scalar) -> None:
    await store.trials.enqueue(experiment.id, None, "cpu")
    trial = await store.trials.claim("cpu:0", "cpu", 1)
    assert trial is not None
    await store.trials.finish(trial.id, Ending(status, time.time(), 0, metrics), crashed=status != "finished")


async def test_an_identical_change_is_found_newest_first(store: Store) -> None:
    up = change("LR = 0.1", "LR = 0.2")
    for number, made in enumerate([up, change("LR = 0.1", "LR = 0.3"), up, up], start=1):
        await remember(store, number, made)
    await remember(store, 1, up, tag="mar9")
    same = change("LR = 0.1", "LR  =  2e-1  # twice")
    assert [e.id for e in await store.memory.identical("mar8", same)] == ["mar8-4", "mar8-3", "mar8-1"]
    assert [e.id for e in await store.memory.identical("mar8", same, limit=1, besides=4)] == ["mar8-3"]
    assert [e.id for e in await store.memory.identical("mar9", same)] == ["mar9-1"]
    assert await store.memory.identical("mar8", change("DEPTH = 4", "DEPTH = 5")) == []


async def test_similar_changes_are_found_the_likest_first(store: Store) -> None:
    await remember(store, 1, change("LR = 0.1", "LR = 0.2"))
    await remember(store, 2, change("LR = 0.1", "LR = 0.05"))
    await remember(store, 3, change("DEPTH = 4", "DEPTH = 6"))
    await remember(store, 4, change("LR = 0.1", "LR = 0.3"))
    await remember(store, 5, change("train(LR, DEPTH)", "train(LR, DEPTH) + 1"))
    asked = change("LR = 0.1", "LR = 0.2")
    found = await store.memory.similar("mar8", asked)
    assert [(each.experiment.id, round(each.likeness, 2)) for each in found] == [("mar8-1", 1.0), ("mar8-4", 0.33)]
    assert [each.experiment.id for each in await store.memory.similar("mar8", asked, besides=1)] == ["mar8-4"]
    assert [each.experiment.id for each in await store.memory.similar("mar8", asked, limit=1)] == ["mar8-1"]
    assert await store.memory.similar("mar9", asked) == []
    assert await store.memory.similar("mar8", fingerprint({})) == []


async def test_a_change_put_on_another_base_is_remembered_as_it_is_there(store: Store) -> None:
    first = await remember(store, 1, change("LR = 0.1", "LR = 0.2"))
    made = change("DEPTH = 4", "DEPTH = 5")
    moved = Moved("c2", "base2", first.id, "DEPTH", 1, 1, {}, made, {"LR": 0.1})
    assert not await store.verdicts.move(first, moved)
    await train(store, first, "finished", loss=1.5)
    wait = Decision("needs_confirmation", "so it is", 1.5, 0.1, False, {})
    await store.verdicts.decide(first.id, lambda case: wait)
    assert await store.verdicts.move(first, moved)
    assert await store.memory.identical("mar8", change("LR = 0.1", "LR = 0.2")) == []
    assert [e.commit for e in await store.memory.identical("mar8", made)] == ["c2"]
    assert await store.memory.change_of("mar8", 1) == replace(made, keys=tuple(sorted(made.keys)))
    assert await store.memory.points("mar8", "loss", "cpu") == []


async def test_the_points_of_a_run(store: Store) -> None:
    outcomes: list[tuple[TrialStatus, dict[str, Scalar]]] = [
        ("finished", {"loss": 1.5}),
        ("failed", {"loss": 1.4}),
        ("timed_out", {}),
        ("finished", {"loss": "nan"}),
        ("stopped", {"loss": 1.3}),
        ("finished", {"accuracy": 1.0}),
    ]
    for number, (status, metrics) in enumerate(outcomes, start=1):
        experiment = await remember(store, number, fingerprint({}), lr=number / 10)
        await train(store, experiment, status, **metrics)
    await remember(store, 7, fingerprint({}))
    points = await store.memory.points("mar8", "loss", "cpu")
    knobs = [{"LR": lr, "BETAS": (0.8, 0.95), "NAME": None} for lr in (0.1, 0.2, 0.3, 0.4, 0.6)]
    assert points == [Point(knobs[0], 1.5), *(Point(each, None, failed=True) for each in knobs[1:])]
    assert await store.memory.points("mar8", "loss", "cpu", limit=2) == points[-2:]
    assert await store.memory.points("mar8", "loss", "cuda") == []
    assert await store.memory.points("mar9", "loss", "cpu") == []


async def test_every_query_uses_an_index(store: Store, tmp_path: Path) -> None:
    """Nothing scans a table, however many experiments there are."""
    asked: list[str] = []
    original = store.memory._database.all

    async def listening(query: str, parameters: object = ()) -> list[sqlite3.Row]:
        asked.extend(row["detail"] for row in await original(f"EXPLAIN QUERY PLAN {query}", parameters))  # type: ignore[arg-type]
        return await original(query, parameters)  # type: ignore[arg-type]

    store.memory._database.all = listening  # type: ignore[method-assign]
    await remember(store, 1, change("LR = 0.1", "LR = 0.2"))
    await store.memory.similar("mar8", change("LR = 0.1", "LR = 0.3"))
    await store.memory.identical("mar8", change("LR = 0.1", "LR = 0.2"))
    await store.memory.points("mar8", "loss", "cpu")
    assert not [step for step in asked if step.startswith("SCAN") and "subquery" not in step.lower()], asked
