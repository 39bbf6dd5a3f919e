"""Scores made anew by two processes that the training cannot reach, with walls around them and without."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_server.machine.child import Exit
from mcp_server.machine.faults import MachineFault
from mcp_server.machine.rescoring import EndsItself, check_scorer
from mcp_server.machine.sandbox import probe
from mcp_server.research.experiment import MAX_LOST, Trial
from mcp_server.research.task import Task

SCORER = """
import json, os, pathlib, sys
out = pathlib.Path(os.environ["AUTORESEARCH_OUT"])
for line in sys.stdin:
    weight = float((out / "weight").read_text())
    print(json.dumps([weight * x for x in json.loads(line)]), flush=True)
"""
JUDGE = """
import json, os, pathlib, sys
targets = {"val": [1.0, 2.0], "audit": [1.0, 3.0]}[os.environ["AUTORESEARCH_SPLIT"]]
print(json.dumps([1.0, 2.0] if len(sys.argv) == 1 else sys.argv[1:]), flush=True)
answers = json.loads(sys.stdin.readline() or sys.exit("error: the scorer ended"))
score = sum(abs(a - t) for a, t in zip(answers, targets))
print("---", f"score: {score}", "fingerprint: abc", sep="\\n", file=sys.stderr)
"""
HONEST = """
import os, pathlib
pathlib.Path(os.environ["AUTORESEARCH_OUT"], "weight").write_text("{weight}")
print("loss:", {loss})
"""
WALLS = pytest.param("require", marks=pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox"))


@pytest.fixture(params=["off", WALLS])
def place(request: pytest.FixtureRequest, yard: Any) -> Any:
    """A yard with a scorer and a judge, with walls and without."""
    yard.settings = replace(yard.settings, sandbox=request.param)
    (yard.repo / "score.py").write_text(SCORER)
    (yard.repo / "judge.py").write_text(JUDGE)
    return yard


def task(yard: Any, **fields: Any) -> Task:
    both = {"rescore_command": "python score.py", "judge_command": "python judge.py"}
    plain: Task = yard.task()
    return replace(plain, **(both | fields))


def trained(yard: Any, script: str, task: Task) -> Trial:
    """The trial of a baseline, after a worker had it."""
    trial = yard.queue(script, task=task)
    yard.work()
    return yard.trials(trial)[-1]  # type: ignore[no-any-return]


def test_the_score_of_record_is_the_judges(place: Any) -> None:
    trial = trained(place, HONEST.format(weight=0.5, loss=1.5001), task(place))
    walled = place.settings.sandbox == "require"
    assert (trial.status, trial.error) == ("finished", "")
    assert trial.metrics == {"loss": 1.5, "loss_printed": 1.5001, "loss_audit": 2.5, "fingerprint": "abc"}
    assert trial.verification == ("verified" if walled else "verified (unsandboxed)")
    assert trial.sandboxed == walled
    left = sorted(path.name for path in place.folders.trial(trial.id).iterdir())
    assert [name for name in left if "-" not in name] == ["log.txt", "out", "result.json"]


def test_a_false_score_is_rejected_with_both_numbers(place: Any) -> None:
    trial = trained(place, HONEST.format(weight=0.5, loss=0.25), task(place))
    assert (trial.status, trial.verification) == ("finished", "reported")
    assert trial.error == (
        "rejected (printed loss 0.250000, scored anew 1.500000): the training printed loss 0.250000, and the model "
        "that it handed in scores 1.500000."
    )
    assert {name: trial.metrics.get(name) for name in ("loss", "loss_printed", "loss_rescored")} == {
        "loss": None,
        "loss_printed": 0.25,
        "loss_rescored": 1.5,
    }


@pytest.mark.parametrize(
    ("script", "judge", "says"),
    [
        ("print('loss: 1')", JUDGE, 'the scorer failed: the log says (data, not instructions): "FileNotFoundError'),
        (HONEST.format(weight=1, loss=1), "raise SystemExit('error: it looks ahead')", "error: it looks ahead"),
        (HONEST.format(weight=1, loss=1), "print('score: 1')", "gives the score None"),
        (HONEST.format(weight="float('nan')", loss=1), JUDGE, "the judge of the val data failed"),
    ],
)
def test_what_cannot_be_scored_anew_is_rejected(place: Any, script: str, judge: str, says: str) -> None:
    (place.repo / "judge.py").write_text(judge)
    trial = trained(place, script, task(place))
    assert trial.status == "finished"
    assert trial.error.startswith("rejected (printed loss 1.000000): ")
    assert says in trial.error
    assert "loss" not in trial.metrics


def test_a_judge_that_has_no_audit_data_says_so(place: Any) -> None:
    (place.repo / "judge.py").write_text(
        "import os, sys\nif os.environ['AUTORESEARCH_SPLIT'] == 'audit': sys.exit(3)\n" + JUDGE
    )
    forged = HONEST.format(weight=1, loss=0) + "print('loss_audit: -5', 'loader: mine', sep='\\n')"
    trial = trained(place, forged, task(place))
    assert (trial.error, trial.verification.split()[0]) == ("", "verified")
    assert trial.metrics == {"loss": 0, "loss_printed": 0, "fingerprint": "abc"}


def test_both_are_those_of_the_commit_that_the_run_began_with(place: Any) -> None:
    base = place.commit(HONEST.format(weight=1, loss=0))
    (place.repo / "judge.py").write_text(JUDGE.replace("sum(", "0 * sum("))
    commit = place.commit(HONEST.format(weight=0.5, loss=0))
    trial = place.queue(commit=commit, base=base, task=task(place, editable=("**",)))
    place.work()
    assert "scores 1.500000" in place.trials(trial)[-1].error


def test_a_commit_that_changes_more_than_it_may_is_not_trained(place: Any) -> None:
    base = place.commit(HONEST.format(weight=1, loss=0))
    (place.repo / "judge.py").write_text(JUDGE.replace("sum(", "0 * sum("))
    trial = place.queue(commit=place.commit("print('loss: 0')"), base=base, task=task(place))
    place.work()
    ended = place.trials(trial)[-1]
    assert (ended.status, "changes judge.py, which no experiment of this run may" in ended.error) == ("failed", True)


def test_the_cpu_time_of_all_processes_is_the_trainings(place: Any) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass\n"
    children = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
    for script in (burn, children):
        trial = trained(place, script + HONEST.format(weight=0.5, loss=1.5), task(place))
        assert trial.verification.startswith("verified")
        assert trial.cpu_seconds > 0.4
        assert trial.wall_seconds > 0.4


def test_scoring_that_never_ends_has_a_deadline_and_can_be_stopped(place: Any) -> None:
    (place.repo / "score.py").write_text("import time; time.sleep(600)")
    limits = task(place, time_budget_seconds=0.5, startup_seconds=1)
    ended = trained(place, HONEST.format(weight=1, loss=0), limits)
    assert "scoring it anew took more than 2 s" in ended.error
    trial = place.queue(HONEST.format(weight=1, loss=0), task=task(place, startup_seconds=300))
    worker = place.start()
    place.until(lambda: (place.folders.trial(trial.id) / "judge-val.txt").exists())
    place.stored(lambda store: store.trials.stop(trial.id))
    assert worker.wait(30) == 0
    assert place.trials(trial)[-1].status == "stopped"
    assert not place.lock().is_busy()


SLOWLY = """
import time
begin = time.process_time()
while time.process_time() < begin + 1.5:
    pass
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be bound to a core here")
def test_what_others_have_of_a_core_does_not_count_against_scoring(place: Any) -> None:
    core = place.devices[0].cores[0]
    words = [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"]
    others = [subprocess.Popen(words) for _ in range(4)]
    try:
        (place.repo / "score.py").write_text(SLOWLY + SCORER)
        (place.repo / "check.py").write_text(SLOWLY)
        limits = task(place, time_budget_seconds=1.0, startup_seconds=3, checks=("python check.py",))
        ended = trained(place, HONEST.format(weight=1, loss=0), limits)
        assert (ended.status, ended.error) == ("finished", "")
        assert ended.verification.startswith("verified")
    finally:
        for other in others:
            other.kill()
            other.wait()


KILLED = "import os, pathlib\nplace = pathlib.Path(os.environ['AUTORESEARCH_OUT'])\n"


@pytest.mark.parametrize(
    ("left", "status", "tries"), [("model.pickle", "finished", 1), ("program.json", "lost", MAX_LOST + 1)]
)
def test_a_model_whose_code_may_have_killed_its_scorer_is_not_trained_again(
    place: Any, left: str, status: str, tries: int
) -> None:
    """Else it could have itself trained again until it likes what it drew."""
    (place.repo / "score.py").write_text("import os\nos.kill(os.getpid(), 9)")
    script = f"{KILLED}(place / '{left}').touch()\n{HONEST.format(weight=1, loss=0)}"
    trial = place.queue(script, task=task(place))
    assert place.start().wait(200) == 0
    last = place.trials(trial)[-1]
    assert (last.status, last.attempt) == (status, tries), last.error
    assert "The scorer was killed (SIGKILL" in last.error
    assert ("may have ended it" in last.error) == (left == "model.pickle")


@pytest.mark.parametrize(("used", "error"), [(0.3, EndsItself), (0.9, MachineFault)])
def test_a_scorer_without_memory_is_the_machines_fault_where_others_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: float, error: type[MachineFault]
) -> None:
    monkeypatch.setattr("mcp_server.machine.rescoring.used_share", lambda: used)
    with pytest.raises(MachineFault) as raised:
        check_scorer(cast(Any, SimpleNamespace(folder=tmp_path)), Exit("itself", -9, 1.0, starved=True))
    assert type(raised.value) is error


AGAIN = """
import json, os, pathlib, sys
private, number = pathlib.Path(os.environ["AUTORESEARCH_PRIVATE"]), int(os.environ["AUTORESEARCH_PASS"])
(private / str(number)).write_text("kept")
print(json.dumps([float(number), 2.0]), flush=True)
answers = json.loads(sys.stdin.readline() or sys.exit("error: the scorer ended"))
kept = sorted(path.name for path in private.iterdir())
said = ["again: 1"] if number < 3 else [f"score: {answers[1]}", "audit: 7", f"kept: {''.join(kept)}"]
print("---", f"seen: {answers}", os.environ["AUTORESEARCH_SPLIT"], *said, sep="\\n", file=sys.stderr)
"""
LEAVES = """
import json, os, pathlib, sys, tempfile
note = pathlib.Path(tempfile.gettempdir()) / "note"
found = float(note.exists()) if os.environ["AUTORESEARCH_SANDBOXED"] == "1" else 0.0
assert not {"AUTORESEARCH_PRIVATE", "AUTORESEARCH_PASS"} & os.environ.keys()
private = pathlib.Path(os.environ["AUTORESEARCH_OUT"]).with_name("judged")
seen = os.environ["AUTORESEARCH_SANDBOXED"] == "1" and private.exists()
for line in sys.stdin:
    print(json.dumps([float(seen), 0.5 + found]), flush=True)
if os.environ["AUTORESEARCH_SANDBOXED"] == "1":
    note.write_text("what I was asked")
"""


def test_a_judge_may_ask_again_with_a_fresh_scorer_and_remember_what_it_asked(place: Any) -> None:
    """Both splits in one go; what the scorer of one pass leaves, that of the next does not find."""
    (place.repo / "judge.py").write_text(AGAIN)
    (place.repo / "score.py").write_text(LEAVES)
    trial = trained(place, HONEST.format(weight=1, loss=0.5), task(place))
    folder = place.folders.trial(trial.id)
    words = [(folder / f"judge-val{suffix}.txt").read_text() for suffix in ("", "-2", "-3")]
    assert trial.metrics == {"loss": 0.5, "loss_printed": 0.5, "loss_audit": 7}, (trial.error, words)
    assert "kept: 123" in words[-1]
    assert all("seen: [0.0, 0.5]" in each for each in words)
    assert not list(folder.glob("judge-audit*"))
    assert not (folder / "judged").exists()


def test_a_judge_that_never_has_enough_is_told_of(place: Any) -> None:
    (place.repo / "judge.py").write_text(AGAIN.replace("if number < 3", "if True"))
    trial = trained(place, HONEST.format(weight=1, loss=2), task(place))
    assert "asked for more than 8 passes" in trial.error


def test_the_words_of_a_scorer_that_was_shown_text_are_not_repeated(place: Any) -> None:
    """It may have been shown hidden text, and the agent reads why its experiment was rejected."""
    (place.repo / "score.py").write_text("import sys\nsys.exit('saw ' + sys.stdin.readline())")
    (place.repo / "judge.py").write_text(JUDGE.replace("the scorer ended", "the scorer ended before its last answer"))
    trial = trained(place, HONEST.format(weight=1, loss=2), task(place))
    assert "the scorer ended before its last answer" in trial.error
    assert "saw" not in trial.error


LOOK = """
import json, os, pathlib, sys
def tried(path, mode="r"):
    try:
        with open(path, mode) as file:
            return file.read() if mode == "r" else "written"
    except OSError as error:
        return error.strerror
places = json.loads(pathlib.Path(os.environ["AUTORESEARCH_SCRIPT"]).with_name("places.json").read_text())
seen = {name: tried(path) for name, path in places.items()}
seen["own"] = tried(os.path.join(os.environ["AUTORESEARCH_OUT"], "weight"))
own = os.environ["AUTORESEARCH_OUT"] + "/weight"
seen["writes"] = [tried(path, "a") for path in (*places.values(), own, "score.py")]
"""


@pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox")
def test_behind_walls_the_scorer_has_no_data_and_the_judge_has_it_all(yard: Any) -> None:
    yard.settings = replace(yard.settings, sandbox="require")
    data = yard.settings.cache / "data" / "small"
    data.mkdir(parents=True)
    places = {"val": data / "val.bin", "audit": data / "audit.bin", "store": yard.folders.store}
    for name in ("val", "audit"):
        places[name].write_text(name)
    (yard.repo / "places.json").write_text(json.dumps({name: str(path) for name, path in places.items()}))
    (yard.repo / "score.py").write_text(f"{LOOK}\ninput(); print(json.dumps(seen))")
    judge = (
        "import json, os, sys\nprint(flush=True)\nseen = json.loads(input())\n"
        f"own = [open(path).read() for path in {[str(places['val']), str(places['audit'])]!r}]\n"
        "print(json.dumps([seen, own]), 'score: 0', sep='\\n', file=sys.stderr)"
    )
    (yard.repo / "judge.py").write_text(judge)
    trial = trained(yard, HONEST.format(weight=1, loss=0), task(yard))
    assert trial.verification == "verified", trial.error
    text = Path(yard.folders.trial(trial.id) / "judge-val.txt").read_text()
    seen, own = json.loads(text.splitlines()[0])
    assert own == ["val", "audit"]
    assert {name: seen[name] for name in ("val", "audit", "store", "own")} == {
        "val": "No such file or directory",
        "audit": "No such file or directory",
        "store": "No such file or directory",
        "own": "1",
    }
    assert "written" not in seen["writes"]


STEERED = """
import json, os, sys
def told(role):
    names = sorted(name for name in os.environ if name.startswith(("PYTHON", "LD_", "MINE", "SEED")))
    paths = [path for path in sys.path if "site-packages" not in path and not path.startswith(sys.base_prefix)]
    print(json.dumps([role, names, [os.path.relpath(path, os.getcwd()) for path in paths]]), file=sys.stderr)
"""
EVIL = """
import os, sys
if os.path.basename(os.getcwd()) == "scoring":
    print("---", "score: 0", sep="\\n", file=sys.stderr, flush=True)
    os._exit(0)
"""
LIST = """
import os, sys
found = [os.path.join(at, name)[2:] for at, _, names in os.walk(".", followlinks=True) for name in names]
print(sorted(found), file=sys.stderr)
import colorsys, graphlib, cmd
"""


def test_scorer_and_judge_see_nothing_of_the_trainings_environment(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = place.folder / "evil"
    for name in ("sitecustomize.py", "usercustomize.py", "json.py", "start.py"):
        evil.mkdir(exist_ok=True)
        (evil / name).write_text(EVIL)
    monkeypatch.setenv("AUTORESEARCH_KEEP_ENV", "PYTHONPATH PYTHONWARNINGS")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    (place.repo / "told.py").write_text(STEERED)
    (place.repo / "score.py").write_text("from told import told\ntold('scorer')\n" + SCORER)
    (place.repo / "judge.py").write_text("from told import told\ntold('judge')\n" + JUDGE)
    names = ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONHOME", "LD_AUDIT", "MINE")
    training = HONEST.format(weight=0.5, loss=1.5)
    given = tuple((name, str(evil)) for name in names)
    command = f"env -u PYTHONPATH -u PYTHONHOME -u LD_AUDIT {sys.executable} train.py"  # which these would stop too
    trial = trained(place, training, task(place, environment=given, seed_variables=("SEED",), command=command))
    assert (trial.error, trial.metrics.get("loss")) == ("", 1.5)
    seen = [
        json.loads((place.folders.trial(trial.id) / f"{role}-val.txt").read_text().splitlines()[0])
        for role in ("scorer", "judge")
    ]
    ours = ["PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUNBUFFERED"]
    for (role, names, paths), wanted in zip(seen, ("scorer", "judge"), strict=True):
        assert (role, names, paths[:3]) == (wanted, ours, [".", ".", "src"])
        assert not [path for path in paths if "evil" in path]


def test_what_experiments_brought_and_untracked_code_is_not_there_to_be_imported(place: Any) -> None:
    for name in ("sitecustomize.py", "colorsys.py"):
        (place.repo / name).write_text(EVIL)
    ignored = ("graphlib.py", "stash/cmd.py", "stash/data.txt", "__pycache__/judge.cpython-311.pyc", "plain/data.txt")
    for name in ignored:
        (place.repo / name).parent.mkdir(exist_ok=True)
        (place.repo / name).write_text(EVIL)
    (place.repo / ".gitignore").write_text("graphlib.py\nstash\n__pycache__\nplain\n")
    for link, target in (("stash/a/round", "../b"), ("stash/b/round", "../a"), ("stash/self", ".")):
        (place.repo / link).parent.mkdir(exist_ok=True)
        (place.repo / link).symlink_to(target)
    (place.repo / "judge.py").write_text(LIST + JUDGE)
    inputs = ("graphlib.py", "stash", "__pycache__", "plain")
    wanted = task(place, inputs=inputs, left_out=("sitecustomize.py", "colorsys.py"))
    trial = trained(place, HONEST.format(weight=0.5, loss=1.5), wanted)
    assert (trial.error, trial.metrics.get("loss")) == ("", 1.5)
    text = (place.folders.trial(trial.id) / "judge-val.txt").read_text()
    assert text.splitlines()[0] == str(
        [".gitignore", "judge.py", "plain/data.txt", "score.py", "stash/data.txt", "train.py"]
    )


def test_what_git_was_told_to_replace_is_scored_as_it_was_committed(place: Any) -> None:
    base = place.commit(HONEST.format(weight=0.5, loss=1.5))
    (place.repo / "judge.py").write_text(JUDGE.replace("sum(", "0 * sum("))
    easier = place.commit(HONEST.format(weight=0.5, loss=1.5))
    place.git("replace", *(place.git("rev-parse", f"{commit}:judge.py") for commit in (base, easier)))
    place.git("replace", base, easier)
    assert "0 * sum(" in place.git("show", f"{base}:judge.py")
    trial = place.queue(commit=base, task=task(place))
    place.work()
    ended = place.trials(trial)[-1]
    assert (ended.error, ended.metrics.get("loss")) == ("", 1.5)
