"""The chart: what stands where on it, read from the figure itself."""

from pathlib import Path
from typing import Any

import pytest

from mcp_server.interfaces import chart
from mcp_server.interfaces.chart import draw_progress


def experiments(*results: tuple[str, float | None]) -> list[dict[str, Any]]:
    """What `history` would answer, the newest first."""
    return [
        {"status": status, "value": value, "hypothesis": f"idea {number}"}
        for number, (status, value) in enumerate(results, 1)
    ][::-1]


@pytest.mark.parametrize(
    "results",
    [
        (),
        (("crash", None),),
        (("keep", 1.0),),
        (("discard", 1.0), ("crash", None)),
        (("keep", 1.0), ("discard", 50.0), ("keep", 0.9), ("needs_confirmation", 0.8), ("training", None)),
        (("keep", 0.0), ("keep", -3.0)),
    ],
)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_every_history_makes_a_picture(tmp_path: Path, results: tuple[Any, ...], direction: str) -> None:
    draw_progress(experiments(*results), "score", direction, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("direction", "values", "inside", "outside"),
    [("minimize", (1.0, 9.0, 0.9), 1.0, 9.0), ("maximize", (0.5, 0.0, 0.6), 0.5, 0.0)],
)
def test_one_bad_experiment_does_not_flatten_the_rest(
    direction: str, values: tuple[float, float, float], inside: float, outside: float
) -> None:
    statuses = ("keep", "discard", "keep")
    dots = [
        chart.Dot(number, status, value, "")
        for number, (status, value) in enumerate(zip(statuses, values, strict=True), 1)
    ]
    low, high = chart._limits(dots, direction)
    assert low < inside < high
    assert not low < outside < high


def test_long_hypotheses_are_cut() -> None:
    dot = chart._dot(2, {"status": "keep", "value": 1.0, "hypothesis": "x" * 200})
    assert len(dot.label) == chart.LONGEST_LABEL
    assert chart._dot(1, {"status": "keep", "value": "nan", "hypothesis": "x"}) == chart.Dot(
        1, "keep", None, "baseline"
    )


@pytest.mark.parametrize(("direction", "better"), [("minimize", 0.7), ("maximize", 1.3)])
def test_what_was_better_and_not_kept_is_on_the_better_side(direction: str, better: float) -> None:
    low, high = chart._limits([chart.Dot(1, "keep", 1.0, ""), chart.Dot(2, "discard", better, "")], direction)
    assert low < better < high
