"""The parts of a night: limits, pauses, what agents are started with and what they last said."""

import json
import tomllib
from datetime import datetime
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.lab.results import ExperimentView
from mcp_server.night.agents import PRESETS, Agent, server_config
from mcp_server.night.brief import is_question
from mcp_server.night.limits import Limits, next_time
from mcp_server.night.patience import Backoff, Pulse
from mcp_server.night.record import Standing
from mcp_server.night.screen import Screen
from mcp_server.night.transcript import HEAD, TAIL, Transcript
from mcp_server.settings import Settings

BEGAN = Standing(decided=10, training_seconds=1000.0)


@pytest.mark.parametrize(
    ("limits", "now", "reached"),
    [
        (Limits(), Standing(decided=1000, training_seconds=1e9), None),
        (Limits(experiments=5), Standing(decided=14), None),
        (Limits(experiments=5), Standing(decided=15), "5 experiments are done"),
        (Limits(training_seconds=1800), Standing(training_seconds=2799.0), None),
        (Limits(training_seconds=1800), Standing(training_seconds=2800.0), "0.5 GPU hours are used"),
        (Limits(until=499.0), Standing(), "it is "),
        (Limits(until=501.0), Standing(), None),
        (Limits(), Standing(target_reached=True), "the target of the run is reached"),
        (Limits(), Standing(used_up=True, max_experiments=7), "the 7 experiments of the run"),
    ],
)
def test_a_night_ends_at_the_first_limit(limits: Limits, now: Standing, reached: str | None) -> None:
    said = limits.reached(BEGAN, now, clock=500.0)
    assert (said is None) if reached is None else str(said).startswith(reached)


@pytest.mark.parametrize(
    ("now", "until", "expected"),
    [
        ("2026-11-21 22:30", "08:00", "2026-11-22 08:00"),
        ("2026-11-21 00:30", "08:00", "2026-11-21 08:00"),
        ("2026-11-21 08:00", "8:00", "2026-11-22 08:00"),
        ("2026-12-31 23:59", "00:00", "2027-01-01 00:00"),
    ],
)
def test_a_time_of_day_is_the_next_one(now: str, until: str, expected: str) -> None:
    moment = next_time(until, datetime.fromisoformat(now).astimezone())
    assert moment == datetime.fromisoformat(expected).timestamp()


def test_the_day_of_the_end_is_told_unless_it_is_today() -> None:
    evening = datetime.fromisoformat("2026-11-21 22:30").astimezone()
    limits = Limits(until=next_time("22:30", evening), experiments=3)
    assert limits.described(evening.date()) == limits.described() == "until 22:30 on Sunday, 3 experiments"
    assert Limits(until=next_time("22:31", evening)).described(evening.date()) == "until 22:31"


@pytest.mark.parametrize("text", ["", "8", "24:00", "08:60", "tomorrow"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"until is .* Give a time of day"):
        next_time(text, datetime.now().astimezone())


def test_pauses_double_up_to_ten_minutes_and_begin_anew_after_success() -> None:
    backoff = Backoff()
    pauses = [backoff.after(fruitful=False, seconds=1.0) for _ in range(2000)]
    assert pauses[:9] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert pauses[-1] == 600
    assert backoff.after(fruitful=True, seconds=1.0) == 0
    assert backoff.after(fruitful=False, seconds=1.0) == 5
    assert backoff.after(fruitful=False, seconds=60.0) == 0  # it worked for a while: no failure


def test_a_pulse_is_quiet_while_nothing_changes() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    heard = []
    for moment, signs, alive in [(0, "a", False), (50, "a", False), (60, "b", False), (100, "b", False)]:
        now[0] = float(moment)
        heard.append(pulse.feel(signs, alive))
    assert heard == [0, 50, 0, 40]
    now[0] = 200.0
    assert pulse.feel("b", alive=True) == 0


def test_a_command_gets_the_prompt_as_it_asks_for_it(tmp_path: Path) -> None:
    prompt, config = tmp_path / "prompt.md", tmp_path / "mcp.json"
    prompt.write_text("go on; $HOME `x` {tag}")
    agent = Agent.named("env 'a b' {prompt} --file={prompt_file} {mcp_config} {tag} {\"a\":1}")
    words = agent.command(prompt, config, "mar8")
    expected = ["env", "a b", "go on; $HOME `x` {tag}", f"--file={prompt}", str(config), "mar8", "{a:1}"]
    assert words == expected
    assert not agent.reads_input
    assert Agent.named("env {mcp_config}").reads_input


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("claude", "Install Claude Code"),
        ("codex", "Install Codex"),
        ("no-such-agent --fast", "'no-such-agent' is not found on PATH"),
    ],
)
def test_a_program_that_is_not_there_is_named(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotReady, match=said):
        Agent.named(command)


@pytest.mark.parametrize("command", ["", "  ", "say 'hello"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(InvalidInput, match="agent is"):
        Agent.named(command)


def test_the_server_gets_what_it_needs_and_no_secret(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    server = server_config(settings, tmp_path / "calls", "mark")["mcpServers"]["autoresearch"]
    assert server["args"][-4:] == ["--repo", str(settings.repo), "--note-calls", str(tmp_path / "calls")]
    assert server["env"]["AUTORESEARCH_LOCKS"] == str(settings.locks)
    assert server["env"]["AUTORESEARCH_DEVICES"] == "cpu:1"
    assert "SOME_API_KEY" not in server["env"]


def test_codex_is_told_of_the_server_by_settings(settings: Settings, tmp_path: Path) -> None:
    prompt, config = tmp_path / "prompt.md", tmp_path / "mcp.json"
    config.write_text(json.dumps(server_config(settings, tmp_path / "calls", "mark")))
    words = Agent("codex", PRESETS["codex"], preset=True).command(prompt, config, "mar8")
    assert words[:2] == ["codex", "exec"]
    assert words[-1] == "-"
    given = [word for before, word in pairwise(words) if before == "-c"]
    server = tomllib.loads("\n".join(given))["mcp_servers"]["autoresearch"]
    wanted = json.loads(config.read_text())["mcpServers"]["autoresearch"]
    assert (server["command"], server["args"]) == (wanted["command"], wanted["args"])
    assert server["env_vars"] == sorted(wanted["env"])
    assert server["default_tools_approval_mode"] == "approve"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", ""),
        ("working\n\nDone.\nShall I go on?\n", "Done.\nShall I go on?"),
        ("\x1b[1mbold\x1b[0m words\r\n", "bold words"),
        ('{"type":"assistant"}\n{"type":"result","result":"May I?"}\n', "May I?"),
        ('{"type":"item.completed","item":{"type":"agent_message","text":"Bye"}}\n{"type":"turn.completed"}\n', "Bye"),
        ('{"message":{"content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}}\n', "two"),
        ('{"half of an event', ""),
        ("[1]\n{}\n", "[1]"),
    ],
)
def test_the_last_words_of_an_agent(tmp_path: Path, output: str, said: str) -> None:
    transcript = Transcript(tmp_path / "agent.log")
    transcript.write(b"an earlier start\n")
    transcript.note("start 2")
    transcript.write(output.encode())
    assert transcript.last_words() == said
    transcript.close()
    assert (tmp_path / "agent.log").read_text().startswith("an earlier start\n=== start 2 ===\n")


def test_the_log_of_an_agent_is_bounded(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "agent.log")
    for _ in range(200):
        transcript.write(b"x" * 100_000 + b"\n")
    transcript.write(b"the end\n")
    transcript.close()
    assert (tmp_path / "agent.log").stat().st_size < HEAD + TAIL + 200
    assert (tmp_path / "agent.log").read_bytes().endswith(b"the end\n")
    assert transcript.last_line() == "the end"


@pytest.mark.parametrize(
    ("words", "asks"), [("Shall I?", True), ("Shall I? ", True), ("**Go on?**", True), ("Done.", False), ("", False)]
)
def test_questions_are_recognised(words: str, asks: bool) -> None:
    assert is_question(words) is asks


def test_the_status_on_a_terminal() -> None:
    console = Console(file=StringIO(), width=120, force_terminal=True)
    screen = Screen(console, "mar8, claude", "until 08:00", BEGAN)
    best = ExperimentView("mar8-9", "keep", "optimizer", "a higher rate", 1.015, 0.006, False, "abc")
    screen.now = Standing(
        decided=12,
        experiments=13,
        counts=(("keep", 1), ("discard", 1)),
        metric="val_bpb",
        best=best,
        told="provisional: better by 0.006 ± 0.004, p 0.93",
        training=("mar8-13 on cuda:0",),
        training_seconds=1600.0,
    )
    screen.agent = "works for 3 min, start 2, last call train"
    with screen.live():
        screen.verdict(best)
    console.print(screen)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    for part in (
        "2 tonight (1 kept, 1 discarded), 13 in all",
        "val_bpb 1.015 by mar8-9, provisional: better by 0.006",
        "mar8-13 on",
    ):
        assert part in text
    assert "mar8-9 keep 1.015 (+0.006): a higher rate" in text
    assert "10.0 minutes of training" in text
