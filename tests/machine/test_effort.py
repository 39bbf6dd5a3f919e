"""What a training takes is counted from outside: by a control group where there is one, and by looking, both ways."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.machine.cgroups import make_group

BURN = """
import os, subprocess, sys, threading, time
def burn(seconds):
    while time.thread_time() < seconds:
        pass
def fork(seconds, then=lambda: None):
    pid = os.fork()
    if not pid:
        burn(seconds); then(); os._exit(0)
    return pid
"""
WAYS = ("cgroup", "sampled")

SCRIPTS = {
    "alone": ("burn(1.2)", 1.2),
    "asleep": ("time.sleep(1.2)", 0.0),
    "threads": ("[t.start() for t in [threading.Thread(target=burn, args=(0.6,)) for _ in range(2)]]", 1.2),
    "waited for": ("[os.waitpid(fork(0.6), 0) for _ in range(2)]", 1.2),
    "alive at the end": ("fork(9); time.sleep(1.5)", 0.6),
    "nobody waits": (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); fork(1.2); time.sleep(0.1)\n"
        "try: os.wait()\n"
        "except ChildProcessError: pass",
        1.0,
    ),
    "forked twice": (
        "\nif not os.fork():\n    os.setsid(); fork(9); os._exit(0)\nos.wait(); time.sleep(1.5)",
        0.6,
    ),
    "without the mark": (
        "code = 'import time\\nwhile time.process_time() < 9: pass'\n"
        "subprocess.Popen([sys.executable, '-c', code], env={}, start_new_session=True); time.sleep(1.5)",
        0.6,
    ),
    "many short ones": ("[os.waitpid(fork(0.02), 0) for _ in range(60)]", 1.2),
    "short ones of one that ended": (
        "\nif not os.fork():\n    [os.waitpid(fork(0.02), 0) for _ in range(50)]; os._exit(0)\nos.wait()",
        1.0,
    ),
}


def ended(place: Any, script: str, way: str, **fields: Any) -> Any:
    if way == "cgroup" and make_group("probe") is None:
        pytest.skip("no control group can be made here")
    place.settings = replace(place.settings, groups=way == "cgroup")
    return place.ending(BURN + script + "\nprint('loss: 1')", place.task(**fields))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_all_that_a_training_starts_is_counted(yard: Any, name: str, way: str) -> None:
    script, least = SCRIPTS[name]
    end = ended(yard, script, way, budget=30)
    assert end.status == "finished", end.error
    assert end.counted_by == way
    start = 0.4  # of the interpreter itself
    assert 0.9 * least <= end.cpu_seconds <= 1.15 * least + (1.5 if least == 0.6 else start)
    assert end.wall_seconds > 0


@pytest.mark.parametrize("way", WAYS)
def test_processes_behind_walls_count(walled_yard: Any, way: str) -> None:
    end = ended(walled_yard, "fork(9); os.waitpid(fork(0.5), 0); time.sleep(0.7)", way, budget=30)
    assert (end.status, end.sandboxed, end.counted_by) == ("finished", True, way)
    assert 0.9 <= end.cpu_seconds <= 3
