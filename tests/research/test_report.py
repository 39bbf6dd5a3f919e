"""results.tsv to the byte, and the other shapes of a history."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.report import chart, results_line, to_jsonl, to_markdown, to_tsv
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
    made(2, "keep", value=0.9932, delta=0.0047, description="increase LR to 0.04", metrics={"peak_vram_mb": 45261}),
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


def test_the_summary_says_best_against_baseline_and_counts() -> None:
    text = to_markdown(RUN, HISTORY)
    assert "- Best: **0.993200** by e2 (0000002), increase LR to 0.04" in text
    assert "- Baseline: 0.997900; better by 0.004700, 0.47%" in text  # 0.0047 / 0.9979 = 0.471 %
    assert "1 crash, 1 discard, 2 keep, 1 training" in text
    assert "- Kept: 2 of 4 (50%)" in text
    assert "| optimizer | 4 | 2 |" in text
    assert "- e3 (discard): no \\| gain" in text


def test_an_empty_run_and_one_that_only_crashed_have_a_summary() -> None:
    assert "no experiments" in to_markdown(RUN, [])
    text = to_markdown(RUN, [made(1, "crash")])
    assert "Best: none yet" in text
    assert "- Kept: 0 of 1 (0%)" in text


@pytest.mark.parametrize("value", [0.0, -2.0, 1e-12, 1e12])
def test_any_baseline_is_fine(value: float) -> None:
    assert "Baseline" in to_markdown(RUN, [made(1, "keep", value=value), made(2, "keep", value=value - 1)])


def test_text_of_an_agent_cannot_add_markup() -> None:
    text = to_markdown(RUN, [made(1, "keep", value=1.0, description="<b>x</b> | y\n# z [a](b)")])
    assert "<b>" not in text
    assert "\n# z" not in text
    assert "\\[a\\](b)" in text


def test_a_long_history_is_summed_up_in_bounded_text() -> None:
    text = to_markdown(RUN, (made(n, "keep", value=-float(n), lesson="l" * 50) for n in range(1, 5000)))
    assert len(text) < 12_000
    assert "4999 of 4999" in text
