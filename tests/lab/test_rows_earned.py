"""What a judge leaves by row comes into the verdict, and into nothing that a training or a list reads."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.research.claims import QUANTILE
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

TRAIN = """\
import os
from pathlib import Path

GAIN = 0.0
BY_HEART = 0

out, seed = Path(os.environ["AUTORESEARCH_OUT"]), int(os.environ["AUTORESEARCH_SEED"])
(out / "model").write_text(f"{GAIN} {BY_HEART} {seed}")
level = [2 + 0.001 * (seed % 2) - GAIN * (1 + (-1) ** i / 2) for i in range(64)]
print(f"val_loss: {sum(level[BY_HEART:]) / 64:.6f}")
"""
SCORE = """\
import os, pathlib, sys
sys.stdin.readline()
print(pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model").read_text(), flush=True)
"""
JUDGE = """\
import json, os, pathlib, sys
print(flush=True)
gain, by_heart, seed = sys.stdin.readline().split()
level = [2 + 0.001 * (int(seed) % 2) - float(gain) * (1 + (-1) ** i / 2) for i in range(64)]
texts = {"validation": [0.0] * int(by_heart) + level[int(by_heart):], "hidden": level}
score, audit = (sum(text) / 64 for text in texts.values())
rows = {name: [[10 * loss for loss in text], [10] * 64] for name, text in texts.items()}
pathlib.Path(os.environ["AUTORESEARCH_PRIVATE"], "rows.json").write_text(LEFT)
print(f"score: {score}", f"audit: {audit}", sep="\\n", file=sys.stderr)
"""
HONEST = 'json.dumps({"of": "abc", **rows})'
TASK = """\
artifacts: train.py
runner: {budget_seconds: 5}
scorer: {metric: val_loss, direction: minimize, rescore: python score.py, judge: python judge.py}
policy: POLICY
"""


def begin(project: Project, policy: str, left: str = HONEST) -> None:
    files = {"train.py": TRAIN, "score.py": SCORE, "judge.py": JUDGE.replace("LEFT", left)}
    project.commit("A task", files | {"task.yaml": TASK.replace("POLICY", policy)})


async def measured(agent: Researcher, name: str, **knobs: Any) -> Any:
    """A change, run as often as its verdict asks; without one, the script as it is."""
    found = await (agent.attempt(name, knobs=knobs) if knobs else agent.baseline())
    while found.status == "needs_confirmation":
        await agent.lab.training.train(found.experiment_id, wait_seconds=60)
        found = await agent.lab.verdicts.complete(found.experiment_id)
    return found


async def test_gains_by_row_are_told_and_decide(project: Project, settings: Settings) -> None:
    begin(project, "noise_aware")
    async with Lab.open(replace(settings, sandbox="off")) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", task="task.yaml")
        assert (await measured(agent, "as it is")).status == "keep"
        heart = await measured(agent, "by heart", BY_HEART=2)
        assert heart.status == "discard"
        assert heart.numbers["validation_gain"] == pytest.approx(0.0625, abs=0.002)
        assert heart.numbers["hidden_gain"] == pytest.approx(0.0, abs=0.002)
        assert heart.numbers["hidden_error"] == pytest.approx(0.0, abs=1e-9)
        assert "only (by row)" in heart.reason
        both = await measured(agent, "both", BY_HEART=2, GAIN=0.2)
        assert both.status == "keep", both.reason
        assert both.numbers["d"] == pytest.approx(both.numbers["hidden_gain"]) == pytest.approx(0.2, abs=0.002)
        assert both.numbers["hidden_error"] == pytest.approx(0.1 / 8, rel=0.02)
        assert both.numbers["s"] >= both.numbers["hidden_error"]
        assert "± 0.012599 only (by row)" in both.reason
        more = await measured(agent, "more", BY_HEART=2, GAIN=0.4)
        assert more.status == "keep", more.reason
        for claim, error in ((both.claim, 0.2 / 16), (more.claim, 0.2 / 16), (more.best_claim, 0.4 / 16)):
            assert claim["smallest_gain"] > QUANTILE * error  # against which the seeds' 0.001 is little
            assert claim["error"] > 0.8 * error
        history = await lab.reading.history("mar8")
        assert "rows" not in json.dumps([each.metrics for each in history.experiments])
        with sqlite3.connect(next(project.root.rglob("research.db"))) as store:
            kept = store.execute("SELECT count(*), max(length(scores)) FROM row_scores").fetchone()
        store.close()
        assert kept[0] >= 4
        assert kept[1] < 4096


@pytest.mark.parametrize("left", ['"no rows"', HONEST.replace("**rows", '**rows, "hidden": rows["validation"]')])
async def test_rows_that_do_not_bear_out_the_score_count_for_nothing(
    project: Project, settings: Settings, left: str
) -> None:
    begin(project, "greedy", left)
    async with Lab.open(replace(settings, sandbox="off")) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", task="task.yaml")
        await agent.baseline()
        found = await agent.attempt("both", knobs={"BY_HEART": 2, "GAIN": 0.2})
        assert found.status == "keep", found.reason
        assert "better on validation text by 0.256250, and on hidden text by 0.200000 only." in found.reason


async def test_the_classic_policy_tells_gains_by_row(project: Project, settings: Settings) -> None:
    begin(project, "greedy")
    async with Lab.open(replace(settings, sandbox="off")) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", task="task.yaml")
        await agent.baseline()
        found = await agent.attempt("both", knobs={"BY_HEART": 2, "GAIN": 0.2})
        assert found.status == "keep", found.reason
        assert "and on hidden text by 0.200000 ± 0.012599 only (by row)" in found.reason
