"""Verdicts under noise, to the numbers of the two policies that know it."""

import math
import time
from dataclasses import replace

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.noise import Noise, pool
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    compare,
    counted,
    judge_baseline,
    judge_candidate,
    rule_of,
    standing,
)
from mcp_server.research.task import Policy, Task
from mcp_server.research.verdict import Verdict

TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="noise_aware"
)
STRICT = replace(TASK, policy="strict")
CERTAIN = 10**20
"""So many runs that the mean of the base is beyond doubt."""
UNIT = Noise(prior=1.0)


def with_z(z: float, n: int, lines: int = 0, base: str = "e0") -> Candidate:
    """An experiment of n runs, each z standard errors better than 0.0, the mean of its base; sigma is 1.

    One run against a certain base: s = 1. Two against two: s = sqrt(1/2 + 1/2) = 1. More: s = sqrt(1/n).
    """
    s, base_runs = (1.0, 2) if n == 2 else (math.sqrt(1 / n), CERTAIN)
    return Candidate("e9", (Replicate(-z * s, base, 0.0, base_runs),) * n, lines)


def verdict_on(candidate: Candidate, policy: Policy = "noise_aware", lead: float = 0.0) -> Verdict:
    """The verdict beside a present best, e0, or, if it leads, an e5 that is so much better."""
    best = Incumbent("e5" if lead else "e0", -lead, CERTAIN, True)
    return judge_candidate(replace(TASK, policy=policy), candidate, best, UNIT, seed=7, displaced=("e3", "e5"))


@pytest.mark.parametrize(
    ("n", "z", "state"),
    [
        (1, 3.0, "keep"),
        (1, 2.0, "keep"),
        (1, 1.99, "needs_confirmation"),
        (1, 0.3, "needs_confirmation"),
        (1, 0.29, "near_miss"),
        (1, 0.0, "near_miss"),
        (1, -1.99, "near_miss"),
        (1, -2.0, "discard"),
        (1, -9.0, "discard"),
        (2, 3.0, "keep"),
        (2, 1.3, "keep"),
        (2, 1.29, "needs_confirmation"),
        (2, 0.51, "needs_confirmation"),
        (2, 0.49, "near_miss"),
        (2, -1.99, "near_miss"),
        (2, -2.0, "discard"),
        (3, 1.01, "keep"),
        (3, 0.99, "needs_confirmation"),
        (3, 0.49, "near_miss"),
        (4, 0.8, "keep"),
        (4, 0.79, "needs_confirmation"),
        (5, 0.71, "keep"),
        (5, 0.69, "near_miss"),  # confirmed four times, and that was it
        (6, 0.7, "keep"),
    ],
)
def test_noise_aware_state_by_state(n: int, z: float, state: str) -> None:
    check(verdict_on(with_z(z, n)), state)


@pytest.mark.parametrize(
    ("n", "z", "state"),
    [
        (1, 2.5, "keep"),
        (1, 2.49, "needs_confirmation"),
        (1, 0.5, "needs_confirmation"),
        (1, 0.49, "near_miss"),
        (2, 1.81, "keep"),
        (2, 1.79, "needs_confirmation"),
        (3, 1.41, "keep"),
        (3, 1.39, "needs_confirmation"),
        (4, 1.2, "keep"),
        (4, 1.19, "needs_confirmation"),
        (5, 1.01, "keep"),
        (5, 0.99, "near_miss"),
    ],
)
def test_more_is_asked_where_effects_are_small_against_the_noise(n: int, z: float, state: str) -> None:
    best = Incumbent("e0", 0.0, CERTAIN, True)
    check(judge_candidate(TASK, with_z(z, n), best, UNIT, seed=7, loud=True), state)


def test_strict_asks_the_same_however_large_effects_are() -> None:
    assert rule_of("strict", loud=True) == rule_of("strict")


@pytest.mark.parametrize(
    ("n", "z", "state"),
    [
        (1, 2.0, "keep"),  # at once
        (1, 1.99, "needs_confirmation"),
        (1, 0.3, "needs_confirmation"),
        (1, 0.29, "near_miss"),
        (1, -2.0, "discard"),
        (2, 1.5, "keep"),  # early
        (2, 1.49, "needs_confirmation"),
        (2, 0.0, "needs_confirmation"),
        (2, -0.01, "near_miss"),  # dropped after a re-run
        (2, -2.0, "discard"),
        (3, 0.51, "keep"),  # final
        (3, 0.49, "near_miss"),
        (3, -2.01, "discard"),
        (4, 0.5, "keep"),
        (4, 0.49, "near_miss"),
    ],
)
def test_strict_state_by_state(n: int, z: float, state: str) -> None:
    check(verdict_on(with_z(z, n), "strict"), state)


def check(verdict: Verdict, state: str) -> None:
    """What every verdict of a state has in common."""
    assert verdict.state == state
    action = {"keep": "keep_commit", "needs_confirmation": "confirm"}.get(state, "git_reset")
    assert (verdict.action, verdict.improved) == (action, state == "keep")
    again = "Run this commit again with seed 7: train('e9', seed=7)"
    assert verdict.next_action == (again if state == "needs_confirmation" else "")
    assert (verdict.simplification, verdict.accepted_loss, verdict.displaced, verdict.rebase) == (False, 0, (), False)


SAID = [
    (  # 0.9979 - 0.9960 = 1.9e-3; s = 5e-4 * sqrt(1 + 1/2) = 6.12e-4; z = 3.10
        [0.9960], 2, "keep",
        "Better by 0.001900 +- 0.000612372 val_bpb (z 3.10, 1 run against 2 of e0): kept, since z is at least 2; "
        "one run only, so unconfirmed and likely optimistic.",
    ),
    (  # 5e-4; s = 5e-4 * sqrt(1 + 1) = 7.07e-4; z = 0.71
        [0.9974], 1, "needs_confirmation",
        "Better by 0.0005 +- 0.000707107 val_bpb (z 0.71, 1 run against 1 of e0): promising, but z below 2 may "
        "well be noise.",
    ),
    (  # (9e-4 + 5e-4) / 2 = 7e-4; s = 5e-4 * sqrt(1/2 + 1/2); z = 1.4
        [0.9970, 0.9974], 2, "keep",
        "Better by 0.0007 +- 0.0005 val_bpb (z 1.40, 2 runs against 2 of e0): kept, since z is at least 1.3.",
    ),
    (  # -3e-4; z = -0.49
        [0.9982], 2, "near_miss",
        "Worse by 0.0003 +- 0.000612372 val_bpb (z -0.49, 1 run against 2 of e0): a near miss, not told from noise.",
    ),
    (  # -0.0021; z = -3.43
        [1.0000], 2, "discard",
        "Worse by 0.002100 +- 0.000612372 val_bpb (z -3.43, 1 run against 2 of e0): clearly worse.",
    ),
    (  # equal is not better
        [0.9979], 2, "near_miss",
        "Different by 0.000000 +- 0.000612372 val_bpb (z 0.00, 1 run against 2 of e0): a near miss, not told from "
        "noise.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "base_runs", "state", "reason"), SAID)
def test_the_reason_is_one_sentence_with_the_numbers(
    values: list[float], base_runs: int, state: str, reason: str
) -> None:
    candidate = Candidate("e9", tuple(Replicate(value, "e0", 0.9979, base_runs) for value in values))
    verdict = judge_candidate(TASK, candidate, Incumbent("e0", 0.9979, base_runs, True), Noise(prior=5e-4))
    assert (verdict.state, verdict.reason) == (state, reason)


def test_the_numbers_are_those_of_the_specification() -> None:
    """Two runs, 3 better than a base of 10 and 1 worse than one of 9, of which there were 4 and 8 runs."""
    candidate = Candidate("e9", (Replicate(7.0, "e1", 10.0, 4), Replicate(10.0, "e2", 9.0, 8)))
    noise = Noise(sum_of_squares=6.0, dof=2, prior=1.0)  # sigma = sqrt((2 + 6) / (2 + 2))
    numbers = compare(TASK, candidate, Incumbent("e3", 8.0, 5, True), noise)
    assert (numbers.d, numbers.n, numbers.n_b, numbers.dof) == (1.0, 2, 8, 2)  # d = (3 - 1) / 2
    assert numbers.sigma == pytest.approx(math.sqrt(2))
    assert numbers.s == pytest.approx(math.sqrt(2 * (1 / 2 + 1 / 8)))
    assert numbers.z == pytest.approx(1 / math.sqrt(1.25))
    assert (numbers.base, numbers.incumbent) == ("e2", "e3")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "nan", "oops", True, 10**400])
@pytest.mark.parametrize("task", [TASK, STRICT])
def test_what_is_no_finite_number_is_a_crash_and_never_a_keep(task: Task, value: float | str | None) -> None:
    good, bad = Replicate(0.5, "e0", 1.0, 2), Replicate(value, "e0", 1.0, 2)
    best = Incumbent("e0", 1.0, 2, True)
    verdicts = [judge_candidate(task, Candidate("e9", runs), best, UNIT) for runs in ((bad,), (good, bad), (bad, good))]
    verdicts += [judge_baseline(task, "e0", values, UNIT, seed=7) for values in ([value], [1.0, value])]
    verdicts.append(judge_candidate(task, Candidate("e9", (bad,)), None, UNIT))
    for verdict in verdicts:
        assert (verdict.state, verdict.action, verdict.improved) == ("crash", "git_reset", False)
        assert (verdict.delta, verdict.numbers, verdict.next_action) == (None, None, "")


@pytest.mark.parametrize(
    ("policy", "n", "z", "state", "loss"),
    [
        ("noise_aware", 1, 2.0, "keep", None),  # better anyway
        ("noise_aware", 1, 0.0, "needs_confirmation", None),
        ("noise_aware", 1, -0.3, "needs_confirmation", None),  # a chance from less
        ("noise_aware", 1, -0.31, "near_miss", None),
        ("noise_aware", 2, 1.3, "keep", None),
        ("noise_aware", 2, 0.9, "keep", 0.0),
        ("noise_aware", 2, 0.25, "keep", 0.0),
        ("noise_aware", 2, -0.25, "keep", 0.25),  # s = 1
        ("noise_aware", 2, -0.3, "keep", 0.3),
        ("noise_aware", 2, -0.31, "near_miss", None),
        ("noise_aware", 2, -2.0, "discard", None),
        ("strict", 1, 1.99, "needs_confirmation", None),
        ("strict", 1, -0.3, "needs_confirmation", None),
        ("strict", 2, 1.0, "keep", 0.0),
        ("strict", 2, -0.3, "keep", 0.3),
        ("strict", 2, -0.31, "near_miss", None),
    ],
)
def test_fewer_lines_at_no_clear_loss_are_a_keep_once_confirmed(
    policy: Policy, n: int, z: float, state: str, loss: float | None
) -> None:
    verdict = verdict_on(with_z(z, n, lines=-1), policy)
    assert verdict.state == state
    assert verdict.simplification == (loss is not None)
    assert ("kept as a simplification" in verdict.reason) == (loss is not None)
    assert verdict.accepted_loss == (loss or 0.0)


@pytest.mark.parametrize("lines", [0, 1, 40])
def test_as_many_lines_are_no_simplification(lines: int) -> None:
    assert verdict_on(with_z(0.25, 1, lines)).state == "near_miss"
    assert verdict_on(with_z(0.25, 2, lines)).state == "near_miss"


@pytest.mark.parametrize(
    ("policy", "n", "z", "lines", "lead", "state", "rebase", "displaced"),
    [
        # Kept: its own base and the present best are both beaten. One run: s = 1 against each.
        ("noise_aware", 1, 3.0, 0, 1.0, "keep", False, ("e3", "e5")),  # z 3, and 3 - 1 = 2 against the present
        ("strict", 1, 5.0, 0, 3.0, "keep", False, ("e3", "e5")),  # 5, and 5 - 3 = 2
        # Rebased: it holds on its own base, and together they were never measured.
        ("noise_aware", 1, 3.0, 0, 1.25, "needs_confirmation", True, ()),  # 3 - 1.25 = 1.75 < 2
        ("noise_aware", 1, 1.0, 0, 9.0, "needs_confirmation", True, ()),
        ("strict", 1, 5.0, 0, 3.25, "needs_confirmation", True, ()),
        # Two runs: s = sqrt(1/2) against the present.
        ("noise_aware", 2, 2.0, 0, 1.0, "keep", False, ("e3", "e5")),  # 1 / 0.71 = 1.41 >= 1.3
        ("noise_aware", 2, 2.0, 0, 1.5, "needs_confirmation", True, ()),  # 0.5 / 0.71 = 0.71
        # A simplification must not lose against the present best either.
        ("noise_aware", 2, 0.0, -1, 0.2, "keep", False, ("e3", "e5")),  # -0.2 / 0.71 = -0.28 >= -0.3
        ("noise_aware", 2, 0.0, -1, 0.25, "needs_confirmation", True, ()),  # -0.35
        # It fails on its own base: what the present best is does not matter.
        ("noise_aware", 1, 0.0, 0, 9.0, "near_miss", False, ()),
        ("noise_aware", 1, -2.0, 0, 9.0, "discard", False, ()),
        ("noise_aware", 2, 0.25, 0, 9.0, "near_miss", False, ()),
        # Promising: what is confirmed is the change on top of the present best.
        ("noise_aware", 1, 0.5, 0, 9.0, "needs_confirmation", True, ()),
    ],
)
def test_a_result_on_a_stale_base(
    policy: Policy, n: int, z: float, lines: int, lead: float, state: str, rebase: bool, displaced: tuple[str, ...]
) -> None:
    verdict = verdict_on(with_z(z, n, lines), policy, lead)
    assert (verdict.state, verdict.rebase, verdict.displaced) == (state, rebase, displaced)
    assert verdict.numbers is not None
    assert verdict.numbers.z == pytest.approx(z)  # that against its own base
    on_top = "Put e9 on top of e5 and run that with seed 7: train('e9', seed=7)"
    assert verdict.next_action == (on_top if rebase else "")


def test_the_reason_names_both_tests_of_a_stale_result() -> None:
    kept = verdict_on(with_z(3.0, 1), lead=1.0)
    assert "kept, since z is at least 2, and z 2.00 against the present best e5;" in kept.reason
    assert verdict_on(with_z(3.0, 1), lead=1.25).reason == (
        "z 3.00 against its own base e0 passes, but z 1.75 against the present best e5 is below 2: both together "
        "were never measured."
    )


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (-4.0, "keep"),  # (2 + 1) / 2 = 1.5
        (-3.75, "keep"),  # (2 + 0.75) / 2 = 1.375
        (-2.5, "needs_confirmation"),  # (2 - 0.5) / 2 = 0.75 < 1.3
        (-1.5, "near_miss"),  # (2 - 1.5) / 2 = 0.25 < 0.5
        (3.0, "discard"),  # (2 - 6) / 2 = -2
    ],
)
def test_after_a_rebase_each_run_counts_against_its_own_base(value: float, state: str) -> None:
    runs = (Replicate(-2.0, "e0", 0.0, 9), Replicate(value, "e5", -3.0, 2))
    best = Incumbent("e5", -3.0, 2, True)
    verdict = judge_candidate(TASK, Candidate("e9", runs), best, UNIT)  # s = sqrt(1/2 + 1/2)
    assert (verdict.state, verdict.rebase) == (state, False)


def test_after_a_rebase_only_the_new_code_stands_against_a_newer_best() -> None:
    """The first run was 9 better than e0; on top of e5 it gained 1, and by then e7 was 1 better than e5."""
    runs = (Replicate(-9.0, "e0", 0.0, 2), Replicate(-4.0, "e5", -3.0, 2))
    best = Incumbent("e7", -4.0, CERTAIN, True)
    verdict = judge_candidate(TASK, Candidate("e9", runs), best, UNIT)
    assert verdict.rebase  # 0 of 1 run against e7, and not the mean of -9 and -4
    assert "z 0.00 against the present best e7 is below 1.3" in verdict.reason


@pytest.mark.parametrize(("n", "unconfirmed"), [(1, True), (2, False), (3, False)])
def test_a_keep_of_one_run_is_flagged(n: int, unconfirmed: bool) -> None:
    assert ("unconfirmed and likely optimistic" in verdict_on(with_z(9.0, n)).reason) == unconfirmed


@pytest.mark.parametrize(
    ("first", "confirmations", "remeasures", "runs", "confirmed"),
    [
        (0.5, [], [], (0.5,), False),  # the screening value, for want of another
        (0.5, [0.7], [], (0.7,), True),  # the selected value is dropped
        (0.5, [0.7, 0.8], [], (0.7, 0.8), True),
        (0.5, [], [0.9], (0.5, 0.9), True),
        (0.5, [0.7], [0.9], (0.7, 0.9), True),
        (None, [0.7, 0.8], [], (0.7, 0.8), True),  # a baseline was not selected
        (None, [0.7], [0.9], (0.7, 0.9), True),
    ],
)
def test_an_incumbent_is_the_mean_of_what_was_not_picked_for_its_value(
    first: float | None, confirmations: list[float], remeasures: list[float], runs: tuple[float, ...], confirmed: bool
) -> None:
    assert counted(first, confirmations, remeasures) == runs
    best = standing("e1", first, confirmations, remeasures)
    assert (best.name, best.runs, best.confirmed) == ("e1", len(runs), confirmed)
    assert best.mean == pytest.approx(sum(runs) / len(runs))
    assert best.error(Noise(prior=0.5)) == pytest.approx(0.5 / math.sqrt(len(runs)))
    assert best.error(Noise()) is None


@pytest.mark.parametrize(
    ("known", "values", "state"),
    [
        (5e-4, [0.9979], "needs_confirmation"),  # 1 of 2
        (5e-4, [0.9979, 0.9981], "keep"),
        (None, [0.9979], "needs_confirmation"),  # 1 of 4
        (None, [0.9979, 0.9981, 0.9980], "needs_confirmation"),
        (None, [0.9979, 0.9981, 0.9980, 0.9978], "keep"),
    ],
)
def test_baselines_are_repeated_until_the_noise_is_seen(known: float | None, values: list[float], state: str) -> None:
    verdict = judge_baseline(TASK, "e1", values, pool([values], known), seed=7)
    assert verdict.state == state
    wanted = 4 if known is None else 2
    assert verdict.reason.startswith(f"{len(values)} of {wanted} baseline runs")
    assert f"{sum(values) / len(values):.6f}" in verdict.reason
    again = "Run this commit again with seed 7: train('e1', seed=7)"
    assert (verdict.action, verdict.next_action) == (("keep_commit", "") if state == "keep" else ("confirm", again))


@pytest.mark.parametrize(
    ("best", "noise", "times"),
    [
        (None, Noise(prior=5e-4), 2),
        (None, Noise(), 4),
        (Incumbent("e0", 1.0, 1, False), Noise(), 4),  # a level, and nobody knows what it may differ by
    ],
)
def test_a_change_before_any_baseline_asks_for_the_baselines(best: Incumbent | None, noise: Noise, times: int) -> None:
    verdict = judge_candidate(TASK, with_z(9.0, 1), best, noise)
    assert (verdict.state, verdict.action, verdict.numbers) == ("needs_confirmation", "confirm", None)
    assert f"run that {times} times with different seeds" in verdict.next_action


@pytest.mark.parametrize(("d", "z", "state"), [(1e-9, 1e6, "keep"), (0.0, 0.0, "near_miss"), (-1e-9, -1e6, "discard")])
def test_without_any_noise_the_sign_decides(d: float, z: float, state: str) -> None:
    """Four equal baselines, no prior, zero variance."""
    silent = pool([[1.0] * 4])
    verdict = judge_candidate(
        TASK, Candidate("e9", (Replicate(1.0 - d, "e0", 1.0, 4),)), Incumbent("e0", 1.0, 4, True), silent
    )
    assert verdict.numbers is not None
    assert (verdict.numbers.sigma, verdict.numbers.z, verdict.state) == (0.0, z, state)


def test_greedy_takes_no_account_of_noise() -> None:
    with pytest.raises(InvalidInput, match="Use one of noise_aware, strict"):
        verdict_on(with_z(1.0, 1), "greedy")


def test_clocks_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise AssertionError("a verdict looked at a clock")

    with monkeypatch.context() as patch:
        for clock in ("time", "time_ns", "monotonic", "perf_counter", "process_time"):
            patch.setattr(time, clock, broken)
        states = [verdict_on(with_z(z, n), lead=lead).state for z in (-3, 0, 0.5, 5) for n in (1, 2) for lead in (0, 1)]
    assert set(states) == {"keep", "needs_confirmation", "near_miss", "discard"}


@pytest.mark.parametrize(
    ("n", "z", "policy", "shown"),
    [
        (1, 1.234, "noise_aware", "z 1.23,"),
        (1, 1.9996, "noise_aware", "z 1.9996,"),  # 2.00 would be a keep
        (1, 1.9996, "strict", "z 1.9996,"),
        (1, 0.2999, "noise_aware", "z 0.2999,"),
        (1, -1.9999, "noise_aware", "z -1.9999,"),
        (1, -2.0, "noise_aware", "z -2.00,"),
        (2, 1.29999, "noise_aware", "z 1.29999,"),
    ],
)
def test_the_z_of_a_sentence_agrees_with_the_verdict(n: int, z: float, policy: Policy, shown: str) -> None:
    assert shown in verdict_on(with_z(z, n), policy).reason
