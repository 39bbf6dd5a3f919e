"""Somebody dies or goes away: the client, the server, the worker, the machine, the agent's memory, a single call."""

import asyncio
import json
import os
import shutil
import signal
import time

import anyio
import pytest
from mcp import Client

from mcp_server.lab.lab import Lab
from mcp_server.machine.locks import DeviceLock, Holder
from tests.faults.invariants import rows, violations
from tests.faults.scene import GATED, GOAL, TAG, Scene, attended, begun, go_on, register, try_out, until
from tests.interfaces.agents import use

pytestmark = pytest.mark.anyio
HEALS = 5.0


async def under_way(client: Client) -> None:
    """Begin a run, and the training of its baseline."""
    await use(client, "setup_run", tag=TAG, **GOAL)
    made = await use(client, "register", tag=TAG, hypothesis="the baseline", category="other")
    trained = await use(client, "train", experiment_id=made["experiment_id"], wait_seconds=0)
    assert trained["status"] in ("queued", "training")


async def well_again(scene: Scene) -> None:
    """The baseline has its verdict, and nothing is wrong."""
    async with Lab.open(scene.settings) as lab:
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        await go_on(lab, there.next_action)
        assert (await lab.reading.best(TAG)).experiment
    until(lambda: not scene.workers())
    assert violations(scene) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "terminated", "client gone"])
async def test_a_server_ends_and_the_training_goes_on_and_is_found(scene: Scene, number: signal.Signals | None) -> None:
    scene.rewrite(GATED)

    async def session(client: Client) -> None:
        await under_way(client)
        until(lambda: "at work" in scene.log(f"{TAG}-1.1"))
        if number:
            (server,) = scene.servers()
            os.kill(server.pid, number)
            until(lambda: not scene.servers())
            await use(client, "history", tag=TAG)  # there is no server any more

    assert await attended(scene.server(), session) == (number is None)
    until(lambda: not scene.servers())
    (training,) = rows(scene, "SELECT * FROM trials")
    assert training["status"] == "training"
    scene.let_go()
    until(lambda: not scene.workers())
    (trained,) = rows(scene, "SELECT * FROM trials")
    assert (trained["id"], trained["status"], json.loads(trained["metrics"])) == (
        f"{TAG}-1.1",
        "finished",
        {"loss": 9.9},
    )
    await well_again(scene)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
async def test_a_worker_ends_and_any_call_goes_on_with_its_training(scene: Scene, number: signal.Signals) -> None:
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        await register(lab)
        await lab.training.train(f"{TAG}-1", wait_seconds=0)
        until(lambda: "at work" in scene.log(f"{TAG}-1.1"))
    (worker,) = scene.workers()
    os.kill(worker.pid, number)
    until(lambda: not scene.workers())
    began = time.monotonic()
    async with Lab.open(scene.settings) as lab:
        await lab.reading.history(TAG)  # any call
    until(lambda: "at work" in scene.log(f"{TAG}-1.2"))
    assert time.monotonic() - began < HEALS
    scene.let_go()
    await well_again(scene)
    first, second = rows(scene, "SELECT * FROM trials ORDER BY attempt")
    assert (first["status"], second["status"], second["seed"] == first["seed"]) == ("lost", "finished", True)


@pytest.mark.parametrize("locks", ["gone", "kept"])
async def test_the_machine_is_started_anew_and_its_pids_are_others_now(scene: Scene, locks: str) -> None:
    scene.rewrite(GATED)

    async with Client(scene.server()) as client:
        await under_way(client)
        until(lambda: "at work" in scene.log(f"{TAG}-1.1"))
        scene.kill_all()
        with pytest.raises(Exception, match="closed"):
            await use(client, "history", tag=TAG)
    (trial,) = rows(scene, "SELECT * FROM trials")
    if locks == "gone":  # /tmp is emptied
        shutil.rmtree(scene.locks)
    else:  # the holder's pid belongs to somebody else now: to this very process
        lock = DeviceLock(scene.locks, trial["device"])
        assert lock.take()
        lock.note(Holder(os.getpid(), str(scene.project.root), trial["id"]))
        assert lock._descriptor is not None
        os.close(lock._descriptor)
    scene.let_go()
    began = time.monotonic()
    async with Lab.open(scene.settings):
        until(lambda: rows(scene, "SELECT id FROM trials WHERE attempt = 2"))
        assert time.monotonic() - began < HEALS
    await well_again(scene)


async def test_an_agent_that_remembers_nothing_is_told_where_things_stand(scene: Scene) -> None:
    async def told() -> tuple[str, str, dict[str, str]]:
        async with Lab.open(scene.settings) as lab:
            there = await lab.setup.setup_run(tag=TAG, resume=True)
            assert (there.agent, there.counts["total"]) == ("agent-1", len(there.open_experiments) + len(finished))
            best = there.best.experiment_id if there.best else ""
            return there.next_action, best, {each.experiment_id: each.status for each in there.open_experiments}

    scene.rewrite(GATED)
    finished: list[str] = []
    async with begun(scene):
        pass
    todo, *state = await told()
    assert ("register" in todo and "baseline" in todo, state) == (True, ["", {}])

    async with Lab.open(scene.settings) as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        await register(lab)
    assert await told() == (f"Call train('{TAG}-1'): it is registered and not trained", "", {f"{TAG}-1": "registered"})

    async with Lab.open(scene.settings) as lab:
        await lab.training.train(f"{TAG}-1", wait_seconds=0)
        until(lambda: "at work" in scene.log(f"{TAG}-1.1"))
    todo = f"Call train('{TAG}-1') to watch the training that is under way"
    assert await told() == (todo, "", {f"{TAG}-1": "training"})

    scene.let_go()
    until(lambda: not scene.workers())
    todo = f"Call complete('{TAG}-1'): it is trained and not judged"
    assert await told() == (todo, "", {f"{TAG}-1": "trained"})

    finished.append(f"{TAG}-1")
    async with Lab.open(scene.settings) as lab:
        await lab.verdicts.complete(f"{TAG}-1")
    assert await told() == (f"Call suggest(tag='{TAG}'), then register the next idea", f"{TAG}-1", {})

    script = scene.state / "workspaces" / TAG / "agent-1" / "train.py"
    script.write_text(script.read_text().replace("RATE = 0.1", "RATE = 0.3"))
    async with Lab.open(scene.settings) as lab:
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        assert there.adjustments == ["The workspace holds edits that are not registered yet."]
    assert "RATE = 0.3" in script.read_text()


MOMENTS = [0.0, 0.005, 0.015, 0.04, 0.08, 0.15]
"""Seconds after which a call is cancelled: from before its first step to after its last."""


async def test_calls_are_cancelled_at_any_moment(scene: Scene) -> None:
    cancelled = 0
    async with begun(scene) as lab:
        assert await try_out(lab) == "keep"
        for number, moment in enumerate(MOMENTS, 2):
            hypothesis, knobs = f"idea {number}", {"RATE": number / 10}
            with anyio.move_on_after(moment) as scope:
                await register(lab, hypothesis, knobs=knobs)
            cancelled += scope.cancelled_caught
            experiment_id = await register(lab, hypothesis, knobs=knobs)
            with anyio.move_on_after(moment) as scope:
                await lab.training.train(experiment_id)
            cancelled += scope.cancelled_caught
            trained = await lab.training.train(experiment_id)
            assert (trained.trial_id, trained.status) == (f"{experiment_id}.1", "trained")
            with anyio.move_on_after(moment) as scope:
                await lab.verdicts.complete(experiment_id)
            cancelled += scope.cancelled_caught
            assert (await lab.verdicts.complete(experiment_id)).status == "keep"
        assert (await lab.reading.summary(TAG)).experiments == len(MOMENTS) + 1
        await asyncio.to_thread(until, lambda: not scene.workers())
        assert cancelled > len(MOMENTS)
        assert violations(scene) == []


async def test_a_client_cancels_a_call_and_goes_on_with_the_same_server(scene: Scene) -> None:
    scene.rewrite(GATED)
    async with Client(scene.server()) as client:
        await under_way(client)
        with anyio.move_on_after(0.5) as scope:
            await use(client, "train", experiment_id=f"{TAG}-1", wait_seconds=600)
        assert scope.cancelled_caught
        scene.let_go()
        assert (await use(client, "train", experiment_id=f"{TAG}-1"))["status"] == "trained"
        assert (await use(client, "complete", experiment_id=f"{TAG}-1"))["status"] == "keep"
    until(lambda: not scene.alive())
    assert violations(scene) == []
