"""An agent that ends what looks bad, and draws again: the record has it, and the seed stays."""

from pathlib import Path

import pytest

from mcp_server.errors import WrongState
from mcp_server.lab.lab import Lab
from mcp_server.research.experiment import MAX_LOST
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, begun
from tests.lab.researcher import Researcher, researching
from tests.project import Project

pytestmark = pytest.mark.anyio

SHOWS = """
import os, time
if DEPTH == 2 and not os.path.exists(os.environ["AUTORESEARCH_CACHE"] + "/quick"):
    print("step 90/100 | loss: 1.93", flush=True)
    print("val_loss: 1.93", flush=True)
    time.sleep(60)
loss = 1"""
EXITS = """
if SEED == 77:
    print("val_loss: 1.93", flush=True)
    raise SystemExit("too bad to be true")
loss = 1"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


async def shown(lab: Lab, experiment_id: str) -> None:
    """Wait until a training has printed a score, as an agent that watches it would."""
    while "1.93" not in (await lab.training.train(experiment_id, wait_seconds=0.1)).log_tail:
        pass


async def test_a_training_that_was_stopped_after_it_showed_a_score(settings: Settings, project: Project) -> None:
    project.commit("shows", {"train.py": NOISY.replace("\nloss = 1", SHOWS)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        idea = await agent.propose("shallower", "architecture", knobs={"DEPTH": 2})
        for _ in range(2):
            await lab.training.train(idea, wait_seconds=0)
            await shown(lab, idea)
            assert (await lab.training.stop(idea)).status == "stopped"
        stopped = (await lab.training._bench.store.trials.of(idea))[-1]
        assert stopped.metrics["val_loss"] == 1.93
        assert "when it had shown" in stopped.error
        assert "step 90/100" in stopped.error
        with pytest.raises(WrongState, match="with seed 42, came to no result, and runs again as it was"):
            await lab.training.train(idea, seed=7)
        (settings.cache / "quick").touch()
        verdict = await again(agent, idea)
        assert verdict.reason.endswith(
            "2 trainings were stopped on request after val_loss 1.93, 1.93 was shown, and run again with the same seed."
        )
        assert [trial.seed for trial in await lab.training._bench.store.trials.of(idea)] == [42] * 3


async def test_a_seed_by_hand_is_told_in_the_verdict(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        idea = await agent.propose("faster", knobs={"LR": 0.2})
        assert (await again(agent, idea, 45)).reason.endswith("Seed 45 was given by hand.")
        told = await again(agent, idea, 46)
        assert (told.status, told.notes) == ("keep", ["Seeds 45, 46 were given by hand."])
        plain = await agent.attempt("shallower", "architecture", knobs={"DEPTH": 1})
        assert plain.reason.endswith(f"Seed 46 of {idea} was given by hand.")  # of its base, since that was kept


async def test_a_repeat_that_fails_when_its_score_is_bad_is_no_new_draw(settings: Settings, project: Project) -> None:
    project.commit("exits", {"train.py": NOISY.replace("\nloss = 1", EXITS)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        assert (await lab.training.train("mar8-1", wait_seconds=60, seed=77)).metrics["val_loss"] == 1.93
        with pytest.raises(WrongState, match="with seed 77, came to no result"):
            await lab.training.train("mar8-1", seed=78)
        assert (await lab.training.train("mar8-1", wait_seconds=60)).trial_id == "mar8-1.6"
        verdict = await again(agent, "mar8-1", 78)
        assert (verdict.status, verdict.runs) == ("keep", 5)
        assert (
            "2 repeats failed after val_loss 1.93, 1.93 was shown, and no such run is in the mean." in verdict.notes[-1]
        )


async def test_what_the_machine_failed_is_an_error_and_may_be_registered_again(
    settings: Settings, project: Project
) -> None:
    """Its check is killed whenever it runs: no verdict, no crash in a row, no reason to refuse the change."""
    check = "import os; 'LR = 0.2' in open('train.py').read() and os.kill(os.getpid(), 9)"
    project.commit("A check", {"check.py": check, "autoresearch.toml": 'checks = ["python check.py"]\n'})
    async with researching(settings) as agent:
        idea = await agent.propose("faster", knobs={"LR": 0.2})
        trained = await agent.lab.training.train(idea, wait_seconds=120)
        assert (trained.status, trained.trial_id) == ("error", f"{idea}.{MAX_LOST + 1}")
        assert "was killed (SIGKILL" in (trained.error or "")
        with pytest.raises(WrongState, match="SIGKILL"):
            await agent.lab.verdicts.complete(idea)
        given_up = await agent.lab.verdicts.crash(idea, "the machine")
        assert given_up.consecutive_crashes == 0
        anew = await agent.propose("faster, once more", knobs={"LR": 0.2})
        assert anew != idea
