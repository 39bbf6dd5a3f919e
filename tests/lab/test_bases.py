"""What a change is compared with when the ground moves: parents kept late, parents moved, workspaces left behind."""

import asyncio
import time
from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.lab.rebasing import on_best
from mcp_server.machine.store.trials import Changed
from mcp_server.settings import Settings
from tests.lab.noisy import SPACED, again, begun
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", SPACED)


async def base_of(lab: Lab, experiment_id: str) -> tuple[str | None, str]:
    """What the last verdict compared an experiment with, and what it changes."""
    shown = next(
        e for e in (await lab.reading.history("mar8", detail="full")).experiments if e.experiment_id == experiment_id
    )
    return (shown.numbers or {}).get("base"), shown.diff_summary or ""


async def test_an_idea_on_one_that_is_kept_later_is_compared_with_that(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        agent.edit("LR = 0.1 ", "LR = 0.16 ")
        gain = await agent.propose("faster")
        agent.edit("DEPTH = 4", "DEPTH = 6")
        harm = await agent.propose("and deeper", "architecture")
        await lab.training.train(gain, wait_seconds=0)
        await lab.training.train(harm, wait_seconds=60)  # before its parent has a verdict
        assert (await lab.verdicts.complete(gain)).status == "keep"
        verdict = await lab.verdicts.complete(harm)
        assert (verdict.status, verdict.near_miss) == ("discard", True), verdict.reason
        assert verdict.delta == pytest.approx(-0.02, abs=0.01)  # a base is pulled; against the baseline it gains 0.04
        assert (await base_of(lab, harm))[0] == gain


async def test_the_first_run_of_a_moved_idea_is_compared_with_its_parent_that_was_kept_since(
    settings: Settings,
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        gain = await agent.propose("faster", knobs={"LR": 0.16})
        child = await agent.propose("and shallower", "architecture", knobs={"DEPTH": 3}, parent_id=gain)
        await lab.training.train(child, wait_seconds=60)
        assert (await again(agent, gain)).status == "keep"
        assert (await lab.verdicts.complete(child)).status == "needs_confirmation"
        assert (await agent.attempt("gain", knobs={"GAIN": 0.05})).status == "keep"
        verdict = await again(agent, child)
        assert verdict.numbers is not None
        assert verdict.numbers["n"] == 2
        assert verdict.delta == pytest.approx(0.01, abs=0.01)  # of both runs; against the baseline the first has 0.07


async def test_what_was_built_on_an_idea_that_moved_away_is_compared_with_what_that_was_built_on(
    settings: Settings, project: Project
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        assert (await agent.attempt("faster", knobs={"LR": 0.2})).status == "keep"
        promising = await agent.propose("shallower", "architecture", knobs={"DEPTH": 1})
        child = await agent.propose("and narrower", "architecture", knobs={"WIDTH": -300}, parent_id=promising)
        await agent.propose("gain", knobs={"GAIN": 0.05})
        assert (await again(agent, promising)).status == "needs_confirmation"
        assert (await again(agent, "mar8-5")).status == "keep"
        assert (await again(agent, promising)).status == "keep"  # on top of mar8-5

        verdict = await again(agent, child)
        assert (await base_of(lab, child))[0] == "mar8-2"
        assert verdict.status == "needs_confirmation"
        assert "against the present best mar8-3" in verdict.reason
        assert (await again(agent, child)).status == "keep"
        assert await base_of(lab, child) == ("mar8-3", "WIDTH 64 -> -300, train.py +1 -1")
        assert "GAIN = 0.05" in project.git("show", "autoresearch/mar8:train.py")  # not taken back


async def test_a_workspace_left_where_an_idea_was_before_it_moved(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        assert (await agent.attempt("faster", knobs={"LR": 0.2})).status == "keep"
        agent.edit("DEPTH = 4", "DEPTH = 1")
        promising = await agent.propose("shallower", "architecture")
        agent.edit("WIDTH = 64", "WIDTH = 264")  # the next idea, not registered yet
        await agent.propose("gain", knobs={"GAIN": 0.05})
        assert (await again(agent, promising)).status == "needs_confirmation"
        assert (await again(agent, "mar8-4")).status == "keep"
        assert (await again(agent, promising)).status == "keep"  # on top of mar8-4

        harm = await agent.propose("and wider", "architecture")
        verdict = await again(agent, harm)
        assert verdict.status == "discard"
        assert verdict.delta == pytest.approx(-0.01, abs=0.01)  # against mar8-2; against the baseline it gains 0.09
        assert await base_of(lab, harm) == ("mar8-2", "WIDTH 64 -> 264, train.py +1 -1")
        assert "WIDTH = 64" in project.git("show", "autoresearch/mar8:train.py")


async def stale_idea(agent: Researcher) -> str:
    """An experiment that needs confirmation, and is to be put on another base for it."""
    await begun(agent)
    idea = await agent.propose("shallower", "architecture", knobs={"DEPTH": 1})
    assert (await again(agent, idea)).status == "needs_confirmation"
    assert (await agent.attempt("gain", knobs={"GAIN": 0.05})).status == "keep"
    return idea


async def test_two_servers_confirm_one_idea_at_once(settings: Settings) -> None:
    async with Lab.open(settings) as lab, Lab.open(settings) as other:
        idea = await stale_idea(Researcher(lab))
        trained = await asyncio.gather(*(each.training.train(idea, wait_seconds=60) for each in (lab, other)))
        assert {(each.trial_id, each.status) for each in trained} == {(f"{idea}.2", "trained")}
        one, two = await lab.verdicts.complete(idea), await other.verdicts.complete(idea)
        assert (one.status, one.reason, one.numbers) == (two.status, two.reason, two.numbers)


async def test_the_commit_that_the_record_names_is_the_one_that_is_kept(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab, Lab.open(settings) as other:
        idea = await stale_idea(Researcher(lab))
        store = lab.training._bench.store
        run, before = await store.runs.get("mar8"), await store.experiments.get(idea)
        moved = await on_best(lab.training._bench, lab.training._branch, run, before)
        second = int(time.time())
        while int(time.time()) == second:  # noqa: ASYNC110 - in the same second, the commits were the same
            await asyncio.sleep(0.02)
        assert await on_best(other.training._bench, other.training._branch, run, before) == moved
        assert project.git("rev-parse", f"refs/autoresearch/mar8/{idea}") == moved.commit != before.commit
        with pytest.raises(Changed):
            await store.trials.enqueue(idea, None, "cpu", before.commit)
        assert (await store.trials.enqueue(idea, None, "cpu", moved.commit)).commit == moved.commit


async def test_a_server_that_comes_late_takes_what_the_other_made(settings: Settings) -> None:
    async with Lab.open(settings) as lab, Lab.open(settings) as other:
        idea = await stale_idea(Researcher(lab))
        run = await lab.training._bench.store.runs.get("mar8")
        before = await lab.training._bench.store.experiments.get(idea)
        trials = await lab.training._bench.store.trials.of(idea)
        await again(Researcher(other), idea)
        late = await lab.training._queue(run, before, trials, None)
        assert late is not None
        assert (late.id, late.status) == (f"{idea}.2", "finished")


async def test_an_idea_does_not_run_after_the_best_for_ever(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        idea = await stale_idea(agent)
        store = lab.training._bench.store
        run = await store.runs.get("mar8")
        for gain in (0.1, 0.15, 0.2):
            moved = await on_best(lab.training._bench, lab.training._branch, run, await store.experiments.get(idea))
            assert moved.status == "needs_confirmation"
            assert (await agent.attempt(f"gain {gain}", knobs={"GAIN": gain})).status == "keep"
        dropped = await on_best(lab.training._bench, lab.training._branch, run, await store.experiments.get(idea))
        assert (dropped.status, dropped.near_miss) == ("discard", True)
        assert "put on a new best 3 times" in dropped.reason
