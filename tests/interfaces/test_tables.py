"""Answers as people read them."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mcp_server.interfaces.tables import picture, show


def drawn(answer: dict[str, Any]) -> list[str]:
    """The lines of a picture, without what stands to their right."""
    console = Console(file=StringIO(), width=100)
    console.print(picture(answer))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_short_values_long_ones_and_what_comes_next() -> None:
    answer = {
        "next_action": "Call train('a-1')",
        "value": 1.25,
        "delta": 0.001,
        "improved": False,
        "commit": "0123456789abcdef",
        "counts": {"keep": 2, "crash": 1},
        "scope": ["optimizer", "other"],
        "changes": {"LR": [0.1, 0.2], "BETAS": [[0.8, 0.9], [0.8, 0.95]]},
        "nothing": None,
        "lessons": ["one thing", "another thing"],
        "log_tail": "step 1\nstep 2",
    }
    assert drawn(answer) == [
        "value     1.25",
        "delta     +0.001000",
        "improved  no",
        "commit    0123456",
        "counts    keep 2, crash 1",
        "scope     optimizer, other",
        "changes   LR 0.1 → 0.2, BETAS 0.8, 0.9 → 0.8, 0.95",
        "",
        "lessons",
        "  • one thing",
        "  • another thing",
        "",
        "log tail",
        "  step 1",
        "  step 2",
        "",
        "→ Call train('a-1')",
    ]


def test_records_are_a_table_without_empty_columns() -> None:
    rows = [{"id": "a-2", "value": 0.5, "lesson": None}, {"id": "a-1", "value": None, "lesson": None}]
    assert drawn({"rows": rows}) == ["", "rows", "  id   value", "  a-2    0.5", "  a-1"]


def test_a_column_of_zeros_says_something() -> None:
    rows = [{"category": name, "tries": 0, "kept": False} for name in ("other", "ablation")]
    assert drawn({"rows": rows})[2:] == ["  category  tries", "  other         0", "  ablation      0"]


def test_records_of_many_fields_stand_one_below_the_other() -> None:
    rows = [{f"field_{number}": number for number in range(20)}]
    assert drawn({"rows": rows})[2:4] == ["  field 0   0", "  field 1   1"]


def test_an_exported_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show({"format": "tsv", "text": "a\tb\n[bold]\n", "next_action": "None"})
    assert capsys.readouterr().out == "a\tb\n[bold]\n"
