"""A server or worker killed right after each step of the loop; the next server takes everything up where it was."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp import Client

from mcp_server.lab.lab import Lab
from tests.faults.doomed import DISCARDING, JUDGING, QUEUEING, REGISTERING, SETTING_UP, TRAINING
from tests.faults.invariants import rows, violations
from tests.faults.scene import GOAL, TAG, Scene, attended, finish, go_on, until
from tests.interfaces.agents import use

pytestmark = pytest.mark.anyio
HEALS = 5.0
"""Seconds in which the next call or worker puts things right."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A run with its baseline: one for all of these tests, so that each death follows many others."""
    place = Scene.make(tmp_path_factory.mktemp("steps"))
    asyncio.run(begin(place))
    yield place
    place.kill_all()


async def begin(place: Scene) -> None:
    async with Lab.open(place.settings) as lab:
        await lab.setup.setup_run(tag=TAG, **GOAL)
        made = await lab.registering.register(tag=TAG, hypothesis="the baseline", category="other")
        await go_on(lab, made.next_action)


def edit(scene: Scene, better: bool = True) -> str:
    """Edit the script in the workspace so that it gets better or worse than all before it; what to say of that."""
    workspace = scene.state / "workspaces" / TAG / "agent-1"
    count = len(rows(scene, "SELECT id FROM experiments"))
    script = (workspace / "train.py").read_text().splitlines()
    rate = next(index for index, line in enumerate(script) if line.startswith("RATE"))
    script[rate] = f"RATE = {0.1 * (count + 1) if better else -1.0:.1f}"
    (workspace / "train.py").write_text("\n".join(script) + "\n")
    return f"idea {count}"


@pytest.mark.parametrize("step", [*REGISTERING, *QUEUEING, *JUDGING, *DISCARDING])
async def test_a_server_killed_after(scene: Scene, tmp_path: Path, step: str) -> None:
    hypothesis, grave = edit(scene, better=step not in DISCARDING), tmp_path / "grave"

    async def research(client: Client) -> None:
        await use(client, "setup_run", tag=TAG, resume=True)
        made = await use(client, "register", tag=TAG, hypothesis=hypothesis, category="hyperparams")
        await finish(client, made["next_action"])

    with anyio.fail_after(60):
        await attended(scene.server(step, str(grave)), research)
    assert grave.exists(), "it did not come so far"
    await taken_up(scene, hypothesis)


@pytest.mark.parametrize("step", TRAINING)
async def test_a_worker_killed_after(scene: Scene, tmp_path: Path, step: str) -> None:
    hypothesis, grave = edit(scene), tmp_path / "grave"
    async with Client(scene.server(step, str(grave))) as client:
        await use(client, "setup_run", tag=TAG, resume=True)
        made = await use(client, "register", tag=TAG, hypothesis=hypothesis, category="hyperparams")
        await finish(client, made["next_action"])
    assert grave.exists(), "it did not come so far"
    ended = rows(scene, "SELECT max(ended_at) AS at FROM trials")[0]["at"]
    assert ended - grave.stat().st_mtime < HEALS
    await taken_up(scene, hypothesis)


@pytest.mark.parametrize("step", SETTING_UP)
async def test_a_server_killed_while_it_sets_up(scene: Scene, tmp_path: Path, step: str) -> None:
    tag, grave = f"t{list(SETTING_UP).index(step)}", tmp_path / "grave"

    async def begin(client: Client) -> None:
        await use(client, "setup_run", tag=tag, **GOAL)

    with anyio.fail_after(60):
        await attended(scene.server(step, str(grave)), begin)
    assert grave.exists(), "it did not come so far"
    async with Lab.open(scene.settings) as lab:
        recorded = tag in [run.tag for run in (await lab.reading.list_runs()).runs]
        again = await lab.setup.setup_run(tag=tag, **GOAL, resume=recorded)
        assert again.workspace is not None
        assert "RATE" in (Path(again.workspace) / "train.py").read_text()
        assert "baseline" in again.next_action


async def taken_up(scene: Scene, hypothesis: str) -> None:
    """The next server finds everything, does what it says is next, and nothing is wrong or twice there."""
    began = time.monotonic()
    async with Lab.open(scene.settings) as lab:
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        assert time.monotonic() - began < HEALS
        await go_on(lab, there.next_action)
        if not rows(scene, "SELECT id FROM experiments WHERE hypothesis = ?", hypothesis):
            assert any("not registered" in note for note in there.adjustments)
            made = await lab.registering.register(tag=TAG, hypothesis=hypothesis, category="hyperparams")
            await go_on(lab, made.next_action)
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        assert not [note for note in there.adjustments if "not registered" in note]
    (made_once,) = rows(scene, "SELECT * FROM experiments WHERE hypothesis = ?", hypothesis)
    assert made_once["status"] == ("discard" if "-> -1" in made_once["diff_summary"] else "keep")
    until(lambda: not scene.workers())
    assert violations(scene) == []
