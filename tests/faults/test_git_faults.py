"""What git left or the user did in the repository: stale locks, a moved or deleted branch, a deleted workspace."""

import os
import shutil
import time
from pathlib import Path

import pytest

from mcp_server.lab.lab import Lab
from tests.faults.invariants import violations
from tests.faults.scene import GATED, TAG, Scene, begun, go_on, register, try_out, until

pytestmark = pytest.mark.anyio


def leave(lock: Path) -> Path:
    """A lock as a git that was killed a minute ago left it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - 60, time.time() - 60))
    return lock


async def well(scene: Scene, *wrong: str) -> None:
    until(lambda: not scene.workers())
    assert violations(scene) == [*wrong]


async def test_a_killed_git_left_its_locks_on_the_index_and_on_refs(scene: Scene) -> None:
    dot_git = scene.project.root / ".git"
    async with begun(scene) as lab:
        assert await try_out(lab) == "keep"
        (index,) = dot_git.glob("worktrees/*/index")
        left = [
            leave(index.with_name("index.lock")),
            leave(index.with_name("HEAD.lock")),
            leave(dot_git / f"refs/heads/autoresearch/{TAG}.lock"),
            leave(dot_git / f"refs/autoresearch/{TAG}/{TAG}-2.lock"),
        ]
        users = leave(dot_git / "index.lock")
        script = scene.state / "workspaces" / TAG / "agent-1" / "train.py"
        script.write_text(script.read_text().replace("RATE = 0.1", "RATE = 0.2"))
        assert await try_out(lab, "better") == "keep"
        assert await try_out(lab, "worse", knobs={"RATE": 0.0}) == "discard"
        assert [lock for lock in left if lock.exists()] == []
        assert users.exists()  # it is the user's, and nothing here needs it
    await well(scene)


async def test_a_lock_that_is_in_use_is_respected(scene: Scene) -> None:
    async with begun(scene) as lab:
        assert await try_out(lab) == "keep"
        fresh = scene.project.root / ".git" / f"refs/heads/autoresearch/{TAG}.lock"
        made = await register(lab, "better", knobs={"RATE": 0.2})
        await lab.training.train(made)
        fresh.touch()
        with pytest.raises(Exception, match=r"(?s)cannot lock ref.*delete the lock file"):
            await lab.verdicts.complete(made)
        assert fresh.exists()
        fresh.unlink()
        assert (await lab.verdicts.complete(made)).status == "keep"
    await well(scene)


async def test_the_user_moves_and_deletes_the_branch_while_it_trains(scene: Scene) -> None:
    scene.rewrite(GATED)
    git = scene.project.git
    async with begun(scene) as lab:
        baseline = await register(lab)
        await lab.training.train(baseline, wait_seconds=0)
        git("switch", "--quiet", "--create", "mine")
        mine = scene.project.commit("Mine", {"README.md": "more\n"})
        git("branch", "--force", f"autoresearch/{TAG}", mine)
        scene.let_go()
        await lab.training.train(baseline)
        verdict = await lab.verdicts.complete(baseline)
        assert (verdict.status, scene.project.branch(TAG)) == ("keep", mine)
        assert "moved" in verdict.notes[0]
        assert "someone else" in verdict.notes[0]
        assert await try_out(lab, "better", knobs={"RATE": 0.2}) == "keep"
        git("branch", "--delete", "--force", f"autoresearch/{TAG}")
    async with Lab.open(scene.settings) as lab:
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        assert "was gone and is made again" in there.adjustments[0]
    assert "RATE = 0.2" in scene.project.script_at(scene.project.branch(TAG))
    await well(scene)


async def test_the_user_deletes_the_workspace_while_it_trains(scene: Scene) -> None:
    scene.rewrite(GATED)
    async with begun(scene) as lab:
        baseline = await register(lab)
        await lab.training.train(baseline, wait_seconds=0)
        shutil.rmtree(scene.state / "workspaces")
        scene.let_go()
        await go_on(lab, f"Call train({baseline!r})")
        assert (await lab.reading.best(TAG)).experiment
        assert await try_out(lab, "better", knobs={"RATE": 0.2}) == "keep"
    async with Lab.open(scene.settings) as lab:
        there = await lab.setup.setup_run(tag=TAG, resume=True)
        assert there.workspace
        assert "RATE = 0.2" in (Path(there.workspace) / "train.py").read_text()
    await well(scene)
