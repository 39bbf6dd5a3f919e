"""What is told of a run as a fact, what stays provisional, and a best that its own runs do not bear out."""

import math
from pathlib import Path

import pytest

from mcp_server.errors import ResearchError
from mcp_server.lab.lab import Lab
from mcp_server.research.claims import QUANTILE
from mcp_server.research.verdict import show
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, baseline, begun
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

LUCK = "LUCK = {42: 0.01, 43: -0.01, 44: 0.01, 45: -0.01}"
"""The line of the noisy script that a change for luck alone replaces."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


async def told(lab: Lab) -> str:
    """The change of the second experiment, with what history tells of it."""
    (shown, start) = (await lab.reading.history("mar8", detail="full")).experiments
    assert start.told == "baseline"
    assert shown.told is not None
    assert shown.reason is not None
    assert shown.reason.startswith("At its verdict: Better by ")
    assert f"By all runs now, {shown.told.split(':')[0]}: better by " in shown.reason
    return f"faster ({shown.told})"


async def test_a_gain_is_provisional_until_it_was_run_often_enough(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        once = await agent.attempt("faster", knobs={"LR": 0.3})
        assert once.status == "keep"
        assert once.numbers is not None
        sigma = once.numbers["sigma"]
        assert "1 run against 4 of mar8-1): " in once.reason
        assert once.reason.endswith(f"So many runs can show a gain of {show(QUANTILE * sigma * math.sqrt(1 + 1 / 4))}.")
        assert (project.root / "results.tsv").read_text().splitlines()[-1].endswith("\tkeep\t" + await told(lab))
        assert (await told(lab)).startswith("faster (provisional: better by 0.")
        assert once.claim is not None
        assert (once.claim["claimed"], once.claim["runs"], once.claim["base_runs"]) == (False, 1, 4)
        for seed in (43, 44, 45):
            more = await again(agent, "mar8-2", seed)
        assert more.claim is not None
        assert more.best_claim is not None
        assert (more.claim["claimed"], more.best_claim["claimed"], more.claim["runs"]) == (True, True, 4)
        assert 0.1 < more.claim["gain"] <= 0.2 + more.claim["error"]
        summary = await lab.reading.summary("mar8")
        assert summary.told.startswith("Best against baseline, claimed: better by ")
        assert summary.claims["mar8-2"]["claimed"]
        assert "| Against the baseline | claimed: better by " in (await lab.reporting.report("mar8")).text  # type: ignore[operator]
        handed = await lab.finalizing.finalize("mar8")
        assert handed.claim == summary.claim
        assert handed.kept[0]["claim"]["claimed"]
        lines = (project.root / "results.tsv").read_text().splitlines()
        assert (len(lines), lines[1].split("\t")[-1]) == (3, "the baseline")
        assert lines[2].endswith("\tkeep\t" + await told(lab))
        assert "\tfaster (claimed: better by 0." in lines[2]
        assert (await lab.reading.export("mar8", "tsv")).text == "\n".join([*lines, ""])
        await lab.finalizing.finalize("mar8", mode="squash", onto="main")
        message = project.git("log", "-1", "--format=%B", "autoresearch/mar8-final")
        assert message.startswith("Improve val_loss by 0.")
        assert f"(mar8-2, {(await told(lab))[8:-1]})" in message
        assert "All of them against the baseline, claimed: better by 0." in message


async def test_a_best_that_its_repeats_do_not_bear_out_is_displaced(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        start = project.git("rev-parse", "autoresearch/mar8")
        lucky = "LUCK = {42: -0.05, 43: 0.5, 44: 0.5, 45: 0.5}"
        kept = await agent.attempt("lucky", edits=[{"path": "train.py", "old": LUCK, "new": lucky}])
        assert kept.status == "keep"
        assert project.git("rev-parse", "autoresearch/mar8") != start
        for seed in (43, 44, 45):
            verdict = await again(agent, "mar8-2", seed)
            if verdict.status != "keep":
                break
        assert (verdict.status, verdict.near_miss) == ("discard", True)
        assert verdict.reason.startswith("Displaced after ")
        assert verdict.reason.endswith("of mar8-1): a near miss, not told from noise.")
        assert verdict.numbers is not None
        assert verdict.delta is not None
        assert verdict.delta == verdict.numbers["d"] < 0
        assert (verdict.numbers["base"], verdict.numbers["incumbent"]) == ("mar8-1", "mar8-1")
        assert verdict.numbers["n"] == seed - 41
        best = (await lab.reading.best("mar8")).experiment
        assert best is not None
        assert best.experiment_id == "mar8-1"
        assert project.git("rev-parse", "autoresearch/mar8") == start
        last = (await lab.reading.summary("mar8")).last_five[0]
        assert last.experiment_id == "mar8-2"  # the last verdict is the last
        lines = (project.root / "results.tsv").read_text().splitlines()
        assert [line.split("\t")[3] for line in lines[1:]] == ["keep", "keep", "discard"]
        assert [line.split("\t")[4] for line in lines[2:]] == ["lucky (not kept any more)", "lucky"]


async def test_a_change_that_its_repeats_do_not_bear_out_is_taken_out(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware", max_experiments=5)
        await baseline(agent)
        lucky = "LUCK = {42: -0.06, 43: 0.5, 44: 0.5, 45: 0.5}"
        assert (await agent.attempt("lucky", edits=[{"path": "train.py", "old": LUCK, "new": lucky}])).status == "keep"
        assert (await agent.attempt("faster", knobs={"LR": 0.3})).status == "keep"
        for seed in (43, 44, 45):
            await again(agent, "mar8-2", seed)
            await again(agent, "mar8-3", seed)
        claims = (await lab.reading.summary("mar8")).claims
        assert claims["mar8-2"]["probability"] < 0.3 < claims["mar8-3"]["probability"]
        asked = (await lab.reading.suggest("mar8")).proposals[0]
        assert (asked["tool"], asked["arguments"]["revert"]) == ("register", "mar8-2")
        made = await lab.registering.register(**asked["arguments"])
        assert LUCK in project.script_at(made.commit)
        assert "LR = 0.3" in project.script_at(made.commit)
        others = (await lab.reading.suggest("mar8")).proposals
        assert all("revert" not in each["arguments"] for each in others)
        verdict = await again(agent, made.experiment_id)
        while verdict.status == "needs_confirmation":
            verdict = await again(agent, made.experiment_id)
        assert verdict.status == "keep"
        best = (await lab.reading.best("mar8")).experiment
        assert best is not None
        assert best.experiment_id == made.experiment_id


@pytest.mark.parametrize(
    ("revert", "says"), [("mar8-9", "mar8-9"), ("mar8-1", "nothing|same|no change|Nothing"), ("", "revert is empty")]
)
async def test_what_cannot_be_taken_out_is_refused(settings: Settings, revert: str, says: str) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin()
        await agent.baseline()
        with pytest.raises(ResearchError, match=says):
            await agent.propose("without it", "ablation", revert=revert)
