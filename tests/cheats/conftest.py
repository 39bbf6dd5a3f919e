"""A scene, made once a process: behind walls where there are any, or as AUTORESEARCH_SANDBOX says."""

import asyncio
import os

import pytest

from mcp_server.machine.sandbox import probe
from tests.cheats.scene import Scene

CHOSEN = os.environ.get("AUTORESEARCH_SANDBOX", "auto")
CHOSEN_OFF = CHOSEN == "off" and not probe()[1]
"""Walls are off although there could be some: then others try the cheats behind them."""
WAY = ("off" if probe()[1] else "require") if CHOSEN == "auto" else CHOSEN


@pytest.fixture(scope="session", params=[WAY])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene with its baseline."""
    scene = Scene(tmp_path_factory.mktemp("cheats"), request.param)
    scene.fill()
    asyncio.run(scene.begin())
    return scene


@pytest.fixture
def scene(made: Scene) -> Scene:
    """The scene as it was after its baseline."""
    made.restore()
    return made
