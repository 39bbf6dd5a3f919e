"""What the machine does to a training says nothing about the idea: it is tried again, and then told as an error."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_server.machine import memory
from mcp_server.machine.sandbox import probe
from mcp_server.research.experiment import MAX_LOST
from tests.machine.test_rescoring import HONEST, JUDGE, SCORER, WALLS, task

DIES = """
import os, pathlib, signal
deaths = pathlib.Path({file!r})
if len(deaths.read_text()) < {times}:
    deaths.write_text(deaths.read_text() + "x")
    {death}
"""
DIES_ONCE = """
import os, pathlib
if not pathlib.Path("seen").exists():
    pathlib.Path("seen").touch()
    os.kill(os.getpid(), 9)
print("loss: 1")
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


def doomed(yard: Any, times: int, death: str = KILLED) -> str:
    """The beginning of a script that is killed so many times before it goes on; behind walls its count is in a pipe."""
    file = yard.settings.cache / "measured" / "deaths"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    return DIES.format(file=str(file), times=times, death=death)


@pytest.mark.parametrize("sandbox", ["off", WALLS])
def test_a_judge_that_is_killed_is_asked_again(yard: Any, sandbox: str) -> None:
    yard.settings = replace(yard.settings, sandbox=sandbox)
    (yard.repo / "score.py").write_text(SCORER)
    (yard.repo / "judge.py").write_text(doomed(yard, 2) + JUDGE)
    trial = yard.queue(HONEST.format(weight=0.5, loss=1.5), task=task(yard))
    yard.work()
    (ended,) = yard.trials(trial)
    assert (ended.status, ended.metrics["loss"], ended.error) == ("finished", 1.5, "")


@pytest.mark.parametrize(("who", "death"), [("score.py", KILLED), ("judge.py", KILLED.replace("KILL", "TERM"))])
def test_who_is_killed_whenever_it_scores_leads_to_an_error_and_no_verdict(yard: Any, who: str, death: str) -> None:
    for name, text in (("score.py", SCORER), ("judge.py", JUDGE)):
        (yard.repo / name).write_text((doomed(yard, 1000, death) if name == who else "") + text)
    trial = yard.queue(HONEST.format(weight=0.5, loss=1.5), task=task(yard))
    assert yard.start().wait(120) == 0
    ended = yard.trials(trial)
    assert [each.status for each in ended] == ["lost"] * (MAX_LOST + 1)
    assert f"The {who[:-3]}".replace("score", "scorer") in ended[-1].error
    assert "was killed (SIG" in ended[-1].error
    assert {each.seed for each in ended} == {42}
    experiment = yard.stored(lambda store: store.experiments.get(trial.experiment_id))
    assert (experiment.status, experiment.decided) == ("trained", None)


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("raise MemoryError", "The judge ran out of memory"),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "The judge crashed (SIGSEGV)"),
    ],
)
def test_a_judge_that_fails_for_want_of_something_judges_nothing(yard: Any, judge: str, said: str) -> None:
    (yard.repo / "score.py").write_text(SCORER)
    (yard.repo / "judge.py").write_text(f"import os\n{judge}")
    trial = yard.queue(HONEST.format(weight=0.5, loss=1.5), task=task(yard))
    assert yard.start().wait(120) == 0
    assert [each.status for each in yard.trials(trial)] == ["lost"] * (MAX_LOST + 1)
    assert said in yard.trials(trial)[-1].error


def test_a_scorer_that_crashes_by_what_was_handed_in_is_still_a_rejection(yard: Any) -> None:
    (yard.repo / "score.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (yard.repo / "judge.py").write_text(JUDGE)
    trial = yard.queue(HONEST.format(weight=0.5, loss=1.5), task=task(yard))
    yard.work()
    (ended,) = yard.trials(trial)
    assert ended.status == "finished"
    assert ended.error.startswith("rejected")


@pytest.mark.parametrize("sandbox", ["off", WALLS])
@pytest.mark.parametrize("field", ["checks", "score_command"])
def test_a_check_or_scorer_of_the_task_that_is_killed_is_run_again(yard: Any, sandbox: str, field: str) -> None:
    """Between two tries it finds what it left: its checkout is the same."""
    yard.settings = replace(yard.settings, sandbox=sandbox)
    (yard.repo / "check.py").write_text(DIES_ONCE)
    command = "python check.py"
    value = (command,) if field == "checks" else command
    trial = yard.queue(task=replace(yard.task(), **{field: value}))
    yard.work()
    (ended,) = yard.trials(trial)
    assert (ended.status, ended.error) == ("finished", "")
    always = "import os; os.kill(os.getpid(), 9)"
    (yard.repo / "check.py").write_text(always)
    ended = yard.ending(yard.good, replace(yard.task(), **{field: value}))
    assert ended.status == "lost"
    assert "was killed (SIGKILL" in ended.error


FAKE = """#!/bin/sh
case "$*" in *{folder}*)
    if [ "$(wc -c < {count})" -lt {times} ]; then
        printf x >> {count}
        {fault}
    fi;;
esac
exec {real} "$@"
"""
FAULTS = {
    "no namespaces": "echo 'bwrap: Creating new namespace failed: Resource temporarily unavailable' >&2; exit 1",
    "killed": "kill -KILL $$",
}


@pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox")
@pytest.mark.parametrize(("fault", "times"), [("no namespaces", 1000), ("killed", 1)])
def test_walls_that_cannot_be_built_fail_no_idea(
    yard: Any, monkeypatch: pytest.MonkeyPatch, fault: str, times: int
) -> None:
    yard.settings = replace(yard.settings, sandbox="require")
    programs, count = yard.folder / "programs", yard.folder / "count"
    programs.mkdir()
    count.touch()
    words = {"folder": yard.folder, "count": count, "times": times, "real": probe()[0], "fault": FAULTS[fault]}
    (programs / "bwrap").write_text(FAKE.format(**words))
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    trial = yard.queue()
    assert yard.start().wait(120) == 0
    ended = yard.trials(trial)
    if times == 1:
        assert [each.status for each in ended] == ["lost", "finished"]
    else:
        assert [each.status for each in ended] == ["lost"] * (MAX_LOST + 1)
    assert "could not be started" in ended[0].error
    assert yard.stored(lambda store: store.experiments.get(trial.experiment_id)).status == "trained"


def test_words_like_those_of_the_walls_are_not_believed(walled_yard: Any) -> None:
    end = walled_yard.ending("import sys; print('bwrap: Creating new namespace failed', file=sys.stderr); sys.exit(1)")
    assert end.status == "failed"


def test_walls_that_are_killed_from_outside_fail_no_idea(walled_yard: Any) -> None:
    yard = walled_yard
    wait = "import os, time, pathlib\npathlib.Path(os.environ['AUTORESEARCH_OUT'], 'on').touch()\n"
    wait += f"while not os.path.exists({str(yard.repo / 'go')!r}): time.sleep(0.01)\nprint('loss: 1')"
    trial = yard.queue(wait)
    worker = yard.start()
    yard.until(lambda: (yard.folders.out(trial.id) / "on").exists())
    for each in psutil.Process(worker.pid).children():
        if each.name() == "bwrap" and each.status() != psutil.STATUS_ZOMBIE:
            each.kill()
    (yard.repo / "go").touch()
    assert worker.wait(60) == 0
    ended = yard.trials(trial)
    assert [each.status for each in ended] == ["lost", "finished"]
    assert "killed from outside (SIGKILL)" in ended[0].error


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk; needs the right to mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "autoresearch-test", str(folder)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(("others", "status"), [(True, "lost"), (False, "failed")])
@pytest.mark.parametrize("sandbox", ["off", WALLS])
def test_a_disk_that_others_filled_fails_no_idea(yard: Any, others: bool, status: str, sandbox: str) -> None:
    yard.settings = replace(yard.settings, sandbox=sandbox)
    with disk(yard.settings.state, "16m"):
        if others:
            (yard.settings.state / "theirs").write_bytes(bytes(16_400_000))
        end = yard.ending("import os; open(os.environ['AUTORESEARCH_OUT'] + '/weights', 'wb').write(bytes(30_000_000))")
    assert end.status == status, end.error
    assert ("is full, and not with what the training wrote" in end.error) == others


OUT_OF_SIGHT = """
import os
os.chdir(os.environ["AUTORESEARCH_OUT"])
for _ in range(18):
    os.mkdir("d" * 240)
    os.chdir("d" * 240)
open("weights", "wb").write(bytes(30_000_000))
"""


def test_a_disk_that_a_training_filled_where_no_path_leads_is_its_own_doing(yard: Any) -> None:
    """Else it would be run again until it likes what it drew."""
    with disk(yard.settings.state, "16m"):
        end = yard.ending(OUT_OF_SIGHT)
    assert (end.status, "No space left" in end.error) == ("failed", True)


def test_a_disk_that_is_full_before_it_begins_fails_no_idea(yard: Any) -> None:
    with disk(yard.settings.state, "4m"):
        with pytest.raises(OSError, match="No space left"):
            (yard.settings.state / "theirs").write_bytes(bytes(8_000_000))
        end = yard.ending(yard.good)
    assert (end.status, "No space left" in end.error) == ("lost", True)


def test_to_say_that_the_disk_is_full_is_not_enough(yard: Any) -> None:
    end = yard.ending("raise OSError(28, 'No space left on device')")
    assert end.status == "failed"


MEGABYTE = 1024 * 1024
HOG = """
import sys, time
held = bytearray(int(sys.argv[1]))
for place in range(0, len(held), 4096):
    held[place] = 1
print("loss: 1", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def group(limit: int) -> Iterator[Path]:
    """The file through which a process enters a control group with so many bytes of memory; needs the right to it."""
    for root, name in ((memory.GROUPS / "memory", "memory.limit_in_bytes"), (memory.GROUPS, "memory.max")):
        folder = root / f"autoresearch-test-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / name).write_text(str(limit))
        except OSError:
            folder.rmdir() if folder.exists() else None
            continue
        yield folder / "cgroup.procs"
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            try:
                folder.rmdir()
            except OSError:
                time.sleep(0.05)
        return
    pytest.skip("no control group for memory can be made")


@pytest.mark.parametrize(("theirs", "its", "status"), [(170, 260, "lost"), (20, 600, "failed")])
def test_memory_that_others_use_fails_no_idea(yard: Any, theirs: int, its: int, status: str) -> None:
    """The system kills the training in both cases; in one of them it is too large by itself."""
    with group(300 * MEGABYTE) as entrance:
        words = ["sh", "-c", f'echo $$ > {entrance}; exec "$@"', "sh", sys.executable, "-c", HOG]
        hog = subprocess.Popen([*words, str(theirs * MEGABYTE), "600"], stdout=subprocess.PIPE)
        try:
            assert hog.stdout is not None
            hog.stdout.readline()
            first = "open('/proc/self/oom_score_adj', 'w').write('1000')"
            trial = yard.queue(f"{first}{HOG}", task=yard.task(command=f"python train.py {its * MEGABYTE} 0"))
            worker = yard.start()
            entrance.write_text(str(worker.pid))
            assert worker.wait(60) == 0
        finally:
            hog.kill()
            hog.communicate()
    ended = yard.trials(trial)
    assert {each.status for each in ended} == {status}, [each.error for each in ended]
    if status == "lost":
        assert len(ended) == MAX_LOST + 1
        assert "others use" in ended[-1].error
    else:
        assert ended[0].error.startswith("Out of memory")


def test_a_worker_that_is_told_to_end_does_not_wait_for_the_machine(yard: Any) -> None:
    (yard.repo / "check.py").write_text("import os; os.kill(os.getpid(), 9)")
    trial = yard.queue(task=replace(yard.task(), checks=("python check.py",)))
    worker = yard.start()
    yard.until(lambda: len(yard.trials(trial)) == 2)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
