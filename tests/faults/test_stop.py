"""`stop` ends a training in whatever state its processes and its worker are."""

import os
from dataclasses import replace

import psutil
import pytest

from mcp_server.lab import training
from mcp_server.lab.lab import Lab
from mcp_server.machine import stopping
from mcp_server.machine.locks import DeviceLock, Holder
from tests.faults.invariants import rows
from tests.faults.scene import GATED, TAG, Scene, begun, register, until

pytestmark = pytest.mark.anyio
FIRST = f"{TAG}-1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STOP_SECONDS", 8.0)


async def under_way(scene: Scene, lab: Lab) -> None:
    """Have the baseline in training."""
    await register(lab)
    await lab.training.train(FIRST, wait_seconds=0)
    until(lambda: "at work" in scene.log(f"{FIRST}.1"))


def stopped(scene: Scene) -> None:
    """The training is over for good, and recorded so."""
    (trial,) = rows(scene, "SELECT * FROM trials")
    assert trial["status"] == "stopped"
    until(lambda: not scene.trainings())


@pytest.mark.parametrize("who", ["training", "worker", "both"])
async def test_whoever_is_stopped_by_a_signal(either: Scene, who: str) -> None:
    scene = either
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        await under_way(scene, lab)
        for process in [
            *(scene.workers() if who != "training" else []),
            *(scene.trainings() if who != "worker" else []),
        ]:
            process.suspend()
        assert (await lab.training.stop(FIRST)).status == "stopped"
        stopped(scene)
    until(lambda: not scene.workers())


async def test_a_worker_that_died_while_another_repository_has_the_device(scene: Scene) -> None:
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        await under_way(scene, lab)
        (trial,) = rows(scene, "SELECT * FROM trials")
        lock = DeviceLock(scene.locks, trial["device"])
        scene.kill_all()
        assert lock.take(5.0)
        lock.note(Holder(os.getpid(), "another repository", "its-1.1"))
        try:
            assert (await lab.training.stop(FIRST)).status == "stopped"
            stopped(scene)
        finally:
            lock.release()


async def test_a_device_that_is_there_no_more(scene: Scene) -> None:
    scene.rewrite(GATED)
    first = DeviceLock(scene.locks, scene.keys[0])
    assert first.take()  # so that it is trained on the second
    async with begun(scene) as lab:
        await under_way(scene, lab)
    scene.kill_all()
    first.release()
    async with Lab.open(replace(scene.settings, devices="cpu:1")) as lab:
        assert (await lab.training.stop(FIRST)).status == "stopped"
    stopped(scene)


async def test_a_worker_that_is_alive_and_does_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is at work on this very trial, and nobody sees why it does not end it."""
    monkeypatch.setattr(stopping, "STOPPED_SECONDS", 1e9)
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        await under_way(scene, lab)
        (worker,) = scene.workers()
        worker.suspend()
        assert (await lab.training.stop(FIRST)).status == "stopped"
        stopped(scene)
        until(lambda: worker.status() == psutil.STATUS_ZOMBIE or not worker.is_running())
