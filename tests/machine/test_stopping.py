"""Workers that a signal stopped are seen and replaced."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from mcp_server.machine import stopping
from mcp_server.machine.local_executor import LocalExecutor
from mcp_server.machine.locks import Holder
from mcp_server.machine.stopping import StoppedWorkers, worker_words
from tests.machine.test_worker import WALLS, script

ONCE = """
if not Path({folder!r}, "go").exists():
    note("pid")
    time.sleep(600)
print("loss: 1")
"""
STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); input()"


def woken(yard: Any, executor: LocalExecutor, condition: Any) -> None:
    """Do what a server at rest does, until something is true."""

    def look() -> Any:
        training = yard.stored(lambda store: store.trials.in_training())
        waiting = yard.stored(lambda store: store.trials.waiting("cpu"))
        executor.wake("cpu", waiting, set(training))
        time.sleep(0.1)
        return condition()

    yard.until(look, 60)


@pytest.mark.parametrize("sandbox", ["off", WALLS])
def test_a_stopped_worker_is_replaced_and_its_trial_runs_again(yard: Any, sandbox: str) -> None:
    trial = yard.queue(script(yard, ONCE))
    worker = yard.start()
    training = yard.noted()
    (yard.folder / "go").touch()
    worker.send_signal(signal.SIGSTOP)
    woken(yard, LocalExecutor(yard.settings), lambda: yard.trials(trial)[-1].status == "finished")
    assert [each.status for each in yard.trials(trial)] == ["lost", "finished"]
    assert worker.wait(5) == -signal.SIGKILL
    assert not yard.alive(training)
    yard.until(lambda: not yard.lock().is_held())


def test_one_that_was_stopped_on_its_way_keeps_no_other_from_coming(yard: Any) -> None:
    trial = yard.queue()
    coming = yard.lock().await_worker()
    words = [sys.executable, "-c", STOP, *worker_words("cpu:0")]
    with subprocess.Popen(words, pass_fds=[coming], stdin=subprocess.PIPE) as stopped:
        os.close(coming)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        woken(yard, LocalExecutor(yard.settings), lambda: yard.trials(trial)[-1].status == "finished")
        assert stopped.wait(5) == -signal.SIGKILL


def test_one_that_is_let_go_on_in_time_stays(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = yard.lock()
    coming = lock.await_worker()
    seen = StoppedWorkers()
    words = [sys.executable, "-c", STOP, *worker_words("cpu:0")]
    with subprocess.Popen(words, pass_fds=[coming], stdin=subprocess.PIPE) as process:
        os.close(coming)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert not seen.end(lock, worker_words("cpu:0"))
        process.send_signal(signal.SIGCONT)
        yard.until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
        monkeypatch.setattr(stopping, "STOPPED_SECONDS", 0.0)
        assert not seen.end(lock, worker_words("cpu:0"))
        assert process.poll() is None
        process.communicate(b"\n")
        assert process.returncode == 0


def test_nobody_elses_process_is_ended(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid in the lock may be another's by now, and other devices have workers of their own."""
    monkeypatch.setattr(stopping, "STOPPED_SECONDS", 0.0)
    lock = yard.lock()
    assert lock.take()
    with subprocess.Popen([sys.executable, "-c", STOP, *worker_words("cpu:1")], stdin=subprocess.PIPE) as other:
        os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
        lock.note(Holder(other.pid, "a repository"))
        assert not StoppedWorkers().end(lock, worker_words("cpu:0"))
        other.send_signal(signal.SIGCONT)
        other.communicate(b"\n")
        assert other.returncode == 0
    lock.release()
