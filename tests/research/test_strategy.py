"""The classic strategy, to its numbers."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.evidence import Count, Evidence, gather
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.strategy import (
    category_stats,
    choose,
    classic,
    high_yield,
    near_miss_pairs,
    ranking,
    trend,
    underexplored,
)
from mcp_server.research.task import CATEGORIES, Category, Task

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="greedy"
)
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)


def made(number: int, status: Status = "discard", category: Category = "other", **more: Any) -> Experiment:
    return Experiment(
        f"e{number}", "mar8", number, "ann", "c" * 40, "b" * 40, "idea", category, "", float(number), status, **more
    )


@pytest.mark.parametrize(
    ("finished", "window", "near_misses", "mode", "ratio", "temperature"),
    [
        (0, "", 0, "explore", 0.7, 1.0),
        (4, "kkkk", 0, "explore", 0.8, 1.0),  # fewer than 5: whatever they were
        (5, "kkddd", 0, "exploit", 0.3, 0.5),  # 2/5 = 40 % > 30 %
        (10, "kkkddddddd", 0, "explore", 0.8, 0.8),  # 3/10 is not more than 30 %
        (10, "kkkkdddddd", 0, "exploit", 0.3, 0.5),
        (10, "cccccddddd", 0, "explore", 0.8, 0.8),  # 5/10 is not more than 50 %
        (10, "cccccckkkk", 0, "exploit", 0.3, 0.3),  # 6/10 crashed: this rule comes first
        (20, "dddddddddd", 5, "explore", 0.8, 0.8),  # 20 is not more than 20
        (21, "dddddddddd", 2, "combine", 0.3, 0.5),
        (21, "dddddddddd", 1, "ablation", 0.3, 0.3),
        (21, "kddddddddd", 2, "explore", 0.8, 0.8),
        (21, "ccccccdddd", 2, "exploit", 0.3, 0.3),
    ],
)
def test_the_first_rule_that_applies_decides(
    finished: int, window: str, near_misses: int, mode: str, ratio: float, temperature: float
) -> None:
    names: dict[str, Status] = {"k": "keep", "d": "discard", "c": "crash"}
    strategy = classic(finished, [names[letter] for letter in window], near_misses)
    assert (strategy.mode, strategy.explore_ratio, strategy.temperature) == (mode, ratio, temperature)
    assert strategy.conservative == (window.count("c") > 5)
    assert strategy.reason


def test_only_the_last_ten_in_order_of_start_count() -> None:
    crashes = [made(n, "crash") for n in range(1, 8)]
    keeps = [made(n, "keep", value=1 / n) for n in range(8, 18)]
    assert choose(RUN, gather(TASK, crashes + keeps)).mode == "exploit"
    assert not choose(RUN, gather(TASK, crashes + keeps)).conservative
    assert choose(RUN, gather(TASK, keeps + [replace(e, number=e.number + 20) for e in crashes])).conservative


def test_a_mode_set_by_hand_holds_until_auto() -> None:
    by_hand = choose(replace(RUN, manual_mode="ablation", manual_reason="spring cleaning"), Evidence())
    assert (by_hand.mode, by_hand.manual) == ("ablation", True)
    assert "spring cleaning" in by_hand.reason
    assert not choose(RUN, Evidence()).manual


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'random' is not a mode"):
        choose(replace(RUN, manual_mode="random"), Evidence())


def test_underexplored_are_the_first_eleven_with_fewer_than_three_tries() -> None:
    evidence = Evidence(counts={"optimizer": Count(3, 0), "attention": Count(2, 2)})
    assert underexplored(TASK, evidence) == tuple(c for c in CATEGORIES[:11] if c != "optimizer")
    assert underexplored(replace(TASK, scope=("attention", "optimizer", "other")), evidence) == ("attention",)


def test_high_yield_needs_three_tries_and_more_than_thirty_percent() -> None:
    counts: dict[Category, Count] = {
        "optimizer": Count(3, 1),  # 33 %
        "attention": Count(10, 3),  # 30 % is not more
        "embedding": Count(2, 2),  # too few tries
    }
    assert high_yield(Evidence(counts=counts)) == ("optimizer",)


def test_statistics_name_every_category_in_scope_and_every_one_tried() -> None:
    task = replace(TASK, scope=("optimizer", "attention"))
    stats = category_stats(task, Evidence(counts={"other": Count(1, 0)}))
    assert stats == {"optimizer": Count(), "attention": Count(), "other": Count(1, 0)}


@pytest.mark.parametrize(
    ("direction", "values", "verdict", "shown"),
    [
        ("minimize", [], "too few keeps", ()),
        ("minimize", [0.9, 0.8], "too few keeps", (0.9, 0.8)),
        ("minimize", [0.9, 0.8, 0.7], "improving", (0.9, 0.8, 0.7)),
        ("minimize", [0.9, 0.8, 0.9], "flat or worsening", (0.9, 0.8, 0.9)),
        ("minimize", [9.0, 0.5, 0.4, 0.3, 0.2, 0.6], "flat or worsening", (0.5, 0.4, 0.3, 0.2, 0.6)),  # the last five
        ("maximize", [0.1, 0.2, 0.3], "improving", (0.1, 0.2, 0.3)),
        ("maximize", [0.3, 0.2, 0.1], "flat or worsening", (0.3, 0.2, 0.1)),
    ],
)
def test_the_trend_compares_the_last_kept_value_with_the_first(
    direction: Any, values: list[float], verdict: str, shown: tuple[float, ...]
) -> None:
    task = replace(TASK, direction=direction)
    found = trend(task, gather(task, [made(n, "keep", value=value) for n, value in enumerate(values)]))
    assert (found.verdict, found.values) == (verdict, shown)


def test_pairs_of_different_categories_come_first_then_the_closest() -> None:
    history = [
        made(1, "keep", value=1.0),
        made(2, category="optimizer", value=1.0005, near_miss=True),
        made(3, category="optimizer", value=1.0001, near_miss=True),
        made(4, category="attention", value=1.0010, near_miss=True),
    ]
    pairs = near_miss_pairs(TASK, gather(TASK, history))
    assert [(pair.first, pair.second) for pair in pairs] == [("e3", "e4"), ("e2", "e4"), ("e3", "e2")]
    assert [pair.loss for pair in pairs] == pytest.approx([0.0011, 0.0015, 0.0006])  # the sums of both losses
    assert [pair.different for pair in pairs] == [True, True, False]


def test_pairs_that_were_tried_or_contradict_each_other_are_left_out() -> None:
    one = made(2, category="optimizer", value=1.0005, near_miss=True, changes={"LR": (1, 2)})
    two = made(3, category="attention", value=1.0005, near_miss=True, changes={"HEADS": (1, 2)})
    again = made(4, category="attention", value=1.0005, near_miss=True, changes={"HEADS": (1, 4)})
    both = made(5, "registered", "combination", changes={"HEADS": (1, 2), "LR": (1, 2)})
    named = replace(made(6, "registered"), hypothesis="e2 and e4, together.")
    assert len(near_miss_pairs(TASK, gather(TASK, [one, two]))) == 1
    assert near_miss_pairs(TASK, gather(TASK, [two, again])) == ()
    assert near_miss_pairs(TASK, gather(TASK, [one, two, both])) == ()
    assert near_miss_pairs(TASK, gather(TASK, [one, again, named])) == ()


@pytest.mark.parametrize(
    ("mode", "first"),
    [("explore", "architecture"), ("exploit", "optimizer"), ("combine", "attention"), ("ablation", "optimizer")],
)
def test_every_mode_ranks_all_categories(mode: Any, first: str) -> None:
    history = [
        made(1, "keep", value=1.0),
        made(2, "keep", "optimizer", value=0.9),
        made(3, "discard", "attention", value=0.9, near_miss=True),
    ]
    ranks = ranking(TASK, gather(TASK, history), mode)
    assert ranks[0].category == first
    assert {rank.category for rank in ranks} == set(CATEGORIES)
    assert [rank.score for rank in ranks] == sorted((rank.score for rank in ranks), reverse=True)


def test_evidence_is_bounded_however_long_the_history() -> None:
    history = [made(n, "keep" if n % 3 else "discard", value=float(-n), near_miss=not n % 3) for n in range(1, 1000)]
    evidence = gather(TASK, history)
    assert (len(evidence.recent), len(evidence.keeps), len(evidence.near_misses)) == (200, 50, 20)
    assert evidence.finished == 999
    assert evidence.best is not None
    assert evidence.best.number == 998
    assert evidence.baseline is not None
    assert evidence.baseline.number == 1
