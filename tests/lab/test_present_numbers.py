"""A kept change that the best was made without is listed by what all runs say of it now."""

import csv
from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, begun
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

LUCKY = {"old": "{42: 0.01, 43: -0.01, 44: 0.01", "new": "{42: -0.05, 43: -0.01, 44: 0.5"}
"""0.05 better under the first seed, 0.01 under the second, and far worse under the third."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


async def listed(lab: Lab) -> str:
    """What the report says of changes that are worth applying again."""
    text = (await lab.reporting.report("mar8")).text or ""
    head = "## Worth applying again"
    return text.split(head)[1].split("##")[0].strip() if head in text else ""


async def test_its_gain_follows_what_was_measured_since(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        await agent.propose("lucky", edits=[{"path": "train.py", **LUCKY}])
        await agent.propose("shallower", "architecture", knobs={"DEPTH": -6})
        assert (await again(agent, "mar8-2")).status == "keep"
        assert (await again(agent, "mar8-3")).displaced == ["mar8-2"]
        assert "better by 0.0497" in await listed(lab)  # its base counts a little above the mean of its runs
        assert (await lab.finalizing.finalize("mar8")).displaced == ["mar8-2"]
        assert (await again(agent, "mar8-2", 43)).status == "keep"
        assert "better by 0.0294" in await listed(lab)
        told = (await lab.reading.suggest("mar8")).proposals[0]
        assert told["arguments"]["combine"] == ["mar8-2", "mar8-3"]
        assert "kept, better by 0.0294" in told["text"]
        await again(agent, "mar8-2", 44)
        assert await listed(lab) == ""  # no better any more
        assert (await lab.finalizing.finalize("mar8")).displaced == []
        assert all("combine" not in each["arguments"] for each in (await lab.reading.suggest("mar8")).proposals)


async def test_what_was_disproved_is_no_near_miss(settings: Settings) -> None:
    """Two repeats that are far worse: what the first run gained by luck is nowhere left, and nothing builds on it."""
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        lucky = {"old": LUCKY["old"], "new": "{42: -0.05, 43: 0.5, 44: 0.5"}
        assert (await agent.attempt("lucky", edits=[{"path": "train.py", **lucky}])).status == "keep"
        assert (await lab.training.train("mar8-2", wait_seconds=60, seed=43)).status == "trained"
        verdict = await again(agent, "mar8-2", 44)
        assert (verdict.status, verdict.near_miss) == ("discard", False)
        assert verdict.reason.endswith("3 runs against 4 of mar8-1): clearly worse.")
        assert verdict.delta == pytest.approx((0.05 - 0.5 - 0.5) / 3)
        (shown, _) = (await lab.reading.history("mar8")).experiments
        assert (shown.delta, shown.near_miss) == (verdict.delta, False)
        assert (await lab.reading.near_misses("mar8")).total == 0
        text = (await lab.reporting.report("mar8")).text or ""
        assert "mar8-2: lucky (worse by 0.316667)" in text
        proposals = (await lab.reading.suggest("mar8")).proposals
        assert not any("mar8-2" in str(each["arguments"].get("combine", "")) for each in proposals)


async def test_a_kept_change_and_what_was_compared_with_it_follow_its_repeats(
    settings: Settings, project: Project
) -> None:
    """The first run of mar8-2 is 0.04 better than the second: so it gained less, and what came after it more."""
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        assert (await agent.attempt("lucky", edits=[{"path": "train.py", **LUCKY}])).status == "keep"
        same = await agent.attempt("wider", knobs={"WIDTH": 128})
        while same.status == "needs_confirmation":
            same = await again(agent, same.experiment_id)
        assert (same.status, same.near_miss) == ("discard", True)
        better = await agent.attempt("shallower", "architecture", knobs={"DEPTH": -6})
        assert better.status == "keep"
        was = {e.experiment_id: e for e in (await lab.reading.history("mar8", detail="full")).experiments}
        repeated = await again(agent, "mar8-2", 43)
        assert repeated.delta is not None
        assert repeated.delta == pytest.approx((0.05 + 0.01) / 2, abs=0.003)
        assert repeated.reason.startswith("At its verdict: Better by 0.05")
        assert f" With all runs since: better by {repeated.delta:.6f} +- " in repeated.reason
        assert repeated.reason.endswith(" val_loss (2 runs against 4 of mar8-1).")
        assert repeated.numbers is not None
        assert repeated.numbers["d"] == repeated.delta
        now = {e.experiment_id: e for e in (await lab.reading.history("mar8", detail="full")).experiments}
        assert now["mar8-2"].delta == repeated.delta
        for name, status in (("mar8-3", "discard"), ("mar8-4", "keep")):
            assert now[name].status == status
            assert (now[name].delta or 0) > (was[name].delta or 0) + 0.005
            assert "against 2 of mar8-2)" in (now[name].reason or "")
        assert (now["mar8-1"].delta, now["mar8-1"].reason) == (None, was["mar8-1"].reason)
        twice = await lab.verdicts.complete("mar8-2")
        assert (twice.delta, twice.reason) == (repeated.delta, repeated.reason)
        more = await again(agent, "mar8-2", 45)
        assert more.reason.count("At its verdict: ") == more.reason.count("With all runs since: ") == 1
        progression = {each["experiment_id"]: each["delta"] for each in (await lab.reading.summary("mar8")).progression}
        assert progression["mar8-2"] == more.delta
        handed = await lab.finalizing.finalize("mar8", mode="rebase", onto="main")
        assert [each["better_by"] for each in handed.kept] == [progression["mar8-2"], progression["mar8-4"]]
        table = csv.DictReader(((await lab.reading.export("mar8", "csv")).text or "").splitlines())
        gains = {row["experiment"]: row["better_by"] for row in table}
        assert float(gains["mar8-2"]) == pytest.approx(more.delta)
        message = project.git("log", "-1", "--format=%B", "autoresearch/mar8-final^")
        assert message.count("At its verdict: Better by 0.05") == 1
        assert " With all runs since: better by " in message


async def test_what_was_compared_with_a_displaced_best_counts_against_what_is_the_best_again(
    settings: Settings,
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        lucky = {"old": LUCKY["old"], "new": "{42: -0.05, 43: 0.5, 44: 0.5"}
        assert (await agent.attempt("lucky", edits=[{"path": "train.py", **lucky}])).status == "keep"
        worse = await agent.attempt("deeper", "architecture", knobs={"DEPTH": 40})
        assert worse.numbers is not None
        assert worse.delta is not None
        assert (worse.status, worse.numbers["base"]) == ("discard", "mar8-2")
        assert worse.delta < -0.35
        assert (await lab.training.train("mar8-2", wait_seconds=60, seed=43)).status == "trained"
        assert (await again(agent, "mar8-2", 44)).status == "discard"
        now = await lab.verdicts.complete("mar8-3")
        assert now.numbers is not None
        assert (now.status, now.numbers["base"], now.numbers["incumbent"]) == ("discard", "mar8-1", "mar8-1")
        assert now.delta == pytest.approx(0.05 - 0.36)
        assert now.reason.startswith("At its verdict: Worse by ")
        assert " With all runs since: worse by 0.310000 +- " in now.reason
        assert now.reason.endswith(" val_loss (1 run against 4 of mar8-1).")
