"""Trainings on a machine that others use as well: when a base of another time is none to judge by."""

from dataclasses import replace

import pytest

from mcp_server.research import guidance
from mcp_server.research.case import Case, Record, weigh
from mcp_server.research.contention import disturbed, unsettled
from mcp_server.research.decision import decide
from mcp_server.research.evidence import Evidence
from mcp_server.research.experiment import NO_CHANGE, Experiment, Run, Trial, TrialStatus
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
    ("said", "kind", "expected"),
    [
        (BUDGET, "cpu", True),
        (0.92 * BUDGET, "cpu", True),  # a long start was charged to its budget
        (0.6 * BUDGET, "cpu", True),
        (1.3 * BUDGET, "cpu", True),
        (100.0 * BUDGET, "cpu", True),
        (None, "cpu", True),
        (float("nan"), "cpu", True),
        (0.4 * BUDGET, "cpu", False),  # so many steps, which take as many on a busy machine
        (0.92 * BUDGET, "cuda", False),
    ],
)
def test_one_of_the_built_in_task_goes_by_the_clock_whatever_it_says(
    said: float | None, kind: str, expected: bool
) -> None:
    run = replace(RUN, task=replace(TASK, builtin=True), device_kind=kind)
    assert disturbed(run, trial("e1", 1, 0.0, 1.0, BUSY, said)) is expected
    assert not disturbed(run, trial("e1", 1, 0.0, 1.0, QUIET, said))
    other = replace(run, task=TASK)
    assert disturbed(other, trial("e1", 1, 0.0, 1.0, BUSY, said)) is (said == BUDGET and kind == "cpu")


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


@pytest.mark.parametrize(
    ("status", "begun", "settled"),
    [
        ("queued", False, False),
        ("training", True, False),
        ("failed", True, True),
        ("timed_out", True, True),
        ("lost", True, True),
        ("lost", False, False),
        ("stopped", False, False),  # else whoever asks for it and takes that back is judged by the base as it was
        ("stopped", True, False),
    ],
)
@pytest.mark.parametrize("busy", ["own", "base"])
def test_only_a_run_of_the_base_that_began_and_nobody_stopped_settles(
    status: TrialStatus, begun: bool, settled: bool, busy: str
) -> None:
    own = [trial("e1", 1, 5000, 1.2, BUSY if busy == "own" else QUIET)]
    base = [trial("e0", 1, 0, 1.0, BUSY if busy == "base" else QUIET)]
    started = 5061.0 if begun else None
    again = replace(trial("e0", 2, 5060, 1.0), status=status, started_at=started, metrics={})
    assert (unsettled(RUN, own, [*base, again]) == "") is settled
    fresh = trial("e0", 3, 9000, 1.0)
    assert not unsettled(RUN, own, [*base, again, fresh])
    assert unsettled(RUN, [*own, replace(own[0], id="e1.2", queued_at=9500.0, started_at=9500.0)], [*base, again])


@pytest.mark.parametrize("value", [0.7, 0.9989, 0.999, 1.0, 1.3])
def test_the_numbers_say_whether_they_wait_for_the_base(value: float) -> None:
    """Those of a change that is to be confirmed anyway as well: its base is to be run first."""
    base = [trial("e0", n, 40 * n, 1.0 + 0.001 * (n % 2)) for n in range(1, 5)]
    apart = decide(RUN, case([trial("e1", 1, 5000, value, BUSY)], base))
    assert apart.decision == "needs_confirmation"
    assert apart.numbers is not None
    assert apart.numbers.awaits_base
    for settled in (
        decide(RUN, case([trial("e1", 1, 5000, value, BUSY)], [*base, trial("e0", 5, 5060, 1.0, BUSY)])),
        decide(RUN, case([trial("e1", 1, 5000, value)], base)),
    ):
        assert settled.numbers is not None
        assert not settled.numbers.awaits_base


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


@pytest.mark.parametrize(("bound", "under_way", "seed"), [(None, False, 44), (43, False, 43), (None, True, None)])
def test_the_base_is_asked_for_with_the_seed_that_it_may_have_and_not_while_it_is_run(
    bound: int | None, under_way: bool, seed: int | None
) -> None:
    evidence = Evidence(
        best=START,
        pending=(replace(CHANGE, status="needs_confirmation"),),
        seeds=frozenset({42, 43}),
        bound_seeds={} if bound is None else {"e0": bound},
        best_under_way=under_way,
        remeasuring=True,  # a repeat that failed before is no reason to wait for ever
        unsettled={"e1": "others"},
    )
    asked = [each.arguments["seed"] for each in guidance.owed(RUN, evidence) if each.tool == "train"]
    assert asked == ([] if seed is None else [seed])
