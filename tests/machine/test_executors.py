"""What a training meets, and what becomes of it, is the same on this machine and in a cluster."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.machine.sandbox import probe
from tests.machine.conftest import ClusterYard, Yard
from tests.machine.test_rescoring import HONEST, JUDGE, SCORER

NOTE = """
import os, sys, time
from pathlib import Path
def note(name, number=None):
    part = Path({folder!r}, name + ".part")
    part.write_text(str(number or os.getpid()))
    part.rename(Path({folder!r}, name))
"""
HANG = "note('pid'); time.sleep(600)"


@pytest.fixture(params=["local", "ray"])
def yard(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A place to train in, on one device."""
    local = request.param == "local"
    place = Yard(tmp_path, "cpu:1") if local else ClusterYard(tmp_path, request.getfixturevalue("nodes"))
    yield place
    place.close()


def script(yard: Any, text: str) -> str:
    return (NOTE + text).format(folder=str(yard.folder))


def test_trials_are_trained_in_order_and_every_end_is_told_apart(yard: Any) -> None:
    endings = {
        "print('loss: 0.5'); open(os.environ['AUTORESEARCH_OUT'] + '/model', 'w').write('weights')": ("finished", ""),
        "print('loss: 1'); sys.exit(3)": ("failed", "Exit code 3"),
        "print('no score')": ("failed", "no metric loss"),
        "print('loss: nan')": ("failed", "diverged"),
        "raise MemoryError('out of memory')": ("failed", "Out of memory"),
        "os.kill(os.getpid(), 9)": ("failed", "SIGKILL"),
        "open('train.py', 'a').write('#'); open('fixed.py', 'w').write(''); print('loss: 1')": ("failed", "read-only"),
    }
    (yard.repo / "fixed.py").write_text("A = 1\n")
    queued = [yard.queue(f"import os, sys\n{text}") for text in endings]
    late = yard.queue("import time; time.sleep(600)", task=yard.task(budget=0.2, startup=0.2))
    missing = yard.queue(commit="0" * 40)
    yard.work()
    ended = [yard.trials(trial)[-1] for trial in [*queued, late, missing]]
    expected = [*endings.values(), ("timed_out", "AUTORESEARCH_TIME_BUDGET"), ("failed", "could not be trained")]
    assert [trial.status for trial in ended] == [status for status, _ in expected]
    assert [text for trial, (_, text) in zip(ended, expected, strict=True) if text not in trial.error] == []
    assert [trial.ended_at for trial in ended] == sorted(trial.ended_at for trial in ended)
    assert (ended[0].metrics, ended[0].exit_code, ended[1].exit_code) == ({"loss": 0.5}, 0, 3)
    folder = yard.folders.trial(ended[0].id)
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "out", "result.json"]
    assert (folder / "out" / "model").read_text() == "weights"
    assert (folder / "log.txt").read_text() == "loss: 0.5\n"
    assert not yard.lock().is_held()


def test_a_training_sees_the_contract_and_no_secret(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    trial = yard.queue(
        "import os\nfor name in sorted(os.environ): print(name + '=' + os.environ[name])\nprint('loss: 1')"
    )
    yard.work()
    log = yard.folders.log(trial.id).read_text()
    seen = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
    wanted = {"AUTORESEARCH_TIME_BUDGET": "1", "AUTORESEARCH_SEED": "42", "AUTORESEARCH_DEVICE": "cpu"}
    assert wanted.items() <= seen.items()
    assert {"AUTORESEARCH_OUT", "AUTORESEARCH_CACHE", "AUTORESEARCH_THREADS"} <= seen.keys()
    assert not [name for name in seen if name == "HF_TOKEN" or name.startswith("RAY_")]


def test_data_lies_where_the_repository_has_it_and_a_training_that_changes_it_is_invalid(yard: Any) -> None:
    (yard.repo / "data" / "deep").mkdir(parents=True)
    (yard.repo / "data" / "deep" / "numbers").write_text("7")
    (yard.repo / "one.bin").write_bytes(bytes(9_000_000))
    task = yard.task(inputs=("data", "one.bin"))
    read = "import os\nprint('loss:', int(open('data/deep/numbers').read()) + os.path.getsize('one.bin'))"
    trial = yard.queue(read, task=task)
    spoils = yard.queue("open('data/deep/numbers', 'w').write('8'); print('loss: 1')", task=task)
    yard.work()
    again = yard.queue(read, task=task)
    yard.work()
    assert yard.trials(trial)[-1].metrics == {"loss": 9_000_007}
    assert "the inputs data changed" in yard.trials(spoils)[-1].error
    spoilt = 7 if isinstance(yard, ClusterYard) else 8  # a machine of a cluster has a copy, which is sent anew
    assert yard.trials(again)[-1].metrics == {"loss": 9_000_000 + spoilt}


def test_a_score_is_made_anew_where_it_was_trained(yard: Any) -> None:
    (yard.repo / "score.py").write_text(SCORER)
    (yard.repo / "judge.py").write_text(JUDGE)
    task = replace(yard.task(), rescore_command="python score.py", judge_command="python judge.py")
    honest, liar = (yard.queue(HONEST.format(weight=0.5, loss=loss), task=task) for loss in (1.5001, 0.25))
    yard.work()
    (good,), (bad,) = yard.trials(honest), yard.trials(liar)
    assert good.metrics == {"loss": 1.5, "loss_printed": 1.5001, "loss_audit": 2.5, "fingerprint": "abc"}
    assert good.verification == "verified (unsandboxed)"
    assert "the training printed loss 0.250000, and the model that it handed in scores 1.500000" in bad.error
    assert (yard.folders.trial(good.id) / "judge-val.txt").exists()


def test_inputs_that_change_during_a_run_stop_it(yard: Any) -> None:
    (yard.repo / "data").mkdir()
    (yard.repo / "data" / "numbers").write_text("7")
    trial = yard.queue("print('loss: 1')", task=yard.task(inputs=("data",)))
    record = yard.folders.inputs(trial.experiment_id.partition("-")[0])
    record.parent.mkdir(parents=True)
    record.write_text('{"data": "what it was"}')
    lacking = yard.queue("open('data/numbers')")
    yard.work()
    assert "the inputs data are not what they were" in yard.trials(trial)[-1].error
    assert "inputs=['data', ...]" in yard.trials(lacking)[-1].error


def test_walls_stand_around_a_training(yard: Any) -> None:
    if fault := probe()[1]:
        pytest.skip(f"there is no sandbox: {fault}")
    yard.settings = replace(yard.settings, sandbox="require")
    (yard.repo / "data").mkdir()
    (yard.repo / "data" / "numbers").write_text("7")
    tries = """
import os, socket
from pathlib import Path
print("loss:", int(Path("data/numbers").read_text()))
state = Path(os.environ["AUTORESEARCH_OUT"]).parents[2]
print("record:", [path.name for path in state.iterdir() if path.name != "trials"])
for place in (Path("data/numbers"), Path(os.environ["AUTORESEARCH_CACHE"], "x")):
    try:
        place.write_text("8")
        print("written")
    except OSError:
        print("refused")
"""
    trial = yard.queue(tries, task=yard.task(inputs=("data",)))
    yard.work()
    (ended,) = yard.trials(trial)
    assert (ended.status, ended.metrics["loss"], ended.sandboxed) == ("finished", 7, True)
    log = yard.folders.log(trial.id).read_text()
    assert "written" not in log
    assert "research.db" not in log


def test_the_log_is_there_while_it_trains_and_is_bounded(yard: Any) -> None:
    wait = "print('step 1', flush=True)\nwhile not Path({folder!r}, 'go').exists(): time.sleep(0.01)\n"
    flood = "print(('x' * 99 + '\\n') * 80_000)\nprint('loss: 2')"
    trial = yard.queue(script(yard, wait + flood))
    worker = yard.start()
    log = yard.folders.log(trial.id)
    yard.until(lambda: log.exists() and log.read_text() == "step 1\n")
    (yard.folder / "go").touch()
    assert worker.wait(60) == 0
    text = log.read_text()
    assert 5_000_000 < len(text) < 5_500_000
    assert "bytes left out" in text
    assert text.endswith("loss: 2\n")
    assert yard.trials(trial)[-1].metrics == {"loss": 2}


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1000)
        note("pid")
        time.sleep(600)
    os._exit(0)
while not Path({folder!r}, "pid").exists():
    time.sleep(0.01)
print("loss: 1", flush=True)
"""


def test_a_stop_ends_it_nothing_outlives_it_and_the_queue_goes_on(yard: Any) -> None:
    trial, following = yard.queue(script(yard, HANG)), yard.queue(script(yard, DAEMON.replace('"pid"', '"daemon"')))
    worker = yard.start()
    training = yard.noted()
    yard.stored(lambda store: store.trials.stop(trial.id))
    assert worker.wait(60) == 0
    assert not yard.alive(training)
    assert not yard.alive(yard.noted("daemon"))
    assert yard.trials(trial)[-1].status == "stopped"
    assert yard.trials(following)[-1].status == "finished"


def test_a_terminated_worker_ends_its_training_and_queues_it_again(yard: Any) -> None:
    trial, following = yard.queue(script(yard, HANG)), yard.queue()
    worker = yard.start()
    training = yard.noted()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert not yard.alive(training)
    assert [trial.status for trial in yard.trials(trial)] == ["lost", "queued"]
    assert yard.trials(following)[-1].status == "queued"


def test_what_a_killed_worker_trained_is_trained_again(yard: Any) -> None:
    once = (
        "HANGS = not Path({folder!r}, 'pid').exists(); note('pid'); time.sleep(600 if HANGS else 0); print('loss: 1')"
    )
    trial = yard.queue(script(yard, once))
    worker = yard.start()
    training = yard.noted()
    worker.kill()
    worker.wait()
    if sys.platform == "linux":
        yard.until(lambda: not yard.alive(training))
    assert yard.trials(trial)[-1].status == "training"
    others = [yard.start() for _ in range(3)]
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert not yard.alive(training)
    first, second = yard.trials(trial)
    assert (first.status, second.status) == ("lost", "finished")
    assert not (yard.folders.trial(first.id) / "checkout").exists()
