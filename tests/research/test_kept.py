"""What a person reads of kept changes: in lines of the results file, which follow what may be told by now."""

from dataclasses import replace

import pytest

from mcp_server.research.chain import Level
from mcp_server.research.claims import Assessment, assess
from mcp_server.research.experiment import NO_CHANGE, Experiment
from mcp_server.research.kept import kept_words, restated, same_line, told_line
from mcp_server.research.noise import Noise
from mcp_server.research.task import Task

TASK = Task("val_loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))
KEPT = Experiment(
    "e2", "mar8", 2, "ann", "c" * 40, "b" * 40, "faster", "other", "", 0.0, "keep", value=1.0, diff_summary="LR 1 -> 2"
)
BASELINE = replace(KEPT, id="e1", hypothesis="start", diff_summary=NO_CHANGE, commit="b" * 40)


def assessed(gain: float, runs: int) -> Assessment:
    found = assess([Level("e1", -1.0, 6), Level("e2", -1.0 + gain, runs)], Noise(40e-4, 40), [])
    assert found is not None
    return found


SURE, HOPEFUL = assessed(0.1, 6), assessed(0.01, 1)


def test_what_is_kept_is_baseline_claimed_or_provisional() -> None:
    assert kept_words(BASELINE, None) == kept_words(BASELINE, SURE) == "baseline"
    assert kept_words(replace(BASELINE, diff_summary="LR 1 -> 2"), SURE) == "baseline"  # one that stands in for it
    assert kept_words(KEPT, None) == kept_words(replace(KEPT, id="e9"), SURE) == "provisional"
    assert kept_words(KEPT, HOPEFUL).startswith("provisional: better by 0.0")
    assert kept_words(KEPT, SURE).startswith("claimed: better by 0.0")
    assert kept_words(KEPT, SURE).endswith(", p over 0.99")
    assert kept_words(replace(KEPT, status="discard"), SURE) == ""


@pytest.mark.parametrize("description", ["faster", "faster (claimed: better by 9 ± 0, p 1.00)", "-lr", "a, -lr (b)"])
def test_a_line_follows_what_may_be_told(description: str) -> None:
    kept = replace(KEPT, description=description)
    first, then = told_line(kept, TASK, None), told_line(replace(kept, value=0.9), TASK, SURE)
    assert first.endswith(" (provisional)")
    assert first.count("\t") == then.count("\t") == 4
    other = "abc1234\t1.100000\t0.0\tdiscard\tanother\n"
    assert restated([f"{first}\n", other], [then]) == [f"{then}\n", other]
    assert restated([f"{then}\n", other], [then]) == [f"{then}\n", other]
    assert same_line(f"{first}\n", f"{told_line(kept, TASK, SURE)}\n")
    assert not same_line(f"{first}\n", f"{then}\n")  # its value is another


def test_a_keep_that_was_taken_back_says_so() -> None:
    first, later = told_line(KEPT, TASK, SURE), told_line(replace(KEPT, status="discard"), TASK, None)
    assert restated([f"{first}\n", f"{later}\n"], []) == [
        f"{told_line(KEPT, TASK, None).replace('(provisional)', '(not kept any more)')}\n",
        f"{later}\n",
    ]


def test_lines_that_are_not_ours_to_change_stay() -> None:
    line = told_line(KEPT, TASK, SURE)
    edited = told_line(KEPT, TASK, None).replace("faster", "much faster")
    lines = ["commit\tval_loss\tmemory_gb\tstatus\tdescription\n", f"{edited}\n", "a note of mine\n", "\n"]
    assert restated(lines, [line]) == lines
    twice = replace(KEPT, id="e3")  # one commit, measured twice under the same words: which is which cannot be told
    foreign = ["abc1234\t1.1\t0.0\tkeep\tdeeper\n", "abc1234\t1.2\t0.0\tdiscard\tdeeper\n"]
    assert restated(foreign, [line]) == foreign
    both = [f"{told_line(KEPT, TASK, None)}\n"] * 2
    assert restated(both, [line, told_line(twice, TASK, None)]) == both
