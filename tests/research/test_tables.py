"""results.tsv to the byte, and the other tables of a history."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from mcp_server.research.experiment import Experiment, Numbers, Run, Status
from mcp_server.research.tables import (
    Layout,
    chart,
    csv_layout,
    harmless,
    latex_layout,
    results_line,
    to_jsonl,
    to_tsv,
    tsv_layout,
)
from mcp_server.research.task import Task

TASK = Task("val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",))
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)


def made(number: int, status: Status, **more: Any) -> Experiment:
    more = {"hypothesis": f"idea {number}", "category": "optimizer", **more}
    return Experiment(
        f"e{number}", "mar8", number, "ann", f"{number:07d}" + "c" * 33, "b" * 40, request="secret",
        registered_at=0.0, status=status, **more,
    )  # fmt: skip


HISTORY = [
    made(1, "keep", value=0.9979, description="baseline", metrics={"peak_vram_mb": 45060.2}),  # 45060.2 / 1024 = 44.0
    made(
        2,
        "keep",
        value=0.9932,
        delta=0.0047,
        description="increase LR to 0.04",
        metrics={"peak_vram_mb": 45261},
        runs=4,
    ),
    made(3, "discard", value=1.005, delta=-0.0118, description="switch to\tGeLU\nactivation", lesson="no | gain"),
    made(4, "crash", description="double model width (OOM)", metrics={"peak_vram_mb": 99.0, "val_bpb": math.nan}),
    made(5, "training"),
]


def test_results_tsv_to_the_byte() -> None:
    assert "".join(to_tsv(HISTORY, TASK)) == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "0000001\t0.997900\t44.0\tkeep\tbaseline\n"
        "0000002\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n"
        "0000003\t1.005000\t0.0\tdiscard\tswitch to GeLU activation\n"
        "0000004\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n"
    )


def test_the_metrics_column_bears_the_metrics_name_and_a_hypothesis_stands_in_for_a_description() -> None:
    assert next(to_tsv([], replace(TASK, metric="val_loss"))).split("\t")[1] == "val_loss"
    assert results_line(made(9, "discard", value=2), TASK) == "0000009\t2.000000\t0.0\tdiscard\tidea 9"
    assert "\t0.0\t" in results_line(made(9, "discard", value=2, metrics={"peak_vram_mb": "none"}), TASK)


def test_json_lines_are_strict_json() -> None:
    numbers = Numbers(0.1, 0.05, 2.0, 1, 3, 0.04, 2, "mar8-1", "mar8-1")
    [noisy] = map(json.loads, to_jsonl([replace(HISTORY[0], numbers=numbers)]))
    assert noisy["numbers"]["z"] == 2.0
    rows = [json.loads(line, parse_constant=pytest.fail) for line in to_jsonl(HISTORY)]
    assert [row["id"] for row in rows] == ["e1", "e2", "e3", "e4", "e5"]
    assert rows[3]["metrics"] == {"peak_vram_mb": 99.0, "val_bpb": "nan"}
    assert "request" not in rows[0]


def test_a_chart_carries_the_best_so_far() -> None:
    assert [(point.value, point.best) for point in chart(HISTORY, TASK)] == [
        (0.9979, 0.9979),
        (0.9932, 0.9932),
        (1.005, 0.9932),
        (None, 0.9932),
    ]
    assert [point.label for point in chart(HISTORY, TASK)] == ["baseline", "increase LR to 0.04", "", ""]
    rising = [made(1, "keep", value=0.5), made(2, "keep", value=0.4), made(3, "keep", value=0.6)]
    assert [point.best for point in chart(rising, replace(TASK, direction="maximize"))] == [0.5, 0.5, 0.6]


def written(layout: Layout) -> str:
    """The whole table."""
    return layout.head + "".join(layout.row(e) for e in HISTORY) + layout.end


def test_a_table_written_row_by_row_is_the_same() -> None:
    assert written(tsv_layout(TASK)) == "".join(to_tsv(HISTORY, TASK))


def test_csv_carries_full_numbers_and_errors() -> None:
    rows = list(csv.DictReader(io.StringIO(written(csv_layout(TASK, 0.002)))))
    assert [row["experiment"] for row in rows] == ["e1", "e2", "e3", "e4"]
    assert rows[1]["standard_error"] == "0.001"  # 0.002 / sqrt(4)
    assert (rows[1]["value"], rows[1]["better_by"], rows[1]["peak_memory_gb"]) == ("0.9932", "0.0047", "44.2")
    assert (rows[2]["what"], rows[3]["value"]) == ("switch to GeLU activation", "")
    assert "standard_error" in written(csv_layout(TASK, None))


FORMULAS = (
    *("=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1", "=HYPERLINK(1)", "--1"),
    *("\uff1d1+1", "\uff20SUM(A1)", "-lr", "+", "1;=1+1", "lower it, =cmd|x", "a,@SUM(1)", "a;\t=1", "a,-cmd|x"),
)
NO_FORMULAS = ("lower lr", "-0.5", "+3", "-1e-3", "1,-2", "a = 3", "lr, -10% of it", "x=-1", "", "a - b", "'quoted'")


@pytest.mark.parametrize("said", FORMULAS)
def test_what_a_spreadsheet_would_run_is_a_text(said: str) -> None:
    odd = replace(HISTORY[0], description=said, hypothesis=said)
    [row] = csv.DictReader(io.StringIO(csv_layout(TASK, None).head + csv_layout(TASK, None).row(odd)))
    for cell in (row["what"], results_line(odd, TASK).split("\t")[-1], tsv_layout(TASK).row(odd).split("\t")[-1]):
        for part in re.split("[,;\t]", cell.strip()):
            assert not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", part), cell
        assert " ".join(said.split()) == cell.strip().replace("'", "", 1) or "'" in said


@pytest.mark.parametrize("said", NO_FORMULAS)
def test_and_nothing_else_is_changed(said: str) -> None:
    assert harmless(said) == said


def test_numbers_stay_numbers() -> None:
    odd = replace(HISTORY[0], value=-0.25, delta=-1e-3)
    [row] = csv.DictReader(io.StringIO(csv_layout(TASK, None).head + csv_layout(TASK, None).row(odd)))
    assert (row["value"], row["better_by"]) == ("-0.25", "-0.001")
    assert results_line(odd, TASK).split("\t")[1] == "-0.250000"


def test_what_others_report_as_a_commit_is_none_either() -> None:
    odd = replace(HISTORY[0], commit="=cmd|x!A0")
    assert results_line(odd, TASK).startswith("'=cmd|x!")
    assert ",'=cmd|x!," in csv_layout(TASK, None).row(odd)


def test_latex_is_a_table_that_compiles_whatever_agents_write() -> None:
    text = written(latex_layout(RUN, 0.002, "e2"))
    assert r"2 & increase LR to 0.04 & \textbf{0.993200} $\pm$ 0.001000 & $+0.0047$ & 4 & keep \\" in text
    assert r"4 & double model width (OOM) & -- & -- & -- & crash \\" in text
    assert r"\caption{val\_bpb of every experiment; lower is better." in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    odd = replace(HISTORY[0], description=r"50% of a_b & c\d {e} ~ ^ $ #")
    row = latex_layout(RUN, None, None).row(odd)
    assert r"50\% of a\_b \& c\textbackslash{}d \{e\} \textasciitilde{} \textasciicircum{} \$ \#" in row
