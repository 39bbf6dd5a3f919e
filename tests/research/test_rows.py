"""Gains by row: what a judge says of rows, their error, and what the verdict makes of both texts."""

import json
import math
import random
import statistics
from dataclasses import replace
from typing import Literal

import pytest

from mcp_server.research.case import Case, Record
from mcp_server.research.decision import decide
from mcp_server.research.experiment import Experiment, Run, Trial
from mcp_server.research.rows import (
    LONGEST,
    MOST_ROWS,
    RowGain,
    RowGains,
    Rows,
    RowScores,
    bears_out,
    compare_rows,
    counted_error,
    parse,
)
from mcp_server.research.task import Policy, Task
from mcp_server.research.verdict import show

ROWS, BYTES = 256, 800.0
SIGMA = 0.002
TASK = Task("val_bpb", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))


def told(of: object = "a", validation: object = ([2.0, 4.0], [1, 2]), hidden: object = ([3.0], [1])) -> str:
    return json.dumps({"of": of, "validation": validation, "hidden": hidden})


def test_what_a_judge_says_of_rows_is_read() -> None:
    assert parse(told()) == RowScores("a", Rows((2.0, 4.0), (1.0, 2.0)), Rows((3.0,), (1.0,)))
    alone = parse('{"of": "a", "validation": [[2], [1]]}')
    assert alone is not None
    assert alone.hidden is None
    assert alone.validation.score == 2.0
    longest = parse(told(validation=[[1000.25] * MOST_ROWS, [1] * MOST_ROWS]))
    assert longest is not None
    assert len(longest.validation.losses) == MOST_ROWS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rows",
        "[]",
        "[" * 5000,
        " " * (LONGEST + 1),
        '{"of": "a", "validation": [[NaN], [1]]}',
        '{"of": "a", "validation": [[1e400], [1]]}',
        told(of=""),
        told(of=3),
        told(validation=None),
        told(validation=[[1.0], [1], [1]]),
        told(validation=[[1.0, 2.0], [1]]),
        told(validation=[[], []]),
        told(validation=[[1.0], [0]]),
        told(validation=[[1.0], [-1]]),
        told(validation=[["1"], [1]]),
        told(validation=[[True], [1]]),
        told(validation=[1, 2]),
        told(validation=[[1] * (MOST_ROWS + 1)] * 2),
        told(hidden=[[1.0], [None]]),
    ],
)
def test_what_is_not_of_the_form_counts_as_nothing(text: str) -> None:
    assert parse(text) is None
    assert not bears_out(text, 2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "audit", "true"),
    [(2.0, 3.0, True), (2.00001, 3.0, True), (2.01, 3.0, False), (2.0, 2.9, False), (2.0, None, False)],
)
def test_rows_must_sum_up_to_the_scores(value: float, audit: float | None, true: bool) -> None:
    assert bears_out(told(), value, audit) is true


def scores(validation: list[float], hidden: list[float], of: str = "a", weight: float = BYTES) -> RowScores:
    """Of these bits per byte by row."""
    texts = [Rows(tuple(v * weight for v in text), (weight,) * len(text)) for text in (validation, hidden)]
    return RowScores(of, *texts)


def drawn(chance: random.Random, gain: float, spread: float, by_heart: int = 0, trainings: int = 1) -> list[RowScores]:
    """Trainings better than 2 bits per byte by a gain that varies over rows, and some rows of validation by heart.

    Without luck: rows and trainings vary around the gain.
    """
    moves = [[chance.gauss(0, spread) for _ in range(ROWS)] for _ in range(2)]
    gains = [[gain + each - statistics.mean(text) for each in text] for text in moves]
    found = []
    for number in range(trainings):
        moved = SIGMA * (number - (trainings - 1) / 2)  # by the seed
        validation, hidden = ([2.0 - each + moved for each in text] for text in gains)
        found.append(scores([0.1] * by_heart + validation[by_heart:], hidden))
    return found


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_gain_and_its_error_are_those_of_a_ratio(direction: Literal["minimize", "maximize"]) -> None:
    sign = 1 if direction == "minimize" else -1
    task = replace(TASK, direction=direction)
    base = RowScores("a", Rows((10.0, 10.0, 10.0), (1.0, 2.0, 3.0)))
    better = RowScores("a", Rows(tuple(10.0 - sign * d for d in (1.0, 2.0, 6.0)), (1.0, 2.0, 3.0)))
    found = compare_rows(task, [(better, [base])])
    assert found is not None
    assert found.hidden is None
    assert found.validation.gain == pytest.approx(9 / 6)
    residuals = [1 - 1.5, 2 - 3.0, 6 - 4.5]
    assert found.validation.error == pytest.approx(math.sqrt(3 / 2 * sum(e * e for e in residuals)) / 6)


def test_with_equal_weights_the_error_is_that_of_a_mean() -> None:
    chance = random.Random(1)
    differences = [chance.gauss(0.01, 0.05) for _ in range(ROWS)]
    found = compare_rows(TASK, [(scores([2 - d for d in differences], [1.0]), [scores([2.0] * ROWS, [1.0])])])
    assert found is not None
    assert found.validation.gain == pytest.approx(statistics.mean(differences))
    assert found.validation.error == pytest.approx(statistics.stdev(differences) / math.sqrt(ROWS))
    assert found.hidden == RowGain(0.0, 0.0)  # of one row nothing is known of others


def test_the_error_is_how_far_other_rows_move_the_gain() -> None:
    """Over many draws of rows, gains spread as one draw says."""
    chance, base = random.Random(2), scores([2.0] * ROWS, [2.0] * ROWS)
    candidates = [scores([2.0] * ROWS, [2.0 - chance.gauss(0.01, 0.05) for _ in range(ROWS)]) for _ in range(300)]
    found = [compare_rows(TASK, [(candidate, [base])]) for candidate in candidates]
    known = [each.hidden for each in found if each and each.hidden]
    assert len(known) == 300
    spread = statistics.stdev(each.gain for each in known)
    assert spread == pytest.approx(statistics.mean(each.error for each in known), rel=0.15)


def test_trainings_of_either_side_are_averaged() -> None:
    a, b, c, d = (scores([value] * 3, [value + 1] * 2) for value in (1.0, 2.0, 4.0, 6.0))
    found = compare_rows(TASK, [(a, [c, d]), (b, [c, d])])
    assert found == RowGains(RowGain(3.5, 0.0), RowGain(3.5, 0.0))
    other_base = compare_rows(TASK, [(a, [c]), (b, [d])])  # after a rebase
    assert other_base is not None
    assert other_base.validation.gain == 3.5


def test_only_what_is_of_the_same_rows_is_compared() -> None:
    one = scores([1.0, 2.0], [1.0])
    assert compare_rows(TASK, []) is None
    assert compare_rows(TASK, [(one, [])]) is None
    for other in (
        replace(one, of="b"),
        scores([1.0], [1.0]),
        scores([1.0, 2.0], [1.0, 1.0]),
        scores([1.0, 2.0], [1.0], weight=2.0),
        replace(one, hidden=None),
    ):
        assert compare_rows(TASK, [(one, [other])]) is None
        assert compare_rows(TASK, [(one, [one, other])]) is None


@pytest.mark.parametrize(
    ("validation", "hidden", "counted"),
    [
        (0.02, 0.01, 5.0),  # hidden text limits: sqrt(3^2 + 4^2)
        (0.02, 0.021, 5.0),  # it gains more, less surely
        (0.02, 0.04, 3.0),  # surely more
        (-0.02, -0.01, 3.0),  # worse is worse
        (-0.01, -0.02, 5.0),
        (0.01, -0.02, 5.0),
    ],
)
def test_the_error_of_rows_counts_where_hidden_text_limits(validation: float, hidden: float, counted: float) -> None:
    gains = RowGains(RowGain(validation, 0.5), RowGain(hidden, 4.0))
    assert counted_error(3.0, gains) == pytest.approx(counted)
    assert counted_error(3.0, None) == counted_error(3.0, RowGains(gains.validation)) == 3.0
    assert counted_error(0.0, RowGains(gains.validation, RowGain(-1.0, 0.0))) == 0.0


# ---- Verdicts ----


def record(name: str, runs: list[RowScores], tag: str = "t") -> tuple[Record, dict[str, RowScores]]:
    trials = tuple(
        Trial(
            f"{name}.{i}",
            name,
            i,
            41 + i,
            "cpu",
            "finished",
            float(i),
            metrics={"val_bpb": each.validation.score, "val_bpb_audit": each.hidden.score if each.hidden else 0.0},
            commit=name,
            base_id="e1",
            verification="verified",
        )
        for i, each in enumerate(runs, 1)
    )
    experiment = Experiment(name, tag, int(name[1:]), "a", name, "c0", "h", "other", "r", 0.0, diff_summary="x")
    return Record(experiment, trials), {trial.id: each for trial, each in zip(trials, runs, strict=True)}


def compared(candidate: list[RowScores], baseline: list[RowScores], known: bool = True) -> Case:
    base, rows = record("e1", baseline)
    base = replace(
        base,
        experiment=replace(base.experiment, status="keep", diff_summary="no change", value=2.0, runs=len(baseline)),
    )
    subject, more = record("e2", candidate)
    of_both = rows | more if known else more
    return Case(subject, base, {"e1": base}, "e1", 40 * SIGMA**2, 40, base, rows=of_both)


def run(policy: Policy = "noise_aware") -> Run:
    return Run("t", "b", "c0", replace(TASK, policy=policy, rescore_command="s", judge_command="j"), "cpu", {}, 0.0)


HEART = [
    # rows by heart of 256, honest gain, verdict, gain on validation, gain on hidden text
    (0, 0.02, "keep", 0.020, 0.020),
    (2, 0.0, "discard", 0.015, 0.000),
    (2, 0.02, "keep", 0.034, 0.020),
    (13, 0.0, "discard", 0.096, 0.000),
    (110, 0.0, "discard", 0.816, 0.000),
    (110, 0.02, "keep", 0.828, 0.020),
    (256, 0.0, "discard", 1.900, 0.000),
    (256, -0.02, "discard", 1.900, -0.020),
]


@pytest.mark.parametrize("policy", ["noise_aware", "strict"])
@pytest.mark.parametrize(("by_heart", "honest", "decision", "validation", "hidden"), HEART)
def test_rows_learnt_by_heart_make_no_gain_and_double_none(
    by_heart: int, honest: float, decision: str, validation: float, hidden: float, policy: Policy
) -> None:
    chance = random.Random(by_heart)
    baseline = drawn(chance, 0.0, 0.0, trainings=4)
    verdict = decide(run(policy), compared(drawn(chance, honest, 0.02, by_heart, 3), baseline))
    numbers = verdict.numbers
    assert numbers is not None
    assert numbers.hidden_gain is not None
    assert numbers.hidden_error is not None
    assert verdict.decision == decision, verdict.reason
    assert numbers.validation_gain == pytest.approx(validation, abs=0.01)
    assert numbers.hidden_gain == pytest.approx(hidden, abs=1e-9)
    assert numbers.hidden_error == pytest.approx(0.02 / math.sqrt(ROWS), rel=0.2)
    assert numbers.d <= numbers.hidden_gain + 1e-9
    if by_heart:
        assert numbers.s == pytest.approx(math.hypot(numbers.sigma * math.sqrt(1 / 3 + 1 / 4), numbers.hidden_error))
        assert (
            f"on hidden text by {show(numbers.hidden_gain)} ± {show(numbers.hidden_error)} only (by row)"
            in verdict.reason
        )


def test_a_gain_on_few_rows_of_hidden_text_is_no_gain_yet() -> None:
    """What training alone would call clear is not, where the rows of hidden text differ by more."""
    baseline = [scores([2.0] * ROWS, [2.0] * ROWS)] * 4
    rows = [2.0 - 0.014 * (1 + 20 * (-1) ** i) for i in range(ROWS)]
    candidate = [scores([1.9] * ROWS, rows)] * 2
    unsure = decide(run(), compared(candidate, baseline))
    assert unsure.decision != "keep"
    assert unsure.numbers is not None
    assert unsure.numbers.hidden_error == pytest.approx(0.0175, abs=1e-3)
    without = decide(run(), compared(candidate, baseline, known=False))
    assert without.decision == "keep"
    assert without.numbers is not None
    assert without.numbers.hidden_gain is None
    assert without.numbers.d == pytest.approx(unsure.numbers.d)


def test_a_trainings_own_word_on_rows_counts_for_nothing() -> None:
    chance = random.Random(3)
    seen = compared(drawn(chance, 0.02, 0.0), drawn(chance, 0.0, 0.0, trainings=2))
    said = replace(seen.subject, trials=tuple(replace(t, verification="reported") for t in seen.subject.trials))
    verdict = decide(run(), replace(seen, subject=said))
    assert verdict.numbers is not None
    assert verdict.numbers.validation_gain is None


def test_an_older_result_has_no_rows_and_is_judged_as_before() -> None:
    chance = random.Random(4)
    seen = compared(drawn(chance, 0.02, 0.01, 2), drawn(chance, 0.0, 0.0, trainings=2))
    before = decide(run(), replace(seen, rows={}))
    assert before.numbers is not None
    assert before.numbers.validation_gain is None
    assert "± " not in before.reason
    assert "only." in before.reason
