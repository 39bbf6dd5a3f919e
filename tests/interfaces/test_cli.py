"""The command line as a shell sees it: words in, text and an exit code out."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mcp_server import __version__
from mcp_server.interfaces.arguments import arguments_model
from mcp_server.interfaces.verbs import flag, positional
from mcp_server.interfaces.waiting import INTERRUPTED
from mcp_server.operations import OPERATIONS, Operation
from tests.interfaces.shell import Done, Shell
from tests.project import Project

PROGRAM = (sys.executable, "-m", "mcp_server")
SETUP = (
    *("setup_run", "--tag", "mar5", "--metric", "val_loss", "--direction", "minimize"),
    *("--time-budget-seconds", "5", "--policy", "greedy"),
)
BASELINE = ("register", "--tag", "mar5", "--hypothesis", "baseline", "--category", "other")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in which nothing has been typed."""
    return Shell(monkeypatch, capsys)


def refused(done: Done) -> str:
    """The one line on stderr of a call that was refused."""
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith("autoresearch: ")
    return line


def test_the_whole_loop_by_hand(shell: Shell, project: Project) -> None:
    assert shell.ask(project, *SETUP)["branch"] == "autoresearch/mar5"
    assert shell.ask(project, *BASELINE)["experiment_id"] == "mar5-1"
    assert shell.ask(project, "train", "mar5-1")["status"] == "trained"
    assert shell.ask(project, "complete", "--experiment-id", "mar5-1", "--lesson", "a start")["status"] == "keep"
    better = ("register", "--tag", "mar5", "--hypothesis", "faster", "--category", "hyperparams")
    assert shell.ask(project, *better, "--knobs", '{"LR": 0.3}')["diff_summary"] == "LR 0.1 -> 0.3, train.py +1 -1"
    shell.ask(project, "train", "mar5-2", "--seed", "7")
    assert shell.ask(project, "complete", "mar5-2")["improved"] is True

    table = shell.run("history", "--tag", "mar5", cwd=project.root)
    assert table.code == 0
    assert [line.split()[:2] for line in table.out.splitlines() if "mar5-" in line] == [
        ["mar5-2", "keep"],
        ["mar5-1", "keep"],
    ]
    exported = shell.run("export", cwd=project.root)
    assert exported.out.splitlines()[0] == "commit\tval_loss\tmemory_gb\tstatus\tdescription"
    diff = shell.run("diff", "mar5-1", "--experiment-b", "mar5-2", cwd=project.root)
    assert "+LR = 0.3  # learning rate" in diff.out


def test_structured_arguments_come_from_files_too(shell: Shell, project: Project, tmp_path: Path) -> None:
    script = (project.root / "train.py").read_text()
    files = tmp_path / "files.json"
    files.write_text(json.dumps({"train.py": script.replace("DEPTH = 4", "DEPTH = 3")}))
    shell.ask(project, *SETUP, "--scope", "other", "--scope", "architecture", "--editable", '["*.py"]')
    shell.ask(project, *BASELINE)
    shell.ask(project, "train", "mar5-1")
    shell.ask(project, "complete", "mar5-1")
    change = ("register", "--tag", "mar5", "--hypothesis", "shallow", "--category", "architecture")
    registered = shell.ask(project, *change, "--files", f"@{files}")
    assert registered["diff_summary"] == "DEPTH 4 -> 3, train.py +1 -1"


def test_nothing_to_report_is_said_in_one_line(shell: Shell, project: Project, tmp_path: Path) -> None:
    assert "setup_run" in refused(shell.run("history", cwd=project.root))
    assert "not in a git repository" in refused(shell.run("list_runs", "--repo", str(tmp_path)))
    assert "--devices" in refused(shell.run("devices", "--repo", str(project.root), "--devices", "gpu:x")).replace(
        "devices 'gpu:x'", "--devices"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("history", "--limit", "0"), "limit is 0"),
        (("history", "--limit", "many"), "limit is 'many'"),
        (("history", "--status", "good"), "Choose from"),
        (("register", "--tag", "a", "--hypothesis", "", "--category", "other"), "hypothesis"),
        (("register", "--tag", "a", "--hypothesis", "h", "--category", "othr"), "category is 'othr'"),
        (("register", "--tag", "a", "--hypothesis", "h", "--category", "other", "--knobs", "LR=1"), "knobs is 'LR=1'"),
        (("train", "none-1"), "none-1"),
    ],
)
def test_bad_values_are_refused(shell: Shell, project: Project, words: Sequence[str], said: str) -> None:
    assert said in refused(shell.run(*words, "--repo", str(project.root)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("history", "--tagg", "a"), "No such option: --tagg"),
        (("register", "--tag", "a"), "Missing option '--hypothesis'"),
        (("train",), "Missing argument EXPERIMENT_ID"),
        (("train", "a", "--experiment-id", "b"), "given twice"),
        (("serve", "--port", "80"), "these need --http"),
        (("register", "--tag", "a", "--hypothesis", "h", "--category", "other", "--files", "@none"), "cannot be read"),
    ],
)
def test_wrong_usage(shell: Shell, words: Sequence[str], said: str) -> None:
    done = shell.run(*words)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err


def test_version_and_help(shell: Shell) -> None:
    assert shell.run("--version").out == f"autoresearch {__version__}\n"
    listed = shell.run("--help").out
    for name in ("serve", "demo", "night", "doctor", *(operation.name for operation in OPERATIONS)):
        assert f" {name} " in listed
    assert shell.run().code == 2


def test_a_name_may_be_written_with_hyphens(shell: Shell, project: Project) -> None:
    assert shell.ask(project, "list-runs")["runs"] == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_argument_can_be_given(shell: Shell, operation: Operation) -> None:
    listed = shell.run(operation.name, "--help").out
    for name in arguments_model(operation).model_fields:
        assert flag(name) in listed
    for name in positional(operation):
        assert name.upper() in listed


def test_an_interrupted_wait_leaves_the_training_alone(shell: Shell, project: Project) -> None:
    project.commit("Hang", {"train.py": (project.root / "train.py").read_text().replace('TRAP = ""', 'TRAP = "hang"')})
    shell.ask(project, *SETUP)
    shell.ask(project, *BASELINE)
    words = [*PROGRAM, "train", "mar5-1", "--wait-seconds", "600", "--repo", str(project.root), "--devices", "cpu:1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        while shell.ask(project, "history")["experiments"][0]["status"] != "training":
            assert waiting.poll() is None
        waiting.send_signal(2)
        out, said = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (INTERRUPTED, "")
    assert "detached; the training of mar5-1 goes on" in said
    assert shell.ask(project, "train", "mar5-1", "--wait-seconds", "0")["status"] == "training"
    shell.ask(project, "stop", "mar5-1")


@pytest.mark.parametrize(
    ("words", "never"),
    [
        (("--version",), ("mcp", "rich", "mcp_server.operations", "sqlite3")),
        (("doctor", "--help"), ("mcp", "mcp_server.operations", "matplotlib")),
        (("history", "--help"), ("mcp", "git", "matplotlib", "libcst", "torch")),
    ],
)
def test_starting_imports_no_more_than_it_needs(words: Sequence[str], never: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *words], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported.intersection(never)
