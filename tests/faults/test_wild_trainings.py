"""Trainings that misbehave, seen from a server: they are ended, bounded and judged like any other."""

import asyncio
import time

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.machine.logfile import HEAD, TAIL
from tests.faults.invariants import violations
from tests.faults.scene import TAG, Scene, begun, go_on, register, try_out, until

pytestmark = pytest.mark.anyio

DEAF = """
import signal, subprocess, sys, time
RATE = 0.1
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])
print("at work", flush=True)
time.sleep(600)
"""
DAEMON = """
import os, signal, time
RATE = 0.1
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 1000)
        time.sleep(600)
    os._exit(0)
print("at work", flush=True)
"""
FLOOD = """
import os, sys, time
RATE = 0.1
line = b"x" * 199 + b"\\n"
print("at work", flush=True)
while not os.path.exists(os.path.join(os.environ["AUTORESEARCH_CACHE"], "measured", "go")):
    sys.stdout.buffer.write(line * 5000)
sys.stdout.buffer.flush()
print("loss:", 10 - RATE)
"""
BINARY = """
import os, sys
RATE = 0.1
sys.stdout.buffer.write(os.urandom(100_000) + b"\\x00\\xff\\xfe\\r\\n\\x1b[2J\\x1b]0;title\\x07\\nloss: 9.9\\n")
"""


async def begin_to_train(lab: Lab, scene: Scene) -> str:
    """Register the baseline, and wait until it trains; its id."""
    baseline = await register(lab)
    await lab.training.train(baseline, wait_seconds=0)
    until(lambda: "at work" in scene.log(f"{baseline}.1"))
    return baseline


async def test_one_that_ignores_signals_is_stopped_with_its_children(either: Scene) -> None:
    either.rewrite(DEAF)
    async with begun(either) as lab:
        baseline = await begin_to_train(lab, either)
        until(lambda: either.log(f"{baseline}.1").count("at work") == 2)
        began = time.monotonic()
        assert (await lab.training.stop(baseline)).status == "stopped"
        assert time.monotonic() - began < 20
        until(lambda: not either.workers())
        assert either.trainings() == []
        assert (await lab.verdicts.crash(baseline, "it cannot be stopped politely")).status == "crash"
    assert violations(either) == []


async def test_one_that_leaves_a_daemon_gives_its_device_back(either: Scene) -> None:
    either.rewrite(f"{DAEMON}time.sleep(0.2)\nprint('loss:', 10 - RATE)\n")
    async with begun(either) as lab:
        assert await try_out(lab) == "keep"
        assert await try_out(lab, "better", knobs={"RATE": 0.2}) == "keep"
    until(lambda: not either.workers())
    assert violations(either) == []


async def test_one_whose_daemon_outlives_the_killed_worker_too(either: Scene) -> None:
    either.rewrite(f"{DAEMON}time.sleep(600)\n")
    async with begun(either) as lab:
        baseline = await begin_to_train(lab, either)
        daemon = either.trainings()
        for worker in either.workers():
            worker.kill()
        # No call is made: a server at rest heals too.
        await asyncio.to_thread(until, lambda: "at work" in either.log(f"{baseline}.2"))
        assert not [process for process in daemon if process.is_running() and process.status() != "zombie"]
        await lab.training.stop(baseline)
        await lab.verdicts.crash(baseline, "it hangs")
    until(lambda: not either.workers())
    assert violations(either) == []


async def test_one_that_floods_its_log_stalls_nobody(either: Scene) -> None:
    either.rewrite(FLOOD)
    async with begun(either) as lab:
        baseline = await begin_to_train(lab, either)
        log = either.state / "trials" / f"{baseline}.1" / "log.txt"
        until(lambda: log.stat().st_size > HEAD)
        began = time.monotonic()
        excerpt = await lab.training.logs(baseline, lines=5)
        assert (await lab.reading.history(TAG)).total == 1
        assert time.monotonic() - began < 5
        assert len(excerpt.lines) < 25_000
        either.let_go()
        await go_on(lab, f"Call train({baseline!r})")
        assert (await lab.reading.best(TAG)).experiment
    assert log.stat().st_size < HEAD + TAIL + 1000
    until(lambda: not either.workers())
    assert violations(either) == []


async def test_one_that_prints_binary_is_judged_and_its_log_is_shown_as_text(either: Scene) -> None:
    either.rewrite(BINARY)
    async with begun(either) as lab:
        assert await try_out(lab) == "keep"
        shown = (await lab.training.logs(f"{TAG}-1", lines=500)).lines
        assert shown.rstrip().endswith("loss: 9.9") or "loss: 9.9" in shown
        assert not [character for character in shown if ord(character) < 32 and character not in "\n\t"]
    until(lambda: not either.workers())
    assert violations(either) == []
