"""Places for faults, with walls around trainings and without."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_server.machine.sandbox import probe
from tests.faults.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A place as this machine has it: behind walls where they work."""
    place = Scene.make(tmp_path / "place")
    yield place
    place.kill_all()


@pytest.fixture(params=["require", "off"], ids=["walled", "unwalled"])
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A place whose trainings run behind walls, and one without."""
    if request.param == "require" and (fault := probe()[1]):
        pytest.skip(f"there is no sandbox: {fault}")
    place = Scene.make(tmp_path / "place", sandbox=request.param)
    yield place
    place.kill_all()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no mount")
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "autoresearch-test", str(folder)]
    if fault := subprocess.run(words, capture_output=True, text=True).stderr:
        pytest.skip(f"no disk can be mounted: {fault.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
