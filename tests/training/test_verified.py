"""Our own scorer and judge at work for a run: models that can be exported, and models that cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.machine.sandbox import probe
from mcp_server.research.experiment import Trial, label_of
from tests.machine.conftest import Yard
from tests.training.small import ROOT, SMALL, write_corpus

TRAIN = """\
import prepare

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 256)

    def forward(self, ids):
        return {logits}


def main():
    runtime, data = prepare.start(), prepare.open_data()
    print("val_bpb:", prepare.evaluate(Model(), data, runtime))


if __name__ == "__main__":
    main()
"""
PLAIN = "self.table(ids)"
BRANCHING = "self.table(ids) * (2.0 if ids.sum().item() > 5 else 1.0)"
READING = "self.table(ids) + (ids.sum().item() > 0) * 0 * len(prepare.open_data().train)"


@pytest.fixture(params=["off", "require"])
def yard(request: pytest.FixtureRequest, tmp_path: Path, cache: Path) -> Iterator[Yard]:
    if request.param == "require" and (fault := probe()[1]):
        pytest.skip(f"there is no sandbox: {fault}")
    place = Yard(tmp_path, sandbox=request.param)
    place.settings = replace(place.settings, cache=cache)
    for name in ("prepare.py", "portable.py", "scoring.py"):
        (place.repo / name).write_text((ROOT / name).read_text())
    yield place
    place.close()


def trained(yard: Yard, logits: str) -> Trial:
    """The trial of a baseline with such a model, which is not even trained."""
    task = replace(
        yard.task(startup=120),
        metric="val_bpb",
        rescore_command="python scoring.py score",
        judge_command="python scoring.py judge",
    )
    trial = yard.queue(TRAIN.format(logits=logits), task=task)
    assert yard.start().wait(120) == 0
    return yard.trials(trial)[-1]


def test_an_exported_model_is_scored_with_walls_and_without(yard: Yard) -> None:
    trial = trained(yard, PLAIN)
    walled = yard.settings.sandbox == "require"
    assert trial.error == ""
    assert trial.verification == ("verified" if walled else "verified (unsandboxed)")
    assert trial.metrics["loader"] == "exported"
    assert trial.metrics["val_bpb"] == pytest.approx(trial.metrics["val_bpb_printed"], rel=1e-5)
    assert "val_bpb_audit" in trial.metrics
    assert len(str(trial.metrics["fingerprint"])) == 64
    if walled:
        assert (label_of(trial.verification, trial.metrics), "hidden_text" in trial.metrics) == ("verified", False)
    else:
        assert trial.metrics["hidden_text"] == "readable: there were no walls around the training"


def test_a_hidden_text_that_could_be_read_is_told_by_the_label(yard: Yard, tmp_path: Path) -> None:
    """The corpus lies in the repository, an input of everybody's choice."""
    if yard.settings.sandbox == "off":
        pytest.skip("there is nothing to tell apart without walls")
    write_corpus(yard.repo / "corpus")
    yard.settings = replace(yard.settings, cache=tmp_path / "own")
    variables = os.environ | {"AUTORESEARCH_CACHE": str(yard.settings.cache)}
    command = [sys.executable, str(ROOT / "prepare.py"), "--path", str(yard.repo / "corpus"), *SMALL]
    subprocess.run(command, env=variables, check=True, capture_output=True, timeout=120)
    trial = trained(yard, PLAIN)
    assert (trial.error, trial.verification) == ("", "verified")
    assert label_of(trial.verification, trial.metrics) == "verified (hidden text readable)"
    assert "lies in the repository or around it" in str(trial.metrics["hidden_text"])


def test_one_that_cannot_be_exported_is_imported_behind_walls_alone(yard: Yard) -> None:
    trial = trained(yard, BRANCHING)
    if yard.settings.sandbox == "off":
        assert trial.error.startswith("rejected (printed val_bpb ")
        assert "only behind walls" in trial.error
        return
    assert (trial.error, trial.verification, trial.metrics["loader"]) == ("", "verified", "imported")
    assert trial.metrics["val_bpb"] == pytest.approx(trial.metrics["val_bpb_printed"], rel=1e-5)


def test_code_that_is_imported_finds_no_data(yard: Yard) -> None:
    if yard.settings.sandbox == "off":
        pytest.skip("nothing is imported without walls")
    trial = trained(yard, READING)
    assert "the scorer failed: it was shown text, so that its words are not repeated" in trial.error
    assert "no prepared data" in (yard.folders.trial(trial.id) / "scorer-val.txt").read_text()


STATEFUL = """\
self.counted(self.table(ids) * (2.0 if ids.sum().item() > 5 else 1.0), ids)

    def counted(self, logits, ids):
        self.calls = getattr(self, "calls", 0) + 1
        ahead = nn.functional.one_hot(ids.roll(-1, 1), 256) * 9.0
        return logits + ahead * (self.calls > 12)
"""
"""The evaluation calls it twelve times at most; each pass goes on from where it was handed in, for sixteen more."""


def test_one_that_keeps_state_between_calls_is_found_out(yard: Yard) -> None:
    if yard.settings.sandbox == "off":
        pytest.skip("nothing that keeps state is loaded without walls")
    harness = (yard.repo / "prepare.py").read_text()
    assert harness.count('"cpu": 2**13}') == 1
    (yard.repo / "prepare.py").write_text(harness.replace('"cpu": 2**13}', '"cpu": 2**8}'))  # eight rows in a batch
    trial = trained(yard, STATEFUL)
    assert "the model keeps state, looks ahead or at other rows" in trial.error
    assert "val_bpb" not in trial.metrics
