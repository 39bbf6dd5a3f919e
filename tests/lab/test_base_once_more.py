"""What has no verdict before its base is run once more gets one then, and nobody is sent in a circle."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.machine.store.store import Store
from mcp_server.settings import Settings
from tests.lab.drifting import DRIFTING, crowd, drift, follow, pass_time
from tests.lab.noisy import again, baseline
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

BY_THE_CLOCK = """\
said = Path("{machine}").read_text()
if said == "slow":
    print("val_loss: 2.0", flush=True)
    time.sleep(600)
machine = float(said)
print("training_seconds: 5.0")
"""
"""Says that it lasted as long as its budget; a machine that is `slow` never ends it, and on one that is `broken` it
crashes."""
NO_VERDICT = "no verdict before mar8-1 is run once more"


@pytest.fixture
def settings(project: Project) -> Settings:
    """Without walls, which would hide the machine's file."""
    return replace(Settings.load(project.root, "cpu:1"), sandbox="off")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    machine = tmp_path / "machine.txt"
    machine.write_text("0.0")
    script = DRIFTING.replace('machine = float(Path("{machine}").read_text())\n', BY_THE_CLOCK)
    return Project.make(
        tmp_path / "project", script.replace("import os\n", "import os\nimport time\n").format(machine=machine)
    )


@pytest.fixture
async def agent(settings: Settings, project: Project) -> AsyncIterator[Researcher]:
    """One whose baselines were measured on a quiet machine, an hour ago."""
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        assert (await baseline(agent)).runs == 4
        pass_time(project)
        yield agent


def say(project: Project, word: str) -> None:
    """Have the machine be `slow` or `broken` from now on."""
    (project.root.parent / "machine.txt").write_text(word)


def store_of(agent: Researcher) -> Store:
    return agent.lab.training._bench.store


async def under_load(agent: Researcher, project: Project, by: float, **knobs: float) -> str:
    """Train a change while others use the machine, which adds so much to its score; its id."""
    drift(project, by)
    idea = await agent.propose(f"a change {knobs}", knobs=knobs)
    assert (await agent.lab.training.train(idea, wait_seconds=60)).status == "trained"
    crowd(project, f"{idea}.1")
    return idea


async def first_call(agent: Researcher) -> tuple[str, str, int | None]:
    """What is proposed first: the tool, the experiment and the seed."""
    first = (await agent.lab.reading.suggest(agent.tag)).proposals[0]
    return first["tool"], first["arguments"].get("experiment_id", ""), first["arguments"].get("seed")


async def proposed(agent: Researcher) -> list[tuple[str, str]]:
    """The experiments that proposals name, each with the tool."""
    found = (await agent.lab.reading.suggest(agent.tag)).proposals
    return [(each["tool"], each["arguments"].get("experiment_id", "")) for each in found]


async def do_what_is_owed(agent: Researcher) -> list[tuple[str, str]]:
    """Follow what is proposed first until that is a new idea; fails where it asks again for what did nothing."""
    done: list[tuple[str, str]] = []
    while (call := await first_call(agent))[0] != "register":
        assert call[0] == "train" or call[:2] not in done[-2:], f"asked for again: {call} after {done}"
        assert len(done) < 20, done
        await follow(agent)
        done.append(call[:2])
        if call[0] == "train" and call[1] != "mar8-1":  # "then complete it"
            await agent.lab.verdicts.complete(call[1])
    return done


async def test_one_more_run_of_the_base_brings_the_verdict(agent: Researcher, project: Project) -> None:
    idea = await under_load(agent, project, 0.05, WIDTH=65)
    waiting = await agent.lab.verdicts.complete(idea)
    assert waiting.status == "needs_confirmation"
    assert NO_VERDICT in waiting.reason
    assert waiting.numbers is not None
    assert waiting.numbers["awaits_base"]
    assert (await agent.lab.verdicts.complete(idea)).reason == waiting.reason  # nothing was run since
    assert await first_call(agent) == ("train", "mar8-1", 46)
    assert (await follow(agent)) is None
    crowd(project, "mar8-1.5")
    taken_in = await follow(agent)
    assert taken_in is not None
    assert (taken_in.experiment_id, taken_in.runs) == ("mar8-1", 5)
    assert await first_call(agent) == ("complete", idea, None)
    verdict = await follow(agent)
    assert verdict is not None
    assert (verdict.experiment_id, verdict.status) == (idea, "discard"), verdict.reason
    assert verdict.numbers is not None
    assert (verdict.numbers["n_b"], verdict.numbers["awaits_base"]) == (5, False)
    assert (await agent.lab.verdicts.complete(idea)).reason == verdict.reason
    assert idea not in [name for _, name in await proposed(agent)]


async def test_a_run_of_the_base_before_the_first_complete_counts(agent: Researcher, project: Project) -> None:
    idea = await under_load(agent, project, 0.05, WIDTH=65)
    assert (await agent.lab.training.train("mar8-1", seed=46, wait_seconds=60)).status == "trained"
    crowd(project, "mar8-1.5")
    verdict = await agent.lab.verdicts.complete(idea)
    assert verdict.status == "discard"
    assert "no verdict" not in verdict.reason
    await agent.lab.verdicts.complete("mar8-1")
    assert await do_what_is_owed(agent) == []


@pytest.mark.parametrize("by", [-0.2, -0.004, -0.002, 0.0, 0.2])
async def test_whatever_came_out_under_load_what_is_owed_comes_to_an_end(
    agent: Researcher, project: Project, by: float
) -> None:
    """Several that wait, of which one looks promising at some of these, and a base that is measured in any hour."""
    ideas = [await under_load(agent, project, by, WIDTH=65), await under_load(agent, project, by / 2, LR=0.11)]
    for idea in ideas:
        assert (await agent.lab.verdicts.complete(idea)).status == "needs_confirmation"
    drift(project, by / 3)
    done = await do_what_is_owed(agent)
    assert ("train", "mar8-1") in done
    left = [(await store_of(agent).experiments.get(idea)).status for idea in ideas]
    assert set(left) <= {"keep", "discard"}


@pytest.mark.parametrize("begun", [True, False])
async def test_a_run_of_the_base_that_was_stopped_settles_nothing(
    agent: Researcher, project: Project, begun: bool
) -> None:
    idea = await under_load(agent, project, -0.05, WIDTH=65)
    await agent.lab.verdicts.complete(idea)
    say(project, "slow")
    other = "" if begun else await agent.propose("in the way", knobs={"WIDTH": 66})
    if other:  # it takes the one device
        await until_training(agent, other)
        assert (await agent.lab.training.train("mar8-1", seed=46, wait_seconds=0)).status == "queued"
    else:
        await until_training(agent, "mar8-1", seed=46)
    assert (await agent.lab.training.stop("mar8-1")).status == "stopped"
    stopped = await store_of(agent).trials.latest("mar8-1")
    assert stopped is not None
    assert (stopped.started_at is not None) is begun
    if other:
        await agent.lab.training.stop(other)
        await agent.lab.verdicts.crash(other, "was in the way")
    waiting = await agent.lab.verdicts.complete(idea)
    assert waiting.numbers is not None
    assert waiting.numbers["awaits_base"]
    drift(project, -0.05)
    tool, name, seed = await first_call(agent)
    assert (tool, name) == ("train", "mar8-1")
    assert seed == (46 if begun else 47)  # what was ended after it had begun runs again as it was
    assert ("complete", idea) in await do_what_is_owed(agent)


async def until_training(agent: Researcher, experiment_id: str, seed: int | None = None) -> None:
    """Begin a training that does not end by itself."""
    trained = await agent.lab.training.train(experiment_id, seed=seed, wait_seconds=0)
    while trained.status == "queued":
        trained = await agent.lab.training.train(experiment_id, wait_seconds=1)
    assert trained.status == "training"


async def test_a_run_of_the_base_that_failed_is_waited_for_no_longer(agent: Researcher, project: Project) -> None:
    """Nor does it stand in the way of what is measured under load later."""
    idea = await under_load(agent, project, 0.05, WIDTH=65)
    assert NO_VERDICT in (await agent.lab.verdicts.complete(idea)).reason
    say(project, "broken")
    await agent.lab.training.train("mar8-1", seed=46, wait_seconds=60)
    failed = await store_of(agent).trials.latest("mar8-1")
    assert failed is not None
    assert failed.status == "failed"
    assert await first_call(agent) == ("complete", idea, None)
    verdict = await follow(agent)
    assert verdict is not None
    assert "no verdict" not in verdict.reason
    pass_time(project)
    later = await under_load(agent, project, 0.05, WIDTH=66)
    assert NO_VERDICT in (await agent.lab.verdicts.complete(later)).reason
    tool, name, _ = await first_call(agent)
    assert (tool, name) == ("train", "mar8-1")
    assert ("complete", later) in await do_what_is_owed(agent)


async def test_what_waits_for_a_base_that_is_not_the_best_any_more_is_judged(
    agent: Researcher, project: Project
) -> None:
    idea = await under_load(agent, project, 0.05, WIDTH=65)
    assert NO_VERDICT in (await agent.lab.verdicts.complete(idea)).reason
    drift(project, 0.0)
    better = await agent.attempt("faster", knobs={"LR": 0.3})
    if better.status == "needs_confirmation":
        better = await again(agent, better.experiment_id)
    assert better.status == "keep", better.reason
    assert ("complete", idea) in await proposed(agent)
    verdict = await agent.lab.verdicts.complete(idea)
    assert verdict.numbers is not None
    assert not verdict.numbers["awaits_base"]
    assert ("complete", idea) not in await proposed(agent)
