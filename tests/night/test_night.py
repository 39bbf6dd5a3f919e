"""Whole nights with agents that quit, ask, crash, hang and finish: the real record, server and trainings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from rich.console import Console

from mcp_server.errors import InvalidInput, NotReady, WrongState
from mcp_server.interfaces.entrance import Entrance
from mcp_server.machine import processes
from mcp_server.machine.folders import Folders
from mcp_server.machine.git.locks import Hold
from mcp_server.night.agents import Agent
from mcp_server.night.command import Command
from mcp_server.night.limits import Limits
from mcp_server.night.night import Clock
from mcp_server.settings import Settings
from tests.night.fake_agents import HANGING, HIDING, RESEARCHER, FakeAgent
from tests.project import SCRIPT, Project

GOAL: dict[str, Any] = {"metric": "val_loss", "direction": "minimize", "time_budget_seconds": 5.0, "policy": "greedy"}
WAIT = 60
"""Seconds for a process to do what it must; nothing takes nearly as long."""


@dataclass
class Skipping:
    """A clock on which waiting takes no time, and every look at it some."""

    tick: float = 0.0
    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def read(self) -> float:
        """Seconds since the night began."""
        self.now += self.tick
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Skip them."""
        self.waits.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        """What a night takes."""
        return Clock(self.read, self.read, self.sleep)


@dataclass
class Watched:
    """A night that somebody watched.

    Attributes:
        said: the lines on the screen.
        home: the folder of the night.
    """

    said: str
    home: Path
    signal: int | None


def night(settings: Settings, command: Command) -> Watched:
    """Work through a night without a terminal; what it raises is raised with the screen as a note."""
    console = Console(file=StringIO(), width=200)
    received = None
    try:
        received = anyio.run(command.run, settings, console)
    finally:
        assert isinstance(console.file, StringIO)
        said = console.file.getvalue()
        if received is None:
            sys.stdout.write(said)
    return Watched(said, Folders.of(settings, settings.repo).night(command.tag or ""), received)


def begin(settings: Settings, tag: str = "mar8") -> None:
    """Set a run up, as a person would before the night."""

    async def set_up() -> None:
        async with Entrance(settings) as entrance:
            await (await entrance.lab()).setup.setup_run(tag=tag, **GOAL)

    anyio.run(set_up)


def gate(settings: Settings) -> Path:
    """What trainings wait for after `wait_for_gate`, where they see it from behind their walls."""
    return settings.cache / "gate"


def wait_for_gate(settings: Settings) -> None:
    """Let trainings wait for the gate."""
    settings.cache.mkdir(parents=True, exist_ok=True)
    waiting = f"import pathlib, time\nwhile not pathlib.Path({str(gate(settings))!r}).exists():\n    time.sleep(0.05)\n"
    Project(settings.repo).commit("Wait", {"train.py": SCRIPT.replace("loss =", f"{waiting}loss =", 1)})


def lives(pid: int) -> bool:
    """Whether a process runs."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_an_agent_that_stops_to_ask_is_started_again_and_told_where_things_stand(
    settings: Settings, tmp_path: Path
) -> None:
    agent = FakeAgent.make(tmp_path / "agent", RESEARCHER, 'print("The baseline stands.\\n\\nShall I go on?")\n')
    limits = Limits(experiments=3)
    watched = night(settings, Command(Agent.named(agent.command), limits, "mar8", goal="a low val_loss"))

    first, second, third = agent.prompts
    assert first.startswith("Begin a research run: call setup_run with tag='mar8'")
    assert "Goal: a low val_loss" in first
    assert "you asked a question" in second
    assert 'Your last words were "Shall I go on?"' in second
    assert "Do not ask" in second
    assert "First call setup_run(tag='mar8', resume=true). After that: Call suggest(tag='mar8')" in second
    assert "The best is mar8-1 with val_loss 1.24" in second
    assert "Continue the research run 'mar8'" in second
    assert 'mar8-2: keep: "idea 1"' in third

    assert "the agent asked a question, and is started again" in watched.said
    assert "mar8-3 keep" in watched.said
    assert "the night ends: 3 experiments are done" in watched.said
    assert (
        "3 tonight (1 baseline, 2 kept), 3 in all; val_loss 1.04 by mar8-3, provisional: better by 0.2" in watched.said
    )
    [report] = watched.home.glob("report-*.md")
    assert str(report) in watched.said
    assert "mar8-3" in report.read_text()
    assert (watched.home / "agent.log").read_text().count("Shall I go on?") >= 2


def test_an_agent_that_fails_at_once_is_given_more_and_more_time(settings: Settings, tmp_path: Path) -> None:
    begin(settings)
    agent = FakeAgent.make(tmp_path / "agent", 'sys.exit("no credit left")\n')
    time_of_night = Skipping()
    command = Command(Agent.named(agent.command), Limits(until=2000.0), "mar8", clock=time_of_night.clock)
    with pytest.raises(NotReady, match=r"added nothing to the record in 10 starts; the last one failed.*agent\.log"):
        night(settings, command)
    assert sum(time_of_night.waits) == 2000
    assert "your program failed with exit code 1" in agent.prompts[1]
    assert "no credit left" in agent.prompts[1]


def test_an_agent_that_never_begins_the_run_is_told_of(settings: Settings, tmp_path: Path) -> None:
    assert settings.repo is not None
    (settings.repo / "autoresearch.toml").write_text('metric = "val_loss"\ntime_budget_seconds = 5\n')
    agent = FakeAgent.make(tmp_path / "agent", 'sys.exit("no credit left")\n')
    command = Command(Agent.named(agent.command), Limits(until=100.0), "mar8", clock=Skipping().clock)
    with pytest.raises(NotReady, match=r"added nothing to the record in \d starts; the last one failed"):
        night(settings, command)


def test_the_pauses_are_said_on_the_screen(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(settings)
    agent = FakeAgent.make(tmp_path / "agent", 'sys.exit("no credit left")\n')
    command = Command(Agent.named(agent.command), Limits(until=14.0), "mar8", clock=Skipping().clock)
    with pytest.raises(NotReady):
        night(settings, command)
    said = capsys.readouterr().out
    assert "failed with exit code 1 after 0 s and added nothing, 1 in a row: it is started again in 5 s" in said
    assert "2 in a row: it is started again in 10 s: no credit left" in said


def test_an_agent_that_hangs_is_ended_with_all_that_it_started(settings: Settings, tmp_path: Path) -> None:
    begin(settings)
    agent = FakeAgent.make(tmp_path / "agent", HANGING)
    slow = Skipping(tick=10.0)  # seconds that pass whenever the night looks at its clock
    limits = Limits(until=1500.0)
    command = Command(Agent.named(agent.command), limits, "mar8", patience=900.0, clock=slow.clock)
    with pytest.raises(NotReady, match="the last one"):
        night(settings, command)
    assert "nothing was heard of you, and you were ended" in agent.prompts[1]
    assert not lives(int((agent.folder / "hidden").read_text()))


def test_an_agent_that_is_silent_while_a_training_runs_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    wait_for_gate(settings)

    @dataclass
    class TrainingTime(Skipping):
        """Time passes while something trains, and in the end the training does too."""

        def read(self) -> float:
            if trainings(settings):
                self.now += 100.0
            if self.now > 5000.0:
                gate(settings).touch()
            return self.now

    agent = FakeAgent.make(tmp_path / "agent", RESEARCHER)
    limits, clock = Limits(experiments=1), TrainingTime().clock
    watched = night(settings, Command(Agent.named(agent.command), limits, "mar8", "g", patience=900.0, clock=clock))
    assert "hangs" not in watched.said
    assert len(agent.prompts) == 1


def test_what_an_agent_leaves_behind_is_ended_too(settings: Settings, tmp_path: Path) -> None:
    begin(settings)
    agent = FakeAgent.make(tmp_path / "agent", HIDING)
    command = Command(Agent.named(agent.command), Limits(until=3.0), "mar8", clock=Skipping().clock)
    with pytest.raises(NotReady, match="stopped"):
        night(settings, command)
    assert not lives(int((agent.folder / "hidden").read_text()))


def test_the_built_in_agent_researches_by_itself(settings: Settings) -> None:
    begin(settings)
    watched = night(settings, Command(Agent.named("builtin"), Limits(experiments=4), "mar8"))
    assert "mar8-1 keep 1.24" in watched.said
    assert "the night ends: 4 experiments are done" in watched.said
    log = (watched.home / "agent.log").read_text()
    assert "suggested: " in log
    assert "mar8-1 keep" in log

    again = night(settings, Command(Agent.named("builtin"), Limits(experiments=2), "mar8"))
    assert "mar8-1 " not in again.said
    assert "the night ends: 2 experiments are done" in again.said
    assert (again.home / "agent.log.1").read_text() == log


def test_the_built_in_agent_needs_a_run_that_can_be_begun(settings: Settings) -> None:
    with pytest.raises(NotReady, match=r"cannot be begun unasked.*autoresearch setup_run --tag mar8"):
        night(settings, Command(Agent.named("builtin"), Limits(), "mar8", goal="a low val_loss"))


def test_a_night_begins_its_run_as_it_is_told_and_continues_it_when_told_again(settings: Settings) -> None:
    builtin, setting = Agent.named("builtin"), {key: value for key, value in GOAL.items() if key != "policy"}
    with pytest.raises(NotReady, match="cannot be begun unasked"):
        night(settings, Command(builtin, Limits(experiments=1)))
    with pytest.raises(InvalidInput, match=r"direction is 'up'.*'minimize' or 'maximize'"):
        night(settings, Command(builtin, Limits(experiments=1), "mar8", setting={**setting, "direction": "up"}))
    watched = night(settings, Command(builtin, Limits(experiments=1), "mar8", setting=setting))
    assert "mar8-1 keep" in watched.said
    assert f"summary: {settings.repo / 'autoresearch-summary.md'}" in watched.said
    workspaces = Folders.of(settings, settings.repo).workspaces("mar8").iterdir()
    assert [path.name for path in workspaces if path.is_dir()] == ["builtin"]

    again = night(settings, Command(builtin, Limits(experiments=1), "mar8", setting=setting))
    assert "mar8-2" in again.said
    with pytest.raises(InvalidInput, match="metric of run 'mar8' is 'val_loss', not 'accuracy'"):
        night(settings, Command(builtin, Limits(experiments=1), "mar8", setting={"metric": "accuracy"}))
    (settings.repo / "task.yaml").write_text("name: small\ntime_budget_seconds: 9\n")
    third = night(settings, Command(builtin, Limits(experiments=1), "mar8", setting={"task": "task.yaml"}))
    assert "of run 'mar8' is 5.0, not 9.0: the run goes on" in " ".join(third.said.split())


def test_a_night_ends_at_the_target_of_the_run(settings: Settings, tmp_path: Path) -> None:
    async def set_up() -> None:
        async with Entrance(settings) as entrance:
            await (await entrance.lab()).setup.setup_run(tag="mar8", target=1.15, **GOAL)

    anyio.run(set_up)
    agent = FakeAgent.make(tmp_path / "agent", RESEARCHER.replace("if starts else goal", "if True else goal"))
    watched = night(settings, Command(Agent.named(agent.command), Limits(), "mar8"))
    assert "the night ends: the target of the run is reached" in watched.said
    assert len(agent.prompts) == 2


def test_two_nights_on_one_run_are_refused(settings: Settings) -> None:
    begin(settings)
    home = Folders.of(settings, settings.repo).night("mar8")
    with Hold(home / "lock"), pytest.raises(WrongState, match="Another night works on run 'mar8'"):
        night(settings, Command(Agent.named("builtin"), Limits(), "mar8"))


@pytest.fixture
def started(settings: Settings) -> Iterator["subprocess.Popen[str]"]:
    """A night with the built-in agent, in a process of its own, whose trainings wait for the gate."""
    wait_for_gate(settings)
    begin(settings)
    words = [sys.executable, "-m", "mcp_server", "night", "--agent", "builtin", "--repo", str(settings.repo)]
    words += ["--devices", "cpu:1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            wait_until(lambda: bool(trainings(settings)))
            yield running
        finally:
            running.kill()


def wait_until(done: Any) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trainings(settings: Settings) -> list[psutil.Process]:
    """The trainings of a repository that run."""
    return working(Folders.of(settings, settings.repo).state / "trials")


def working(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory is in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_agent_and_the_training(
    settings: Settings, started: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    started.send_signal(number)
    out, err = started.communicate(timeout=WAIT)
    assert (started.returncode, err) == (128 + number, "")
    assert f"the night ends: {number.name} came" in out
    assert "stopped the training of mar8-1: it can be trained again" in out
    assert "report: " in out
    mark = str(Folders.of(settings, settings.repo).night("mar8") / "lock")
    assert processes.marked(mark) == []
    assert working(Folders.of(settings, settings.repo).state) == []


def test_a_night_that_was_killed_goes_on_when_it_is_started_again(
    settings: Settings, started: "subprocess.Popen[str]"
) -> None:
    started.kill()
    started.communicate(timeout=WAIT)
    assert trainings(settings)
    gate(settings).touch()
    watched = night(settings, Command(Agent.named("builtin"), Limits(experiments=1), "mar8"))
    assert "mar8-1 keep" in watched.said
    assert "the night ends: 1 experiments are done" in watched.said
