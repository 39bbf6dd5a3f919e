"""The demo from end to end: the real server, client, git, store and trainings, on a script of a tenth of a second."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import anyio
import psutil
import pytest
from rich.console import Console

from mcp_server.demo import scratch
from mcp_server.demo.demo import Demo
from mcp_server.demo.ideas import IDEAS
from mcp_server.errors import NotReady, WrongState
from mcp_server.interfaces.waiting import INTERRUPTED
from mcp_server.machine.starter import starter_files
from mcp_server.settings import Settings
from tests.project import Project

PREPARE = """\
HARNESS = "autoresearch-mcp"
import json, os, pathlib

folder = pathlib.Path(os.environ["AUTORESEARCH_CACHE"]) / "data" / "tiny"
folder.mkdir(parents=True, exist_ok=True)
(folder / "manifest.json").write_text(json.dumps({"files": {}}))
(folder.parent / "current.json").write_text(json.dumps({"folder": "tiny"}))
print("ready: 3 tokens")
"""
"""Stands in for prepare.py."""

SCRIPT = """\
# Stands in for train.py: it has what the ideas change.
import time

MATRIX_LR = 0.04  # rate
WIDTH = 96  # channels
if "swiglu" in "F.relu(self.up(norm(x)))":
    raise AttributeError("no swiglu")
print("step 1/1 | loss: 2.5 | 100.0%")
time.sleep(SLEEP)
loss = 1 + 9 * abs(MATRIX_LR - 0.06) + abs(WIDTH - 48) / 500
print(f"val_bpb: {loss:.6f}")
"""


INTERRUPTIBLE = """\
from pathlib import Path
import typer
from mcp_server.demo.demo import Demo
from mcp_server.interfaces import tables, waiting

files = {{name: Path("{starter}") / name for name in {names}}}
try:
    waiting.wait_for(Demo(Path("{folder}"), 200.0, files=files).run(tables.console()), "stopped")
except typer.Exit as leaving:
    raise SystemExit(leaving.exit_code)
"""
"""A demo in a process of its own."""


def tiny(folder: Path, sleep: float = 0.0) -> Mapping[str, Path]:
    """Starter files that train in no time."""
    folder.mkdir(exist_ok=True)
    texts = {"prepare.py": PREPARE, "train.py": SCRIPT.replace("SLEEP", str(sleep)), "program.md": "Rules\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in texts}


def screen(terminal: bool) -> Console:
    """A console whose text can be read afterwards."""
    return Console(file=StringIO(), width=150, force_terminal=terminal)


def text(console: Console) -> str:
    """What a console shows."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_demo_leaves_a_record_and_the_user_alone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.chdir(project.root)
    config = (project.root / ".git" / "config").read_text()
    folder = project.root / ".autoresearch" / "demo"
    console = screen(terminal)
    picture = tmp_path / "screen.svg"
    demo = Demo(folder, 5.0, trainings=10, picture=picture, files=tiny(tmp_path / "starter"))
    anyio.run(demo.run, console)

    lines = [line.split("\t") for line in (folder / "results.tsv").read_text().splitlines()]
    said = [line[3] for line in lines]
    assert said[:2] == ["status", "keep"]
    assert "crash" in said
    assert said.count("keep") > 1
    [bold] = [line for line in lines if "Ten times" in line[4]]
    assert bold[3] == "discard"
    assert (folder / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert picture.read_text().startswith("<svg")
    assert "Best against baseline, provisional: " in text(console)
    assert "has a standard deviation of" in text(console)
    assert (folder / "server.log").read_text() == ""

    assert project.git("status", "--porcelain") == ""
    assert project.git("branch", "--list").split() == ["*", "main"]
    assert (project.root / ".git" / "config").read_text() == config


def test_the_demo_can_be_repeated_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    files = tiny(tmp_path / "starter")
    with scratch.fresh(tmp_path / "demo", files) as place:
        (place.repository / "left.txt").touch()
        with pytest.raises(WrongState, match="Another demo runs"), scratch.fresh(tmp_path / "demo", files):
            pass
    with scratch.fresh(tmp_path / "demo", files) as place:
        assert not (place.repository / "left.txt").exists()
    mine = tmp_path / "mine" / "repository" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(WrongState, match="not made by a demo"), scratch.fresh(tmp_path / "mine", files):
        pass
    assert mine.exists()


def test_preparing_leaves_the_users_choice_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    pointer = settings.cache / "data" / "current.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_text('{"folder": "climbmix"}')
    with scratch.fresh(tmp_path / "demo", tiny(tmp_path / "starter")) as place:
        folder, said = anyio.run(scratch.prepare_data, place, settings)
    assert (folder, said) == (pointer.parent / "tiny", "ready: 3 tokens")
    assert pointer.read_text() == '{"folder": "climbmix"}'
    monkeypatch.setenv("AUTORESEARCH_STATE", "/elsewhere")
    environment = scratch.server_environment(folder, settings)
    assert environment["AUTORESEARCH_DATA"] == str(folder)
    assert "AUTORESEARCH_STATE" not in environment


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "NEEDED", ("torch_that_is_not_there",))
    with pytest.raises(NotReady, match=r"torch_that_is_not_there is not installed.*pip install .*torch=="):
        scratch.check_packages()


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    files = tiny(tmp_path / "starter", sleep=300)
    script = tmp_path / "demo.py"
    script.write_text(INTERRUPTIBLE.format(starter=tmp_path / "starter", names=list(files), folder=tmp_path / "demo"))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    words = [sys.executable, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        said = iter(running.stdout)
        assert any("the baseline" in line for line in said)
        while not trainings(tmp_path):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.wait(timeout=30)
        assert running.stderr is not None
        assert (running.returncode, running.stderr.read()) == (INTERRUPTED, "stopped\n")
    assert trainings(tmp_path) == []


def trainings(folder: Path) -> list[str]:
    """The command lines of the processes that work below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder / "demo"):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def test_the_ideas_fit_the_script_as_it_comes() -> None:
    script = starter_files()["train.py"].read_text()
    for idea in IDEAS:
        for old, new in idea.replacements:
            assert script.count(old) == 1
            assert old != new
        compile(idea.applied(script), "train.py", "exec")
    assert {idea.source for idea in IDEAS} == {"edits", "workspace"}
