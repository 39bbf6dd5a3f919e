"""Workers, as real processes on real files: what they train, what they survive, what they leave."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.machine import result
from mcp_server.machine.environment import launched
from mcp_server.machine.local_executor import LocalExecutor
from mcp_server.machine.recording import patiently
from mcp_server.machine.sandbox import probe
from mcp_server.machine.store import Refused
from mcp_server.machine.worker import start_worker
from mcp_server.research.experiment import Ending

WALLS = pytest.param("require", marks=pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox"))
NOTE_PID = """
import os, sys, time
from pathlib import Path
def note(name, number=None):
    part = Path({folder!r}, name + ".part")
    part.write_text(str(number or os.getpid()))
    part.rename(Path({folder!r}, name))
"""
HANG = "note('pid'); time.sleep(600)"
ONLY_ONE = """
place = Path({folder!r}, "in use")
place.touch(exist_ok=False)
time.sleep(0.1)
place.unlink()
print("loss: 1")
"""
START_AND_EXIT = """
import signal, sys
from pathlib import Path
from mcp_server.machine.devices import find_devices
from mcp_server.machine.worker import start_worker
from mcp_server.settings import Settings
{before}
folder = Path({folder!r})
settings = Settings(folder / "repo", folder / "state", folder / "cache", folder / "locks", "cpu:2", sandbox="off")
start_worker(settings, find_devices("cpu:2")[0])
"""


def script(yard: Any, text: str) -> str:
    return (NOTE_PID + text).format(folder=str(yard.folder))


def test_a_worker_trains_what_is_queued_in_order_and_exits(yard: Any) -> None:
    queued = [yard.queue(f"print('loss: {number}')") for number in range(3)]
    yard.work()
    ended = [yard.trials(trial)[-1] for trial in queued]
    assert [trial.metrics for trial in ended] == [{"loss": number} for number in range(3)]
    assert {trial.status for trial in ended} == {"finished"}
    assert ended[0].ended_at <= ended[1].started_at
    assert ended[1].ended_at <= ended[2].started_at
    assert ended[0].device == "cpu:0"
    assert sorted(path.name for path in yard.folders.trial(ended[0].id).iterdir()) == ["log.txt", "out", "result.json"]
    assert not yard.lock().is_held()


def test_the_queue_goes_on_without_a_server_and_exit_codes_survive_an_ignored_sigchld(yard: Any) -> None:
    failing, good = yard.queue("raise SystemExit(3)"), yard.queue()
    server = START_AND_EXIT.format(before="signal.signal(signal.SIGCHLD, signal.SIG_IGN)", folder=str(yard.folder))
    subprocess.run([sys.executable, "-c", server], check=True)
    yard.until(lambda: yard.trials(good)[-1].status == "finished")
    (trial,) = yard.trials(failing)
    assert (trial.status, trial.exit_code) == ("failed", 3)
    yard.until(lambda: not yard.lock().is_held())


def test_a_started_worker_is_nobodys_child_even_if_its_first_launch_is_killed(
    yard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    dies_once = f'test -e {killed} || {{ touch {killed}; kill -KILL $$; }}; exec "$@"'
    monkeypatch.setattr(
        "mcp_server.machine.worker.launched", lambda *words: ["sh", "-c", dies_once, "sh", *launched(*words)]
    )
    trial = yard.queue(script(yard, HANG))
    start_worker(yard.settings, yard.devices[0])
    yard.noted()
    assert killed.exists()
    holder = yard.lock().holder()
    assert (holder.trial, holder.repo) == (trial.id, str(yard.repo))
    with pytest.raises(ChildProcessError):
        os.waitpid(holder.pid, os.WNOHANG)
    os.kill(holder.pid, signal.SIGTERM)
    yard.until(lambda: not yard.lock().is_held())


def test_a_result_on_the_disk_is_not_lost_with_its_worker(yard: Any) -> None:
    yard.queue()
    trial = yard.stored(lambda store: store.trials.claim("cpu:0", "cpu", 1))
    folder = yard.folders.trial(trial.id)
    folder.mkdir(parents=True)
    result.reserve(folder)
    result.write(folder, trial, Ending("finished", time.time(), 0, {"loss": 0.25}))
    yard.work()
    (healed,) = yard.trials(trial)
    assert (healed.status, healed.metrics) == ("finished", {"loss": 0.25})


@pytest.mark.parametrize("sandbox", ["off", WALLS])
def test_a_result_that_a_training_may_have_written_itself_counts_as_its_own_word(yard: Any, sandbox: str) -> None:
    yard.settings = replace(yard.settings, sandbox=sandbox)
    yard.queue()
    trial = yard.stored(lambda store: store.trials.claim("cpu:0", "cpu", 1))
    folder = yard.folders.trial(trial.id)
    folder.mkdir(parents=True)
    result.write(folder, trial, Ending("finished", time.time(), 0, {"loss": 0.25}, verification="verified"))
    yard.work()
    (healed,) = yard.trials(trial)
    assert (healed.status, healed.metrics) == ("finished", {"loss": 0.25})
    assert healed.verification == ("reported" if sandbox == "off" else "verified")


WRITE = """
import sqlite3
with sqlite3.connect({folder!r} + "/state/research.db") as store:
    {statements}
time.sleep({seconds})
print("loss: 0.1")
"""
FINISH = """store.execute("UPDATE trials SET status = 'finished', metrics = '{{}}' WHERE status = 'training'")
    store.execute("UPDATE experiments SET status = 'trained'")
    store.execute("UPDATE experiments SET status = 'keep', value = 0.1, decided = 7, decided_at = 1, reason = 'me'")"""
UNGUARDED = 'store.execute("DROP TRIGGER legal_transitions"); store.execute("DROP TRIGGER ended_is_immutable")\n    '


@pytest.mark.parametrize("statements", [FINISH, UNGUARDED + FINISH])
def test_a_training_that_writes_into_the_record_is_ended_and_rejected(yard: Any, statements: str) -> None:
    text = (NOTE_PID + WRITE.replace("{statements}", statements)).format(folder=str(yard.folder), seconds=600)
    trial = yard.queue(text)
    yard.work()
    experiment = yard.stored(lambda store: store.experiments.get(trial.experiment_id))
    assert (experiment.status, experiment.value, experiment.decided) == ("discard", None, 8)
    assert experiment.reason.startswith(f"rejected: the record of {trial.id} (it says finished, keep) was written")
    (rejected,) = yard.trials(trial)
    assert (rejected.status, rejected.metrics, rejected.error) == ("failed", {}, experiment.reason)
    with (
        sqlite3.connect(yard.folders.store) as store,
        pytest.raises(sqlite3.IntegrityError, match="illegal transition"),
    ):
        store.execute("UPDATE experiments SET status = 'keep'")
    with sqlite3.connect(yard.folders.store) as store, pytest.raises(sqlite3.IntegrityError, match="immutable"):
        store.execute("UPDATE trials SET status = 'finished'")


def test_what_is_handed_in_goes_once_it_is_scored(yard: Any) -> None:
    left = "for name in ('program.json', 'program.bin', 'model.pickle', 'summary.json'):"
    trial = yard.queue(
        f"import os, pathlib\n{left} pathlib.Path(os.environ['AUTORESEARCH_OUT'], name).touch()\nprint('loss: 1')"
    )
    yard.work()
    assert [path.name for path in yard.folders.out(trial.id).iterdir()] == ["summary.json"]


def test_another_devices_trials_are_left_alone(yard: Any) -> None:
    yard.queue()
    trial = yard.stored(lambda store: store.trials.claim("cpu:1", "cpu", 1))
    yard.work("cpu:0")
    assert yard.trials(trial)[-1].status == "training"
    yard.work("cpu:1")
    assert [trial.status for trial in yard.trials(trial)] == ["lost", "finished"]


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1000)
        note("pid")
        time.sleep(600)
    os._exit(0)
"""
NAMELESS = """
import subprocess
if os.fork() == 0:
    note("pid", subprocess.Popen(["sleep", "600"], env={{}}, start_new_session=True).pid)
    os._exit(0)
"""
WAIT = """
while not Path({folder!r}, "pid").exists():
    time.sleep(0.01)
print("loss: 1", flush=True)
"""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to the worker")


@pytest.mark.parametrize("leave", [DAEMON, pytest.param(NAMELESS, marks=needs_linux)])
def test_nothing_of_a_training_outlives_it(yard: Any, leave: str) -> None:
    trial, following = yard.queue(script(yard, leave + WAIT)), yard.queue()
    yard.work()
    assert yard.trials(trial)[-1].status == yard.trials(following)[-1].status == "finished"
    assert not yard.alive(yard.noted())


def test_what_a_killed_worker_left_on_the_device_is_killed_before_it_is_used(yard: Any) -> None:
    once = "if Path({folder!r}, 'leader').exists(): print('loss: 1'); sys.exit()\n"
    trial = yard.queue(script(yard, once + DAEMON + WAIT + "note('leader'); time.sleep(600)"))
    worker = yard.start()
    leader, daemon = yard.noted("leader"), yard.noted("pid")
    worker.kill()
    worker.wait()
    assert yard.alive(daemon)
    yard.work()
    assert not yard.alive(leader)
    assert not yard.alive(daemon)
    assert yard.trials(trial)[-1].status == "finished"


def test_a_device_has_one_worker_at_a_time(yard: Any) -> None:
    queued = [yard.queue(script(yard, ONLY_ONE)) for _ in range(4)]
    for worker in [yard.start() for _ in range(3)]:
        assert worker.wait(30) == 0
    assert [yard.trials(trial)[-1].status for trial in queued] == ["finished"] * 4


def test_two_devices_train_at_the_same_time(yard: Any) -> None:
    meet = """
name = os.environ["AUTORESEARCH_SEED"]
note(name)
while len(list(Path({folder!r}).glob("seed-[ab]"))) < 2:
    note("seed-" + sys.argv[1])
    time.sleep(0.01)
print("loss:", os.sched_getaffinity(0).pop() if hasattr(os, "sched_getaffinity") else 0)
"""
    queued = [yard.queue(script(yard, meet), task=yard.task(command=f"python train.py {name}")) for name in "ab"]
    workers = [yard.start("cpu:0"), yard.start("cpu:1")]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    trials = [yard.trials(trial)[-1] for trial in queued]
    assert [trial.status for trial in trials] == ["finished"] * 2
    assert {trial.device for trial in trials} == {"cpu:0", "cpu:1"}


def test_a_stop_ends_the_training_and_the_queue_goes_on(yard: Any) -> None:
    trial, following = yard.queue(script(yard, HANG)), yard.queue()
    worker = yard.start()
    training = yard.noted()
    yard.stored(lambda store: store.trials.stop(trial.id))
    assert worker.wait(30) == 0
    assert not yard.alive(training)
    assert yard.trials(trial)[-1].status == "stopped"
    assert yard.trials(following)[-1].status == "finished"
    assert yard.stored(lambda store: store.experiments.get(trial.experiment_id)).status == "trained"


def test_a_terminated_worker_ends_its_training_and_queues_it_again(yard: Any) -> None:
    trial, following = yard.queue(script(yard, HANG)), yard.queue()
    worker = yard.start()
    training = yard.noted()
    worker.terminate()
    assert worker.wait(30) == 0
    assert not yard.alive(training)
    assert [trial.status for trial in yard.trials(trial)] == ["lost", "queued"]
    assert yard.trials(following)[-1].status == "queued"


def test_a_device_that_cannot_be_freed_is_stuck_and_not_used(yard: Any) -> None:
    trial = yard.queue()
    lock = yard.lock()
    busy = lock.mark_busy()
    yard.work()
    assert lock.is_busy()
    assert not lock.is_held()
    assert yard.trials(trial)[-1].status == "queued"
    os.close(busy)
    yard.work()
    assert yard.trials(trial)[-1].status == "finished"


def test_a_checkout_that_fails_is_an_ending_and_the_queue_goes_on(yard: Any) -> None:
    good = yard.queue()
    missing = yard.queue(commit="0" * 40)
    following = yard.queue(commit=yard.git("rev-parse", "HEAD"))
    yard.work()
    (trial,) = yard.trials(missing)
    assert trial.status == "failed"
    assert "could not be trained" in trial.error
    assert yard.stored(lambda store: store.experiments.get(missing.experiment_id)).status == "crash"
    assert yard.trials(good)[-1].status == yard.trials(following)[-1].status == "finished"


def test_a_lock_file_deleted_under_a_worker_does_not_stop_the_next(yard: Any) -> None:
    lock = yard.lock()
    assert lock.take()
    (yard.settings.locks / "cpu-0.lock").unlink()
    assert yard.lock().take()
    lock.release()


def test_refused_writes_are_tried_again() -> None:
    refusals = [Refused("The disk is full", "Free some space"), Refused("The store is locked", "Call again")]

    async def attempt() -> int:
        if refusals:
            raise refusals.pop()
        return 7

    assert asyncio.run(patiently(attempt)) == 7


def test_a_second_worker_is_not_started_while_the_first_is_coming(yard: Any) -> None:
    lock = yard.lock()
    trial = yard.queue()
    coming = lock.await_worker()
    assert coming is not None
    LocalExecutor(yard.settings).wake("cpu", 1, set())
    start_worker(yard.settings, yard.devices[0])
    assert [each.status for each in yard.trials(trial)] == ["queued"]
    os.close(coming)
    assert not lock.is_awaited()
    LocalExecutor(yard.settings).wake("cpu", 1, set())
    assert lock.is_awaited() or lock.is_held() or yard.trials(trial)[-1].status != "queued"
    yard.until(lambda: yard.trials(trial)[-1].status == "finished")
    yard.until(lambda: not lock.is_held() and not lock.is_awaited())


def test_a_worker_that_is_killed_on_its_way_is_awaited_no_longer(yard: Any) -> None:
    lock = yard.lock()
    coming = lock.await_worker()
    with subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=[coming], stdin=subprocess.PIPE) as child:
        os.close(coming)
        assert lock.is_awaited()
        child.kill()
    assert not lock.is_awaited()
