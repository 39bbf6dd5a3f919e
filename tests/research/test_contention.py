"""Trainings on a machine that others use as well: when a base of another time is none to judge by."""

from dataclasses import replace

import pytest

from mcp_server.research import guidance
from mcp_server.research.case import Case, Record, weigh
from mcp_server.research.contention import disturbed, unsettled
from mcp_server.research.decision import decide
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import NO_CHANGE, Experiment, Run, Trial
from mcp_server.research.task import Task

BUDGET = 5.0
TASK = Task("loss", "minimize", BUDGET, "train.py", "python train.py", "python", ("train.py",))
RUN = Run("t", "b", "c0", TASK, "cpu", {}, 0.0)
START = Experiment(
    "e0", "t", 1, "a", "c", "b", "the script as it is", "other", "r", 0.0, "keep", diff_summary=NO_CHANGE
)
CHANGE = replace(START, id="e1", number=2, commit="d", status="trained", diff_summary="LR")
BUSY, QUIET = 12.0, 0.2
"""CPU seconds that others had of a training that took ten."""


def trial(name: str, number: int, at: float, value: float, waited: float = QUIET, said: float | None = BUDGET) -> Trial:
    """A training that began at a time; it says that it trained for so long."""
    metrics = {"loss": value} if said is None else {"loss": value, "training_seconds": said}
    return Trial(
        f"{name}.{number}", name, number, 41 + number, "cpu", "finished", at, started_at=at, ended_at=at + 20,
        metrics=metrics, commit="c" if name == "e0" else "d", base_id="e0" if name != "e0" else None,
        wall_seconds=20.0, cpu_seconds=10.0, waited_seconds=waited,
    )  # fmt: skip


def case(own: list[Trial], base: list[Trial]) -> Case:
    start = Record(START, tuple(base))
    noise = weigh(RUN, start)
    return Case(Record(CHANGE, tuple(own)), start, {"e0": start}, "e0", noise.sum_of_squares, noise.dof, start)


@pytest.mark.parametrize(
    ("waited", "said", "kind", "expected"),
    [
        (BUSY, BUDGET, "cpu", True),
        (QUIET, BUDGET, "cpu", False),
        (1.5, BUDGET, "cpu", False),  # 13 % of what it was ready for
        (BUSY, None, "cpu", False),  # so many steps take as many on a busy machine
        (BUSY, 12.0, "cpu", False),
        (BUSY, BUDGET, "cuda", False),
    ],
)
def test_what_is_disturbed(waited: float, said: float | None, kind: str, expected: bool) -> None:
    run = replace(RUN, device_kind=kind)
    assert disturbed(run, trial("e1", 1, 0.0, 1.0, waited, said)) is expected


@pytest.mark.parametrize(
    ("what", "own", "base", "settled"),
    [
        ("a quiet machine", [(5000, QUIET)], [(0, QUIET), (40, QUIET)], True),
        ("the change met others", [(5000, BUSY)], [(0, QUIET), (40, QUIET)], False),
        ("the base met others", [(5000, QUIET)], [(0, BUSY), (40, QUIET)], False),
        ("near in time", [(150, BUSY)], [(0, QUIET), (40, BUSY)], True),
        ("the base once more, beside it", [(5000, BUSY)], [(0, QUIET), (40, QUIET), (5060, BUSY)], True),
        ("the base once more, much later", [(5000, BUSY)], [(0, QUIET), (40, QUIET), (9000, BUSY)], True),
        ("run again since", [(5000, BUSY), (9000, BUSY)], [(0, QUIET), (40, QUIET), (5060, BUSY)], False),
    ],
)
def test_when_there_may_be_a_verdict(
    what: str, own: list[tuple[float, float]], base: list[tuple[float, float]], settled: bool
) -> None:
    changed = [trial("e1", n, at, 1.2, waited) for n, (at, waited) in enumerate(own, start=1)]
    bases = [trial("e0", n, at, 1.0, waited) for n, (at, waited) in enumerate(base, start=1)]
    assert (unsettled(RUN, changed, bases) == "") is settled, what


def test_a_run_of_the_base_that_is_under_way_is_waited_for_and_one_that_failed_is_not() -> None:
    own, base = [trial("e1", 1, 5000, 1.2, BUSY)], [trial("e0", 1, 0, 1.0)]
    again = replace(trial("e0", 2, 5060, 1.0), status="training", metrics={})
    assert unsettled(RUN, own, [*base, again])
    assert not unsettled(RUN, own, [*base, replace(again, status="failed")])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1.3, "no verdict before e0 is run once more: others had 55% of the time that it was ready for"),
        (0.7, "promising, but its base was run long before"),
    ],
)
def test_neither_better_nor_worse_is_told_by_a_base_of_another_time(value: float, told: str) -> None:
    own, base = [trial("e1", 1, 5000, value, BUSY)], [trial("e0", n, 40 * n, 1.0 + 0.001 * n) for n in (1, 2)]
    verdict = decide(RUN, case(own, base))
    assert verdict.decision == "needs_confirmation"
    assert told in verdict.reason
    beside = trial("e0", 3, 5060, value + 0.001, BUSY)  # the machine it was, and not the change
    settled = decide(RUN, case(own, [*base, beside]))
    assert settled.decision in ("discard", "needs_confirmation")
    assert "clearly worse" not in settled.reason
    assert "no verdict" not in settled.reason


def test_suggest_serves_the_base_for_all_that_waits_and_then_the_verdicts() -> None:
    waiting = [replace(CHANGE, id=f"e{n}", number=n, status="needs_confirmation") for n in (2, 3)]
    evidence = Evidence(best=START, pending=tuple(waiting), seeds=frozenset({42, 43}))
    asked = list(guidance.owed(RUN, replace(evidence, unsettled={"e2": "others", "e3": "others"})))
    assert [(each.tool, each.arguments) for each in asked if each.tool == "train"] == [
        ("train", {"experiment_id": "e0", "seed": 44})
    ]
    assert "for e2, e3, which cannot be judged before: others" in asked[-1].text
    settled = list(guidance.owed(RUN, replace(evidence, settled=frozenset({"e2", "e3"}))))
    assert {each.arguments["experiment_id"] for each in settled if each.tool == "complete"} == {"e2", "e3"}
