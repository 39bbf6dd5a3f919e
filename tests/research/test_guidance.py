"""In which order ideas come: what a draw says of categories, weighed with what their knobs promise."""

from collections.abc import Sequence

import pytest

from mcp_server.research import guidance
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import Run
from mcp_server.research.knobs import read_knobs
from mcp_server.research.lines import Point
from mcp_server.research.noise import Noise
from mcp_server.research.proposals import Scene
from mcp_server.research.script import effective, outline
from mcp_server.research.strategy import Rank
from mcp_server.research.task import Task

SCRIPT = "MATRIX_LR = 0.04\nWARMDOWN = 0.5  # share of the budget\nUSE_NORM = True\n"
KNOBS = {name: knob.value for name, knob in read_knobs(SCRIPT).items()}
TASK = Task("val_loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)
BASE, FASTER = Point(KNOBS, 1.0), Point({**KNOBS, "MATRIX_LR": 0.08}, 1.05)


def values(points: Sequence[Point], scheduling: float, optimizer: float, sigma: float = 0.01) -> list[object]:
    """The values that are proposed first, after these draws."""
    ranks = [Rank("scheduling", 0, 0, scheduling, ""), Rank("optimizer", 0, 0, optimizer, "")]
    evidence = Evidence(source=SCRIPT, points=tuple(points), noise=Noise(prior=sigma))
    scene = Scene(TASK, evidence, effective(outline(SCRIPT), "cpu"))
    return [proposal.arguments["knobs"] for proposal in guidance.ideas(RUN, scene, ranks) if proposal.tool]


def test_the_draw_decides_between_knobs_that_promise_alike() -> None:
    tried = [BASE, Point({**KNOBS, "MATRIX_LR": 0.08}, 1.0), Point({**KNOBS, "WARMDOWN": 0.7}, 1.0)]
    assert values(tried, 0.6, 0.4) == [{"WARMDOWN": 0.3}, {"MATRIX_LR": 0.02}]
    assert values(tried, 0.4, 0.6) == [{"MATRIX_LR": 0.02}, {"WARMDOWN": 0.3}]


@pytest.mark.parametrize(("draws", "first"), [((0.6, 0.4), "MATRIX_LR"), ((0.99, 0.01), "WARMDOWN")])
def test_what_knobs_promise_outweighs_all_but_a_clear_draw(draws: tuple[float, float], first: str) -> None:
    (found, *_) = values([BASE, FASTER], *draws)  # 0.55 * 0.9 > 0.35 * 1.1, but 0.55 * 0.51 < 0.35 * 1.49
    assert isinstance(found, dict)
    assert list(found) == [first]


def test_what_is_within_the_noise_is_no_slope() -> None:
    (found, *_) = values([BASE, FASTER], 0.6, 0.4, sigma=0.1)
    assert isinstance(found, dict)
    assert list(found) == ["WARMDOWN"]
