"""Scores that are measured as the task says: by a pattern, by a scorer, after checks, at the end of a budget."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.machine.measuring import read_metrics
from mcp_server.research.experiment import Ending
from mcp_server.research.metrics import find_metric
from mcp_server.research.task import Task


def measured(yard: Any, script: str, files: dict[str, str] | None = None, **fields: Any) -> Ending:
    """How a training of a script ends under a task with these fields."""
    for name, text in (files or {}).items():
        (yard.repo / name).parent.mkdir(parents=True, exist_ok=True)
        (yard.repo / name).write_text(text)
    task: Task = replace(yard.task(), **fields)
    return yard.ending(script, task)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"acc=([\d.]+)", "acc=0.5\nepoch 2 acc=0.75 best", 0.75),
        (r"loss (\S+)", "loss 3\rloss 2\r", 2),
        (r"loss (\S+)", "no such thing", None),
        (r"took (\d+) ms", "took 12 ms\ntook x ms", 12),
    ],
)
def test_a_pattern_finds_the_last_match(pattern: str, text: str, found: float | None) -> None:
    assert find_metric(pattern, text) == found


def test_a_metric_in_a_sentence_is_found_by_its_pattern(yard: Any) -> None:
    script = "print('loss: 9')\nprint('final loss is 0.25 after 3 epochs')"
    assert measured(yard, script, metric_pattern=r"final loss is (\S+)").metrics["loss"] == 0.25


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("(?<=loss )([0-9.]+)", "loss 1\rloss 0.25", 0.25),
        (r"(.)=(?P<x>\d)(?P=x)", "a=11\n9=33", 9),
        ("(?!x)(y)", "x", None),
    ],
)
def test_a_run_of_before_keeps_its_pattern(yard: Any, pattern: str, text: str, found: float | None) -> None:
    task = replace(yard.task(), metric_pattern=pattern)
    assert read_metrics(task, text).get(task.metric) == found
    end = measured(yard, f"print({text!r})", metric_pattern=pattern)
    assert end.metrics.get(task.metric) == found if found else "within 10 s" in end.error


def test_the_last_number_counts_and_a_word_does_not(yard: Any) -> None:
    script = "print('loss: mse'); print('mae: 9'); print('epoch 2 - loss=0.5 - mae=0.1 - lr=3')"
    assert dict(measured(yard, script, secondary=("mae",)).metrics) == {"loss": 0.5, "mae": 0.1}


def test_a_pattern_that_matches_nothing_is_named(yard: Any) -> None:
    assert (
        "nothing matches the pattern 'acc (.*)'" in measured(yard, "print('loss: 1')", metric_pattern="acc (.*)").error
    )


def test_lines_that_are_too_long_to_be_read_are_told(yard: Any) -> None:
    long = """print('{"acc": 0.5, "all": [' + '1, ' * 400 + '0]}')"""
    for script, fields, says in (
        (long, {"metric_pattern": '"acc": ([0-9.]+)'}, "(1 line of more than 1,000 characters not read: print it in a"),
        (f"{long};{long}", {"metric": "acc"}, "(2 lines of more than 1,000 characters not read: print it in a short"),
        ("print('x: 1')", {"score_command": "python score.py"}, "(1 line of more than 1,000 characters not read"),
    ):
        end = measured(yard, script, {"score.py": long}, **fields)
        assert (end.status, says in end.error) == ("failed", True), end.error
    short = f"{long}; print('acc: 0.25')"
    assert measured(yard, short, metric="acc").metrics["acc"] == 0.25


def test_what_no_program_can_be_given_is_told(yard: Any) -> None:
    end = measured(yard, "print('loss: 1')", environment=(("A=B", "1"),))
    assert (end.status, "It could not be trained: illegal environment variable name" in end.error) == ("failed", True)


def test_the_scorer_has_the_last_word(yard: Any) -> None:
    end = measured(
        yard,
        "print('loss: 0.0'); print('steps: 3')",
        {"score.py": "import os; print('loss:', len(os.environ['AUTORESEARCH_OUT']) and 0.5)"},
        score_command="python score.py",
    )
    assert (end.status, dict(end.metrics)) == ("finished", {"loss": 0.5, "steps": 3})


def test_a_training_that_rewrites_the_scorer_is_worth_nothing(yard: Any) -> None:
    cheat = "open('score.py', 'w').write(\"print('loss: 0')\")"
    end = measured(yard, cheat, {"score.py": "print('loss: 7')"}, score_command="python score.py")
    assert (end.status, dict(end.metrics)) == ("failed", {})
    assert "the read-only files score.py changed while it trained" in end.error


def test_a_training_cannot_slip_code_of_its_own_under_the_scorer(yard: Any) -> None:
    shadows = (
        "from pathlib import Path\n"
        "Path('model.json').write_text('7')\n"
        "Path('statistics.py').write_text('mean = lambda numbers: 0')\n"
        "Path('fractions').symlink_to('/tmp')\n"
        "print('loss: 0')"
    )
    score = "import statistics; print('loss:', statistics.mean([int(open('model.json').read())]))"
    end = measured(yard, shadows, {"score.py": score}, score_command="python score.py")
    assert (end.status, end.metrics) == ("finished", {"loss": 7})


def test_a_training_that_rewrites_itself_is_scored_as_committed(yard: Any) -> None:
    files = {"score.py": "import train"}
    script = "open(__file__, 'w').write(\"print('loss: 0')\"); print('loss: 7')"
    assert measured(yard, script, files, score_command="python score.py").metrics == {"loss": 7}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"score_command": "python absent.py"}, "The scorer 'python absent.py' failed (exit code 2)"),
        ({"score_command": "true"}, "It printed no metric loss"),
    ],
)
def test_a_scorer_that_gives_no_score(yard: Any, fields: dict[str, Any], says: str) -> None:
    end = measured(yard, "print('loss: 0')", **fields)
    assert end.status == "failed"
    assert says in end.error
    assert "loss" not in end.metrics


def test_a_failed_check_ends_a_trial_without_a_score(yard: Any) -> None:
    files = {"check.py": "import train; assert train.answer == 42, 'wrong answer'"}
    checks = ("true", "python check.py")
    end = measured(yard, "answer = 41\nprint('loss: 0.1')", files, checks=checks)
    assert (end.status, dict(end.metrics)) == ("finished", {})
    assert "The check 'python check.py' failed (exit code 1)" in end.error
    assert "wrong answer" in end.error
    assert "wrong answer" in yard.folders.log("mar8-7.1").read_text()
    good = measured(yard, "answer = 42\nprint('loss: 0.1')", files, checks=checks)
    assert (good.status, good.metrics, good.error) == ("finished", {"loss": 0.1}, "")


ENDLESS = """
import itertools, time
for step in itertools.count(1):
    print(f"loss: {1 / step}", flush=True)
    time.sleep(0.01)
"""


def test_a_script_that_knows_no_budget_is_ended_at_it_and_its_last_word_counts(yard: Any) -> None:
    end = measured(yard, ENDLESS, end_at_budget=True, time_budget_seconds=0.7)
    assert (end.status, end.error) == ("finished", "")
    assert 0 < float(end.metrics["loss"]) < 0.5


def test_nothing_printed_within_the_budget_is_a_failure(yard: Any) -> None:
    end = measured(yard, "import time; time.sleep(60)", end_at_budget=True, time_budget_seconds=0.3)
    assert (end.status, "It printed no metric loss" in end.error) == ("failed", True)


def test_a_command_runs_in_the_folder_of_its_task_with_its_variables_and_seed(yard: Any) -> None:
    script = "import os, near\nprint('loss:', near.LOSS + int(os.environ['SEED']) + int(os.environ['STEPS']))"
    end = measured(
        yard,
        "",
        {"sub/main.py": script, "sub/near.py": "LOSS = 0.5"},
        command="python main.py",
        folder="sub",
        environment=(("STEPS", "30"),),
        seed_variables=("SEED",),
        fixed_seed=7,
    )
    assert end.metrics == {"loss": 37.5}, end.error
