"""The artifact loop: a mutator proposes, the lab measures, and only what is accepted reaches the folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady, WrongState
from mcp_server.lab.artifact_loop import ArtifactLoop, Outcome
from mcp_server.machine.sandbox import probe

pytestmark = pytest.mark.anyio

TASK = """\
artifacts: note.txt
mutation: {max_lines: 3}
mutator: python mutate.py
scorer: {command: python score.py, metric: letters, direction: maximize}
runner: {budget_seconds: 10}
policy: greedy
"""
SCORE = "from pathlib import Path\nprint('letters:', len(Path('note.txt').read_text().strip()))\n"
MUTATE = """\
import os
from pathlib import Path
turn = int(os.environ["AUTORESEARCH_ITERATION"])
note = Path("note.txt")
assert os.environ["AUTORESEARCH_METRIC"] == "letters" and os.environ["AUTORESEARCH_DIRECTION"] == "maximize"
print("hypothesis: turn", turn)
print("category: optimizer")
{body}
"""
GROW = 'note.write_text("x" * (int(float(os.environ["AUTORESEARCH_BEST"])) + (1 if turn % 2 else -1)))'


def make(folder: Path, body: str = GROW, task: str = TASK, **files: str) -> Path:
    """A task in a folder that is no repository."""
    folder.mkdir(exist_ok=True)
    texts = {"task.yaml": task, "score.py": SCORE, "mutate.py": MUTATE.format(body=body), "note.txt": "xxx\n", **files}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


async def go(folder: Path, iterations: int) -> tuple[Outcome, list[dict[str, Any]]]:
    """Run a loop; how it stands, and the lines that it told."""
    told: list[dict[str, Any]] = []
    async with ArtifactLoop.open(folder, "cpu:1") as loop:
        await loop.run(iterations, lambda line: told.append(dict(line)))
        return await loop.outcome(), told


def record(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "work" / "results.jsonl").read_text().splitlines()]


async def test_the_environment_of_the_folder_runs_all(tmp_path: Path) -> None:
    folder = make(tmp_path / "notes", **{"mutate.py": "import sys\nprint('hypothesis:', sys.executable)\n"})
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    (folder / ".venv" / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    _, told = await go(folder, 1)
    assert told[0]["status"] == "keep", told
    assert ".venv/bin/python" in told[1]["hypothesis"], told


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_better_comes_home_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path / "task")
    before = names(folder)
    outcome, told = await go(folder, 3)
    assert [(line["iteration"], line["status"], line["value"]) for line in told] == [
        (0, "keep", 3),
        (1, "keep", 4),
        (2, "discard", 3),
        (3, "keep", 5),
    ]
    assert told == record(folder)
    assert (
        told[1]
        | {
            "hypothesis": "turn 1",
            "accepted": True,
            "baseline": 3,
            "best_before": 3,
            "delta": 1,
            "diff_summary": "note.txt +1 -1",
        }
        == told[1]
    )
    assert (folder / "note.txt").read_text() == "xxxxx"
    assert names(folder) == sorted([*before, "work"])
    assert (outcome.baseline, outcome.best, outcome.accepted, outcome.experiments) == (3, 5, 2, 4)


async def test_the_loop_goes_on_where_it_was_and_begins_anew_where_the_folder_was_changed(tmp_path: Path) -> None:
    folder = make(tmp_path / "task")
    await go(folder, 1)
    _, told = await go(folder, 1)
    assert [(line["tag"], line["iteration"], line["value"]) for line in told] == [("task-1", 2, 3)]
    (folder / "note.txt").write_text("a person's own words\n")
    _, told = await go(folder, 1)
    assert [(line["tag"], line["iteration"], line["value"]) for line in told] == [("task-2", 0, 20), ("task-2", 1, 21)]
    assert len(record(folder)) == 5


REFUSED = [
    ('note.write_text("x\\n" * 9)', "refused", "touches 10 lines, and this task allows 3"),
    ('Path("score.py").write_text("print(1)")', "refused", "'score.py' is read-only"),
    ('Path("other.txt").write_text("x")', "refused", "outside of the editable files"),
    ("pass", "refused", "There is no change against the base"),
    ('raise SystemExit("out of ideas")', "mutator_failed", "Exit code 1: out of ideas"),
]


@pytest.mark.parametrize(("body", "status", "reason"), REFUSED)
async def test_a_candidate_that_may_not_be_is_noted_and_forgotten(
    tmp_path: Path, body: str, status: str, reason: str
) -> None:
    once = f"if turn == 1:\n    {body}\nelse:\n    {GROW}"
    folder = make(tmp_path / "task", once.replace("turn % 2", "True"))
    _, told = await go(folder, 2)
    assert (told[1]["status"], told[1]["accepted"], told[1]["experiment_id"]) == (status, False, None)
    assert reason in told[1]["reason"]
    assert (told[2]["status"], told[2]["diff_summary"]) == ("keep", "note.txt +1 -1")


async def test_a_mutator_without_ideas_ends_the_loop(tmp_path: Path) -> None:
    folder = make(tmp_path / "task", "raise SystemExit('no more')")
    with pytest.raises(NotReady, match="failed 5 times in a row"):
        await go(folder, 50)
    assert len(record(folder)) == 6


async def test_the_target_and_the_number_of_experiments_end_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", GROW.replace("turn % 2", "True"), TASK + "target: 5\n")
    assert len((await go(folder, 50))[1]) == 3
    folder = make(tmp_path / "b", GROW.replace("turn % 2", "True"), TASK + "max_experiments: 3\n")
    assert len((await go(folder, 50))[1]) == 3


async def test_a_baseline_that_cannot_be_measured_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "task", task=TASK + "checks: python -c 'raise SystemExit(3)'\n")
    with pytest.raises(NotReady, match=r"baseline was not measured.*exit code 3"):
        await go(folder, 1)
    assert (folder / "note.txt").read_text() == "xxx\n"


async def test_a_baseline_is_measured_anew_once_its_task_is_mended(tmp_path: Path) -> None:
    check = "checks: python -c 'raise SystemExit(3)'\n"
    folder = make(tmp_path / "task", task=TASK + "max_experiments: 2\n" + check)
    for _ in range(3):
        with pytest.raises(NotReady, match=r"baseline was not measured.*exit code 3"):
            await go(folder, 1)
    assert [(line["iteration"], line["status"]) for line in record(folder)] == [(0, "crash")] * 3
    (folder / "task.yaml").write_text(TASK + "max_experiments: 2\n")
    assert len((await go(folder, 1))[1]) == 2


async def test_what_cannot_be_a_loop_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "task", task=TASK.replace("mutator: python mutate.py\n", ""))
    with pytest.raises(InvalidInput, match="names no mutator"):
        await go(folder, 1)
    folder = make(tmp_path / "task", task=TASK.replace("python mutate.py", "no-such-program x"))
    with pytest.raises(InvalidInput, match="mutator begins with 'no-such-program', which is not on PATH"):
        await go(folder, 1)
    folder = make(tmp_path / "task", task=TASK.replace("runner: {budget_seconds: 10}\n", ""))
    with pytest.raises(InvalidInput, match=r"how many seconds may one training take \(runner\.budget_seconds\)"):
        await go(folder, 1)
    with pytest.raises(InvalidInput, match=r"absent/task\.yaml' cannot be read|absent' cannot be read"):
        await go(tmp_path / "absent", 1)
    folder = make(tmp_path / "other")
    async with ArtifactLoop.open(folder, "cpu:1"):
        with pytest.raises(WrongState, match="Another loop works"):
            await go(folder, 1)
    (folder / "work" / "results.jsonl").write_text("not ours\n")
    with pytest.raises(NotReady, match="not of this loop"):
        await go(folder, 1)


async def test_a_change_that_a_person_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = make(tmp_path / "task", GROW.replace("turn % 2", "True"))

    def interfere(line: Mapping[str, Any]) -> None:
        (folder / "note.txt").write_text("mine")

    with pytest.raises(WrongState, match=r"note\.txt in .* changed meanwhile"):
        async with ArtifactLoop.open(folder, "cpu:1") as loop:
            await loop.run(1, interfere)
    assert (folder / "note.txt").read_text() == "mine"


SLOW = """\
import time
from pathlib import Path
text = Path("note.txt").read_text().strip()
while len(text) == 4 and not Path({gate!r}).exists():
    time.sleep(0.01)
print("letters:", len(text))
"""


def test_a_loop_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "cache" / "gate"  # which a training can see
    gate.parent.mkdir()
    folder = make(tmp_path / "home", GROW.replace("turn % 2", "True"), **{"score.py": SLOW.format(gate=str(gate))})
    words = [sys.executable, "-m", "mcp_server", "task", "run", str(folder), "--iterations", "3", "--devices", "cpu:1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as loop:
        assert loop.stdout is not None
        assert b"the baseline" in loop.stdout.readline()
        log = folder / "work" / "repository" / ".autoresearch" / "trials" / "home-1-2.1" / "log.txt"
        until(log.exists)
        os.killpg(loop.pid, signal.SIGKILL)
    assert [line["iteration"] for line in record(folder)] == [0]
    assert (folder / "note.txt").read_text() == "xxx\n"
    with (folder / "work" / "results.jsonl").open("a") as file:
        file.write('{"tag": "half a li')
    gate.touch()
    shell = subprocess.run([*words[:-3], "1", *words[-2:]], capture_output=True, text=True, check=False)
    assert (shell.returncode, shell.stderr) == (0, "")
    assert [(line["iteration"], line["value"]) for line in record(folder)] == [(0, 3), (1, 4), (2, 5)]
    assert "letters 3 -> 5: 2 changes accepted of 2 measured." in shell.stdout
    assert (folder / "note.txt").read_text() == "xxxxx"


def test_the_script_that_users_know_does_the_same(tmp_path: Path) -> None:
    folder = make(tmp_path / "task")
    script = Path(__file__).parents[2] / "scripts" / "run_task.py"
    words = [sys.executable, str(script), "--task", str(folder / "task.yaml"), "--json", "--devices", "cpu:1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [line.get("value") for line in lines[:2]]) == (0, [3, 4])
    assert lines[2]["outcome"]["accepted"] == 1
    words[3] = f"--task={folder / 'no.yaml'}"
    done = subprocess.run([*words[:2], words[3]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "no.yaml" in done.stderr


async def test_a_mutator_behind_walls_can_write_its_sandbox_alone(tmp_path: Path) -> None:
    if fault := probe()[1]:
        pytest.skip(f"there is no sandbox: {fault}")
    body = """\
places = [Path(os.environ["AUTORESEARCH_RESULTS"]), Path(os.environ["AUTORESEARCH_RESULTS"]).parents[1] / "note.txt"]
for place in places:
    assert place.exists()
    try:
        place.write_text("broken")
    except OSError as error:
        print(error.strerror)
    else:
        raise SystemExit(f"{place} could be written")
""" + GROW.replace("turn % 2", "True")
    folder = make(tmp_path / "task", body)
    _, told = await go(folder, 1)
    assert (told[1]["status"], told[1]["value"]) == ("keep", 4)
    assert (folder / "work" / "mutator.log").read_text().count("Read-only file system") == 2
