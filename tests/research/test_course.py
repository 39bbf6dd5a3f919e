"""The way along one knob: a clear first step, the other way where one way lost, on where the last step won."""

import pytest

from mcp_server.research.course import DIP, LEVEL, LOST, OTHER, RATE, SIZE, WON, Course, course_of
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import Knob
from mcp_server.research.ladders import Ladder, ladders
from mcp_server.research.lines import Point, Points, past_of
from mcp_server.research.script import Setting

SIGMA = 0.01


def ladder(name: str, value: KnobValue) -> Ladder:
    (found,) = ladders(Setting(Knob(name, value, 1), "other"), {name: value})
    return found


def course(
    name: str, present: KnobValue, *trials: tuple[KnobValue, float | None], small_first: bool = True, lot: int = 0
) -> Course:
    """The course after these values and losses, the first of them the unchanged script's."""
    points = Points({name: present, "OTHER": 1}, tuple(Point({name: value}, loss) for value, loss in trials), 1)
    found = ladder(name, present)
    return course_of(found, past_of(found, points), SIGMA, small_first, lot)


def first(name: str, present: KnobValue, found: Course) -> KnobValue:
    return ladder(name, present).rungs[found.rungs[0]]


@pytest.mark.parametrize(
    ("name", "present", "small_first", "lot", "value", "promise"),
    [
        ("WIDTH", 96, True, 0, 48, SIZE),
        ("WIDTH", 96, False, 0, 192, SIZE),
        ("DEPTH", 2, True, 0, 1, SIZE),
        ("TOTAL_BATCH_SIZE", 2048, True, 0, 1024, SIZE),
        ("HEAD_LR", 0.008, True, 0, 0.015, RATE),
        ("HEAD_LR", 0.008, True, 1, 0.004, RATE),
        ("ADAM_BETA1", 0.9, True, 0, 0.95, OTHER),
        ("FINAL_LR", 0.1, True, 1, 0.02, OTHER),  # a share
        ("DROPOUT", 0.0, True, 1, 0.05, OTHER),
        ("USE_BIAS", False, True, 1, True, OTHER),
    ],
)
def test_a_first_step_is_clear_and_of_sizes_down_where_steps_are_dear(
    name: str, present: KnobValue, small_first: bool, lot: int, value: KnobValue, promise: float
) -> None:
    found = course(name, present, (present, 1.0), small_first=small_first, lot=lot)
    assert (first(name, present, found), found.promise) == (value, promise)
    assert "never varied" in found.reason


@pytest.mark.parametrize(
    ("trials", "value", "promise"),
    [
        ([(0.04, 1.0), (0.08, 1.02)], 0.02, RATE + LOST),  # that way lost: the other way
        ([(0.02, 1.02), (0.04, 1.0)], 0.08, WON),  # this way won: on
        ([(0.02, 1.02), (0.04, 1.0), (0.04, 1.03)], 0.08, LEVEL),  # on average it won by 0.005 only
        ([(0.04, 1.0), (0.08, 1.005)], 0.02, LEVEL),  # nothing showed
        ([(0.04, 1.0), (0.08, None)], 0.02, RATE),  # a failure says nothing of the other way
        ([(0.06, 1.0), (0.04, 1.0), (0.08, 1.3)], 0.02, LEVEL),  # the nearest counts
    ],
)
def test_one_side_tells_of_the_other(
    trials: list[tuple[KnobValue, float | None]], value: KnobValue, promise: float
) -> None:
    found = course("LR", 0.04, *trials)
    assert (first("LR", 0.04, found), found.promise) == (value, promise)


@pytest.mark.parametrize(
    ("trials", "promise"),
    [
        ([(0.04, 1.0), (0.08, 1.02), (0.02, 1.03)], DIP),
        ([(0.04, 1.0), (0.08, 1.02), (0.02, 1.0)], LEVEL),
    ],
)
def test_between_two_sides_an_estimator_has_to_tell(
    trials: list[tuple[KnobValue, float | None]], promise: float
) -> None:
    assert course("LR", 0.04, *trials) == Course(promise)


def test_at_the_end_of_a_ladder_there_is_no_other_way() -> None:
    assert course("DEPTH", 1, (2, 1.1), (1, 1.0)) == Course(DIP)


def test_what_has_no_order_has_no_way() -> None:
    assert course("USE_BIAS", True, (False, 1.1), (True, 1.0)) == Course(LEVEL)


def test_gaps_are_means_over_the_lines_that_hold_the_present_value() -> None:
    present: dict[str, KnobValue] = {"LR": 0.04, "DEPTH": 4}
    trials = [(0.04, 4, 1.0), (0.04, 4, 1.02), (0.08, 4, 1.05), (0.04, 2, 0.9), (0.08, 2, 0.92), (0.02, 3, 5.0)]
    points = tuple(Point({"LR": rate, "DEPTH": depth}, loss) for rate, depth, loss in trials)
    rates = ladder("LR", 0.04)
    gaps = past_of(rates, Points(present, points, 1)).gaps
    assert gaps == {rates.place: 0.0, rates.place + 2: pytest.approx((0.04 + 0.02) / 2)}
