"""Write the parts of docs/commands.md that the code knows: run `python -m docs.generate` after changing a signature."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

from typer.models import ArgumentInfo

from mcp_server.interfaces import cli, task
from mcp_server.interfaces.arguments import arguments_model
from mcp_server.interfaces.verbs import flag, kind, meaning, positional
from mcp_server.operations import OPERATIONS, Operation

PAGE = Path(__file__).with_name("commands.md")
SECTION = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)

VALUES = {bool: "", str: "TEXT", Path: "PATH", int: "INTEGER", float: "NUMBER"}


def page(text: str) -> str:
    """The page with its generated sections as they should be."""
    sections = {"commands": commands, "tools": tools}
    return SECTION.sub(lambda match: match[1] + "\n".join(sections[match[2]]()) + "\n" + match[3], text)


def commands() -> Iterator[str]:
    """The commands that are no operations, with their options."""
    named: dict[str, Callable[..., None]] = {
        "serve": cli.serve,
        "demo": cli.demo,
        "night": cli.night,
        "task run": task.run,
        "doctor": cli.doctor,
    }
    for words, command in named.items():
        about = " ".join((command.__doc__ or "").split())
        yield from (f"### autoresearch {words}", "", about, "", "| option | meaning |", "|---|---|")
        for name, parameter in inspect.signature(command).parameters.items():
            wanted, option = get_args(parameter.annotation)[:2]
            one = next((part for part in get_args(wanted) if part is not NoneType), wanted)
            typed = option.default if isinstance(option.default, str) else flag(name)  # where typer keeps `--dir`
            if isinstance(option, ArgumentInfo):
                typed, one = name.upper(), bool
            yield f"| `{f'{typed} {VALUES[one]}'.strip()}` | {_cell(option.help)} |"
        yield ""


def tools() -> Iterator[str]:
    """Every operation: what it does, how it is typed, its arguments, what it answers."""
    for operation in OPERATIONS:
        yield from (f"### {operation.name}", "", operation.description, "", "```sh", _usage(operation), "```", "")
        arguments = arguments_model(operation).model_fields
        if arguments:
            yield from ("| argument | on the command line | meaning |", "|---|---|---|")
        for name, field in arguments.items():
            typed = name.upper() if name in positional(operation) else f"{flag(name)} {kind(field)}".strip()
            needed = " (required)" if field.is_required() else ""
            yield f"| `{name}` | `{_cell(typed)}` | {_cell(meaning(name, field))}{needed} |"
        answers = ", ".join(f"`{field.name}`" for field in fields(get_type_hints(operation.method)["return"]))
        yield from ("", f"Answers {answers}.", "")


def _usage(operation: Operation) -> str:
    arguments = arguments_model(operation).model_fields
    words = ["autoresearch", operation.name, *(name.upper() for name in positional(operation))]
    words += [
        f"{flag(name)} {kind(field)}"
        for name, field in arguments.items()
        if field.is_required() and name not in positional(operation)
    ]
    return " ".join(words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
