"""An honest change survives the end of its worker, and a training that was stopped: it takes one more run at most."""

import os
import signal
import sys

import pytest

from tests.cheats.cheat import together
from tests.cheats.families.choosing import SLOWLY
from tests.cheats.scene import HONEST, TAG, Scene, register

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="needs signals")]


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_an_honest_change_is_kept_though_its_training_was_ended(scene: Scene, how: str) -> None:
    async with scene.lab() as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        experiment_id = await register(lab, together(HONEST, SLOWLY))
        await lab.training.train(experiment_id, wait_seconds=0)
        await scene.until(lab, experiment_id, "val_bpb: ")
        if how == "killed":
            with scene.store() as store:
                (worker,) = store.execute("SELECT worker_pid FROM trials WHERE experiment_id = ?", [experiment_id])
            os.kill(worker["worker_pid"], signal.SIGKILL)
        else:
            await lab.training.stop(experiment_id)
        ended = await scene.trained(lab, experiment_id)
        if how == "stopped" or not scene.walls:
            assert (ended.status, "this is another draw" in ended.reason) == ("needs_confirmation", True), ended
            ended = await scene.trained(lab, experiment_id)
        assert (ended.status, ended.verification.split()[0]) == ("keep", "verified"), ended
        assert "run again with the same seed" in ended.reason
