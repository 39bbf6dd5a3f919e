"""One scene for each way to train, made once: with walls and without, or one that AUTORESEARCH_SANDBOX names."""

import asyncio
import os

import pytest

from mcp_server.machine.sandbox import probe
from tests.cheats.scene import Scene

CHOSEN = os.environ.get("AUTORESEARCH_SANDBOX")  # read before every test gets an environment of its own
WAYS = {"off": ["off"], "require": ["require"]}.get(CHOSEN or "", ["require", "off"])


@pytest.fixture(scope="session", params=WAYS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene with its baseline."""
    if request.param == "require" and (fault := probe()[1]):
        pytest.skip(f"there is no sandbox: {fault}")
    scene = Scene(tmp_path_factory.mktemp(request.param), request.param)
    scene.fill()
    asyncio.run(scene.begin())
    return scene


@pytest.fixture
def scene(made: Scene) -> Scene:
    """The scene as it was after its baseline."""
    made.restore()
    return made
