"""Measuring again: what is taken into a mean and what is not, and runs that are stopped, lost or fail."""

from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, baseline, begun
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

MARK = """print(f"fingerprint: {os.environ['AUTORESEARCH_CACHE'][-3:]}")"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


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
        assert verdict.notes == ["Not taken into the mean: mar8-1.5 has another fingerprint (new) than mar8-1.1 (old)."]
        assert (await agent.attempt("faster", knobs={"LR": 0.2})).status == "keep"  # on the old data still
