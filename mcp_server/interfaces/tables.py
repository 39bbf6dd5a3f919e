"""Answers of operations as text for people. No operation is known here: the shape of a value decides.

Short values stand in one grid, lists of records become tables, long texts follow, and what to do next comes last.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mcp_server.lab.doctor import Check

WIDTH_IN_A_PIPE = 160
MOST_COLUMNS = 12
"""Records with more fields than this stand one below the other."""
LONGEST_INLINE = 72
SHORT = 7
"""Characters shown of a commit."""

COLOURS = {
    "keep": "green",
    "trained": "cyan",
    "training": "cyan",
    "idle": "green",
    "queued": "yellow",
    "needs_confirmation": "yellow",
    "discard": "bright_black",
    "crash": "red",
    "stuck": "red",
    "busy": "yellow",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


def console(stderr: bool = False) -> Console:
    """A console that is wide where nobody's window limits it."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = WIDTH_IN_A_PIPE
    return made


def show(answer: Mapping[str, Any]) -> None:
    """Print the answer of an operation; an exported text alone, so that it can be redirected to a file."""
    if isinstance(answer.get("text"), str):
        sys.stdout.write(answer["text"])  # rich would turn the tabs of a table into spaces
        return
    console().print(picture(answer))


def picture(answer: Mapping[str, Any]) -> RenderableType:
    """The answer of an operation as rich draws it."""
    short, long = Table.grid(padding=(0, 2)), list[RenderableType]()
    short.add_column(style="bold", no_wrap=True)
    for name, value in answer.items():
        if name == "next_action" or value in (None, "", [], {}):
            continue
        if (inline := _inline(name, value)) is not None:
            short.add_row(name.replace("_", " "), inline)
        else:
            long += [
                Text(f"\n{name.replace('_', ' ')}", style="bold"),
                Padding(_block(name, value), (0, 0, 0, 2), expand=False),
            ]
    parts: list[RenderableType] = [short] if short.row_count else []
    parts += long
    if step := answer.get("next_action"):
        parts.append(Text.assemble("\n→ ", str(step), style="cyan"))
    return Group(*parts)


def records(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of records that are alike; columns in which nothing stands are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(_tells(row.get(name)) for row in rows)]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        numbers = all(isinstance(row.get(name), int | float | None) for row in rows)
        wide = any(len(str(row.get(name))) > 24 for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numbers else "left", no_wrap=not wide)
    for row in rows:
        table.add_row(*(cell(name, row.get(name)) for name in names))
    return table


def cell(name: str, value: Any) -> Text:
    """A value in a few characters."""
    match value:
        case None:
            return Text("")
        case bool():
            return Text("yes" if value else "")
        case float():
            return Text(f"{value:+.6f}" if name == "delta" else _number(value))
        case str() if name.endswith("commit"):
            return Text(value[:SHORT])
        case str():
            return Text(value, style=COLOURS.get(value, ""))
        case _:
            return Text(_few_words(value))


def _tells(value: Any) -> bool:
    """Whether a value says anything; 0 does."""
    return value is not False and value not in (None, "", [], {})


def _inline(name: str, value: Any) -> Text | None:
    """The value if it fits one line of the grid."""
    match value:
        case str() if "\n" in value.strip() or name in ("diff", "log_tail", "lines"):
            return None
        case bool() if not value:
            return Text("no")
        case Mapping() if name == "changes":
            return Text(
                ", ".join(f"{knob} {_few_words(old)} → {_few_words(new)}" for knob, (old, new) in value.items())
            )
        case Mapping() if any(isinstance(each, Mapping | list) for each in value.values()):
            return None
        case Mapping() if len(words := _few_words(value)) <= LONGEST_INLINE:
            return Text(words)
        case Mapping() | [Mapping(), *_]:
            return None
        case [str(), *_] if any(" " in each for each in value):
            return None
        case _:
            return cell(name, value)


def _block(name: str, value: Any) -> RenderableType:
    match value:
        case str() if name == "diff":
            return Syntax(value, "diff", background_color="default")
        case str():
            return Text(value)
        case [Mapping(), *_] if max(map(len, value)) > MOST_COLUMNS:
            return Group(*(Padding(picture(each), (0, 0, 1, 0), expand=False) for each in value))
        case [Mapping(), *_]:
            return records(value)
        case Mapping() if all(isinstance(each, Mapping) for each in value.values()):
            return records([{"": key, **each} for key, each in value.items()])
        case Mapping():
            return picture(value)
        case _:
            return Text("\n".join(f"• {each}" for each in value))


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.6f}".rstrip("0").rstrip(".")


def _few_words(value: Any) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{key} {_few_words(each)}" for key, each in value.items() if each is not None)
        case list():
            return ", ".join(_few_words(each) for each in value)
        case float():
            return _number(value)
        case str():
            return value
        case _:
            return json.dumps(value)


def show_checks(checks: Sequence["Check"]) -> None:
    """Print what the doctor found, each remedy under its finding."""
    table = Table.grid(padding=(0, 2))
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n→ {check.remedy}", style="cyan")
        table.add_row(Text(f"{check.status:>4}", style=COLOURS[check.status]), Text(check.name, style="bold"), found)
    console().print(table)


@contextmanager
def live_line() -> Iterator[Callable[[float, float | None, str], Awaitable[None]]]:
    """One line on stderr that shows how a wait is going, by what is reported to it."""
    with console(stderr=True).status(Text("waiting")) as status:

        async def report(done: float, total: float | None, message: str) -> None:
            last = next((line for line in reversed(message.splitlines()) if line.strip()), "")
            status.update(Text(f"{done:.0f} s{f' of {total:.0f}' if total else ''}  {last[:120]}"))

        yield report
