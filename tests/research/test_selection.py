"""What the record shows of choosing among runs."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.research.experiment import Trial
from mcp_server.research.selection import bound_seed, redraws, seeds_by_hand, told, told_of_base, undecided
from mcp_server.research.task import Task

TASK = Task(
    metric="loss",
    direction="minimize",
    time_budget_seconds=1,
    train_script="train.py",
    command="python train.py",
    interpreter="python",
    editable=("train.py",),
)


def trials(*ends: tuple[Any, ...]) -> list[Trial]:
    """Trials by seed, status and what they showed; a fourth value `keep`: they measured a kept one again."""
    made = []
    for number, (seed, status, value, *kept) in enumerate(ends, 1):
        metrics = {} if value is None else {"loss": value}
        came_from: Any = kept[0] if kept else "registered"
        made.append(
            Trial(
                f"x-1.{number}",
                "x-1",
                number,
                seed,
                "cpu",
                status,
                0.0,
                started_at=1.0,
                metrics=metrics,
                came_from=came_from,
            )
        )
    return made


@pytest.mark.parametrize(
    ("ends", "seed"),
    [
        ([], None),
        ([(42, "finished", 1.0)], None),
        ([(42, "stopped", 1.0)], 42),
        ([(42, "stopped", None)], 42),  # it may have shown what we do not read
        ([(7, "lost", None)], 7),
        ([(42, "finished", 1.0), (43, "stopped", 1.2)], 43),
        ([(42, "stopped", 1.0), (42, "finished", 1.0)], None),
        ([(42, "failed", 1.0)], None),  # a crash is a verdict
        ([(42, "finished", 1.0), (43, "failed", 1.2, "keep")], 43),
        ([(42, "finished", 1.0), (43, "timed_out", 1.2, "keep")], 43),
        ([(42, "finished", 1.0), (43, "failed", None, "keep")], None),
        ([(42, "finished", 1.0), (43, "failed", 1.2, "keep"), (43, "failed", 1.2, "keep")], None),
    ],
)
def test_what_was_ended_runs_again_with_its_seed(ends: list[tuple[Any, ...]], seed: int | None) -> None:
    assert bound_seed(trials(*ends)) == seed


def test_what_was_stopped_before_it_began_showed_nothing() -> None:
    (waiting,) = trials((42, "stopped", None))
    assert bound_seed([replace(waiting, started_at=None)]) is None


@pytest.mark.parametrize(
    ("seeds", "by_hand"),
    [
        ([(42, "finished"), (43, "finished"), (44, "finished")], []),
        ([(42, "stopped"), (42, "lost"), (42, "finished"), (43, "finished")], []),
        ([(42, "failed"), (42, "finished")], []),  # once more with half the batch
        ([(7, "finished"), (42, "finished"), (43, "finished")], [7]),
        ([(42, "finished"), (77, "finished"), (43, "finished"), (78, "stopped"), (78, "finished")], [77, 78]),
        ([(43, "finished")], [43]),
    ],
)
def test_a_seed_that_was_not_the_next_is_one_by_hand(seeds: list[tuple[int, str]], by_hand: list[int]) -> None:
    assert seeds_by_hand(TASK, trials(*((seed, status, 1.0) for seed, status in seeds))) == by_hand


@pytest.mark.parametrize(
    ("own", "seed", "others", "by_hand"),
    [
        ("needs_confirmation", 46, [(42, ""), (43, ""), (44, ""), (45, ""), (46, "keep")], []),  # the best's next too
        ("needs_confirmation", 46, [(42, ""), (43, ""), (44, ""), (45, ""), (46, "")], [46]),  # no run made for it
        ("needs_confirmation", 47, [(42, ""), (43, ""), (44, ""), (45, ""), (47, "keep")], [47]),  # chosen for both
        ("keep", 46, [(43, ""), (44, ""), (45, ""), (46, "needs_confirmation")], []),  # the best's side of it
        ("needs_confirmation", 46, [], [46]),
    ],
)
def test_the_next_seed_of_both_sides_of_a_pair_is_none_by_hand(
    own: str, seed: int, others: list[tuple[int, str]], by_hand: list[int]
) -> None:
    first, second = trials((42, "finished", 1.0), (seed, "finished", 1.0, own))
    beside = [
        replace(first, id=f"e9.{i}", experiment_id="e9", seed=each, came_from=came or "registered")  # type: ignore[arg-type]
        for i, (each, came) in enumerate(others)
    ]
    assert seeds_by_hand(TASK, (first, second), beside) == by_hand
    later = [replace(each, queued_at=each.queued_at + 1e6) for each in beside]
    assert seeds_by_hand(TASK, (first, second), later) == [seed]


@pytest.mark.parametrize(
    ("ends", "walled", "places"),
    [
        ([(42, "finished", 1.0), (43, "finished", 1.0)], False, []),
        ([(42, "lost", None), (42, "finished", 1.0)], False, [1]),
        ([(42, "lost", None), (42, "finished", 1.0)], True, []),  # from behind walls nobody ends a worker
        ([(42, "stopped", 1.2), (42, "finished", 1.0)], True, [1]),  # an agent does, whatever is around
        ([(42, "lost", None), (42, "stopped", None), (42, "lost", None), (42, "finished", 1.0)], True, [3]),
        ([(42, "lost", None)], False, []),  # nothing came of it yet
        (
            [(42, "lost", None), (42, "failed", None), (42, "finished", 1.0)],
            False,
            [1],
        ),  # once more with half the batch
        ([(42, "finished", 1.0), (43, "lost", None), (43, "finished", 1.0), (44, "finished", 1.0)], False, [2]),
        ([(42, "lost", 1.0), (42, "finished", 1.0), (43, "lost", 1.0), (43, "finished", 1.0)], False, [1, 3]),
        ([(42, "finished", 1.0), (43, "stopped", 1.0, "keep"), (43, "finished", 1.0, "keep")], False, []),
    ],
)
def test_what_came_of_another_draw_decides_nothing(
    ends: list[tuple[Any, ...]], walled: bool, places: list[int]
) -> None:
    runs = [replace(trial, sandboxed=walled and trial.status == "finished") for trial in trials(*ends)]
    assert redraws(runs) == places
    assert undecided(runs) == {trial.id for trial in runs[: places[-1] + 1 if places else 0]}


def test_a_starved_training_and_one_that_never_began_had_no_choice() -> None:
    lost, again = trials((42, "lost", None), (42, "finished", 1.0))
    assert redraws([replace(lost, starved=True), again]) == []
    assert redraws([replace(lost, started_at=None), again]) == []


def test_the_verdict_says_all_of_it() -> None:
    runs = trials(
        (7, "stopped", 1.5), (7, "stopped", None), (7, "lost", None), (7, "finished", 1.4), (42, "failed", 1.6, "keep")
    )
    assert told(TASK, runs) == (
        "Seed 7 was given by hand. 2 trainings were stopped on request after loss 1.5 was shown, and run again with "
        "the same seed. One training was ended by the machine or with its worker, and run again with the same seed. "
        "One repeat failed after loss 1.6 was shown, and no such run is in the mean."
    )
    assert told(TASK, trials((42, "finished", 1.0), (43, "finished", 1.1))) == ""
    assert told(replace(TASK, fixed_seed=3), trials((7, "finished", 1.0))) == ""


FIRST_RUNS = [(seed, seed - 42, "registered") for seed in (42, 43)]


@pytest.mark.parametrize(
    ("own", "since", "said"),
    [
        ([(42, 99)], [], ""),
        ([(44, 101)], [(44, 100)], ""),  # as it is asked for: the best once, and the change beside it
        ([(42, 99), (44, 101), (45, 103)], [(44, 100), (45, 102)], ""),
        (
            [(45, 102)],
            [(44, 100), (45, 101)],
            "Near in time e1 was run once more (seed 44), in no pair with this: that run counts.",
        ),
        (
            [(47, 104)],
            [(44, 100), (45, 101), (46, 102), (47, 103)],
            "Near in time e1 was run 3 times more (seeds 44, 45, 46), in no pair with this: all of these count.",
        ),
        ([(47, 404)], [(44, 100), (45, 200), (46, 300), (47, 403)], ""),  # of other hours, as one looks for a drift
        ([(42, 99)], [(44, 100), (45, 101)], ""),  # not in pairs
        ([(42, 99)], [(77, 100)], "Seed 77 of e1 was given by hand."),
        (
            [(77, 101)],
            [(77, 100), (78, 100)],
            "Seeds 77, 78 of e1 were given by hand. Near in time e1 was run once more (seed 78), in no pair with this: "
            "that run counts.",
        ),
    ],
)
def test_how_the_runs_of_the_base_were_chosen_is_told(
    own: list[tuple[int, float]], since: list[tuple[int, float]], said: str
) -> None:
    def run(name: str, seed: int, minute: float, came_from: Any) -> Trial:
        at = 60 * minute
        return Trial(
            f"{name}.{seed}", name, 1, seed, "cpu", "finished", at, started_at=at, ended_at=at + 1,
            metrics={"loss": 1.0}, came_from=came_from,
        )  # fmt: skip

    base = [run("e1", *each) for each in (*FIRST_RUNS, *((seed, at, "keep") for seed, at in since))]
    trials = [run("e2", seed, at, "registered") for seed, at in own]
    assert told_of_base(TASK, trials, base) == said
    assert told_of_base(replace(TASK, fixed_seed=3), trials, base) == said[said.find("Near") :] * ("Near" in said)
