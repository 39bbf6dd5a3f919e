"""The store: what is written together, what is refused, and what a reader gets back."""

import asyncio
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import NotReady, UnknownId, WrongState
from mcp_server.machine.store import Store
from mcp_server.machine.store.connection import Database
from mcp_server.machine.store.experiments import Count
from mcp_server.machine.store.verdicts import Decision
from mcp_server.research import evidence
from mcp_server.research.case import Case
from mcp_server.research.experiment import MAX_LOST, TRANSITIONS, Ending, Experiment, Numbers, Run, Status, Trial
from mcp_server.research.memory import Fingerprint
from mcp_server.research.task import CATEGORIES, Task

pytestmark = pytest.mark.anyio

TASK = Task(
    metric="loss",
    direction="minimize",
    time_budget_seconds=5.0,
    train_script="train.py",
    command="python train.py",
    interpreter=sys.executable,
    editable=("train.py",),
    inputs=("data",),
    target=0.5,
)
RUN = Run("mar8", "autoresearch/mar8", "base", TASK, "cpu", {"device_name": "a chip"}, 1_700_000_000.0)


def experiment(number: int, tag: str = "mar8", **fields: Any) -> Experiment:
    known: dict[str, Any] = {
        "id": f"{tag}-{number}",
        "tag": tag,
        "number": number,
        "agent": "ada",
        "commit": f"c{number}",
        "base_commit": "base",
        "hypothesis": "better",
        "category": "other",
        "request": f"r{number}",
        "registered_at": 1_700_000_000.0 + number,
    }
    return Experiment(**{**known, **fields})


def always(decision: Decision, case: Case) -> Decision:
    return decision


def keep(value: float) -> Decision:
    return Decision("keep", "better", value, 0.1, False, {"loss": value})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "research.db") as opened:
        await opened.runs.add(RUN)
        yield opened


async def trained(store: Store, number: int, **fields: Any) -> str:
    """Take an experiment through a training; its id."""
    added = await store.experiments.add(experiment(number, **fields))
    await store.trials.enqueue(added.id, None, "cpu")
    trial = await store.trials.claim("cpu:0", "cpu", 1)
    assert trial is not None
    await store.trials.finish(trial.id, Ending("finished", time.time(), 0, {"loss": 1.0}), crashed=False)
    return added.id


async def test_what_is_written_comes_back(store: Store) -> None:
    assert await store.runs.get("mar8") == RUN
    written = experiment(1, changes={"BETAS": ((0.8, 0.95), (0.9, 0.95))}, description="d", parent_id=None)
    assert await store.experiments.add(written) == written
    assert await store.experiments.get("mar8-1") == written


async def test_names_that_are_not_known_say_what_is(store: Store) -> None:
    with pytest.raises(UnknownId, match=r"'apr1' \(newest: mar8\)"):
        await store.runs.get("apr1")
    with pytest.raises(UnknownId, match="mar8-9"):
        await store.experiments.get("mar8-9")


async def test_a_tag_is_taken_in_every_letter_case(store: Store) -> None:
    with pytest.raises(WrongState, match="'mar8'"):
        await store.runs.add(Run("Mar8", "b", "base", TASK, "cpu", {}, 0.0))


async def test_the_store_is_opened_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        async with Store.open(tmp_path / "research.db") as store:
            if await store.runs.find("mar8") is None:
                await store.runs.add(RUN)
            assert await store.runs.find("mar8") == RUN


async def test_many_processes_may_create_it_at_once(tmp_path: Path) -> None:
    async def create() -> None:
        async with Store.open(tmp_path / "research.db") as store:
            await store.runs.newest()

    await asyncio.gather(*(create() for _ in range(8)))


async def test_an_older_server_refuses_a_newer_store(tmp_path: Path) -> None:
    path = tmp_path / "research.db"
    async with Store.open(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NotReady, match="schema 99"):
        async with Store.open(path):
            pass


async def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "research.db"
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(NotReady, match="damaged"):
        async with Store.open(path):
            pass
    assert path.read_bytes() == b"precious" * 1000


async def test_a_cancelled_caller_leaves_no_transaction_open(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "research.db"), Database.open(tmp_path / "research.db") as database:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def body(connection: object) -> None:
            inside.set()
            await go_on.wait()
            await database._writer.execute("PRAGMA user_version")

        caller = asyncio.ensure_future(database.transaction(body))
        await inside.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go_on.set()
        row = await database.transaction(lambda connection: connection.execute_fetchall("SELECT 1 AS one"))
        assert [tuple(each) for each in row] == [(1,)]
        assert not database._writer.in_transaction


async def test_a_failing_body_changes_nothing(store: Store, tmp_path: Path) -> None:
    async with Database.open(tmp_path / "research.db") as database:

        async def body(connection: object) -> None:
            await database._writer.execute("DELETE FROM runs")
            raise RuntimeError("boom")

        with pytest.raises(RuntimeError, match="boom"):
            await database.transaction(body)
    assert await store.runs.find("mar8") == RUN


@pytest.mark.parametrize("status", ["keep", "discard", "crash"])
async def test_a_verdict_is_final(store: Store, tmp_path: Path, status: Status) -> None:
    await trained(store, 1)
    with sqlite3.connect(tmp_path / "research.db") as connection:
        connection.execute("UPDATE experiments SET status = ? WHERE id = 'mar8-1'", [status])
        for other in TRANSITIONS:
            if other != status and other not in TRANSITIONS[status]:
                with pytest.raises(sqlite3.IntegrityError, match="illegal transition"):
                    connection.execute("UPDATE experiments SET status = ? WHERE id = 'mar8-1'", [other])
    connection.close()


async def test_an_ended_trial_never_changes(store: Store, tmp_path: Path) -> None:
    await trained(store, 1)
    assert not await store.trials.finish("mar8-1.1", Ending("failed", 0.0, 1), crashed=True)
    assert not await store.trials.lose("mar8-1.1", Ending("lost", 0.0, error="late"))
    connection = sqlite3.connect(tmp_path / "research.db")
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        connection.execute("UPDATE trials SET error = 'rewritten'")
    connection.close()


async def test_a_second_request_to_train_re_attaches(store: Store) -> None:
    await store.experiments.add(experiment(1))
    first, second = [await store.trials.enqueue("mar8-1", seed, "cpu") for seed in (None, 7)]
    assert first == second
    assert (first.id, first.seed, first.status) == ("mar8-1.1", 42, "queued")


async def test_the_oldest_of_a_kind_is_claimed_once(store: Store) -> None:
    for number, kind in ((1, "cpu"), (2, "cuda"), (3, "cpu")):
        await store.experiments.add(experiment(number))
        await store.trials.enqueue(f"mar8-{number}", None, kind)
    assert await store.trials.waiting("cpu") == 2
    claims = await asyncio.gather(*(store.trials.claim(f"cpu:{slot}", "cpu", slot) for slot in range(4)))
    assert sorted(claim.id for claim in claims if claim) == ["mar8-1.1", "mar8-3.1"]
    assert (await store.experiments.get("mar8-2")).status == "queued"


async def test_the_place_in_the_queue(store: Store) -> None:
    trials: list[Trial] = []
    for number in range(1, 4):
        await store.experiments.add(experiment(number))
        trials.append(await store.trials.enqueue(f"mar8-{number}", None, "cpu"))
    assert [await store.trials.position(trial) for trial in trials] == [1, 2, 3]


async def test_stopping_in_the_queue_gives_back_what_it_was(store: Store) -> None:
    await store.experiments.add(experiment(1))
    trial = await store.trials.enqueue("mar8-1", None, "cpu")
    assert (await store.trials.stop(trial.id)).status == "stopped"
    assert (await store.experiments.get("mar8-1")).status == "registered"
    assert (await store.trials.enqueue("mar8-1", None, "cpu")).id == "mar8-1.2"


async def test_a_lost_trial_is_queued_again_but_not_for_ever(store: Store) -> None:
    await store.experiments.add(experiment(1))
    await store.trials.enqueue("mar8-1", 7, "cpu")
    again = []
    for _ in range(MAX_LOST + 1):
        trial = await store.trials.claim("cpu:0", "cpu", 1)
        assert trial is not None
        assert trial.seed == 7
        again.append(await store.trials.lose(trial.id, Ending("lost", time.time(), error="killed")))
    assert again == [True] * MAX_LOST + [False]
    assert (await store.experiments.get("mar8-1")).status == "trained"
    assert (await store.trials.enqueue("mar8-1", None, "cpu")).status == "queued"


async def test_a_lost_trial_that_was_to_stop_is_stopped(store: Store) -> None:
    await store.experiments.add(experiment(1))
    trial = await store.trials.enqueue("mar8-1", None, "cpu")
    await store.trials.claim("cpu:0", "cpu", 1)
    assert (await store.trials.stop(trial.id)).stop_requested
    assert not await store.trials.lose(trial.id, Ending("lost", time.time(), error="killed"))
    latest = await store.trials.latest("mar8-1")
    assert latest is not None
    assert latest.status == "stopped"


async def test_two_verdicts_at_once_see_each_other(store: Store) -> None:
    for number in (1, 2, 3):
        await trained(store, number)
    seen: list[str | None] = []

    def judge(case: Case) -> Decision:
        seen.append(case.incumbent.experiment.id if case.incumbent else None)
        return keep(1.0)

    judged = await asyncio.gather(*(store.verdicts.decide(f"mar8-{number}", judge) for number in (1, 2, 3)))
    assert seen == [None, "mar8-1", "mar8-2"]
    assert [each.decided for each in judged] == [1, 2, 3]
    assert await store.verdicts.decide("mar8-1", judge) == judged[0]
    assert len(seen) == 3


async def test_one_that_waits_is_judged_again_without_a_new_run_only_where_its_numbers_wait_for_the_base(
    store: Store,
) -> None:
    name, asked = await trained(store, 1), 0
    waits = Numbers(-1.0, 0.5, -2.0, 1, 2, 0.5, 3, "mar8-0", "mar8-0", awaits_base=True)

    def say(status: Status, numbers: Numbers | None) -> Callable[[Case], Decision]:
        def judge(case: Case) -> Decision:
            nonlocal asked
            asked += 1
            return Decision(status, f"judged for the {asked}. time", 1.0, None, False, {}, numbers=numbers)

        return judge

    for numbers in (None, waits, waits, replace(waits, n_b=3, awaits_base=False)):
        said = await store.verdicts.decide(name, say("needs_confirmation", numbers))
        assert said.numbers == numbers
    assert asked == 4
    assert await store.verdicts.decide(name, say("keep", waits)) == said
    assert asked == 4


async def test_a_request_is_open_until_the_verdict(store: Store) -> None:
    await trained(store, 1)
    twin = await store.experiments.add(experiment(2, request="r1"))
    assert twin.id == "mar8-1"
    await store.verdicts.decide("mar8-1", partial(always, keep(1.0)))
    assert (await store.experiments.add(experiment(2, request="r1"))).id == "mar8-2"


async def test_metrics_that_json_cannot_carry(store: Store) -> None:
    await store.experiments.add(experiment(1))
    await store.trials.enqueue("mar8-1", None, "cpu")
    await store.trials.claim("cpu:0", "cpu", 1)
    await store.trials.finish("mar8-1.1", Ending("failed", 0.0, 0, {"loss": float("nan")}, "nan"), crashed=True)
    latest = await store.trials.latest("mar8-1")
    assert latest is not None
    assert latest.metrics == {"loss": "nan"}
    assert (await store.experiments.get("mar8-1")).status == "crash"


async def test_the_extract_for_the_strategy_is_that_of_the_whole_history(store: Store) -> None:
    """The store's indexed queries against `evidence.gather`, which looks at everything."""
    dice = random.Random(8)
    for number in range(1, 61):
        experiment_id = await trained(store, number, category=dice.choice(CATEGORIES))
        status = dice.choice(["keep", "discard", "discard", "crash", None])
        if status is None:
            continue
        value = round(dice.random(), 6)
        near = status == "discard" and dice.random() < 0.4
        delta = round(dice.random() - 0.5, 6)
        decision = Decision(status, "so it is", None if status == "crash" else value, delta, near, {})  # type: ignore[arg-type]
        await store.verdicts.decide(experiment_id, partial(always, decision))
        if dice.random() < 0.2:
            await store.experiments.learn(experiment_id, "a lesson")
    everything = [each async for each in store.history.all("mar8")]
    oracle = evidence.gather(TASK, everything)
    assert await store.history.categories("mar8") == oracle.counts
    assert tuple(await store.history.finished("mar8", evidence.RECENT)) == oracle.recent
    assert tuple(await store.history.keeps("mar8", evidence.KEEPS)) == oracle.keeps
    assert tuple(await store.history.open("mar8", evidence.IN_FLIGHT)) == oracle.in_flight
    assert tuple(await store.history.lessons("mar8", evidence.LESSONS)) == oracle.lessons
    assert await store.history.baseline("mar8") == oracle.baseline
    assert {each.id for each in await store.history.near_misses("mar8", 0.0, 20)} == {
        each.id for each in oracle.near_misses
    }
    assert tuple(await store.history.promising("mar8", evidence.NEAR_MISSES)) == oracle.promising
    finished = [each.status for each in await store.history.decided("mar8", 100)]
    streak = next((place for place, status in enumerate(finished) if status != "crash"), len(finished))
    assert await store.history.consecutive_crashes("mar8") == streak


async def test_a_clock_that_is_set_back_takes_no_time_from_others(store: Store) -> None:
    for number, seconds in ((1, 60.0), (2, -3600.0)):
        await store.experiments.add(experiment(number))
        await store.trials.enqueue(f"mar8-{number}", None, "cpu")
        trial = await store.trials.claim("cpu:0", "cpu", 1)
        assert trial is not None
        assert trial.started_at is not None
        await store.trials.finish(trial.id, Ending("finished", trial.started_at + seconds, 0), crashed=False)
    assert await store.history.training_seconds("mar8") == pytest.approx(60.0)


async def test_the_same_change_is_seen_by_the_transaction_that_would_add_it_again(store: Store) -> None:
    change, seen = Fingerprint("digest", (1,), (2,)), list[Count]()
    for number in (1, 2):
        await store.experiments.add(experiment(number, base_commit="b"), change, {}, seen.append)
    await store.experiments.add(experiment(3, base_commit="c"), change, {}, seen.append)
    assert [count.same and count.same.id for count in seen] == [None, "mar8-1", None]


async def test_agents_take_turns_and_each_is_served_in_its_own_order(store: Store) -> None:
    trials = {}
    for number, agent in enumerate(["ada", "ada", "ada", "ada", "bob", "bob", "cyd"], start=1):
        await store.experiments.add(experiment(number, agent=agent))
        trials[number] = await store.trials.enqueue(f"mar8-{number}", None, "cpu")
    turns = [1, 5, 7, 2, 6, 3, 4]
    assert [await store.trials.position(trials[number]) for number in turns] == [1, 2, 3, 4, 5, 6, 7]
    taken = []
    for left in range(7, 0, -1):
        assert [await store.trials.position(trials[number]) for number in turns[7 - left :]] == [*range(1, left + 1)]
        claimed = await store.trials.claim("cpu:0", "cpu", 1)
        assert claimed is not None
        taken.append(int(claimed.experiment_id.removeprefix("mar8-")))
        await store.trials.finish(claimed.id, Ending("finished", 2.0), crashed=False)
    assert taken == turns
    assert await store.trials.position(trials[1]) == 0


async def test_an_agent_that_comes_back_has_waited_longest(store: Store) -> None:
    async def served(number: int, agent: str) -> None:
        await store.experiments.add(experiment(number, agent=agent))
        await store.trials.enqueue(f"mar8-{number}", None, "cpu")

    async def claimed() -> str:
        trial = await store.trials.claim("cpu:0", "cpu", 1)
        assert trial is not None
        return trial.experiment_id

    await served(1, "ada")
    assert await claimed() == "mar8-1"
    for number in (2, 3, 4):
        await served(number, "bob")
    assert await claimed() == "mar8-2"
    await served(5, "ada")
    assert [await claimed() for _ in range(3)] == ["mar8-5", "mar8-3", "mar8-4"]
