"""A short storm; `benchmarks/soak.py` is the long one."""

import pytest

from tests.faults.scene import Scene
from tests.faults.storm import Storm

pytestmark = pytest.mark.anyio


async def test_a_short_storm(either: Scene) -> None:
    figures = await Storm(either, seed=1).blow(kills=12, seconds=6.0)
    assert figures.wrong == [], figures.text()
    assert figures.kills
    assert figures.told
