"""The sample tasks: each is measured, its mutator finds something better, and what is wrong is not kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mcp_server.lab.artifact_loop import ArtifactLoop
from mcp_server.lab.taskfile import read_task_file

pytestmark = pytest.mark.anyio

TASKS = Path(__file__).parents[2] / "tasks"
SAMPLES = {"skill-quality": 1, "digits": 1, "fast-config": 1, "fast-primes": 2}
"""How many iterations of each are run here; the first finds something better."""


def copied(name: str, folder: Path) -> Path:
    """A copy of a sample outside of any repository."""
    return shutil.copytree(TASKS / name, folder / name, ignore=shutil.ignore_patterns("work", "__pycache__"))


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_sample_gets_better(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    lines: list[dict[str, Any]] = []
    async with ArtifactLoop.open(folder, "cpu:1") as loop:
        await loop.run(SAMPLES[name], lambda line: lines.append(dict(line)))
        outcome = await loop.outcome()
    assert [line["status"] for line in lines[:2]] == ["keep", "keep"], lines
    assert (outcome.accepted, outcome.results) == (1, str(folder / "work" / "results.jsonl"))
    assert [json.loads(line) for line in Path(outcome.results).read_text().splitlines()] == lines
    artifact = next(iter(read_task_file(folder / "task.yaml").values["editable"]))
    changed = [path.name for path in folder.iterdir() if path.is_file() and _differs(path, TASKS / name / path.name)]
    assert changed == [artifact]
    if name == "fast-primes":
        assert (lines[2]["status"], lines[2]["value"]) == ("discard", None)
        assert "check.py' failed" in lines[2]["reason"]


def _differs(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()


def test_every_sample_is_tested_and_says_what_it_is_for() -> None:
    assert sorted(path.parent.name for path in TASKS.glob("*/task.yaml")) == sorted(SAMPLES)
    for name in SAMPLES:
        assert "mutator" in read_task_file(TASKS / name / "task.yaml").values
