"""Repositories of others, pointed at unchanged: their data, environments, folders and logs."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.lab.lab import Lab
from mcp_server.lab.results import SetUp
from mcp_server.settings import Settings
from tests.lab.foreign import ARGPARSE, CONFIGURED, KERAS, PACKAGE, POINTS
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def foreign(folder: Path, files: dict[str, str]) -> tuple[Project, Settings]:
    """A repository with these files alone, and settings for it."""
    folder.mkdir()
    project = Project(folder)
    project.git("init", "--quiet", "--initial-branch=main")
    project.commit("Initial commit", files)
    return project, Settings.load(folder, "cpu:1")


async def begun(lab: Lab, **arguments: Any) -> tuple[Researcher, SetUp]:
    """A researcher with a greedy run of these arguments, its baseline measured."""
    agent = Researcher(lab)
    agent.run = run = await lab.setup.setup_run(tag="mar8", policy="greedy", **arguments)
    verdict = await agent.baseline()
    assert verdict.status == "keep", verdict.reason
    return agent, run


async def test_argparse_and_data_in_an_ignored_folder(tmp_path: Path) -> None:
    project, settings = foreign(tmp_path / "line", ARGPARSE)
    project.write({"data/points.csv": POINTS, "notes.md": "mine"})
    (project.root / ".venv" / "bin").mkdir(parents=True)
    (project.root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    async with Lab.open(settings) as lab:
        agent, run = await begun(lab, metric="val_loss", time_budget_seconds=5.0)
        assert any(note.startswith("Linked as input: data (0.0 MB, 1 files)") for note in run.adjustments)
        assert run.config["interpreter"] == str(project.root / ".venv" / "bin" / "python")
        better = await agent.attempt(
            "a larger rate", edits=[{"path": "train.py", "old": "default=0.001", "new": "default=0.005"}]
        )
        assert better.status == "keep"
        assert not (project.root / "checkpoints").exists()
        suggested = await lab.reading.suggest("mar8")
        assert any("--lr" in str(proposal) for proposal in suggested.proposals), suggested
        higher = await agent.attempt("larger still", knobs={"--lr": 0.006})
        assert higher.experiment_id == "mar8-3"
        shown = (await lab.reading.history("mar8", limit=1, detail="full")).experiments[0]
        assert "--lr 0.005 -> 0.006" in str(shown)
        with pytest.raises(InvalidInput, match="'--learning-rate' is no knob of the script"):
            await agent.propose("misspelt", knobs={"--learning-rate": 0.1})


async def test_programs_and_paths_of_the_repository_are_found(tmp_path: Path) -> None:
    script = "import os, vendored\nprint('loss:', len(os.environ['OMP_NUM_THREADS']) + vendored.LOSS)\n"
    task = (
        "runner:\n  command: ours\n  environment: {PATH: tools, PYTHONPATH: lib, OMP_NUM_THREADS: '12'}\n"
        "artifacts: train.py\nchecks: [theirs]\nscorer: {metric: loss, direction: minimize}\ntime_budget_seconds: 5\n"
    )
    files = {"train.py": script, "lib/vendored.py": "LOSS = 5\n", "task.yaml": task, ".gitignore": ".venv\n"}
    project, settings = foreign(tmp_path / "tools", files)
    programs = project.root / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    texts = {"ours": "exec python train.py", "theirs": 'case "$PATH" in *:tools) ;; *) exit 1;; esac'}
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    async with Lab.open(settings) as lab:
        agent, _ = await begun(lab, task="task.yaml")
        best = (await agent.lab.reading.best("mar8")).experiment
        assert (best.value if best else None) == 7
        project.write({"task.yaml": task.replace("PATH: tools", "CUDA_VISIBLE_DEVICES: '1'")})
        says = "line 3, runner.environment: environment sets CUDA_VISIBLE_DEVICES, which every training gets from the"
        with pytest.raises(InvalidInput, match=says):
            await lab.setup.setup_run(tag="mar9", task="task.yaml")


async def test_a_package_that_is_run_as_a_module(tmp_path: Path) -> None:
    _, settings = foreign(tmp_path / "net", PACKAGE)
    async with Lab.open(settings) as lab:
        agent, run = await begun(
            lab,
            metric="score",
            direction="maximize",
            time_budget_seconds=5.0,
            command="python -m tinynet.train --fast",
            editable=["src/tinynet/**"],
        )
        assert run.config["train_script"] == "src/tinynet/train.py"
        assert any("has no .venv" in note and "pyproject.toml" in note for note in run.adjustments)
        edit = {"path": "src/tinynet/model.py", "old": "0.5", "new": "0.75"}
        assert (await agent.attempt("more gain", "architecture", edits=[edit])).value == pytest.approx(0.95)


async def test_a_script_in_a_subfolder_with_its_settings_in_yaml(tmp_path: Path) -> None:
    _, settings = foreign(tmp_path / "text", CONFIGURED)
    goal: dict[str, Any] = {
        "metric": "val_perplexity",
        "time_budget_seconds": 5.0,
        "train_script": "projects/text/train.py",
    }
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar7", policy="greedy", **goal)
        lost = await Researcher(lab, "mar7").baseline()
        assert "counts its paths from projects/text" in lost.reason
        agent, run = await begun(lab, folder="projects/text", editable=["projects/text/conf/*.yaml"], **goal)
        assert run.config["command"] == "python train.py"
        edit = {"path": "projects/text/conf/config.yaml", "old": "lr: 0.5", "new": "lr: 0.02"}
        verdict = await agent.attempt("a smaller rate", "optimizer", edits=[edit])
        assert (verdict.status, verdict.value) == ("keep", 3)
        with pytest.raises(InvalidInput, match="'projects/tex' holds no committed file"):
            await lab.setup.setup_run(tag="mar9", folder="projects/tex", **goal)


async def test_a_log_of_keras_and_a_script_that_knows_no_budget(tmp_path: Path) -> None:
    _, settings = foreign(tmp_path / "keras", KERAS)
    async with Lab.open(settings) as lab:
        agent, _ = await begun(
            lab, metric="val_accuracy", time_budget_seconds=1.0, train_script="fit.py", end_at_budget=True
        )
        verdict = await agent.attempt("wider", "architecture", knobs={"UNITS": 16})
        assert (verdict.status, verdict.value) == ("keep", 0.9375)


async def test_a_uv_project_without_its_environment_is_told(tmp_path: Path) -> None:
    _, settings = foreign(tmp_path / "uv", {"app/train.py": "print('loss: 1')\n", "app/uv.lock": "", "app/m.py": ""})
    async with Lab.open(settings) as lab:
        run = await lab.setup.setup_run(
            tag="mar8", metric="loss", time_budget_seconds=5.0, train_script="app/train.py", preview=True
        )
        note = next(note for note in run.adjustments if "uv project" in note)
        assert f"run `uv sync` in '{settings.repo / 'app'}'" in note


async def test_the_environment_beside_a_script_is_nearer_than_that_of_the_repository(tmp_path: Path) -> None:
    project, settings = foreign(tmp_path / "two", {"app/train.py": "print('loss: 1')\n", ".gitignore": ".venv\nvenv\n"})
    for folder in ("app/venv", ".venv"):
        (project.root / folder / "bin").mkdir(parents=True)
        (project.root / folder / "bin" / "python").symlink_to(sys.executable)
    async with Lab.open(settings) as lab:
        _, run = await begun(lab, metric="loss", time_budget_seconds=5.0, train_script="app/train.py")
        assert run.config["interpreter"] == str(project.root / "app" / "venv" / "bin" / "python")
        assert "Trainings run with app/venv/bin/python." in run.adjustments


async def test_data_that_is_still_in_git_lfs_is_refused_by_name(project: Project, settings: Settings) -> None:
    project.commit("Weights", {".gitattributes": "*.bin filter=lfs\n*.mp4 filter=lfs\n", "demo.mp4": POINTER})
    goal: dict[str, Any] = {"metric": "val_loss", "time_budget_seconds": 5.0}
    async with Lab.open(settings) as lab:
        shown = await lab.setup.setup_run(tag="mar8", preview=True, **goal)
        assert any("demo.mp4" in note and "git lfs pull" in note for note in shown.adjustments)
        project.commit("Data", {"data/tokens.bin": POINTER})
        with pytest.raises(NotReady, match=r"'data/tokens\.bin' holds a pointer of Git LFS and not the data"):
            await lab.setup.setup_run(tag="mar8", **goal)


async def test_submodules_are_linked_as_they_are_checked_out(tmp_path: Path) -> None:
    library, _ = foreign(tmp_path / "library", {"lib.py": "LOSS = 1\n"})
    project, settings = foreign(
        tmp_path / "main",
        {"train.py": "import sys\nsys.path.insert(0, 'deps/lib')\nimport lib\nprint('loss:', lib.LOSS)\n"},
    )
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.root), "deps/lib")
    project.git("commit", "--quiet", "--message", "A library")
    async with Lab.open(settings) as lab:
        agent, run = await begun(lab, metric="loss", time_budget_seconds=5.0)
        assert "Linked as input: submodule deps/lib, as it is checked out now." in run.adjustments
        agent.edit("lib.LOSS)", "lib.LOSS / 2)")
        verdict = await agent.attempt("half of it")
        assert (verdict.status, verdict.value, verdict.workspace_updated) == ("keep", 0.5, True)
        assert project.git("ls-tree", "--name-only", project.branch("mar8"), "deps/").splitlines() == ["deps/lib"]
        with pytest.raises(InvalidInput, match="leads through 'deps/lib'"):
            await agent.propose("another library", files={"deps/lib/lib.py": "LOSS = 0\n"})
        project.git("submodule", "--quiet", "deinit", "--force", "deps/lib")
        await lab.setup.setup_run(tag="mar9", metric="loss", time_budget_seconds=5.0, policy="greedy")
        lost = await Researcher(lab, "mar9").baseline()
        assert "git submodule update --init deps/lib" in lost.reason
