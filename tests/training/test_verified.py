"""Our own scorer and judge at work for a run: models that can be exported, and models that cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def trained(yard: Yard, logits: str, script: str = TRAIN, **fields: Any) -> Trial:
    """The trial of a baseline with such a model, which is not even trained."""
    task = replace(
        yard.task(startup=120, **fields),
        metric="val_bpb",
        builtin=True,
        rescore_command="python scoring.py score",
        judge_command="python scoring.py judge",
    )
    trial = yard.queue(script.replace("{logits}", logits), task=task)
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


FORMS = """\
import os
import tempfile
from pathlib import Path

ALL = (Path(os.environ["AUTORESEARCH_OUT"]), Path(os.environ["AUTORESEARCH_OUT"]).with_name("checkout"))
PLACES = (*ALL, Path(__file__).parent, Path(os.environ.get("AUTORESEARCH_SCRIPT", __file__)).parent)
LONG, LEVELS = "x" * 240, 18


def made():
    "What is there before the model is handed in."
    for place in ALL:
        for name in ("read", "deleted", "stays", "listed/inside"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text("empty")


def leave():
    "What is learnt later, in each form that a folder has for it."
    here = os.getcwd()
    for place in ALL:
        (place / "beside").write_text("weights")
        (place / "link").symlink_to("weights")
        (place / "weights").mkdir()
        os.utime(place / "read", (77, (place / "read").stat().st_mtime))
        os.utime(place / "listed", (78, 79))
        (place / "deleted").unlink()
        (place / "stays").chmod(0o604)
        os.truncate(place / "listed" / "inside", 1 << 40)
        os.chdir(place)
        for _ in range(LEVELS):
            os.mkdir(LONG)
            os.chdir(LONG)
        Path("deep").write_text("weights")
        os.chdir(here)
    for place in map(Path, TEMPORARY):
        (place / "left").write_text("weights")
    os.utime(ALL[1] / "train.py", (80, 81))
    for name in ("train.py", "portable.py"):
        (ALL[1] / name).with_suffix(".pyi").write_text("weights")


def deep(place):
    here = os.getcwd()
    try:
        os.chdir(place)
        for _ in range(LEVELS):
            os.chdir(LONG)
        return Path("deep").exists()
    finally:
        os.chdir(here)


TEMPORARY = (tempfile.gettempdir(), "/dev/shm")
TOLD = {
    "a file": lambda place: (place / "beside").exists(),
    "a link": lambda place: (place / "link").is_symlink(),
    "a folder": lambda place: (place / "weights").is_dir(),
    "when a file was read": lambda place: (place / "read").stat().st_atime == 77,
    "when a folder changed": lambda place: (place / "listed").stat().st_mtime == 79,
    "what is gone": lambda place: (place / "stays").exists() and not (place / "deleted").exists(),
    "who may read": lambda place: (place / "stays").stat().st_mode & 0o777 == 0o604,
    "a size": lambda place: (place / "listed" / "inside").stat().st_size == 1 << 40,
    "a long path": deep,
    "a committed file's time": lambda place: (place / "train.py").stat().st_mtime == 81,
    "files beside committed ones": lambda place: (place / "train.pyi").exists(),
    "the log": lambda place: "from here on" in (place.parent / "log.txt").read_text(),
}


def seen():
    "The forms in which something is found, and temporary files."
    found = {f"{folder}" for folder in TEMPORARY if Path(folder, "left").exists()}
    for name, tell in TOLD.items():
        for place in PLACES:
            try:
                found |= {name} if tell(place) else set()
            except OSError:
                pass
    return sorted(found)
"""
"""A module with ways to leave word, beside a script or in the folder of a model."""
LEAVING = (
    TRAIN.replace("import prepare\n", "import forms\nimport prepare\n", 1)
    .replace("    runtime, data", "    forms.made()\n    runtime, data")
    .replace(
        '    print("val_bpb:", prepare.evaluate(Model(), data, runtime))\n',
        "    score = prepare.evaluate(Model(), data, runtime)\n    print('from here on', flush=True)\n"
        "    forms.leave()\n    print('seen by the training:', forms.seen())\n    print('val_bpb:', score)\n",
    )
)
LOOKING = """\
self.told(self.table(ids) * (2.0 if ids.sum().item() > 5 else 1.0))

    def told(self, logits):
        if "AUTORESEARCH_SCRIPT" in forms.os.environ:
            out = forms.ALL[0]
            status = (out / "model.pickle").stat()
            times = status.st_atime, status.st_mtime
            print("seen by the scorer:", forms.seen(), times, sorted(path.name for path in out.iterdir()))
        return logits
"""


def test_a_pickle_sees_nothing_that_the_training_left_after_it(yard: Yard) -> None:
    """Else it would load from there what was learnt when nobody counted any more; its own modules are still found."""
    if yard.settings.sandbox == "off":
        pytest.skip("nothing is imported without walls")
    (yard.repo / "forms.py").write_text(FORMS)
    trial = trained(yard, LOOKING, LEAVING)
    assert (trial.error, trial.verification, trial.metrics.get("loader")) == ("", "verified", "imported")
    folder = yard.folders.trial(trial.id)
    names = ("a file", "a link", "a folder", "when a file was read", "when a folder changed", "what is gone")
    more = ("who may read", "a size", "a long path", "a committed file's time", "files beside committed ones")
    assert f"seen by the training: {sorted([*names, *more, '/dev/shm', '/tmp'])}\n" in (folder / "log.txt").read_text()
    for number in ("", "-2", "-3"):
        told = {line for line in (folder / f"scorer-val{number}.txt").read_text().splitlines() if "seen by" in line}
        assert told == {"seen by the scorer: [] (0.0, 0.0) ['model.pickle']"}
    assert (folder / "out" / "beside").exists()  # it is the user's to look at
    assert not (folder / "script").exists()


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
