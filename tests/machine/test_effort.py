"""What a training takes is counted from outside: by a control group where there is one, and by looking, both ways."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from mcp_server.machine.cgroups import make_group
from mcp_server.machine.cpu_users import CpuUsers
from mcp_server.machine.devices import Device, Nvml
from mcp_server.machine.effort import Meter
from mcp_server.research.contention import load
from mcp_server.research.experiment import MAX_LOST
from tests.machine.conftest import until

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
ready, done = os.pipe()
def endless():
    fork(0.6, lambda: (os.write(done, b'.'), burn(99)))
"""
WAYS = ("cgroup", "sampled")

SCRIPTS = {
    "alone": ("burn(1.2)", 1.2),
    "asleep": ("time.sleep(1.2)", 0.0),
    "threads": ("[t.start() for t in [threading.Thread(target=burn, args=(0.6,)) for _ in range(2)]]", 1.2),
    "waited for": ("[os.waitpid(fork(0.6), 0) for _ in range(2)]", 1.2),
    "alive at the end": ("endless(); os.read(ready, 1)", 0.6),
    "nobody waits": (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); fork(1.2); time.sleep(0.1)\n"
        "try: os.wait()\n"
        "except ChildProcessError: pass",
        1.0,
    ),
    "forked twice": (
        "\nif not os.fork():\n    os.setsid(); endless(); os._exit(0)\nos.wait(); os.read(ready, 1)",
        0.6,
    ),
    "without the mark": (
        "code = 'from time import process_time as spent\\nwhile spent() < 0.6: pass\\nprint(flush=True)\\n'\n"
        "code += 'while spent() < 1: pass'\n"
        "words = [sys.executable, '-c', code]\n"
        "subprocess.Popen(words, env={}, start_new_session=True, stdout=subprocess.PIPE).stdout.readline()",
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
    assert 0.9 * least <= end.cpu_seconds <= 1.2 * least + 0.5  # which the interpreter takes
    assert end.wall_seconds > 0


@pytest.mark.parametrize("way", WAYS)
def test_processes_behind_walls_count(walled_yard: Any, way: str) -> None:
    end = ended(walled_yard, "endless(); os.waitpid(fork(0.5), 0); os.read(ready, 1)", way, budget=30)
    assert (end.status, end.sandboxed, end.counted_by) == ("finished", True, way)
    assert 1 <= end.cpu_seconds <= 2.5


CROWD = 4
"""Processes that keep one core busy beside a training."""


@pytest.fixture
def crowded(yard: Any) -> Iterator[Any]:
    """A place to train in whose first device others use too; what runs without a worker is bound to it as well."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no process can be bound to a core here")
    core = yard.devices[0].cores[0]
    words = [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"]
    others = [subprocess.Popen(words, start_new_session=True) for _ in range(CROWD)]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [core])
    yield yard
    os.sched_setaffinity(0, cores)
    for other in others:
        other.kill()
        other.wait()


BY_WALL = """
import os, time
end = time.monotonic() + float(os.environ["AUTORESEARCH_TIME_BUDGET"])
while time.monotonic() < end:
    pass
print("loss: 0.5")
"""
BY_CPU = BY_WALL.replace("time.monotonic()", "time.process_time()")


def test_a_starved_training_is_run_again_and_then_the_machine_is_told_of(crowded: Any) -> None:
    trial = crowded.queue(BY_WALL, task=crowded.task(budget=3))  # a system may give a session half of a core
    assert crowded.start().wait(200) == 0
    tries = crowded.trials(trial)
    assert [(each.status, each.starved, each.seed, dict(each.metrics)) for each in tries] == [
        ("lost", True, 42, {})
    ] * (MAX_LOST + 1)
    last = tries[-1]
    assert last.error.startswith("starved: it had ")
    assert re.search(r"Others on its cores: \S+ \(pid \d+ of \S+, \d+\.\d s\)", last.error)
    assert last.cpu_seconds < 2.8 < last.cpu_seconds + last.waited_seconds + 0.3
    assert load(last) > 0.3


def test_a_training_that_goes_by_cpu_time_takes_longer_and_counts(crowded: Any) -> None:
    trial = crowded.queue(BY_CPU, task=crowded.task(budget=1, startup=1))
    assert crowded.start().wait(200) == 0
    (only,) = crowded.trials(trial)
    assert (only.status, only.error, only.starved) == ("finished", "", False)
    assert only.wall_seconds > 1.6  # others had half of it or more
    assert 1 <= only.cpu_seconds < 1.5
    assert only.effort_seconds < 2  # what it had to itself


def test_a_deadline_waits_for_what_others_had_and_not_for_sleep(crowded: Any) -> None:
    limits = crowded.task(budget=0.5, startup=0.5)  # 1.5 s
    asleep = crowded.ending("import time; time.sleep(30)", limits)
    assert asleep.status == "timed_out"
    assert asleep.wall_seconds < 6
    busy = crowded.ending(BY_CPU.replace("+ float", "+ 30 + float"), limits)
    assert busy.status == "timed_out"
    assert busy.wall_seconds > 2.2
    assert busy.cpu_seconds > 0.5


@pytest.mark.parametrize("choice", ["os.nice(15)", "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"])
def test_who_lets_others_go_first_is_not_starved_by_them(crowded: Any, choice: str) -> None:
    """Else a script could have itself run again until it likes what it drew."""
    trial = crowded.queue(f"import os\n{choice}\n{BY_WALL}", task=crowded.task(budget=2))
    assert crowded.start().wait(200) == 0
    (only,) = crowded.trials(trial)
    assert (only.status, only.starved) == ("finished", False), only.error
    assert only.waited_seconds < 1


def test_others_are_told_by_what_they_use() -> None:
    users = CpuUsers()
    users.look()
    with subprocess.Popen(
        [sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass\ninput()"], stdin=subprocess.PIPE
    ) as other:
        process = psutil.Process(other.pid)
        until(lambda: sum(process.cpu_times()[:2]) >= 0.4)
        strangers = set(psutil.pids()) - {other.pid}
        users.look(strangers)
        (only,) = users.most(strangers)
        assert (only.pid, only.owner) == (other.pid, process.username())
        assert only.seconds >= 0.3
        assert str(only).startswith("python")
        other.communicate(b"\n")


@pytest.mark.parametrize("way", WAYS)
def test_what_was_handed_in_ends_what_counts(yard: Any, way: str) -> None:
    script = "out = os.environ['AUTORESEARCH_OUT'] + '/model.pickle'\nburn(0.5)\nopen(out, 'w').write('weights')\n"
    judged = {"rescore_command": "python scoring.py", "judge_command": "python j.py", "builtin": True}
    task = replace(yard.task(budget=30), **judged)
    yard.settings = replace(yard.settings, groups=way == "cgroup")
    for after, least, most in (
        ("burn(1.5)", 0.45, 1.2),  # evaluated afterwards
        ("burn(1.5)\nopen(out, 'w').write('others')", 1.3, 2.3),  # handed in anew
        ("burn(1.5)\nos.utime(out, (1, 1))", 1.3, 2.3),
        ("import mmap\nm = mmap.mmap(os.open(out, os.O_RDWR), 7)\nm[0:1] = b'W'\nburn(1.5)\nm[0:1] = b'V'", 1.3, 2.3),
        ("burn(1.5)\nopen(out + '.more', 'wb').write(bytes(10**5))", 0.45, 1.2),  # which nobody will see
        ("os.rename(out, out + '2')\nburn(1.5)\nos.rename(out + '2', out)", 1.3, 2.3),
    ):
        end = yard.ending(f"{BURN}{script}{after}\nprint('loss: 1')", task)
        assert end.status == "finished", end.error
        assert least <= end.effort_seconds <= most, (after, end)
        assert end.cpu_seconds >= 1.4


@pytest.mark.parametrize("ours", [{"rescore_command": "python s.py"}, {"builtin": False}])
def test_where_a_scorer_sees_all_that_is_left_all_counts(yard: Any, ours: dict[str, Any]) -> None:
    """Else a script would leave a file of such a name, and train on for what its scorer reads."""
    judged = {"rescore_command": "python scoring.py", "judge_command": "python j.py", "builtin": True}
    script = "open(os.environ['AUTORESEARCH_OUT'] + '/program.json', 'w').close()\nburn(1.2)\nprint('loss: 1')"
    end = yard.ending(BURN + script, replace(yard.task(budget=30), **(judged | ours)))
    assert end.status == "finished", end.error
    assert end.effort_seconds >= 1.1


class Gpu:
    """A driver that says how busy a GPU is; `busy` in percent."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, busy: int | None) -> None:
        self.busy = busy

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        if self.busy is None:
            raise OSError("not supported")
        return SimpleNamespace(gpu=self.busy)


@pytest.mark.parametrize(("busy", "share"), [(95, 0.05), (0, 1.0), (None, 1.0)])
def test_the_seconds_in_which_a_gpu_was_idle(busy: int | None, share: float) -> None:
    device = Device("cuda", "GPU-1", "H100", uuid="GPU-1")
    meter = Meter(device, "nobody's mark", nvml=cast(Nvml, Gpu(busy)))
    try:
        meter.begin()
        started = time.monotonic()
        until(lambda: time.monotonic() > started + 0.3)
        meter.look()
        effort = meter.end()
    finally:
        meter.close()
    assert effort.seconds >= 0.3
    assert effort.idle_seconds == pytest.approx(share * effort.seconds, rel=0.3)
    assert (effort.waited_seconds, effort.users) == (0, ())


def test_groups_of_workers_that_are_no_more_are_deleted() -> None:
    group = make_group("mine")
    if group is None:
        pytest.skip("no control group can be made here")
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, other = (group.folder.with_name(f"autoresearch-{'0' * 16}-{pid}-1") for pid in (gone.pid, os.getpid()))
    left.mkdir()
    other.mkdir()
    try:
        again = make_group("mine")
        assert again is not None
        assert not group.folder.exists()
        assert not left.exists()
        assert other.exists()
        again.remove()
        assert not again.folder.exists()
    finally:
        other.rmdir()
