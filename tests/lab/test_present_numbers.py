"""A kept change that the best was made without is listed by what all runs say of it now."""

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
