"""Cheats of an agent: in what it registers, and in what it says of a result."""

import os
import subprocess
import sys
from typing import Any

import pytest

from mcp_server.lab.lab import Lab
from tests.cheats.scene import TAG, Scene

pytestmark = pytest.mark.anyio

REGISTERED = {
    "changes only the seed": (
        {"edits": [{"path": "train.py", "old": "start()", "new": "start()\n    torch.manual_seed(7)"}]},
        "only the random seed|",
    ),
}


def typed(scene: Scene, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line in the repository of the scene."""
    variables = os.environ | {
        "AUTORESEARCH_CACHE": str(scene.cache),
        "AUTORESEARCH_LOCKS": str(scene.settings.locks),
        "AUTORESEARCH_DEVICES": scene.settings.devices,
        "AUTORESEARCH_SANDBOX": scene.sandbox,
    }
    program = [sys.executable, "-m", "mcp_server", *words]
    return subprocess.run(program, cwd=scene.repository, env=variables, capture_output=True, text=True, timeout=120)


async def register(scene: Scene, **source: Any) -> str:
    """What an agent is told that registers this: an id, or a refusal."""
    async with Lab.open(scene.settings) as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        made = await lab.registering.register(tag=TAG, hypothesis="it is better", category="other", **source)
        return made.experiment_id
