"""Task files: what they decide, and what is said of a wrong one, with its line."""

from itertools import pairwise
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.lab.taskfile import read_task_file

WHOLE = """\
name: digits
description: A classifier of digits.
artifacts: [model.py, "configs/*.json"]
mutation:
  max_files: 2
  max_lines: 40
mutator: python mutate.py
inputs: data
runner:
  command: [python, model.py, "--epochs", "3"]
  budget_seconds: 20
  startup_seconds: 30
  end_at_budget: true
  environment: {EPOCHS: 3, MODE: fast}
  memory: {batch: BATCH, accumulation: STEPS, checkpointing: CHECKPOINT}
scorer:
  metric: accuracy
  direction: maximize
  pattern: 'accuracy = ([\\d.]+)'
  command: python score.py
  secondary: [seconds]
checks:
  - python check.py
policy: greedy
seeding: {variables: SEED, fixed: 7}
readonly: [data.py]
scope: [hyperparams, other]
max_experiments: 20
target: 0.99
results_file: digits.tsv
near_miss_threshold: 1e-3
"""


def read(folder: Path, text: str, name: str = "task.yaml") -> dict[str, object]:
    path = folder / name
    path.write_text(text)
    return read_task_file(path).values


def test_all_that_a_task_may_say(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE) == {
        "name": "digits",
        "editable": ("model.py", "configs/*.json"),
        "max_files": 2,
        "max_lines": 40,
        "mutator": "python mutate.py",
        "inputs": ("data",),
        "command": "python model.py --epochs 3",
        "time_budget_seconds": 20.0,
        "startup_seconds": 30.0,
        "end_at_budget": True,
        "environment": (("EPOCHS", "3"), ("MODE", "fast")),
        "batch_knob": "BATCH",
        "accumulation_knob": "STEPS",
        "checkpointing_knob": "CHECKPOINT",
        "metric": "accuracy",
        "direction": "maximize",
        "metric_pattern": r"accuracy = ([\d.]+)",
        "score_command": "python score.py",
        "secondary": ("seconds",),
        "checks": ("python check.py",),
        "policy": "greedy",
        "seed_variables": ("SEED",),
        "fixed_seed": 7,
        "readonly": ("data.py",),
        "scope": ("hyperparams", "other"),
        "max_experiments": 20,
        "target": 0.99,
        "results_file": "digits.tsv",
        "near_miss_threshold": 0.001,
    }


def test_what_is_said_to_be_nothing_is_decided_too(tmp_path: Path) -> None:
    text = "checks: []\nvary: {}\nrunner: {end_at_budget: false, environment: {}, folder: null}\ninputs: []\n"
    assert read(tmp_path, text) == {"checks": (), "vary": (), "end_at_budget": False, "environment": (), "inputs": ()}


def test_json_may_be_indented_with_tabs(tmp_path: Path) -> None:
    assert read(tmp_path, '{\n\t"metric": "loss"\n}\n', "plan.json") == {"metric": "loss"}


def test_where_nothing_runs_the_scorer_is_what_runs(tmp_path: Path) -> None:
    values = read(tmp_path, "scorer: {metric: score, command: python score.py}\n")
    assert values == {"metric": "score", "command": "python score.py"}


def test_a_config_file_says_the_same_in_toml(tmp_path: Path) -> None:
    text = 'metric = "loss"\ntime_budget_seconds = 5\n[runner]\ncommand = "python a.py"\n[mutation]\nmax_lines = 3\n'
    values = read(tmp_path, text, "autoresearch.toml")
    assert values == {"metric": "loss", "time_budget_seconds": 5, "command": "python a.py", "max_lines": 3}


WRONG = [
    (
        "name: x\nrunner:\n  budget_seconds: soon\n",
        "line 3: runner.budget_seconds is 'soon'. It should be a valid number",
    ),
    ("name: x\nrunner:\n  budget_seconds: -1\n", "line 3: runner.budget_seconds is -1. It should be greater than 0"),
    ("artefacts: [a]\n", "line 1: a task has no 'artefacts'. Did you mean 'artifacts'"),
    ("name: x\nbudget_seconds: 5\n", "line 2: a task has no 'budget_seconds'. It belongs in runner.budget_seconds"),
    ("scorer:\n  metric: a\n  checks: []\n", "line 3: a task has no 'scorer.checks'. It takes metric, direction"),
    ("scorer:\n  direction: up\n", "line 2: scorer.direction is 'up'. Choose from 'minimize' or 'maximize'"),
    ("artifacts:\n  - a.py\n  - 3\n", "line 3: artifacts.2 is 3. It should be a valid string".replace("2 is", "1 is")),
    ("scope: [optimizer,\n  vibes]\n", "line 2: scope.1 is 'vibes'. Choose from"),
    ("name: x\nname: y\n", "line 2: 'name' stands on line 1 already"),
    ("a: [1\nb: 2\n", "line 2: it is not YAML"),
    ("name: x\n\tpolicy: greedy\n", "line 2: it is not YAML"),
    ("- a\n- b\n", "line 1: a task is a mapping"),
    ("just text\n", "line 1: a task is a mapping of names to values, not a str"),
    ("scorer: {metric: b}\nmetric: a\n", "line 2: metric and scorer.metric say the same thing twice"),
    ("artifacts: [a]\neditable: [a]\n", "line 2: editable and artifacts say the same thing twice. Leave editable out"),
    ("name: x\nvary: &x\n  A: [*x]\n", "line 2: an alias in it leads back to it. Write out what is meant"),
    (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefg")),
        "line 5: with its aliases written out it has more than 20000 values",
    ),
    ("inputs: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ("name: !!python/object:os.system x\n", "line 1: it is not YAML"),
    ("name: 'a b'\n", "line 1: name is 'a b'"),
    (
        "name: x\nscorer: {pattern: 'acc = ('}\n",
        "line 2: scorer.pattern is 'acc = ('. Mend it: missing ), unterminated",
    ),
    ("scorer:\n  pattern: acc\n", "line 2: scorer.pattern is 'acc'. Put the number in parentheses"),
    ("scorer:\n  metric: 'val loss'\n", "line 2: scorer.metric is 'val loss'. Give the key that the script prints"),
    ("scorer:\n  secondary: ['']\n", "line 2: scorer.secondary.0 is ''. Give the key"),
    ("name: x\ntarget: .nan\n", "line 2: target is nan. It should be a finite number"),
    ("name: x\ntarget: yes\n", "line 2: target is True. It should be a number"),
    ("time_budget_seconds: .inf\n", "line 1: time_budget_seconds is inf. It should be a finite number"),
    ("runner:\n  command: python 'train.py\n", "line 2: runner.command is"),
    ("runner:\n  command: python train.py | tee log\n", "Leave that out, or wrap it: sh -c"),
    ("name: x\nchecks: ['']\n", "line 2: checks.0 is ''. Give one, e.g. 'python train.py'"),
    ("runner: {environment: {A=B: 1}}\n", "line 1: runner.environment.A=B.[key] is 'A=B'. It should be of the form"),
    ("seeding: {variables: [A B]}\n", "line 1: seeding.variables.0 is 'A B'. It should be of the form"),
    ("runner: python train.py\n", "line 1: runner is 'python train.py'. It should be a mapping of names to values"),
    ("name: x\nmax_experiments: yes\n", "line 2: max_experiments is True. It should be a number"),
    ("name: x\n? [a, b]\n: 1\n", "line 2: a name is no text. Write `name: value`"),
    ("name: x\ngrid: true\n", "line 2: grid is given, and vary is not. Name what to vary"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_a_wrong_task_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith("task.yaml")
    assert says in str(refused.value)


TOML_WRONG = [
    ('metric = "a"\n[runner]\nbudget_seconds = "x"\n', "line 3: runner.budget_seconds is 'x'"),
    ("[mutation]\nlines = 3\n", "line 2: a task has no 'mutation.lines'"),
    ("metric = \n", "at line 1"),
]


@pytest.mark.parametrize(("text", "says"), TOML_WRONG)
def test_a_wrong_config_file_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text, "autoresearch.toml")
    assert says in str(refused.value)


@pytest.mark.parametrize(("content", "says"), [(b"\xff\xfe", "not UTF-8"), (b"#" * 300_000, "200000 bytes")])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        read_task_file(path)
