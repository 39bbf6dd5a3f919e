"""A training that runs out of memory is tried once more, as a child commit that needs less."""

from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

SCRIPT = """\
LR = 0.1
BATCH_SIZE = 8
GRAD_ACCUM = 1
ROOM = 8
if BATCH_SIZE > ROOM:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
assert BATCH_SIZE * GRAD_ACCUM in (8, 16, 32), "another effective batch"
print("val_loss:", 1 + abs(LR - 0.3))
"""
DOUBLED = {"BATCH_SIZE": 16, "LR": 0.3}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", SCRIPT)


async def test_half_the_batch_is_tried_and_kept(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        shown = await agent.begin()
        knobs = {row["field"]: (row["value"], row["source"]) for row in shown.research_config}
        assert knobs["batch_knob"] == ("BATCH_SIZE", "found in the script")
        assert knobs["accumulation_knob"] == ("GRAD_ACCUM", "found in the script")
        await agent.baseline()
        agent.edit("BATCH_SIZE = 8", "BATCH_SIZE = 16")
        agent.edit("LR = 0.1", "LR = 0.3")
        experiment_id = await agent.propose("more rows")
        asked = (await lab.bench.store.experiments.get(experiment_id)).commit
        trained = await lab.training.train(experiment_id, wait_seconds=60)
        assert (trained.status, trained.trial_id) == ("trained", f"{experiment_id}.2")
        verdict = await lab.verdicts.complete(experiment_id)
        assert (verdict.status, verdict.value, verdict.workspace_updated) == ("keep", 1.0, True)
        kept = await lab.bench.store.experiments.get(experiment_id)
        assert project.git("rev-parse", f"{kept.commit}^") == asked
        assert project.branch("mar8") == kept.commit
        assert "BATCH_SIZE = 8\nGRAD_ACCUM = 2" in project.script_at(kept.commit)
        assert "BATCH_SIZE = 8\nGRAD_ACCUM = 2" in agent.script.read_text()
        assert kept.diff_summary.endswith("BATCH_SIZE 16 -> 8, GRAD_ACCUM 1 -> 2")
        first, second = await lab.bench.store.trials.of(experiment_id)
        assert (first.status, first.commit, second.commit) == ("failed", asked, kept.commit)
        assert first.error.startswith("Out of memory")
        assert first.seed == second.seed
        follower = await agent.attempt("and on", knobs={"LR": 0.31})
        assert follower.status == "discard"
        assert follower.delta == pytest.approx(-0.01)


async def test_what_fails_twice_is_a_crash_with_the_reason(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin()
        await agent.baseline()
        verdict = await agent.attempt("far too much", knobs={"BATCH_SIZE": 32})
        assert (verdict.status, verdict.action) == ("crash", "git_reset")
        assert verdict.reason.startswith("Out of memory")
        assert "second try, with half the batch" in verdict.reason
        assert len(await lab.bench.store.trials.of(verdict.experiment_id)) == 2


async def test_a_baseline_that_does_not_fit_begins_with_half_the_batch(project: Project, settings: Settings) -> None:
    project.commit("For a larger machine", {"train.py": SCRIPT.replace("BATCH_SIZE = 8", "BATCH_SIZE = 16")})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin()
        verdict = await agent.baseline()
        assert verdict.status == "keep"
        best = await lab.bench.store.experiments.get(verdict.experiment_id)
        assert best.unchanged
        assert "BATCH_SIZE 16 -> 8, GRAD_ACCUM 1 -> 2" in best.description
        assert project.branch("mar8") == best.commit
        better = await agent.attempt("a better rate", knobs={"LR": 0.3})
        assert (better.status, better.value) == ("keep", 1.0)


async def test_without_a_name_for_the_batch_it_is_a_crash_that_says_so(project: Project, settings: Settings) -> None:
    project.commit("Another name", {"train.py": SCRIPT.replace("GRAD_ACCUM", "MICRO")})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin()
        await agent.baseline()
        verdict = await agent.attempt("too much", knobs={"BATCH_SIZE": 16})
        assert verdict.status == "crash"
        assert "Name them in its runner.memory" in verdict.reason
