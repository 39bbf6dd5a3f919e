"""The values that a knob may take: on its own scale, in its own kind, and never nonsense."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import Knob
from mcp_server.research.ladders import REACH, Ladder, ladders
from mcp_server.research.script import Setting


def ladder(name: str, value: KnobValue, comment: str = "", **others: KnobValue) -> Ladder:
    """The only ladder of a knob."""
    (found,) = ladders(Setting(Knob(name, value, 1, comment), "other"), {**others, name: value})
    return found


@pytest.mark.parametrize(
    ("name", "value", "rungs"),
    [
        ("LR", 0.04, (0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)),
        ("LR", 0.045, (0.01, 0.015, 0.02, 0.03, 0.04, 0.045, 0.06, 0.08, 0.1, 0.15, 0.2)),
        ("ADAM_EPS", 1e-8, (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)),
        ("ADAM_BETA2", 0.95, (0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)),
        ("WARMUP", 0.0, (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)),
        ("DROPOUT", 0.7, (0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        ("WEIGHT_DECAY", 0.0, (0.0, 0.001, 0.01, 0.1)),
        ("BIAS", -1.0, (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.8, -0.6, -0.4, -0.3, -0.2)),
        ("TOTAL_BATCH_SIZE", 2**19, (2**16, 2**17, 2**18, 2**19, 2**20, 2**21, 2**22)),
        ("BATCH_SIZE", 48, (6, 12, 24, 48, 96, 192, 384)),
        ("BATCH_SIZE", 50, (25, 50, 100, 200, 400)),
        ("DEPTH", 8, (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)),
        ("DEPTH", 2, (1, 2, 3, 4, 5, 6, 7)),
        ("WARMUP_STEPS", 300, (60, 80, 100, 150, 200, 300, 400, 600, 800, 1000, 1500)),
        ("EXTRA", 0, (0, 1, 2)),
    ],
)
def test_the_scale_suits_the_knob(name: str, value: KnobValue, rungs: tuple[KnobValue, ...]) -> None:
    assert ladder(name, value).rungs == rungs


def test_sizes_fit_each_other() -> None:
    assert ladder("N_HEAD", 4, WIDTH=96).rungs == (2, 4, 6, 8, 12, 16, 24)[: REACH + 2]
    assert ladder("HEAD_DIM", 64, WIDTH=384).rungs == (8, 16, 32, 64, 128)
    assert ladder("WIDTH", 384, HEAD_DIM=128).rungs == (128, 256, 384, 512, 640, 768, 896, 1024)
    assert ladder("WIDTH", 256, HEAD_DIM=128).rungs == (128, 256, 384, 512, 768, 1024, 1536)
    assert ladder("WIDTH", 96, HEAD_DIM=128).rungs == (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    assert ladder("WIDTH", 64).rungs == (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)


def test_comments_bound_a_ladder_and_say_what_zero_means() -> None:
    assert ladder("ITERATIONS", 5, "steps, at most 5").rungs == (1, 2, 3, 4, 5)
    assert ladder("ITERATIONS", 5, "at least 4, at most 6").rungs == (4, 5, 6)
    assert ladder("SOFTCAP", 15.0, "bound on the logits; 0 for none").rungs[:2] == (0.0, 3.0)
    assert ladder("SOFTCAP", 15.0, "bound on the logits").rungs[0] == 3.0


def test_switches_words_and_tuples() -> None:
    assert ladder("USE_BIAS", False).rungs == (False, True)
    options = Setting(Knob("ACT", "relu", 1), "activation", ("gelu", "silu"))
    assert [each.rungs for each in ladders(options, {})] == [("relu", "gelu", "silu")]
    first, second = ladders(Setting(Knob("ADAM_BETAS", (0.8, 0.95), 1), "optimizer"), {})
    assert (first.element, first.present, second.element, second.present) == (0, 0.8, 1, 0.95)
    assert second.put((0.8, 0.95), second.place + 1) == (0.8, 0.97)
    assert second.value_in({"ADAM_BETAS": (0.8, 0.9)}) == 0.9
    assert second.value_in({"ADAM_BETAS": 3}) == second.value_in({}) == 0.95


@pytest.mark.parametrize(
    ("name", "value"),
    [("NOTHING", None), ("PATH", "data"), ("SENTINEL", -1), ("DEVICE_BATCH_SIZE", 8), ("TABLE", ((1, 2), (3, 4)))],
)
def test_some_knobs_have_no_ladder(name: str, value: KnobValue) -> None:
    assert ladders(Setting(Knob(name, value, 1), "other"), {name: value}) == ()


@pytest.mark.parametrize(
    ("name", "value", "down", "up"),
    [
        ("LR", 0.04, 0.02, 0.08),
        ("LR", 0.6, 0.3, 1.0),  # 1.0 / 0.6 is nearer to 2 than 1.5 / 0.6
        ("BATCH_SIZE", 48, 24, 96),
        ("DEPTH", 2, 1, 4),
        ("DEPTH", 1, None, 2),
        ("ADAM_EPS", 1e-8, 1e-9, 1e-7),
        ("BIAS", -1.0, -2.0, -0.6),
        ("MOMENTUM", 0.9, 0.8, 0.95),
        ("WARMDOWN", 0.5, 0.3, 0.7),
        ("WARMUP", 0.0, None, 0.05),
        ("WEIGHT_DECAY", 0.2, 0.1, 0.4),
    ],
)
def test_a_clear_step_is_about_a_factor_of_two(
    name: str, value: KnobValue, down: KnobValue | None, up: KnobValue | None
) -> None:
    found = ladder(name, value)
    steps = [found.clear_step(way) for way in (-1, 1)]
    assert [None if step is None else found.rungs[step] for step in steps] == [down, up]


def test_the_nearest_rung() -> None:
    rates = ladder("LR", 0.04)
    values = (0.04, 0.05, 0.045, 9.0, 0.0, -3.0, 1)
    assert [rates.rungs[rates.nearest(value) or 0] for value in values] == [0.04, 0.06, 0.04, 0.2, 0.008, 0.008, 0.2]
    assert [rates.nearest(value) for value in (None, "x", True, (0.1,), math.nan, 10**400)] == [None] * 6
    switch = ladder("USE_BIAS", False)
    assert [switch.nearest(value) for value in (True, False, 1, None)] == [1, 0, None, None]


NAMES = st.sampled_from(
    ["LR", "BATCH_SIZE", "WIDTH", "HEAD_DIM", "N_HEADS", "ADAM_BETAS", "WEIGHT_DECAY", "EPS", "WARMUP", "DEPTH", "X"]
)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=5), st.none(), st.tuples(NUMBERS, NUMBERS))


@given(NAMES, VALUES, st.dictionaries(NAMES, NUMBERS))
def test_every_ladder_is_sane(name: str, value: KnobValue, others: dict[str, KnobValue]) -> None:
    for found in ladders(Setting(Knob(name, value, 1), "other"), {**others, name: value}):
        present = found.present
        assert repr(found.rungs[found.place]) == repr(present)
        assert len({repr(rung) for rung in found.rungs}) == len(found.rungs) > 1
        assert {type(rung) for rung in found.rungs} == {type(present)}
        if found.ordered:
            numbers = [rung for rung in found.rungs if isinstance(rung, int | float)]
            assert numbers == sorted(numbers)
            assert all((math.isfinite(rung) and abs(rung) < 2**63) or isinstance(rung, float) for rung in numbers)
            if isinstance(present, int | float) and present >= 0:
                assert numbers[0] >= 0
