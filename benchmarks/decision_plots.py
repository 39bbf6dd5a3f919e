"""The plots of docs/decisions-under-noise.md, from what decision_sim.py found.

python benchmarks/decision_sim.py --json found.json
python benchmarks/decision_plots.py found.json docs/images
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from mcp_server.interfaces.chart import FAINT, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    ("greedy", "classic"): "#8a949e",
    ("greedy", "thompson"): "#d98e1f",
    ("noise_aware", "thompson"): "#0f9d75",
    ("strict", "thompson"): "#3566b8",
}
NAMES = {
    ("greedy", "classic"): "greedy + classic modes",
    ("greedy", "thompson"): "greedy + Thompson",
    ("noise_aware", "thompson"): "noise_aware + Thompson",
    ("strict", "thompson"): "strict + Thompson",
}
UNIT = "1e-3 val_bpb"


def draw(record: Mapping[str, Any], folder: Path) -> None:
    """Draw a record as SVG files, always the same ones; what it is too small for is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = record["cells"][0]
    sweep = [cell for cell in record["cells"] if (cell["budget"], cell["workers"]) == (100, 1)]
    with matplotlib.rc_context({"svg.hashsalt": "autoresearch", "font.size": 11, "text.color": INK}):
        _save(_chances(record["chances"]), folder / "chance-of-keeping.svg")
        _save(_reports(stated["rows"]), folder / "truth-and-report.svg")
        _save(_nights(record["nights"]), folder / "night.svg")
        if len(sweep) > 1:
            _save(_sweep(sorted(sweep, key=lambda cell: float(cell["sigma"]))), folder / "noise-sweep.svg")


def _chances(curves: Iterable[Mapping[str, Any]]) -> Figure:
    """The chance to be kept against the true effect, a line for each policy."""
    figure, [axes] = _figure(1, 4.2)
    for curve in curves:
        policy, effects = curve["policy"], curve["effect"]
        colour = COLOURS[policy, "thompson"]
        axes.plot(effects, [100 * share for share in curve["kept"]], color=colour, linewidth=2.4, label=policy)
        nothing = 100 * curve["kept"][effects.index(0)]
        axes.scatter([0], [nothing], s=42, color=colour, zorder=4)
        below = policy == "strict"
        axes.annotate(
            f"{nothing:.0f} %",
            (0, nothing),
            (8, -12) if below else (-7, 5),
            textcoords="offset points",
            color=colour,
            ha="left" if below else "right",
        )
    axes.axvspan(min(effects), 0, color="#f6f7f9", zorder=0)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.annotate("makes it worse", (-1, 93), color=FAINT, ha="center")
    axes.annotate("makes it better", (1, 93), color=FAINT, ha="center")
    axes.set_xlim(min(effects), max(effects))
    axes.set_ylim(0, 101)
    _words(axes, "Chance that a change is kept", "true gain of the change, in sigma of one run", "%")
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)
    return figure


def _reports(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Truth and report of each rule as two dots, with two standard errors of the truth."""
    figure, [axes] = _figure(1, 3.4)
    for place, row in enumerate(reversed(rows)):
        gain, error = row["gain"]
        over, colour = row["overstatement"][0], COLOURS[tuple(row["row"])]
        axes.plot([gain, gain + over], [place, place], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.errorbar([gain], [place], xerr=2 * error, color=colour, fmt="o", markersize=9, capsize=4, zorder=3)
        axes.scatter([gain + over], [place], s=75, facecolor="white", edgecolor=colour, linewidth=2, zorder=3)
        axes.annotate(f"{gain:.2f}", (gain, place), (0, 9), textcoords="offset points", ha="center")
        axes.annotate(
            f"reported {gain + over:.2f}, too good by {over:.2f}",
            (max(gain + over, gain + 2 * error), place),
            (11, 0),
            textcoords="offset points",
            va="center",
            color=FAINT,
        )
    axes.set_yticks(range(len(rows)), [NAMES[tuple(row["row"])] for row in reversed(rows)])
    reports = [row["gain"][0] + row["overstatement"][0] for row in rows]
    axes.set_xlim(min(row["gain"][0] - 2 * row["gain"][1] for row in rows) - 0.3, max(reports) + 2.4)
    axes.set_ylim(-0.5, len(rows) - 0.4)
    _words(axes, "What was gained in truth (filled), and what the report says (open)", f"gain, {UNIT}", "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.tick_params(axis="y", colors=INK)
    return figure


def _nights(nights: Sequence[Mapping[str, Any]]) -> Figure:
    """The median run over what it spent: the true gain, and by how much the report is too good."""
    figure, [left, right] = _figure(2, 4.0)
    for night in nights:
        row = tuple(night["row"])
        for axes, what in ((left, "gain"), (right, "overstatement")):
            axes.plot(night["spent"], night[what], color=COLOURS[row], linewidth=2, label=NAMES[row])
    for axes in (left, right):
        axes.set_xlim(0, nights[0]["spent"][-1])
    left.set_ylim(bottom=0)
    right.axhline(0, color=FAINT, linewidth=1)
    _words(left, "True gain of the best", "runs spent", UNIT)
    _words(right, "How much too good its report is", "runs spent", UNIT)
    _legend(figure, left)
    return figure


def _sweep(cells: Sequence[Mapping[str, Any]]) -> Figure:
    """Gain, share of false keeps and their harm against the noise of one run."""
    figure, panels = _figure(3, 4.0)
    sigmas = [cell["sigma"] for cell in cells]
    titles = (("gain", "True gain", UNIT, 1), ("false_keeps", "False keeps", "% of all keeps", 100))
    for axes, (what, title, unit, factor) in zip(
        panels, (*titles, ("harm", "Harm done by them", UNIT, 1)), strict=True
    ):
        for place, row in enumerate(row_of["row"] for row_of in cells[0]["rows"]):
            found = [cell["rows"][place][what] for cell in cells]
            axes.errorbar(
                [sigma + 0.012 * (2 * place - 3) for sigma in sigmas],
                [factor * value for value, _ in found],
                yerr=[2 * factor * error for _, error in found],
                color=COLOURS[tuple(row)],
                linewidth=2,
                elinewidth=1.2,
                marker="o",
                markersize=4,
                label=NAMES[tuple(row)],
            )
        axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
        axes.set_ylim(bottom=0)
        _words(axes, title, "sigma of one run, 1e-3", unit)
    _legend(figure, panels[0])
    return figure


def _figure(panels: int, height: float) -> tuple[Figure, list["Axes"]]:
    """A white card with axes side by side: white, so that it can be read on a dark page."""
    figure = Figure(figsize=(9, height), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr,call-arg]
    found = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    for axes in found:
        axes.tick_params(colors=FAINT, length=0, labelsize=10)
        axes.grid(axis="y", color=GRID, linewidth=0.9)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
    return figure, found


def _words(axes: "Axes", title: str, along: str, up: str) -> None:
    """A title that says what is drawn, above the unit, and what runs along the bottom."""
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=22)
    axes.annotate(up, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=FAINT, fontsize=10)
    axes.set_xlabel(along, color=FAINT, fontsize=10)


def _legend(figure: Figure, axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK, fontsize=10)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Draw a saved record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    draw(json.loads(given.record.read_text()), given.folder)


if __name__ == "__main__":
    main()
