"""What a training may take, and when it had too little for its result to count."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.machine.holding import weighed
from mcp_server.research.case import Case, Record
from mcp_server.research.contention import load
from mcp_server.research.effort import (
    Limit,
    drawn_out,
    effort_text,
    limit,
    noise_by_load,
    over_budget,
    starved,
    starved_text,
)
from mcp_server.research.experiment import Ending, Experiment, Run, Trial
from mcp_server.research.task import Task

TASK = Task(*("loss", "minimize", 20, "train.py", "python train.py", "/usr/bin/python3", ("train.py",)))


def run(kind: str = "cpu", **fields: Any) -> Run:
    return Run("mar8", "autoresearch/mar8", "c0", replace(TASK, **fields), kind, {}, 0.0)


def record(name: str, diff: str, *efforts: float, **fields: Any) -> Record:
    experiment = Experiment(*(name, "mar8", 1, "ada", "c1", "c0", "better", "other", name, 0.0), diff_summary=diff)
    trials = [
        Trial(f"{name}.{n}", name, n, 41 + n, "cpu", "finished", 0.0, effort_seconds=effort, **fields)
        for n, effort in enumerate(efforts, 1)
    ]
    return Record(experiment, tuple(trials))


def case(*efforts: float, name: str = "e2", **fields: Any) -> Case:
    """A candidate beside a baseline whose runs took so much."""
    return Case(record(name, "LR"), baseline=record("e1", "no change", *efforts, **fields) if efforts else None)


def ended(effort: float = 0.0, status: Any = "finished", **fields: Any) -> Ending:
    return Ending(status, 0.0, effort_seconds=effort, counted_by="cgroup", **fields)


CLOCK: Any = {"metrics": {"training_seconds": 20.0}}
BY_CPU = case(22, cpu_seconds=44, **CLOCK)


@pytest.mark.parametrize(
    ("task", "known", "used", "over"),
    [
        # The clock of our harness says 20 s; the baseline took 6 s beside it, of which a twentieth more is free.
        ({"builtin": True}, case(26, **CLOCK), 26.6, False),
        ({"builtin": True}, case(26, **CLOCK), 26.8, True),
        ({"builtin": True}, case(25.9, 26.1, **CLOCK), 26.6, False),
        ({"builtin": True}, case(25.8, 26.2, **CLOCK), 26.8, False),  # the baseline's runs differ: three deviations
        ({"builtin": True}, case(16, 36, **CLOCK), 29.7, True),  # but not without end
        ({"builtin": True}, case(), 139, False),  # no baseline: its allowance for the start
        ({"builtin": True}, case(), 141, True),
        ({"builtin": True}, case(26, name="e1", **CLOCK), 139, False),  # the baseline is not held to itself
        # Any other script: by the wall, a tenth more.
        ({}, case(21.5, **CLOCK), 23.6, False),
        ({}, case(21.5, **CLOCK), 60, True),  # it trebled its budget, whatever it prints
        ({}, case(23), 25.2, False),  # no clock of its own
        ({}, case(23), 25.4, True),
        ({}, case(3), 21.9, False),  # a fixed number of epochs below the budget: the budget is there to be used
        ({}, case(3), 22.1, True),
        ({}, case(45), 49, False),  # and above it: what its own baseline uses
        ({}, case(45), 51, True),
        ({}, case(45, metrics={"training_seconds": 43}), 49, False),
        ({}, case(), 500, False),  # its deadline ends it
        ({}, case(0.0), 500, False),  # the baseline was not counted yet, by an earlier version
    ],
)
def test_a_training_may_take_its_budget_and_what_the_baseline_takes_beside_it(
    task: dict[str, Any], known: Case, used: float, over: bool
) -> None:
    said = over_budget(run(**task), known, ended(used), told=True)
    assert bool(said) == over
    assert not over or (f"more effort: {used:.2f} s of " in said and "its own clock says nothing" in said)


def test_the_clock_of_our_harness_is_told_how_long_all_may_take() -> None:
    limited = 26 + (0.02 * 20 + 0.05 * 6) / 2
    known: dict[str, float] = {**CLOCK["metrics"], "hand_in_seconds": 0.5, "num_modules": 21}
    told = Limit(limited, 0.5, 21)
    assert limit(run(builtin=True), case(26, metrics=known)) == told
    assert limit(run(builtin=True), case(25, 27, metrics=known)) == told
    assert limit(run(builtin=True), case(26, name="e1", metrics=known)) == told  # the baseline's repeats too
    assert limit(run(builtin=True), case(25, metrics=known | {"training_seconds": 19})) == told  # it may use its budget
    assert limit(run(builtin=True), case(26, metrics=known | {"training_seconds": 9, "budget_seconds": 20})) == told
    assert limit(run(builtin=True), case(26, **CLOCK)) == Limit(limited, 0.0, 1e9)
    assert limit(run(builtin=True), case()) is None
    assert limit(run("cuda", builtin=True), case(26, **CLOCK)) is None
    assert limit(run(), case(26, **CLOCK)) is None


@pytest.mark.parametrize(
    ("told", "cpu", "waited", "free"),
    [
        (True, 52.0, 0.0, 0.7),
        (True, 52.0, 13.0, 1.3),  # others had a fifth of the machine: a second did less
        (False, 52.0, 0.0, 2.4),  # it began before the baseline was known: its clock could not charge anything
    ],
)
def test_what_is_free_beyond_the_baseline(told: bool, cpu: float, waited: float, free: float) -> None:
    for used, over in ((26 + free - 0.05, False), (26 + free + 0.05, True)):
        ending = ended(used, cpu_seconds=cpu, waited_seconds=waited)
        assert bool(over_budget(run(builtin=True), case(26, **CLOCK), ending, told)) == over


@pytest.mark.parametrize(
    ("used", "waited", "crowded"),
    [
        (27.5, 40.0, True),  # others had half of the machine, and it took a quarter more beside its budget
        (28.3, 40.0, True),
        (28.5, 40.0, False),  # more than a crowd does to a start
        (27.5, 2.0, False),
    ],
)
def test_what_a_crowd_drew_out_is_run_again(used: float, waited: float, crowded: bool) -> None:
    ending = ended(used, cpu_seconds=2 * used, waited_seconds=waited, cpu_users=("1 (make)",))
    assert over_budget(run(builtin=True), case(26, **CLOCK), ending, told=True)
    end = weighed(run(builtin=True), case(26, **CLOCK), ending, 2, told=True)
    assert (end.status, end.starved) == (("lost", True) if crowded else ("finished", False))
    assert ("starved: others had " in end.error and "1 (make)" in end.error) == crowded
    assert not drawn_out(run("cuda", builtin=True), case(26, **CLOCK), ending)
    assert not drawn_out(run(builtin=True), case(), ending)


@pytest.mark.parametrize(
    ("claim", "used", "over"),
    [(0, 55.0, True), (40, 55.0, False), (500, 150.0, False), (500, 160.0, True), (-500, 22.0, False)],
)
def test_what_compiling_took_is_believed_up_to_the_allowance(claim: float, used: float, over: bool) -> None:
    known = case(32, metrics={"training_seconds": 20, "compile_seconds": 10})
    ending = ended(used, metrics={"compile_seconds": claim})
    assert bool(over_budget(run("cuda", builtin=True), known, replace(ending, idle_seconds=used))) == over
    assert bool(over_budget(run("cuda", builtin=True), known, replace(ending, idle_seconds=5))) == (used > 50)
    assert over_budget(run("cpu", builtin=True), known, ended(55, metrics={"compile_seconds": 40}))


@pytest.mark.parametrize(
    ("task", "known", "ending", "short"),
    [
        # By the wall: 20 s on the clock, of which others had half. The baseline had 40 s of CPU time on two cores.
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 22}, True),
        ({}, case(22, cpu_seconds=40), {"cpu": 38.2, "waited": 20, "wall": 22}, False),  # 95 %
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 1, "wall": 22}, False),  # cheaper: nobody was in its way
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 12}, False),  # it did all it had to do
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 60}, False),
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 22, "clock": ""}, False),  # it reads no budget
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 22, "clock": "cpu"}, False),
        ({}, case(), {"cpu": 20, "waited": 20, "wall": 25, "clock": "", "trained": 20.1}, True),  # but says that it did
        ({}, case(), {"cpu": 20, "waited": 20, "wall": 25, "trained": 16}, False),
        ({}, case(22, cpu_seconds=40), {"cpu": 20, "waited": 20, "wall": 60, "trained": 20.1}, True),
        # Without a baseline by what it was ready for.
        ({}, case(), {"cpu": 20, "waited": 20, "wall": 22}, True),
        ({}, case(), {"cpu": 20, "waited": 0.5, "wall": 22}, False),
        ({"end_at_budget": True}, case(), {"cpu": 10, "waited": 10, "wall": 40}, True),
        # Our harness goes by CPU time, up to 20 times its budget.
        ({"builtin": True}, case(22), {"cpu": 30, "waited": 700, "wall": 405, "trained": 11}, True),
        ({"builtin": True}, case(22), {"cpu": 50, "waited": 300, "wall": 190, "trained": 20}, False),
        ({"builtin": True}, case(22), {"cpu": 30, "waited": 300, "wall": 190, "trained": 11}, False),  # it chose to
        # Whatever it says of itself: it had more than it was to have, as the baseline's CPU time shows.
        ({"builtin": True}, BY_CPU, {"cpu": 150, "waited": 700, "wall": 405, "trained": 0.3}, False),
        ({"builtin": True}, BY_CPU, {"cpu": 44, "waited": 700, "wall": 405, "trained": 0.3}, True),
        # It sat idle until its time was over: nobody kept it from running.
        ({"builtin": True}, case(22), {"cpu": 20, "waited": 200, "wall": 405, "trained": 11}, False),
        ({"builtin": True}, case(22), {"cpu": 10, "waited": 90, "wall": 160, "status": "timed_out"}, False),
        ({"builtin": True}, case(22), {"cpu": 10, "waited": 190, "wall": 160, "status": "timed_out"}, True),
        # Ended at the deadline.
        ({}, case(22), {"cpu": 10, "waited": 2000, "wall": 5000, "status": "timed_out"}, True),
        ({}, case(22), {"cpu": 10, "waited": 0, "wall": 160, "status": "timed_out"}, False),  # it hangs
        ({"time_budget_seconds": 0.2}, case(), {"cpu": 0.05, "waited": 0.4, "wall": 1, "status": "timed_out"}, False),
        ({}, case(22), {"cpu": 0, "waited": 0, "wall": 0.2, "status": "failed"}, False),
        ({"time_budget_seconds": 0.5}, case(), {"cpu": 0.4, "waited": 1.0, "wall": 0.6}, False),  # over in a moment
    ],
)
def test_a_training_of_which_others_had_too_much(
    task: dict[str, Any], known: Case, ending: dict[str, Any], short: bool
) -> None:
    end = ended(
        status=ending.get("status", "finished"),
        cpu_seconds=ending["cpu"],
        waited_seconds=ending["waited"],
        wall_seconds=ending["wall"],
        metrics={"training_seconds": ending["trained"]} if "trained" in ending else {},
        cpu_users=("make (pid 7 of bob, 30.0 s)",),
    )
    said = starved(run(**task), known, end, 2, ending.get("clock", "wall"))
    assert bool(said) == short
    assert not short or (said.startswith("starved: ") and "Others on its cores: make (pid 7 of bob, 30.0 s)." in said)
    assert not starved(run("cuda", **task), known, end, 2, "wall")  # on a GPU nobody else trains
    assert not starved(run(**task), known, replace(end, counted_by=""), 2)  # nor where nobody counted


def test_the_load_that_a_training_met() -> None:
    trial = record("e1", "no change", 5.0, cpu_seconds=30.0, waited_seconds=10.0).trials[0]
    assert load(trial) == 0.25
    assert load(replace(trial, cpu_seconds=0.0, waited_seconds=0.0)) == 0.0


def repeats(name: str, *runs: tuple[float, float]) -> list[Trial]:
    """Finished trainings of an experiment: their losses, and the share of their time that others had."""
    return [
        Trial(f"{name}.{n}", name, n, n, "cpu", "finished", 0.0, metrics={"loss": value}, cpu_seconds=10.0,
              waited_seconds=10 * share / (1 - share))
        for n, (value, share) in enumerate(runs, 1)
    ]  # fmt: skip


QUIET = [*repeats("e1", (1.00, 0.01), (1.01, 0.0), (0.99, 0.0)), *repeats("e2", (0.90, 0.02), (0.91, 0.0))]


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([*QUIET, *repeats("e3", (1.0, 0.1), (1.4, 0.7))], True),
        ([*QUIET, *repeats("e3", (1.0, 0.0), (1.4, 0.0))], False),  # it is the seed's
        ([*QUIET, *repeats("e3", (1.00, 0.1), (1.02, 0.7))], False),  # a busy machine, and no more noise for it
        (repeats("e3", (1.0, 0.1), (1.4, 0.7)), False),  # nothing to compare it with
        ([*QUIET, *repeats("e3", (1.4, 0.7))], False),
        ([], False),
    ],
)
def test_noise_that_follows_the_machines_load(trials: list[Trial], told: bool) -> None:
    said = noise_by_load(run(), trials)
    assert bool(said) == told
    assert not told or said.startswith(
        "The repeats of e3 differ by 0.282843, those of others by 0.009129, and others had 40% of the time"
    )


def test_what_a_training_took_in_words() -> None:
    (trial,) = record("e1", "no change", 6.72, cpu_seconds=13.4, wall_seconds=9.0, counted_by="cgroup").trials
    assert effort_text(trial) == "6.7 s: 13.4 CPU s (cgroup) in 9.0 s"
    assert (effort_text(replace(trial, waited_seconds=70.0)) or "").endswith(
        "; others had 70.0 CPU s that it was ready for"
    )
    assert effort_text(replace(trial, counted_by="")) is None
    assert starved_text(0, None) == ""
    starved = replace(trial, error="starved: it had 1 s")
    assert starved_text(1, starved) == "1 training was starved and did not count; e1.1, starved: it had 1 s"


@pytest.mark.parametrize(
    ("used", "wall", "cpu", "over"),
    [
        (30, 90, 41, False),  # 15 s more may be an error where others had 60 s, and it used no more CPU time
        (30, 90, 50, True),
        (30, 31, 41, True),
        (45, 90, 41, True),
    ],
)
def test_wall_time_on_a_busy_machine_is_in_doubt(used: float, wall: float, cpu: float, over: bool) -> None:
    ending = ended(used, wall_seconds=wall, cpu_seconds=cpu)
    assert bool(over_budget(run(), case(21.5, cpu_seconds=40), ending)) == over
