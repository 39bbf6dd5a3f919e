"""Several agents, several servers, one repository; and an agent that comes back with its memory lost."""

import asyncio
import shutil

import pytest

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher, researching
from tests.project import Project

pytestmark = pytest.mark.anyio


async def test_two_servers_and_two_agents_on_one_run(project: Project, settings: Settings) -> None:
    async with researching(settings) as ada, Lab.open(settings) as other:
        bob = Researcher(other)
        bob.run = await other.setup.setup_run(tag="mar8", resume=True, agent="bob")
        assert bob.run.workspace != (ada.run.workspace if ada.run else None)

        ada.edit("LR = 0.1", "LR = 0.2")
        bob.edit("DEPTH = 4", "DEPTH = 2")
        first, second = await ada.propose("a higher rate"), await bob.propose("shallower", "architecture")
        await ada.lab.training.train(first, wait_seconds=0)
        await bob.lab.training.train(second, wait_seconds=60)
        await ada.lab.training.train(first, wait_seconds=60)

        # Both began from the baseline; bob's value, 1.22, is worse than ada's, 1.14.
        assert (await ada.lab.verdicts.complete(first)).status == "keep"
        assert (await bob.lab.verdicts.complete(second)).status == "discard"
        assert bob.script.read_text() == ada.script.read_text()


async def test_a_stale_keep_shows_what_was_measured_and_names_what_it_displaced(
    project: Project, settings: Settings
) -> None:
    async with researching(settings) as agent:
        small = await agent.propose("a little higher", knobs={"LR": 0.11})
        large = await agent.propose("much higher", knobs={"LR": 0.3, "DEPTH": 5})
        for experiment_id in (small, large):
            await agent.lab.training.train(experiment_id, wait_seconds=60)
        kept = await agent.lab.verdicts.complete(small)
        stale = await agent.lab.verdicts.complete(large)

        assert (kept.status, stale.status) == ("keep", "keep")
        assert stale.displaced == [small]
        tip = project.branch("mar8")
        assert tip == stale.branch_commit
        assert project.git("rev-parse", f"{tip}^{{tree}}") == project.git(
            "rev-parse", f"refs/autoresearch/mar8/{large}^{{tree}}"
        )
        assert project.git("rev-parse", f"{tip}^1") == project.git("rev-parse", f"refs/autoresearch/mar8/{small}")
        assert project.git("rev-parse", f"{tip}^2") == project.git("rev-parse", f"refs/autoresearch/mar8/{large}")

        after = await agent.attempt("on top", knobs={"DEPTH": 4})
        assert (after.status, after.displaced) == ("keep", [])
        assert project.git("rev-parse", f"{project.branch('mar8')}^") == tip


async def test_a_workspace_in_use_is_not_given_twice(settings: Settings) -> None:
    async with researching(settings), Lab.open(settings) as other:
        with pytest.raises(WrongState, match="in use"):
            await other.setup.setup_run(tag="mar8", resume=True, agent="agent-1")
        second = await other.setup.setup_run(tag="mar8", resume=True)
        assert second.agent == "agent-2"


async def test_over_http_a_workspace_is_given_again_only_by_name(settings: Settings) -> None:
    async with researching(settings):
        pass
    async with Lab.open(settings, shared=True) as lab:
        names = [(await lab.setup.setup_run(tag="mar8", resume=True)).agent for _ in range(2)]
        assert names == ["agent-1", "agent-2"]
        assert (await lab.setup.setup_run(tag="mar8", resume=True, agent="agent-2")).agent == "agent-2"
        with pytest.raises(InvalidInput, match="agent=NAME"):
            await lab.registering.register(tag="mar8", hypothesis="whose?", category="other")


async def test_an_agent_comes_back_with_its_memory_lost(settings: Settings) -> None:
    async with researching(settings) as agent:
        done = await agent.propose("trained", knobs={"LR": 0.2})
        await agent.lab.training.train(done, wait_seconds=60)
        await agent.propose("registered", knobs={"LR": 0.25})
        agent.edit("DEPTH = 4", "DEPTH = 3")

    async with Lab.open(settings) as lab:
        back = await lab.setup.setup_run(tag="mar8", resume=True)
        assert back.agent == "agent-1"
        assert {shown.experiment_id: shown.status for shown in back.open_experiments} == {
            "mar8-2": "trained",
            "mar8-3": "registered",
        }
        assert "complete('mar8-2')" in back.next_action
        assert any("not registered" in note for note in back.adjustments)
        returned = Researcher(lab, run=back)
        assert "DEPTH = 3" in returned.script.read_text()
        await lab.verdicts.complete("mar8-2")
        assert "train('mar8-3')" in (await lab.setup.setup_run(tag="mar8", resume=True)).next_action


async def test_resuming_with_other_arguments_is_refused_by_name(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        same = await agent.lab.setup.setup_run(tag="mar8", resume=True, metric="val_loss", editable=["train.py"])
        assert same.agent == "agent-1"
        with pytest.raises(InvalidInput, match=r"time_budget_seconds of run 'mar8' is 5\.0, not 9\.0"):
            await agent.lab.setup.setup_run(tag="mar8", resume=True, time_budget_seconds=9.0)
        project.commit("Later", {"README.md": "later\n"})
        with pytest.raises(InvalidInput, match="base_ref"):
            await agent.lab.setup.setup_run(tag="mar8", resume=True, base_ref="HEAD")


async def test_a_deleted_workspace_comes_back(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("better", knobs={"LR": 0.2})
        workspace = agent.script.parent
    shutil.rmtree(workspace)
    async with Lab.open(settings) as lab:
        back = Researcher(lab, run=await lab.setup.setup_run(tag="mar8", resume=True))
        assert "LR = 0.2" in back.script.read_text()


async def test_a_branch_that_the_user_moved_is_reported_and_left_alone(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        project.git("switch", "--quiet", "--create", "mine")
        mine = project.commit("Mine", {"README.md": "more\n"})
        project.git("branch", "--force", "autoresearch/mar8", mine)
        verdict = await agent.attempt("better", knobs={"LR": 0.2})
        assert verdict.status == "keep"
        assert "someone else" in verdict.notes[0]
        assert project.branch("mar8") == mine

        project.git("branch", "--delete", "--force", "autoresearch/mar8")
        again = await agent.lab.verdicts.complete("mar8-2")
        assert "made again" in again.notes[0]
        assert "LR = 0.2" in project.script_at(project.branch("mar8"))


async def test_registering_again_by_equal_arguments_gives_the_same_experiment(settings: Settings) -> None:
    async with researching(settings) as agent:
        agent.edit("LR = 0.1", "LR = 0.2")
        assert await agent.propose("a higher rate") == await agent.propose("a higher rate") == "mar8-2"
        by_knob = [await agent.propose("by knob", knobs={"LR": 0.25}) for _ in range(2)]
        assert len(set(by_knob)) == 1
        await agent.lab.training.train("mar8-2", wait_seconds=60)
        await agent.lab.verdicts.complete("mar8-2")
        assert (await agent.lab.reading.history("mar8")).total == 3


async def test_a_similar_change_is_shown_with_its_outcome(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("much higher", knobs={"LR": 0.9})
        again = await agent.lab.registering.register(
            tag="mar8", hypothesis="a bit less", category="hyperparams", knobs={"LR": 0.8}
        )
        assert [(shown.experiment_id, shown.status) for shown in again.similar] == [("mar8-2", "discard")]


async def test_servers_that_race_never_exceed_the_number_of_experiments(settings: Settings) -> None:
    async with researching(settings, max_experiments=3) as ada, Lab.open(settings) as other:
        bob = Researcher(other)
        await other.setup.setup_run(tag="mar8", resume=True, agent="bob")
        tries = [
            (ada if number % 2 else bob).propose(
                f"idea {number}", agent="agent-1" if number % 2 else "bob", knobs={"LR": 1.0 + number}
            )
            for number in range(6)
        ]
        ends = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(isinstance(end, WrongState) for end in ends) == [False, False, True, True, True, True]
        assert (await ada.lab.reading.history("mar8")).total == 3


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 40, 60, 80])
async def test_equal_calls_are_one_experiment_however_they_overlap(settings: Settings, milliseconds: int) -> None:
    async with researching(settings) as agent:

        async def again() -> str:
            await asyncio.sleep(milliseconds / 1000)
            return await agent.propose("better", knobs={"LR": 0.2})

        first, second = await asyncio.gather(agent.propose("better", knobs={"LR": 0.2}), again())
        assert first == second


async def test_servers_that_race_measure_one_baseline(settings: Settings) -> None:
    async with Lab.open(settings) as first, Lab.open(settings) as second:
        ada, bob = Researcher(first), Researcher(second)
        await ada.begin()
        await second.setup.setup_run(tag="mar8", resume=True, agent="bob")
        ends = await asyncio.gather(
            ada.propose("mine", "other", agent="agent-1"),
            bob.propose("yours", "other", agent="bob"),
            return_exceptions=True,
        )
        assert sorted(isinstance(end, InvalidInput) for end in ends) == [False, True]


async def test_a_workspace_deleted_under_a_live_server_comes_back(settings: Settings) -> None:
    async with researching(settings) as agent:
        experiment_id = await agent.propose("better", knobs={"LR": 0.2})
        await agent.lab.training.train(experiment_id, wait_seconds=60)
        shutil.rmtree(agent.script.parent)
        assert (await agent.lab.verdicts.complete(experiment_id)).status == "keep"
        assert "LR = 0.2" in agent.script.read_text()


async def test_a_refused_change_takes_no_number(settings: Settings) -> None:
    async with researching(settings) as agent:
        for _ in range(3):
            with pytest.raises(InvalidInput):
                await agent.propose("new", files={"new.py": "x = 1\n"})
        assert await agent.propose("better", knobs={"LR": 0.2}) == "mar8-2"
