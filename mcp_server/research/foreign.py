"""Tables of experiments that somebody else kept: what an earlier session found, line by line."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_server.errors import InvalidInput
from mcp_server.research.experiment import Status
from mcp_server.research.marking import shown
from mcp_server.research.metrics import better_when, clean
from mcp_server.research.script import category_of
from mcp_server.research.task import CATEGORIES, Category

COMMIT, STATUS, DESCRIPTION = "commit", "status", "description"
KNOWN = (COMMIT, STATUS, DESCRIPTION, "memory_gb", "category")
"""Columns with a meaning of their own; the metric is one of the others."""

_COUNT = re.compile(
    r"#|no|n|num(ber)?|metric|idx|index|(.*_)?(id|name|step|epoch|iter(ation)?|run|seed)s?|experiment|agent|tag|hash|sha"
    r"|date|(.*_)?(time(stamp)?|seconds|minutes|hours|duration|at)"
)
MOST_ROWS = 10_000
LONGEST = 1000
"""Characters of a description."""

_WORDS: Mapping[Status, str] = {
    "keep": r"keep|kept|baseline|improved|accept(ed)?",
    "discard": r"discard(ed)?|revert(ed)?|reject(ed)?|worse",
    "crash": r"crash(ed)?|fail(ed|ure)?|error|oom|timeout|nan",
}
_KINDS = {status: re.compile(words) for status, words in _WORDS.items()}
_SHA = re.compile(r"[0-9a-f]{4,64}", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One experiment of a table.

    Attributes:
        line: where it stands, from 1.
        commit: as it is written there; empty where none is.
        value: the metric; None for a crash.
        memory_gb: peak memory in GiB; None where it is not told.
    """

    line: int
    commit: str
    value: float | None
    status: Status
    description: str
    category: Category
    memory_gb: float | None = None


@dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        metric: its name, as the header has it, with `_` for what no name of a metric has.
        rows: in their order.
        skipped: the lines that could not be read, with why.
        others: the columns that may be metrics too.
    """

    metric: str
    rows: Sequence[Row]
    skipped: Sequence[str]
    others: Sequence[str] = ()

    @property
    def kept(self) -> Row | None:
        """The last row that was kept: where that session stood at its end."""
        return next((row for row in reversed(self.rows) if row.status == "keep"), None)


def read_table(text: str, metric: str | None = None) -> Table:
    """Read a table with a header, its columns parted by tabs or commas: commit, the metric, status, description, and,
    where they are there, memory_gb and category.

    Args:
        metric: the name of the metric's column; None for the likeliest: one whose name is known to be of a metric,
            of these one of validation or test data, and else the first that neither counts nor tells a time.

    Raises:
        InvalidInput: it is no such table, or no line of it can be read.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > MOST_ROWS + 1:
        raise InvalidInput(f"the table has {len(lines)} lines", f"Give its last {MOST_ROWS} under the header")
    comma = bool(lines) and "\t" not in lines[0]
    names = [re.sub(r"[^\w./@#-]+", "_", name.strip()) for name in _cells(lines[0], comma)] if lines else []
    header = [name.casefold() for name in names]
    missing = [name for name in (STATUS, DESCRIPTION) if name not in header]
    others = [name for name in header if name and name not in KNOWN]
    if missing or not others:
        what = f"has no column {missing[0]!r}" if missing else "has no column for the metric"
        raise InvalidInput(
            f"the table {what}", "Give one with the header commit, <metric>, memory_gb, status, description"
        )
    likely = max(others, key=_likelihood)
    column = likely if metric is None else re.sub(r"[^\w./@#-]+", "_", metric.strip()).casefold()
    if column not in header:
        raise InvalidInput(f"the table has no column {column!r}", f"Its columns for a metric are {', '.join(others)}")
    named = names[header.index(column)]
    rows, skipped = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            cells = _named(header, _cells(line, comma), comma)
            rows.append(_row(number, cells, column))
            named = cells.get("metric") or named if column == "value" else named  # as `export` writes it
        except ValueError as error:
            skipped.append(f"line {number} is left out: {error}")
    if not rows:
        why = f": {skipped[0]}" if skipped else ""
        raise InvalidInput(f"the table has no experiment that can be read{why}", "Give one with at least one line")
    return Table(named, rows, skipped, [name for name in others if name != column and not _COUNT.fullmatch(name)])


def _likelihood(column: str) -> tuple[bool, bool, bool]:
    """What speaks for a column being the metric, by weight."""
    of_held_out = re.search(r"val|valid|validation|test|eval|dev|held", column) is not None
    return not _COUNT.fullmatch(column), better_when(column) is not None, of_held_out


def _cells(line: str, comma: bool) -> list[str]:
    return next(csv.reader([line]), []) if comma else line.split("\t")


def _named(header: Sequence[str], cells: Sequence[str], comma: bool) -> dict[str, str]:
    """The cells by their column; tabs within a last column belong to it."""
    if len(cells) > len(header) and not comma:
        cells = [*cells[: len(header) - 1], " ".join(cells[len(header) - 1 :])]
    if len(cells) != len(header):
        raise ValueError(f"it has {len(cells)} columns and the header {len(header)}")
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _row(line: int, cells: Mapping[str, str], metric: str) -> Row:
    said = cells[STATUS].casefold()
    status = next((status for status, words in _KINDS.items() if words.fullmatch(said)), None)
    if status is None:
        raise ValueError(f"its status is {shown(repr(cells[STATUS][:40]))}, and not keep, discard or crash")
    value = None if status == "crash" else _number(cells[metric])
    if status != "crash" and value is None:
        raise ValueError(f"its {metric} is {shown(repr(cells[metric][:40]))}, and no number")
    commit = cells.get(COMMIT, "")
    words = " ".join(clean(cells[DESCRIPTION], LONGEST).split())
    return Row(
        line=line,
        commit=commit if _SHA.fullmatch(commit) else "",
        value=value,
        status=status,
        description=words or "no description",
        category=_category(cells.get("category", ""), words),
        memory_gb=_number(cells.get("memory_gb", "")),
    )


def _category(said: str, words: str) -> Category:
    """The category that a row names, or else the one that its words speak of."""
    return next((known for known in CATEGORIES if known == said.casefold()), None) or category_of(words) or "other"


def _number(text: str) -> float | None:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
