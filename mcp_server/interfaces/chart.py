"""The progress of a run as a picture: a dot for each experiment, and the best so far as a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GRID = "#1f2933", "#8a949e", "#e6eaee"
COLOURS = {"keep": "#0f9d75", "discard": "#a8b2bc", "crash": "#d64545", "needs_confirmation": "#e0a82e"}
NAMES = {"keep": "kept", "discard": "discarded", "crash": "crashed", "needs_confirmation": "to be confirmed"}
LONGEST_LABEL = 44
WIDTH_IN_POINTS, HEIGHT_IN_POINTS = 720, 310
"""About the size of the axes."""
CHARACTER_IN_POINTS, LINE_IN_POINTS = 5.0, 13.0
REACH = 1.2
"""The axis reaches this much of the gain beyond the baseline; what is farther off is drawn at its edge."""


@dataclass(frozen=True)
class Dot:
    """One experiment: its place in the run, and its value unless it crashed."""

    number: int
    status: str
    value: float | None
    label: str


def draw_progress(
    experiments: Sequence[Mapping[str, Any]], metric: str, direction: str, path: Path, title: str = "Research progress"
) -> None:
    """Draw a run as a PNG image.

    Args:
        experiments: what `history` answers, the newest first.
        direction: `minimize` or `maximize`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(11, 5.6), dpi=150, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dots = [_dot(number, each) for number, each in enumerate(reversed(experiments), 1)]
    _frame(axes, dots, metric, direction)
    _draw(axes, dots, direction)
    kept = sum(dot.status == "keep" for dot in dots[1:])  # the first is the baseline
    axes.set_title(title, loc="left", fontsize=15, fontweight="bold", color=INK, pad=26)
    subtitle = f"{len(dots)} experiments, {kept} kept; {'lower' if direction == 'minimize' else 'higher'} is better"
    axes.annotate(subtitle, (0, 1), (0, 9), xycoords="axes fraction", textcoords="offset points", color=FAINT)
    figure.savefig(path, format="png")


def _dot(number: int, experiment: Mapping[str, Any]) -> Dot:
    value = experiment["value"] if isinstance(experiment["value"], int | float) else None
    words = experiment["hypothesis"] if number > 1 else "baseline"
    label = words if len(words) <= LONGEST_LABEL else f"{words[: LONGEST_LABEL - 1].rstrip()}…"
    return Dot(number, experiment["status"], value, label)


def _frame(axes: "Axes", dots: Sequence[Dot], metric: str, direction: str) -> None:
    """Axes, grid, and limits that the kept experiments fill."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.4, max(len(dots), 2) + 0.9)
    axes.set_ylim(*_limits(dots, direction))
    axes.set_xlabel("experiment", color=FAINT, fontsize=10)
    axes.set_ylabel(metric, color=FAINT, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(colors=FAINT, length=0, labelsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _limits(dots: Sequence[Dot], direction: str) -> tuple[float, float]:
    values = [dot.value for dot in dots if dot.value is not None]
    kept = [dot.value for dot in dots if dot.value is not None and dot.status == "keep"] or values or [0.0]
    gain = (max(kept) - min(kept)) or max(abs(kept[0]) * 0.02, 1e-6)
    low, high = min(kept), max(kept)
    if direction == "minimize":
        low, high = min([low, *values]), min(max(values or [high]), high + REACH * gain)
    else:
        low, high = max(min(values or [low]), low - REACH * gain), max([high, *values])
    margin = 0.16 * (high - low or gain)
    return low - margin, high + margin


def _draw(axes: "Axes", dots: Sequence[Dot], direction: str) -> None:
    low, high = axes.get_ylim()
    worst, towards = (high, -1) if direction == "minimize" else (low, 1)
    edge = worst + towards * 0.05 * (high - low)
    best, bests = None, []
    for dot in dots:
        if dot.status == "keep" and dot.value is not None:
            best = dot.value
        bests.append(best)
    line = [(dot.number, value) for dot, value in zip(dots, bests, strict=True) if value is not None]
    if line:
        numbers, values = zip(*[*line, (dots[-1].number + 0.7, line[-1][1])], strict=True)
        axes.step(numbers, values, where="post", color=COLOURS["keep"], linewidth=2.2, alpha=0.55, zorder=2)
    for dot in dots:
        off = dot.value is None or not low < dot.value < high
        _mark(axes, dot, edge if off or dot.value is None else dot.value, off, towards)
    _label(axes, [dot for dot in dots if dot.status == "keep" and dot.value is not None], towards)
    for status in [status for status in COLOURS if any(dot.status == status for dot in dots)]:
        axes.scatter([], [], s=55, color=COLOURS[status], marker="X" if status == "crash" else "o", label=NAMES[status])
    if dots:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, labelcolor=INK, handletextpad=0.2)


def _mark(axes: "Axes", dot: Dot, height: float, off: bool, towards: int) -> None:
    """The dot itself; one off the axis becomes an arrow at the edge with its value."""
    colour = COLOURS.get(dot.status, FAINT)
    if dot.value is None:
        axes.scatter([dot.number], [height], s=75, marker="X", color=colour, linewidths=0, zorder=3)
    elif off:
        axes.scatter([dot.number], [height], s=60, marker="^" if towards < 0 else "v", color=colour, zorder=3)
        axes.annotate(
            f"{dot.value:.4g}", (dot.number, height), (8, 0), textcoords="offset points", color=FAINT, va="center"
        )
    else:
        size = 95 if dot.status == "keep" else 60
        axes.scatter([dot.number], [height], s=size, color=colour, edgecolors="white", linewidths=1.4, zorder=4)


def _label(axes: "Axes", kept: Sequence[Dot], towards: int) -> None:
    """The value and the words of kept experiments, on their better side and to their left: nothing else is drawn there.

    The best comes first, and those that would touch one already there go without. Where the left has too little room, a
    label stands to the right.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    wide, tall = WIDTH_IN_POINTS / (right - left), HEIGHT_IN_POINTS / (high - low)
    last, next_keep = math.inf, math.inf
    for dot in reversed(kept):
        assert dot.value is not None
        text = f"{dot.value:.4f}  {dot.label}"
        length = len(text) * CHARACTER_IN_POINTS
        fits, fits_right = (dot.number - left) * wide > length, (next_keep - dot.number) * wide > length
        better = abs(dot.value - (high if towards < 0 else low)) * tall
        next_keep = dot.number
        if last - better < LINE_IN_POINTS or not (fits or fits_right):
            continue
        last = better
        axes.annotate(
            text,
            (dot.number, dot.value),
            (4 if fits else -4, towards * 8),
            textcoords="offset points",
            ha="right" if fits else "left",
            va="top" if towards < 0 else "bottom",
            fontsize=9,
            color=INK,
            zorder=5,
            in_layout=False,
        )
