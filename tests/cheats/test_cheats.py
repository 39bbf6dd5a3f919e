"""No cheat is kept for what it did not do, with walls around it or without: one form of each kind.

`make cheats` tries every form. Where both ways are tried, those that end alike are tried behind walls alone.
"""

import hashlib
import re
import shutil

import pytest

from tests.cheats.cheat import Cheat
from tests.cheats.conftest import CHOSEN_OFF
from tests.cheats.families.belongings import CHANGED, PACKAGE_INSTALLED
from tests.cheats.scene import BASELINE, HONEST, MARGIN, WEAK, Scene
from tests.cheats.table import CHEATS, FIRST_FORMS, KINDS

pytestmark = pytest.mark.anyio

TRIED = [cheat for cheat in FIRST_FORMS if not CHOSEN_OFF or cheat.open or cheat.hole]


def marked(cheat: Cheat) -> object:
    """The cheat as a parameter."""
    return pytest.param(cheat, id=re.sub(r"\W+", "-", cheat.name))


async def test_an_honest_improvement_is_kept(scene: Scene) -> None:
    """Without this, a scene in which nothing is ever kept would pass all that follows."""
    ended = await scene.attempt(HONEST)
    assert ended.status == "keep", ended
    assert ended.claimed is not None
    assert ended.claimed < scene.record()["baseline"]["value"] - 0.5
    assert scene.record()["kept"] == [BASELINE, "mar8-2"]


@pytest.mark.parametrize("cheat", [marked(cheat) for cheat in TRIED])
async def test_it_is_not_kept(scene: Scene, cheat: Cheat) -> None:
    before, data = scene.record(), scene.prepared()
    expected, base = cheat.behind(scene.walls), before["baseline"]["value"]
    ended = await cheat.attempt(scene)
    if cheat.hole and not scene.walls:
        assert ended.verification != "verified", ended
        return
    if cheat.honest:
        assert not ended.gains(await honest(scene) + MARGIN), ended
        return
    assert not ended.gains(), ended
    assert (ended.status, bool(re.search(expected.told, ended.reason, re.DOTALL))) == (expected.status, True), ended
    claims = ended.claimed is not None and ended.claimed < base - MARGIN  # scored anew, it comes out a little otherwise
    assert claims == expected.claims, f"its word would not have made it a keep, so that nothing is shown: {ended}"
    after = scene.record()
    assert after == before or (cheat.deed and {**after, "kept": before["kept"]} == before)
    assert (scene.prepared() == data) == (scene.walls or not cheat.harms)
    assert not (scene.cache / "ran").exists()


async def honest(scene: Scene) -> float:
    """The gain of an honest improvement alone."""
    scene.restore()
    ended = await scene.attempt(HONEST)
    assert ended.recorded is not None
    return ended.recorded


def test_there_are_three_forms_of_each_kind() -> None:
    assert {kind: len(forms) for kind, forms in KINDS.items() if len(forms) < 3} == {}
    assert len({cheat.name for cheat in CHEATS}) == len(CHEATS)


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
    assert (await PACKAGE_INSTALLED.attempt(scene)).status == "crash"
    ended = await scene.attempt(HONEST)
    assert ended.status == "crash"
    assert "sitecustomize.py was installed while an experiment of this run trained" in ended.reason
