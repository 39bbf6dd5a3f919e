"""A script that takes more than its budget is not compared as if it did not, and one that gets less is not judged."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_server.errors import WrongState
from mcp_server.lab.lab import Lab
from mcp_server.research.experiment import MAX_LOST
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

SCRIPT = """\
import os
import subprocess
import sys
import time

WORK = 0.5  # seconds of CPU time, which is what it has for epochs
BEFORE = 0.0  # the same, before its clock starts
SECONDS = 0.0  # what it waits for something that computes elsewhere
CHILD = 0.0  # what a process of its own does that nobody waits for

def burn(seconds):
    while time.process_time() < seconds:
        pass

burn(BEFORE)
if CHILD:
    code = f"import time\\nwhile time.process_time() < {CHILD}: pass"
    child = subprocess.Popen([sys.executable, "-c", code], env={}, start_new_session=True)
    while child.poll() is None:
        time.sleep(0.01)
burn(BEFORE + WORK)
time.sleep(SECONDS)
print(f"val_loss: {10 - WORK - BEFORE - SECONDS - CHILD:.6f}")
"""


@pytest.fixture
def greedy(tmp_path: Path) -> Settings:
    """Settings for one core of two, so that others can use the same."""
    return Settings.load(Project.make(tmp_path / "greedy", SCRIPT).root, "cpu:2")


async def begun(lab: Lab, **fields: object) -> Researcher:
    agent = Researcher(lab)
    await agent.begin(**{"time_budget_seconds": 1.0, **fields})
    return agent


BY_WALL = """\
import os
import time

LR = 1.0
end = time.monotonic() + float(os.environ["AUTORESEARCH_TIME_BUDGET"])
while time.monotonic() < end:
    pass
print("val_loss: 1")
"""


async def test_more_effort_than_the_budget_is_no_improvement(greedy: Settings) -> None:
    async with Lab.open(greedy) as lab:
        agent = await begun(lab)
        assert (await agent.baseline()).status == "keep"
        for knob, value in (("SECONDS", 4.5), ("BEFORE", 4.5), ("CHILD", 4.5), ("WORK", 4.0)):
            verdict = await agent.attempt(f"{knob} it is", knobs={knob: value})
            assert verdict.status == "discard", (knob, verdict)
            assert "more effort: " in verdict.reason
            assert " s of " in verdict.reason
        assert (await agent.attempt("another epoch", knobs={"WORK": 0.8})).status == "keep"


async def test_a_script_of_fixed_epochs_may_take_what_its_own_baseline_takes(greedy: Settings) -> None:
    async with Lab.open(greedy) as lab:
        agent = await begun(lab, time_budget_seconds=0.2)
        assert (await agent.baseline()).status == "keep"  # 0.5 s
        assert (await agent.attempt("a little more", knobs={"WORK": 0.6})).status == "keep"
        assert "more effort" in (await agent.attempt("epochs without end", knobs={"WORK": 4.0})).reason


@pytest.fixture
def crowd() -> Iterator[None]:
    """Others on every core, each in a session of its own: a system may share the cores out between sessions."""
    words = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(words, start_new_session=True) for _ in range(4 * (os.cpu_count() or 1))]
    yield
    for other in others:
        other.kill()
        other.wait()


async def test_a_starved_training_is_told_of_everywhere_and_not_judged(tmp_path: Path, crowd: None) -> None:
    settings = Settings.load(Project.make(tmp_path / "by-wall", BY_WALL).root, "cpu:1")
    async with Lab.open(settings) as lab:
        agent = await begun(lab, time_budget_seconds=4.0)
        starved = await agent.propose("the baseline", "other")
        trained = await lab.training.train(starved, wait_seconds=200)
        assert trained.status == "error"
        assert (trained.starved or "").startswith("starved: it had ")
        assert f"{MAX_LOST + 1} times over" in trained.next_action
        with pytest.raises(WrongState, match="was starved"):
            await lab.verdicts.complete(starved)
        told = f"{MAX_LOST + 1} trainings were starved and did not count; the last, {starved}.{MAX_LOST + 1}, starved"
        assert (await lab.reading.summary("mar8")).starved.startswith(told)
        assert "| Starved | " in ((await lab.reporting.report("mar8")).text or "")
