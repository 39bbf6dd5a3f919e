"""A short storm; `benchmarks/soak.py` is the long one."""

import pytest

from tests.faults.scene import Scene
from tests.faults.storm import Storm

pytestmark = pytest.mark.anyio


async def test_a_short_storm(scene: Scene) -> None:
    figures = await Storm(scene, seed=1).blow(kills=8)
    assert figures.wrong == [], figures.text()
    assert figures.kills.total() >= 8
