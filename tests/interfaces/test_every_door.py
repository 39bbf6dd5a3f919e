"""Names, paths and texts that could mislead git, a file system or a reader, at every door alike."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.mcp_tools import build_server
from mcp_server.interfaces.verbs import flag
from mcp_server.settings import Settings
from tests.interfaces.agents import refused
from tests.interfaces.callers import caller
from tests.interfaces.shell import Shell
from tests.lab.researcher import GOAL
from tests.project import Project

NAMES = {
    "nothing": "",
    "an option": "--upload-pack=evil",
    "a short option": "-x",
    "a folder above": "..",
    "a path out": "../../etc",
    "a path": "a/b",
    "a Windows path": "a\\b",
    "a drive": "C:",
    "a stream": "a:b",
    "a device": "CON",
    "a device with an ending": "nul.txt",
    "a lock": "mar8.lock",
    "a lock in capitals": "mar8.LOCK",
    "a dot at the end": "mar8.",
    "two dots": "a..b",
    "a hidden file": ".git",
    "the reflog": "@{-1}",
    "a parent": "mar8^",
    "an ancestor": "mar8~1",
    "a glob": "mar*",
    "a space": "a b",
    "a space at the end": "mar8 ",
    "a line end": "mar8\n",
    "two lines": "a\nb",
    "an escape": "\x1b[2Jmar8",
    "a letter that is none of ASCII": "é",
    "a Cyrillic a": "m\u0430r8",
    "a full-width dot": "a\uff0e\uff0eb",
    "text from right to left": "mar\u202e8",
    "a zero width": "mar\u200b8",
    "a digit of another script": "mar\u0668",
    "too long": "t" * 65,
    "far too long": "t" * 100_000,
    "a command": "$(touch evil)",
    "a second command": "a;touch evil",
    "markup": "<script>alert(1)</script>",
    "SQL": "a'; DROP TABLE runs; --",
}
"""What no run and no agent may be called."""

PATHS = {
    "a folder above": "../evil.tsv",
    "a folder above, later": "a/../../evil.tsv",
    "from the top": "/tmp/evil.tsv",
    "a home": "~/evil.tsv",
    "a drive": "C:/evil.tsv",
    "a Windows path": "..\\evil.tsv",
    "git's own": ".git/hooks/post-commit",
    "git's own in capitals": ".GIT/config",
    "git's own to HFS+": ".g\u200cit/config",
    "git's own to NTFS": "git~1/config",
    "our own": ".autoresearch/research.db",
    "through a link": "link/evil.tsv",
    "a link": "link",
    "an existing file": "README.md",
    "two lines": "a\nb",
    "nothing": "",
    "too long": "x" * 300,
    "far too long": "x/" * 50_000 + "x",
}
"""Where nothing may be written."""

TEXTS = {"a NUL": "mar8\0", "half a character": "mar8\ud800"}
"""What git, SQLite and programs take from nobody."""

QUESTIONS: list[tuple[str, str, Mapping[str, str]]] = [
    ("setup_run", "tag", NAMES),
    ("setup_run", "agent", NAMES),
    ("setup_run", "results_file", PATHS),
    ("setup_run", "base_ref", NAMES),
    ("setup_run", "train_script", NAMES | {what: path for what, path in PATHS.items() if path != "README.md"}),
    ("import", "tag", NAMES),
    ("import", "base_ref", NAMES),
    ("finalize", "tag", NAMES),
    ("export", "path", PATHS),
    ("export", "tag", NAMES),
    ("history", "tag", NAMES),
    ("history", "cursor", NAMES),
    ("logs", "experiment_id", NAMES),
    ("train", "experiment_id", NAMES),
    ("register", "parent_id", NAMES),
    ("register", "commit_sha", NAMES),
    ("register", "agent", NAMES),
]
"""For each argument that could mislead somebody, the values that must be refused."""

KNOWN = {
    "setup_run": {**GOAL, "tag": "new"},
    "export": {"tag": "mar8"},
    "import": {"path": "results.tsv", "time_budget_seconds": 5.0},
    "history": {"tag": "mar8"},
    "register": {"tag": "mar8", "hypothesis": "it helps", "category": "other"},
}

Ask = Callable[[str, dict[str, Any]], Awaitable[str]]


def arguments(operation: str, name: str, value: str) -> dict[str, Any]:
    """Arguments that are good but for one."""
    return {**KNOWN.get(operation, {}), name: value}


@pytest.fixture
def prepared(project: Project, settings: Settings, tmp_path: Path) -> Project:
    """A repository with a run, and a link that leads out of it."""

    async def set_up() -> None:
        async with caller(settings) as client:
            assert (await client.post("/api/setup_run", json={**GOAL, "tag": "mar8"})).is_success

    asyncio.run(set_up())
    project.write({"results.tsv": "commit\tval_loss\tmemory_gb\tstatus\tdescription\nabc1234\t1.2\t0.0\tkeep\tstart\n"})
    (tmp_path / "elsewhere").mkdir()
    (project.root / "link").symlink_to(tmp_path / "elsewhere")
    return project


def trace(project: Project, tmp_path: Path) -> tuple[Any, ...]:
    """All that a refusal must leave as it was."""
    files = sorted(str(path) for path in project.root.rglob("*") if "objects" not in path.parts)
    return project.git("for-each-ref"), files, sorted((tmp_path / "elsewhere").iterdir())


def check(said: str) -> None:
    """What a refusal is: a sentence or two that one can read, and no surprise."""
    assert said, "it was not refused"
    assert "failed inside the server" not in said
    assert "Traceback" not in said
    assert len(said) < 2 * 2000
    assert not any(ord(char) < 32 and char != "\n" for char in said)


@pytest.mark.parametrize(("operation", "name", "values"), QUESTIONS, ids=[" ".join(each[:2]) for each in QUESTIONS])
def test_mcp(
    prepared: Project, settings: Settings, tmp_path: Path, operation: str, name: str, values: Mapping[str, str]
) -> None:
    async def ask() -> None:
        async with Entrance(settings) as entrance, Client(build_server(entrance)) as client:
            for value in values.values():
                check(await refused(client, operation, **arguments(operation, name, value)))

    before = trace(prepared, tmp_path)
    asyncio.run(ask())
    assert trace(prepared, tmp_path) == before


@pytest.mark.parametrize(("operation", "name", "values"), QUESTIONS, ids=[" ".join(each[:2]) for each in QUESTIONS])
def test_rest(
    prepared: Project, settings: Settings, tmp_path: Path, operation: str, name: str, values: Mapping[str, str]
) -> None:
    async def ask() -> None:
        async with caller(settings, trusted=True) as client:
            for value in values.values():
                answer = await client.post(f"/api/{operation}", json=arguments(operation, name, value))
                assert answer.status_code in (400, 404, 409), answer.text
                check(answer.json()["error"])

    before = trace(prepared, tmp_path)
    asyncio.run(ask())
    assert trace(prepared, tmp_path) == before


@pytest.mark.parametrize(("operation", "name", "values"), QUESTIONS, ids=[" ".join(each[:2]) for each in QUESTIONS])
def test_command_line(
    prepared: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    name: str,
    values: Mapping[str, str],
) -> None:
    shell = Shell(monkeypatch, capsys)
    before = trace(prepared, tmp_path)
    for value in (value for value in values.values() if value):  # an empty option is one that is left out
        given = arguments(operation, name, value)
        words = [f"{flag(key)}={each}" for key, each in given.items()]
        done = shell.run(operation, *words, "--repo", str(prepared.root), "--devices", "cpu:1")
        assert done.code == 1, done
        check(done.err)
        assert done.err.startswith("autoresearch: ")
    assert trace(prepared, tmp_path) == before


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_that_nothing_can_keep(prepared: Project, settings: Settings, text: str) -> None:
    given: list[tuple[str, dict[str, Any]]] = [
        ("history", {"tag": text}),
        ("logs", {"experiment_id": "mar8-1", "grep": text}),
        ("register", KNOWN["register"] | {"description": text}),
        ("register", KNOWN["register"] | {"files": {text: "x"}}),
        ("register", KNOWN["register"] | {"files": {"train.py": text}}),
        ("register", KNOWN["register"] | {"edits": [{"path": "train.py", "old": "", "new": text}]}),
        ("register", KNOWN["register"] | {"knobs": {"LR": [text]}}),
        ("setup_run", KNOWN["setup_run"] | {"inputs": [text]}),
        ("history", {text: 1}),
    ]

    async def ask() -> None:
        async with Entrance(settings) as entrance, Client(build_server(entrance)) as client:
            for operation, each in given:
                said = await refused(client, operation, **each)
                check(said)
                assert "Send plain JSON" in said

    if "\0" in text:  # the SDK's own client sends no half characters
        asyncio.run(ask())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("command", "touch evil"),
        ("train_script", "train.py"),
        ("train_script", "../train.py"),
        ("task", "gpt"),
        ("task", "/tmp/task"),
        ("inputs", ["/etc"]),
        ("inputs", ["../x"]),
        ("inputs", ["link/*"]),
        ("editable", ["../*.py"]),
        ("editable", ["/etc/passwd"]),
        ("results_file", "../evil.tsv"),
        ("results_file", "link/evil.tsv"),
    ],
)
async def test_who_comes_over_the_network_chooses_nothing_outside(
    project: Project, settings: Settings, tmp_path: Path, name: str, value: Any
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data.bin").touch()
    (project.root / "link").symlink_to(tmp_path / "elsewhere")
    async with caller(settings) as client:
        answer = await client.post("/api/setup_run", json={**GOAL, "tag": "mar8", name: value})
        assert answer.status_code == 400
        check(answer.json()["error"])
        assert not (await client.get("/api/list_runs")).json()["runs"]


@pytest.mark.anyio
async def test_resuming_with_what_the_run_has_is_harmless(settings: Settings) -> None:
    async with caller(settings, trusted=True) as client:
        made = (await client.post("/api/setup_run", json={**GOAL, "tag": "mar8", "command": "python train.py"})).json()
    own = {name: made["config"][name] for name in ("command", "train_script")}
    async with caller(settings) as client:
        again = await client.post("/api/setup_run", json={"tag": "mar8", "resume": True, **own})
        assert again.is_success, again.text
        assert again.json()["config"] == made["config"]
        for other in ({"command": "touch evil"}, {"train_script": "other.py"}, {"task": "gpt"}, {"task": "/tmp"}):
            answer = await client.post("/api/setup_run", json={"tag": "mar8", "resume": True, **own, **other})
            assert answer.status_code == 400
            assert next(iter(other)) in answer.json()["what"] or "task" in answer.json()["what"]
        fresh = await client.post("/api/setup_run", json={"tag": "new", "resume": True, **GOAL, **own})
        assert fresh.status_code == 404
