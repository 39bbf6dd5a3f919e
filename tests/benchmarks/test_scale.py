"""The scale benchmark: its figures are right on trials that a person can count, and it runs from end to end."""

import asyncio

import pytest

from benchmarks.scale import COLUMNS, Plan, measure
from benchmarks.scale_usage import Trial, used


def trial(device: str, agent: str, queued: float, started: float, ended: float) -> Trial:
    return Trial(device, agent, queued, started, ended, script_seconds=(ended - started) / 2)


def test_gaps_while_something_waits_are_idle_and_others_only_unused() -> None:
    usage = used(
        [
            trial("cpu:0", "ada", 0, 0, 4),
            trial("cpu:1", "bob", 0, 0, 5),
            trial("cpu:0", "ada", 0, 5, 7),  # waited until 5, while the device was free from 4 on
            trial("cpu:1", "bob", 7, 8, 10),  # asked for at 7 only, and taken at 8
        ]
    )
    # From 0 to 8, two devices. Something waits from 0 to 5 and from 7 to 8.
    assert usage.idle == pytest.approx((1 + 2) / (2 * 6))
    assert usage.unused == pytest.approx(5 / (2 * 8))
    assert usage.fairness == 1
    assert usage.script == pytest.approx((1 - usage.unused) / 2)


def test_an_agent_that_has_it_all_is_seen() -> None:
    greedy = [trial("cpu:0", "ada", 0, number, number + 1) for number in range(8)]
    assert used([*greedy, trial("cpu:0", "bob", 0, 8, 9)]).fairness == pytest.approx(81 / (2 * 65))
    assert used([*greedy, trial("cpu:0", "bob", 0, 8, 9)]).longest_wait == pytest.approx(8 / 4)


def test_it_runs_from_end_to_end() -> None:
    figures = asyncio.run(measure(Plan(2, 3, 8, (0.05, 0.1)), alone=20))
    assert len(figures.row()) == len(COLUMNS)
    assert 0 <= figures.usage.idle <= 1
    assert figures.store_per_experiment > 0
    assert figures.verdicts_per_second > 0
    assert figures.memory[0] > 10 * 2**20
