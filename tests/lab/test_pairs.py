"""A machine that drifts: what is measured at another time is no gain, and runs side by side tell what is one."""

from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.research.case import Record
from mcp_server.research.decision import decide
from mcp_server.settings import Settings
from tests.lab.drifting import DRIFTING, drift, follow, pass_time
from tests.lab.noisy import again, baseline
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(project: Project) -> Settings:
    """Without walls, which would hide the machine's file."""
    return replace(Settings.load(project.root, "cpu:1"), sandbox="off")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    machine = tmp_path / "machine.txt"
    machine.write_text("0.0")
    return Project.make(tmp_path / "project", DRIFTING.format(machine=machine))


def without_times(record: Record) -> Record:
    trials = tuple(replace(trial, started_at=None, ended_at=None) for trial in record.trials)
    return Record(replace(record.experiment, status="needs_confirmation"), trials)


async def judged_by_means(lab: Lab, experiment_id: str) -> str:
    """What became of an experiment if nothing were known of when its runs were made."""
    store = lab.training._bench.store
    case = await store.verdicts.case(experiment_id)
    run = await store.runs.get("mar8")
    bases = {name: replace(without_times(base), experiment=base.experiment) for name, base in case.bases.items()}
    return decide(run, replace(case, subject=without_times(case.subject), bases=bases, repeats=())).decision


async def test_a_drift_is_no_gain_and_side_by_side_it_shows(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        assert (await baseline(agent)).runs == 4
        pass_time(project)
        drift(project, -0.05)
        nothing = await agent.attempt("wider", knobs={"WIDTH": 65})
        assert await judged_by_means(lab, "mar8-2") == "keep"
        assert nothing.status == "needs_confirmation"
        assert "promising, but its base was run long before" in nothing.reason
        assert nothing.next_action.startswith(
            "Call train('mar8-1', seed=46) and, beside it or right after, train('mar8-2', seed=46) ("
        )
        assert (await follow(agent)) is None  # the baseline once more
        taken_in = await follow(agent)
        assert taken_in is not None
        assert (taken_in.experiment_id, taken_in.runs) == ("mar8-1", 5)
        waiting = await lab.verdicts.complete("mar8-2")
        assert waiting.next_action.startswith("Call train('mar8-2', seed=46), side by side with mar8-1 (the machine")
        assert (await follow(agent)) is None
        verdict = await lab.verdicts.complete("mar8-2")
        assert await judged_by_means(lab, "mar8-2") == "keep"
        assert (verdict.status, verdict.near_miss) == ("discard", True)
        assert "1 of its 2 in pairs with runs of the base: same seed, near in time" in verdict.reason
        assert "So many runs can show a gain of " in verdict.reason
        assert "given by hand" not in verdict.reason
        assert verdict.numbers is not None
        assert (verdict.numbers["pairs"], verdict.numbers["n"], verdict.numbers["n_b"]) == (1, 2, 5)
        assert abs(verdict.numbers["z"]) < 1


async def test_where_the_machine_drifts_a_new_idea_is_measured_beside_the_best(
    settings: Settings, project: Project
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        await baseline(agent)
        for seed, by in ((46, -0.05), (47, 0.04)):
            pass_time(project)
            drift(project, by)
            await again(agent, "mar8-1", seed)
        await agent.attempt("wider", knobs={"WIDTH": 65})  # beside the last of these
        pass_time(project)
        drift(project, 0.1)
        asked = (await lab.reading.suggest("mar8")).proposals[0]
        assert asked["arguments"] == {"experiment_id": "mar8-1", "seed": 48}
        assert (await follow(agent)) is None
        await follow(agent)
        real = await agent.attempt("faster", knobs={"LR": 0.13})
        assert await judged_by_means(lab, "mar8-3") != "keep"  # it came out worse than the baseline's mean
        assert real.status == "keep", real.reason
        assert real.numbers is not None
        assert (real.numbers["pairs"], real.numbers["n"]) == (1, 1)
        assert real.numbers["d"] == pytest.approx(0.03, abs=1e-4)
        assert (await lab.training.train("mar8-3")).seed == 48
        assert "given by hand" not in real.reason
        claim = (await lab.verdicts.complete("mar8-3")).claim
        assert claim is not None
        assert not claim["claimed"]  # of one run nothing is


async def test_all_runs_of_the_best_of_these_minutes_count_and_are_told(settings: Settings, project: Project) -> None:
    """Seed 47 is a bad one, and the change, which does nothing, comes beside that."""
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        await baseline(agent)
        pass_time(project)
        drift(project, 0.05)
        for seed in (46, 48, 47):
            await again(agent, "mar8-1", seed)
        verdict = await agent.attempt("wider", knobs={"WIDTH": 65})
        assert (await lab.training.train("mar8-2")).seed == 47
        assert verdict.numbers is not None
        assert (verdict.numbers["pairs"], verdict.numbers["n_b"]) == (1, 7)
        assert verdict.numbers["d"] == pytest.approx(-0.002 + (-0.001 - 0.002 + 0.002) / 3, abs=5e-4)
        assert "Near in time mar8-1 was run 2 times more (seeds 46, 48), in no pair with this: all of" in verdict.reason
        assert "Seed 48 of mar8-1 was given by hand." in verdict.reason


async def test_whoever_lets_the_moment_pass_goes_on_without_a_pair(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        await baseline(agent)
        pass_time(project)
        await agent.attempt("faster", knobs={"LR": 0.13})
        assert (await follow(agent)) is None
        pass_time(project)
        await follow(agent)
        asked = (await lab.reading.suggest("mar8")).proposals[0]
        assert (asked["tool"], asked["arguments"]) == ("train", {"experiment_id": "mar8-2"})
        verdict = await again(agent, "mar8-2")
        assert verdict.numbers is not None
        assert (verdict.status, verdict.numbers["pairs"], verdict.numbers["n"]) == ("keep", 0, 2)
