"""What callers may have written, and where: by each door, and to what stands in the way."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.lab.lab import Lab
from mcp_server.lab.ledger import list_results
from mcp_server.settings import Settings
from tests.interfaces.callers import caller
from tests.interfaces.shell import Shell
from tests.lab.researcher import GOAL, researching
from tests.project import Project

EXPORTS = ".autoresearch/exports"
ORDERS = (
    *("GNUmakefile", "conftest.py", ".gitattributes", ".github/x.md", ".envrc", "CLAUDE.md", "agents.md", "a.toml"),
    *("cdk.json", "llms.txt", "results.tf.json"),
)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


async def begun(settings: Settings, **more: Any) -> dict[str, Any]:
    """A run that was set up over HTTP."""
    async with caller(settings) as client:
        made = await client.post("/api/setup_run", json={**GOAL, "tag": "mar8", **more})
        assert made.is_success, made.text
        answer: dict[str, Any] = made.json()
        return answer


@pytest.mark.anyio
async def test_over_the_network_exports_go_into_their_folder(settings: Settings, project: Project) -> None:
    await begun(settings)
    async with caller(settings, trusted=True) as client:
        for path in ("a.csv", f"{EXPORTS}/b.csv", f"{EXPORTS}/deep/c.csv"):
            answer = await client.post("/api/export", json={"format": "csv", "path": path})
            assert answer.is_success, answer.text
            assert Path(answer.json()["path"]).read_text().startswith("experiment,commit,")
        for path in (
            "out/a.csv",
            "a.csv",
            "../a.csv",
            "/tmp/a.csv",
            *ORDERS,
            *(f"{EXPORTS}/{name}" for name in ORDERS),
        ):
            assert (await client.post("/api/export", json={"path": path})).status_code == 400, path
    assert sorted(p.name for p in (project.root / EXPORTS).rglob("*")) == ["a.csv", "b.csv", "c.csv", "deep"]
    assert project.git("status", "--porcelain") == ""


@pytest.mark.anyio
async def test_with_the_state_elsewhere_too(settings: Settings, project: Project, tmp_path: Path) -> None:

    moved = replace(settings, state=tmp_path / "state")
    await begun(moved)
    async with caller(moved) as client:
        assert (await client.post("/api/export", json={"path": "a.tsv"})).is_success
    assert (project.root / EXPORTS / "a.tsv").is_file()
    assert project.git("status", "--porcelain") == ""


@pytest.mark.anyio
@pytest.mark.parametrize("planted", [".autoresearch/exports", ".autoresearch/exports/deep"])
async def test_no_link_is_followed(settings: Settings, project: Project, tmp_path: Path, planted: str) -> None:
    await begun(settings)
    (tmp_path / "elsewhere").mkdir()
    (project.root / planted).parent.mkdir(parents=True, exist_ok=True)
    (project.root / planted).symlink_to(tmp_path / "elsewhere")
    async with caller(settings) as client:
        answer = await client.post("/api/export", json={"path": f"{EXPORTS}/deep/a.tsv"})
        assert answer.status_code == 503
        assert "symbolic link" in answer.json()["what"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_on_ones_own_terminal_any_folder_will_do(shell: Shell, project: Project) -> None:
    assert shell.run("setup_run", "--tag", "mar8", *_words(GOAL), cwd=project.root).code == 0
    for path in ("a.csv", "out/a.csv", f"{EXPORTS}/c.csv"):
        done = shell.run("export", "--path", path, cwd=project.root)
        assert done.code == 0, done.err
        assert (project.root / path).read_text().startswith("commit\t")
        assert shell.run("export", "--path", path, cwd=project.root).code == 1, "never over a file"
    for path in (*ORDERS, ".git/a.tsv", "../a.tsv", "/tmp/a.tsv"):
        assert shell.run("export", "--path", path, cwd=project.root).code == 1, path


def _words(goal: dict[str, Any]) -> list[str]:
    return [word for name, value in goal.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.mark.anyio
async def test_a_results_file_that_a_caller_names_goes_there_too(settings: Settings, project: Project) -> None:
    made = await begun(settings, results_file="mine.tsv")
    assert made["config"]["results_file"] == f"{EXPORTS}/mine.tsv"
    async with caller(settings) as client:
        for name in ("mine.tsv", f"{EXPORTS}/mine.tsv"):
            again = await client.post("/api/setup_run", json={"tag": "mar8", "resume": True, "results_file": name})
            assert again.is_success, again.text
        for name in ("out/mine.tsv", "../mine.tsv", *ORDERS):
            answer = await client.post("/api/setup_run", json={**GOAL, "tag": "new", "results_file": name})
            assert answer.status_code == 400, name
        usual = await client.post("/api/setup_run", json={**GOAL, "tag": "new", "results_file": "results.tsv"})
        assert usual.json()["config"]["results_file"] == "results.tsv"


@pytest.mark.anyio
async def test_a_run_of_before_is_resumed_by_the_name_that_it_has(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar8", results_file="notes/mine.tsv", **GOAL)
    async with caller(settings) as client:
        again = await client.post(
            "/api/setup_run", json={"tag": "mar8", "resume": True, "results_file": "notes/mine.tsv"}
        )
        assert again.is_success, again.text


@pytest.mark.anyio
@pytest.mark.parametrize("before", [None, "", "*.log", "*.log\n/results.tsv\n"])
async def test_git_does_not_see_the_results(settings: Settings, project: Project, before: str | None) -> None:
    exclude = project.root / ".git/info/exclude"
    if before is None:
        exclude.unlink(missing_ok=True)
        exclude.parent.rmdir()
    else:
        exclude.write_text(before)
    async with researching(settings) as agent:
        await agent.attempt("better", knobs={"LR": 0.2})
        assert len((project.root / "results.tsv").read_text().splitlines()) == 3
        lines = exclude.read_text().splitlines()
        assert lines.count("/results.tsv") == 1
        assert before is None or lines[: len(before.splitlines())] == before.splitlines()
        assert project.git("status", "--porcelain") == ""
    assert not (project.root / ".gitignore").exists()


@pytest.mark.anyio
async def test_nor_in_a_linked_work_tree(settings: Settings, project: Project, tmp_path: Path) -> None:
    project.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "-b", "other")
    linked = Project(tmp_path / "linked")
    async with researching(Settings.load(linked.root, "cpu:1")):
        pass
    assert "/results.tsv" in (project.root / ".git/info/exclude").read_text().splitlines()
    assert project.git("status", "--porcelain") == linked.git("status", "--porcelain") == ""


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_results_go_through_nothing_that_was_put_in_the_way(
    settings: Settings, project: Project, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar8", results_file="out/mine.tsv", external=True, **GOAL)
        run = await lab.bench.store.runs.get("mar8")
        place = project.root / "out"
        if kind == "link":
            place.symlink_to(tmp_path / "elsewhere")
        else:
            place.mkdir()
            (place / "mine.tsv").mkdir() if kind == "folder" else os.mkfifo(place / "mine.tsv")
        registered = await lab.registering.register(tag="mar8", hypothesis="the baseline", category="other")
        await lab.verdicts.crash(registered.experiment_id)
        [said] = await list_results(lab.bench, run)
        assert "out/mine.tsv could not be written" in said
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.anyio
async def test_a_name_that_is_no_longer_taken_stays_that_of_its_run(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar8", external=True, **GOAL)
        run = await lab.bench.store.runs.get("mar8")
        task = json.dumps(asdict(replace(run.task, results_file="RESULTS", metric_pattern="(?<=x)(y)")))
        folder = lab.bench.folders.store
    with closing(sqlite3.connect(folder)) as record, record:
        record.execute("UPDATE runs SET task = ?", (task,))
    project.write({"task.yaml": "name: x\nresults_file: RESULTS\nscorer: {pattern: '(?<=x)(y)'}\n"})
    async with Lab.open(settings) as lab:
        again = await lab.setup.setup_run(tag="mar8", resume=True, task="task.yaml")
        assert again.config["results_file"] == "RESULTS"
        assert [note for note in again.adjustments if "RESULTS" in note or "pattern" in note] == []
        made = await lab.registering.register(tag="mar8", hypothesis="the baseline", category="other")
        await lab.verdicts.complete(made.experiment_id, metrics={GOAL["metric"]: 1.0})
        assert len((project.root / "RESULTS").read_text().splitlines()) == 2
        with pytest.raises(InvalidInput, match=r"task.yaml.*results_file 'RESULTS' is not named as data"):
            await lab.setup.setup_run(tag="new", task="task.yaml", external=True, **GOAL)


@pytest.mark.anyio
async def test_nor_do_reports(settings: Settings, project: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar8", results_file="out/deep/mine.tsv", external=True, **GOAL)
        (project.root / "out").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(NotReady, match="out is a symbolic link"):
            await lab.reporting.report(save=True)
        assert list((tmp_path / "elsewhere").iterdir()) == []
        (project.root / "out").unlink()
        saved = await lab.reporting.report(save=True)
        again = await lab.reporting.report(save=True)
        assert saved.path == again.path == str(project.root / "out/deep/autoresearch-summary.md")
        assert [each.name for each in (project.root / "out/deep").iterdir()] == ["autoresearch-summary.md"]
