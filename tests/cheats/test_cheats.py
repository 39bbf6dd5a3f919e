"""No training script is kept for what it did not do, with walls around it or without."""

import hashlib
import re
import shutil

import pytest

from tests.cheats.cheats import BELONGINGS, CHANGED, CHEATS, Cheat
from tests.cheats.scene import BASELINE, HONEST, WEAK, Scene

pytestmark = pytest.mark.anyio


async def test_an_honest_improvement_is_kept(scene: Scene) -> None:
    """Without this, a scene in which nothing is ever kept would pass all that follows."""
    ended = await scene.attempt(HONEST)
    assert ended.status == "keep", ended
    assert ended.claimed is not None
    assert ended.claimed < scene.record()["baseline"]["value"] - 0.5
    assert scene.record()["kept"] == [BASELINE, "mar8-2"]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name.replace(" ", "-"))
async def test_it_is_not_kept(scene: Scene, cheat: Cheat) -> None:
    before, data = scene.record(), scene.prepared()
    expected = cheat.behind(scene.walls)
    ended = await scene.attempt(cheat.edits)
    assert (ended.status, bool(re.search(expected.told, ended.reason, re.DOTALL))) == (expected.ends, True), ended
    claims = ended.claimed is not None and ended.claimed < before["baseline"]["value"]
    assert claims == expected.claims, "its word would not have made it a keep, so that nothing is shown"
    assert scene.record() == before
    assert (scene.prepared() == data) == (scene.walls or not cheat.harms)
    assert not (scene.cache / "ran").exists()


async def test_spoiled_data_stop_all_keeps_until_they_are_prepared_anew(scene: Scene) -> None:
    tokens, manifest = scene.data / "val.bin", scene.data / "manifest.json"
    easier = (scene.data / "train.bin").read_bytes()[: tokens.stat().st_size]
    old, new = scene.prepared()["val.bin"], hashlib.sha256(easier).hexdigest()
    tokens.write_bytes(easier)
    manifest.write_text(manifest.read_text().replace(old, new))
    ended = await scene.attempt({WEAK: "HEAD_LR = 0.02"})
    assert (ended.status, bool(re.search(CHANGED, ended.reason))) == ("discard", True), ended
    shutil.rmtree(scene.data)
    scene.prepare()
    assert (await scene.attempt(HONEST)).status == "keep"


async def test_what_was_installed_stops_the_run_until_it_is_gone(scene: Scene) -> None:
    if scene.walls:
        pytest.skip("behind walls nothing can be installed")
    installs = next(cheat for cheat in BELONGINGS if cheat.name == "installs a package")
    assert (await scene.attempt(installs.edits)).status == "crash"
    ended = await scene.attempt(HONEST)
    assert ended.status == "crash"
    assert "sitecustomize.py was installed while an experiment of this run trained" in ended.reason
