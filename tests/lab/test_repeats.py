"""Measuring again: what is taken into a mean and what is not, and runs that are stopped, lost or fail."""

import asyncio
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, baseline, begun
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

MARK = """print(f"fingerprint: {os.environ['AUTORESEARCH_CACHE'][-3:]}")"""

QUICK = """os.path.exists(os.environ["AUTORESEARCH_CACHE"] + "/quick")"""
"""What a script asks for whether it need not wait; a training sees of the file system only what is its own."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


def with_seed(seed: int, todo: str) -> str:
    """A script that does something of its own under one seed."""
    return NOISY.replace("\nloss = 1", f"\nif SEED == {seed}:\n    {todo}\nloss = 1")


def be_quick(settings: Settings) -> None:
    """Let the scripts that wait go on."""
    (settings.cache / "quick").touch()


def data_from(seed: int) -> str:
    """A script whose data are others from this seed on."""
    return NOISY.replace(MARK, f'print("fingerprint:", "old" if SEED < {seed} else "new")')


async def test_a_baseline_on_data_that_changed_half_way_is_measured_anew(settings: Settings, project: Project) -> None:
    project.commit("data", {"train.py": data_from(44)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        spoilt = await baseline(agent)
        assert spoilt.status == "discard"
        assert "different fingerprints" in spoilt.reason
        call = (await lab.reading.suggest("mar8")).proposals[0]
        assert call["tool"] == "register"
        anew = (await lab.registering.register(**call["arguments"])).experiment_id
        for seed in (50, 51, 52, 53):
            verdict = await again(agent, anew, seed)
        assert (verdict.status, verdict.runs) == ("keep", 4)


async def test_a_best_measured_again_on_other_data_stays_as_it_was(settings: Settings, project: Project) -> None:
    project.commit("data", {"train.py": data_from(99)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        before = (await lab.reading.best("mar8")).experiment
        verdict = await again(agent, "mar8-1", 99)
        assert before is not None
        assert (verdict.value, verdict.runs) == (before.value, 4)
        assert verdict.notes == [
            "Not taken into the mean: mar8-1.5 has another fingerprint (new) than mar8-1.1 (old).",
            "Seed 99 was given by hand.",
        ]
        assert (await agent.attempt("faster", knobs={"LR": 0.2})).status == "keep"  # on the old data still


async def test_a_confirmation_that_is_stopped_still_waits_and_goes_on_the_present_best(
    settings: Settings, project: Project
) -> None:
    waits = f"import time; time.sleep(60 * (DEPTH == 2 and not {QUICK}))"
    project.commit("waits", {"train.py": with_seed(43, waits)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        idea = await agent.propose("shallower", "architecture", knobs={"DEPTH": 2})
        rival = await agent.propose("wider", edits=[{"path": "train.py", "old": "loss = 1 ", "new": "loss = 0.9 "}])
        promising = await again(agent, idea)
        assert promising.status == "needs_confirmation"
        await lab.training.train(idea, wait_seconds=0)
        assert (await lab.training.stop(idea)).status == "stopped"
        assert await lab.verdicts.complete(idea) == promising  # what was measured still stands
        assert (await lab.reading.suggest("mar8")).pending_confirmations == [idea]
        with pytest.raises(WrongState, match="was trained well and has a result"):
            await lab.verdicts.crash(idea, "given up")

        assert (await again(agent, rival)).status == "keep"
        be_quick(settings)
        confirmed = await again(agent, idea)
        assert confirmed.numbers is not None
        assert (confirmed.numbers["base"], confirmed.numbers["n"]) == (rival, 2)
        assert [trial.seed for trial in await lab.training._bench.store.trials.of(idea)] == [42, 43, 43]


async def test_a_repeat_of_the_best_that_is_stopped_runs_again_when_it_is_asked_for(
    settings: Settings, project: Project
) -> None:
    waits = f"import time; time.sleep(60 * (not {QUICK}))"
    project.commit("waits", {"train.py": with_seed(77, waits)})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        await lab.training.train("mar8-1", wait_seconds=0, seed=77)
        watched = asyncio.create_task(lab.training.train("mar8-1", wait_seconds=60))
        assert (await lab.training.stop("mar8-1")).status == "stopped"
        assert (await watched).next_action.endswith("call train('mar8-1') to run it again, or leave it as it is")
        assert (await lab.verdicts.complete("mar8-1")).runs == 4
        be_quick(settings)
        trained = await lab.training.train("mar8-1", wait_seconds=60)
        assert (trained.status, trained.seed, trained.trial_id) == ("trained", 77, "mar8-1.6")
        assert (await lab.verdicts.complete("mar8-1")).runs == 5


async def test_a_repeat_of_the_best_that_fails_leaves_it_as_it_is(settings: Settings, project: Project) -> None:
    project.commit("fails", {"train.py": with_seed(77, 'raise RuntimeError("no")')})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        failed = await lab.training.train("mar8-1", wait_seconds=60, seed=77)
        assert (
            failed.next_action == "The repeat failed, so that 'mar8-1' stays as it is: call suggest for the next idea"
        )
        verdict = await lab.verdicts.complete("mar8-1")
        assert (verdict.status, verdict.runs) == ("keep", 4)
        assert verdict.value is not None
        assert await lab.verdicts.complete("mar8-1", metrics={"val_loss": verdict.value}) == verdict
        with pytest.raises(InvalidInput, match="is not what was measured"):
            await lab.verdicts.complete("mar8-1", metrics={"val_loss": 1.0})


async def test_an_idea_whose_repeat_fails_is_a_crash(settings: Settings, project: Project) -> None:
    project.commit("fails", {"train.py": with_seed(43, 'assert DEPTH > 2, "flaky"')})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        idea = await agent.propose("shallower", "architecture", knobs={"DEPTH": 2})
        assert (await again(agent, idea)).status == "needs_confirmation"
        assert (await lab.training.train(idea, wait_seconds=60)).status == "crash"
        verdict = await lab.verdicts.complete(idea)
        assert (verdict.status, verdict.value) == ("crash", None)
        assert "flaky" in verdict.reason
        assert (await lab.verdicts.crash(idea)).consecutive_crashes == 1


async def test_greedy_runs_nothing_again(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="greedy")
        await agent.baseline()
        assert (await lab.training.train("mar8-1")).trial_id == "mar8-1.1"
        with pytest.raises(WrongState) as refusal:
            await lab.training.train("mar8-1", seed=77)
        assert "policy greedy runs nothing again" in refusal.value.todo


async def test_a_promising_result_ends_a_row_of_crashes(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        for number in range(2):
            await agent.attempt(f"broken {number}", edits=[broken(number)])
        promising = await agent.attempt("shallower", "architecture", knobs={"DEPTH": 2})
        assert promising.status == "needs_confirmation"
        await agent.attempt("broken 3", edits=[broken(3)])
        crashed = await lab.verdicts.crash("mar8-5")
        assert (crashed.consecutive_crashes, crashed.should_abort) == (1, False)
        await agent.attempt("broken 4", edits=[broken(4)])
        assert (await lab.verdicts.crash("mar8-6")).consecutive_crashes == 2


def broken(number: int) -> dict[str, str]:
    return {"path": "train.py", "old": "loss = 1 ", "new": f"loss = [][{number}] "}
