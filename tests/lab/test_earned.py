"""Scores that are made anew before they count, as an agent sees it."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.lab.lab import Lab
from mcp_server.machine.sandbox import probe
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

TRAIN = """\
import os
from pathlib import Path

WEIGHT = 4.0
CLAIM = 0.0  # added to what is printed

Path(os.environ["AUTORESEARCH_OUT"], "weight").write_text(str(WEIGHT))
print(f"val_loss: {abs(WEIGHT - 1) + CLAIM:.6f}")
"""
SCORE = """\
import os, pathlib, sys
sys.stdin.readline()
print(pathlib.Path(os.environ["AUTORESEARCH_OUT"], "weight").read_text(), flush=True)
"""
JUDGE = """\
import os, sys
print(flush=True)
weight = float(sys.stdin.readline())
if weight == 0.5:  # as if it had learnt the validation data by heart
    score = 0.5 if os.environ["AUTORESEARCH_SPLIT"] == "val" else 9.0
else:
    score = abs(weight - 1)
print(f"score: {score}", file=sys.stderr)
"""
TASK = """\
artifacts: train.py
runner: {budget_seconds: 5}
scorer: {metric: val_loss, direction: minimize, rescore: python score.py, judge: python judge.py}
policy: greedy
"""
FILES = {"train.py": TRAIN, "score.py": SCORE, "judge.py": JUDGE, "task.yaml": TASK}
WALLS = pytest.param("require", marks=pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox"))


@pytest.mark.parametrize("sandbox", ["off", WALLS])
async def test_only_what_was_earned_is_kept(project: Project, settings: Settings, sandbox: str) -> None:
    project.commit("A task", FILES)
    words = "verified" if sandbox == "require" else "verified (unsandboxed)"
    async with Lab.open(replace(settings, sandbox=sandbox)) as lab:
        agent = Researcher(lab)
        run = await lab.setup.setup_run(tag="mar8", task="task.yaml")
        assert set(run.config["readonly"]) == {"score.py", "judge.py", "task.yaml"}
        first = await agent.baseline()
        assert (first.status, first.value, first.verification, first.sandboxed) == (
            "keep",
            3,
            words,
            words == "verified",
        )

        worse = await agent.attempt("worse", knobs={"WEIGHT": 5.0})
        assert (worse.status, worse.value, worse.verification) == ("discard", 4, "reported")  # nobody asked

        false = await agent.attempt("false", knobs={"CLAIM": -2.0})
        assert (false.status, false.value, false.near_miss, false.best_value) == ("discard", None, False, 3)
        assert false.reason.startswith("rejected (printed val_loss 1.000000, scored anew 3.000000")

        learnt = await agent.attempt("by heart", knobs={"WEIGHT": 0.5})
        assert (learnt.status, learnt.value, learnt.delta, learnt.best_value) == ("discard", 0.5, -6, 3)
        assert "better on validation text by 2.500000, and on hidden text by -6.000000 only" in learnt.reason

        better = await agent.attempt("better", knobs={"WEIGHT": 2.0})
        assert (better.status, better.value, better.verification) == ("keep", 1, words)
        trained = await lab.training.train(better.experiment_id)
        assert (trained.verification, trained.metrics["val_loss_audit"]) == (words, 1)
        shown = await lab.reading.history("mar8")
        assert [each.verification for each in shown.experiments] == [words, words, "reported", "reported", words]
        summary = await lab.reading.summary("mar8")
        assert summary.best is not None
        assert (summary.best.verification, summary.best.sandboxed) == (words, words == "verified")
        table = (await lab.reading.export("mar8", "csv")).text or ""
        rows = csv.DictReader(io.StringIO(table))
        assert [row["verification"] for row in rows] == [words, "reported", "reported", words, words]
        assert f"| Scored | {words}: anew" in ((await lab.reading.export("mar8", "markdown")).text or "")


async def test_scorer_and_judge_go_together(project: Project, settings: Settings) -> None:
    project.commit("Half a task", FILES | {"task.yaml": TASK.replace(", judge: python judge.py", "")})
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput, match=r"only one of scorer\.rescore and scorer\.judge is given"):
            await lab.setup.setup_run(tag="mar8", task="task.yaml")


@pytest.mark.parametrize("name", ["score.py", "judge.py"])
async def test_neither_can_be_edited(project: Project, settings: Settings, name: str) -> None:
    task = TASK.replace("artifacts: train.py", "artifacts: ['*.py']")
    project.commit("A task", FILES | {"task.yaml": task})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", task="task.yaml")
        with pytest.raises(InvalidInput, match="read-only"):
            await agent.propose("easier", files={name: "print('score: 0')\n"})


@pytest.mark.parametrize("scoring", [True, False])
async def test_the_built_in_task_names_ours_where_the_repository_has_them(
    project: Project, settings: Settings, monkeypatch: pytest.MonkeyPatch, scoring: bool
) -> None:
    monkeypatch.setattr("mcp_server.lab.planning.prepared_data", lambda settings: (Path(), {}))
    harness = {"prepare.py": '"""Ours."""\n\nHARNESS = "autoresearch-mcp"\n'}
    project.commit("Harness", harness | ({"scoring.py": "\n"} if scoring else {}))
    async with Lab.open(settings) as lab:
        config: Any = (await lab.setup.setup_run(tag="mar8", preview=True)).config
        assert (await lab.setup.setup_run(tag="mar8", task="gpt", preview=True)).config == config
    commands = ("python scoring.py score", "python scoring.py judge") if scoring else ("", "")
    assert (config["rescore_command"], config["judge_command"]) == commands
    assert config["readonly"] == ["prepare.py", *(["scoring.py"] if scoring else [])]
