"""Which kind of change comes next: what is believed of each category, and the draws from that."""

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.research.evidence import Count, gather
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.strategy import Mode, ranking
from mcp_server.research.task import CATEGORIES, Category, Policy, Task
from mcp_server.research.thompson import Arm, arms, ranked, sampled

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="noise_aware"
)
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)

steady = settings(derandomize=True, deadline=None, max_examples=200)
histories = st.lists(st.tuples(st.sampled_from(CATEGORIES), st.booleans()), max_size=60)
scopes = st.lists(st.sampled_from(CATEGORIES), min_size=1, unique=True)
seeds = st.integers(0, 2**40)


class Expected:
    """Draws that come out as expected."""

    def betavariate(self, alpha: float, beta: float, /) -> float:
        return alpha / (alpha + beta)


def made(number: int, status: Status, category: Category) -> Experiment:
    return Experiment(
        f"e{number}", "mar8", number, "ann", "c" * 40, "b" * 40, "idea", category, "", float(number), status
    )


@pytest.mark.parametrize(
    ("oldest_first", "alpha", "beta"),
    [
        ("", 1.0, 1.0),
        ("k", 4.0, 1.0),  # 1 + 3
        ("d", 1.0, 2.0),  # 1 + 1
        ("kd", 3.91, 2.0),  # 1 + 3 * 0.97, 1 + 1
        ("dk", 4.0, 1.97),  # 1 + 3, 1 + 1 * 0.97
        ("ddd", 1.0, 3.9109),  # 1 + 1 + 0.97 + 0.9409
        ("k.", 3.91, 1.0),  # a proposal of another category fades this one as well
        ("k..d", 1 + 3 * 0.97**3, 2.0),
    ],
)
def test_a_category_is_known_by_its_keeps_and_its_failures_of_late(
    oldest_first: str, alpha: float, beta: float
) -> None:
    history: list[tuple[Category, bool]] = [
        ("other" if letter == "." else "optimizer", letter == "k") for letter in reversed(oldest_first)
    ]
    arm = arms(history).get("optimizer", Arm())
    assert [arm.alpha, arm.beta] == pytest.approx([alpha, beta])
    assert arm.expected == pytest.approx(alpha / (alpha + beta))


@steady
@given(histories)
def test_counting_back_is_fading_as_one_goes(oldest_first: list[tuple[Category, bool]]) -> None:
    alpha, beta = dict.fromkeys(CATEGORIES, 1.0), dict.fromkeys(CATEGORIES, 1.0)
    for category, kept in oldest_first:
        for each in CATEGORIES:
            alpha[each], beta[each] = 1 + 0.97 * (alpha[each] - 1), 1 + 0.97 * (beta[each] - 1)
        alpha[category] += 3 * kept
        beta[category] += not kept
    known = arms(reversed(oldest_first))
    assert set(known) == {category for category, _ in oldest_first}
    for category, arm in known.items():
        assert [arm.alpha, arm.beta] == pytest.approx([alpha[category], beta[category]])


def test_what_is_long_ago_is_as_good_as_forgotten() -> None:
    old: list[tuple[Category, bool]] = [("optimizer", True)] * 50
    recent: list[tuple[Category, bool]] = [("other", False)] * 200
    assert arms(recent + old)["optimizer"].alpha < 1.2  # 1 + 3 * 0.97^200 / 0.03 = 1.23 for endless keeps
    assert arms(recent)["other"].beta == pytest.approx(1 + 1 / 0.03, rel=0.01)


@steady
@given(scopes, histories, seeds)
def test_every_category_of_the_scope_is_ranked_once(
    scope: list[Category], history: list[tuple[Category, bool]], seed: int
) -> None:
    ranks = sampled(scope, arms(history), {}, random.Random(seed))
    assert sorted(rank.category for rank in ranks) == sorted(scope)
    scores = [rank.score for rank in ranks]
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in scores)


@steady
@given(scopes, histories, seeds)
def test_an_equal_seed_gives_an_equal_ranking(
    scope: list[Category], history: list[tuple[Category, bool]], seed: int
) -> None:
    known = arms(history)
    assert sampled(scope, known, {}, random.Random(seed)) == sampled(scope, known, {}, random.Random(seed))


def test_seeds_differ() -> None:
    first = {sampled(CATEGORIES, {}, {}, random.Random(seed))[0].category for seed in range(200)}
    assert first == set(CATEGORIES)


@pytest.mark.parametrize(
    ("known", "share"),
    [
        ({}, 0.5),
        ({"optimizer": Arm(4, 1)}, 0.2),  # P(U > Beta(4, 1)) = 1 - 4/5
        ({"optimizer": Arm(1, 4)}, 0.8),  # 4/5
        ({"optimizer": Arm(19, 1)}, 0.05),  # 1 - 19/20
        ({"optimizer": Arm(40, 60)}, 0.6),  # 1 - 40/100
    ],
)
def test_what_was_never_tried_keeps_a_chance(known: Mapping[Category, Arm], share: float) -> None:
    scope: tuple[Category, ...] = ("optimizer", "attention")
    rounds = 4000
    first = sum(sampled(scope, known, {}, random.Random(seed))[0].category == "attention" for seed in range(rounds))
    assert abs(first / rounds - share) < 4 * math.sqrt(share * (1 - share) / rounds)


def test_the_ranking_goes_by_the_draws_and_ties_by_the_order_of_categories() -> None:
    scope: tuple[Category, ...] = ("other", "scheduling", "optimizer", "architecture", "attention")
    known: dict[Category, Arm] = {"scheduling": Arm(4, 1), "attention": Arm(1, 2)}
    ranks = sampled(scope, known, {}, Expected())
    assert [rank.category for rank in ranks] == ["scheduling", "architecture", "optimizer", "other", "attention"]
    assert [rank.score for rank in ranks] == [0.8, 0.5, 0.5, 0.5, 0.3333]


def test_each_rank_says_tries_keeps_and_the_reason() -> None:
    rank = sampled(("optimizer",), {"optimizer": Arm(4, 1)}, {"optimizer": Count(9, 2)}, Expected())[0]
    assert (rank.tries, rank.keeps) == (9, 2)
    assert rank.reason == "2 of 9 kept; of late about 80% expected, 80% drawn"
    rank = sampled(("optimizer",), {}, {}, Expected())[0]
    assert (rank.tries, rank.keeps) == (0, 0)
    assert rank.reason == "0 of 0 kept; of late about 50% expected, 50% drawn"


HISTORY = [
    made(1, "keep", "other"),  # the baseline
    made(2, "keep", "optimizer"),
    made(3, "crash", "attention"),
    made(4, "discard", "attention"),
    made(5, "training", "scheduling"),
]


def test_crashes_count_against_their_category_and_the_baseline_for_none() -> None:
    scores = {rank.category: rank.score for rank in ranked(RUN, gather(TASK, HISTORY), Expected())}
    assert set(scores) == set(CATEGORIES)
    assert scores["other"] == scores["scheduling"] == 0.5
    assert scores["attention"] == 0.2519  # 1 / (1 + 1 + 1 + 0.97)
    assert scores["optimizer"] == 0.7926  # (1 + 3 * 0.9409) / (2 + 3 * 0.9409)


@pytest.mark.parametrize(
    ("policy", "manual_mode", "mode"),
    [
        ("greedy", None, "explore"),  # 4 are finished: the classic rules learn the ground first
        ("greedy", "exploit", "exploit"),
        ("noise_aware", "exploit", "exploit"),
        ("strict", "ablation", "ablation"),
    ],
)
def test_under_the_classic_rule_or_by_hand_the_mode_decides(
    policy: Policy, manual_mode: str | None, mode: Mode
) -> None:
    task = replace(TASK, policy=policy)
    run, evidence = replace(RUN, task=task, manual_mode=manual_mode), gather(task, HISTORY)
    assert ranked(run, evidence, random.Random(1)) == ranking(task, evidence, mode)
