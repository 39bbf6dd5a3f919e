"""What a training may hand in to hold up, or to end, whoever looks at it; with walls and without."""

import sys
from dataclasses import replace
from typing import Any

import psutil
import pytest

from tests.machine.test_rescoring import HONEST, JUDGE, SCORER, WALLS, task, trained


@pytest.fixture(params=["off", WALLS])
def place(request: pytest.FixtureRequest, yard: Any) -> Any:
    """A yard with a scorer and a judge."""
    yard.settings = replace(yard.settings, sandbox=request.param)
    (yard.repo / "score.py").write_text(SCORER)
    (yard.repo / "judge.py").write_text(JUDGE)
    return yard


LEAVES = """
import os, pathlib
out = pathlib.Path(os.environ["AUTORESEARCH_OUT"])
{deed}
""" + HONEST.format(weight=1, loss=0)
DEEP = """\
here = os.getcwd()
for place in (out, here):
    os.chdir(place)
    for _ in range(1200):
        os.mkdir("d"); os.chdir("d")
os.chdir(here)"""


@pytest.mark.parametrize(
    "deed",
    [
        "os.mkfifo(out / 'program.json')",
        "(out / 'program.bin').symlink_to('/dev/zero')",
        "(out / 'model.pickle').symlink_to('weight')",
    ],
)
def test_what_is_no_regular_file_is_not_waited_for(place: Any, deed: str) -> None:
    trial = trained(place, LEAVES.format(deed=deed), task(place))
    assert (trial.status, trial.attempt) == ("finished", 1)
    assert "which was handed in, is no regular file" in trial.error


def test_a_file_of_nothing_but_a_hole_is_not_read(place: Any) -> None:
    deed = "(out / 'program.bin').touch(); os.truncate(out / 'program.bin', 1 << 43)"  # 8 TiB: hours
    trial = trained(place, LEAVES.format(deed=deed), task(place))
    assert (trial.status, trial.error, trial.metrics["loss"]) == ("finished", "", 0)


@pytest.mark.parametrize("names", [[], ["model.pickle"]])
def test_a_thousand_folders_in_each_other_end_nobody(place: Any, names: list[str]) -> None:
    """With a pickle, what lies beside it is looked at while it trains."""
    touched = "\n".join(f"(out / {name!r}).touch()" for name in names)
    trial = trained(place, LEAVES.format(deed=f"{touched}\n{DEEP}"), task(place))
    assert (trial.status, trial.attempt, trial.error) == ("finished", 1, "")
    assert not (place.folders.trial(trial.id) / "checkout").exists()


ADDS = """
import os, pathlib
out = pathlib.Path(os.environ["AUTORESEARCH_OUT"])
{deed}
"""


@pytest.mark.parametrize(
    ("deed", "changes"),
    [
        ("(out / 'program.bin').write_text('others')", True),
        ("(out / 'program.bin').unlink()", True),
        ("(out / 'model.pickle').touch()", True),
        ("os.rename(out / 'program.json', out / 'program.bin')", True),
        ("(out / 'program.bin').read_text(); (out / 'report').touch()", False),
    ],
)
def test_no_check_goes_on_with_a_model_that_was_handed_in(place: Any, deed: str, changes: bool) -> None:
    """A check may run what an agent wrote, and nobody counts what it takes."""
    (place.repo / "check.py").write_text(ADDS.format(deed=deed))
    ours = replace(task(place, rescore_command="python scoring.py score", checks=("python check.py",)), builtin=True)
    end = place.ending(
        ADDS.format(deed="for name in ('json', 'bin'): (out / f'program.{name}').touch()\nprint('loss: 1')"), ours
    )
    assert end.status == "finished"
    assert ("changed while the checks ran" in end.error, "loss" in end.metrics) == (changes, not changes), end.error


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such limit")
def test_a_scorer_has_less_memory_than_the_machine(place: Any) -> None:
    greedy = f"held = bytearray({int(0.9 * psutil.virtual_memory().total)})"
    (place.repo / "score.py").write_text(f"import os\nassert 'AUTORESEARCH_MEMORY' not in os.environ\n{greedy}")
    trial = trained(place, HONEST.format(weight=1, loss=0), task(place))
    assert (trial.status, trial.attempt) == ("finished", 1)
    assert "MemoryError" in trial.error
