"""Command-line verbs, one for each operation, made from the same arguments model as the tools and routes.

What an operation requires by position is positional here too; every argument is also an option, as in `--tag mar5`.
Lists and objects are JSON, or `@file` with JSON in it; a list of texts may be given by repeating its option instead.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mcp_server.interfaces.arguments import arguments_model, read_texts
from mcp_server.interfaces.options import DevicesOption, ExecutorOption, JsonOption, RayAddressOption, RepoOption
from mcp_server.operations import OPERATIONS, Operation
from mcp_server.settings import Settings

MOST_SHOWN = 5
"""Of so many choices, all stand behind the option; of more, in its description."""

TEXTS = "TEXT or JSON"
"""The kind of an argument that is a list of texts."""

Act = Callable[[Operation, dict[str, Any], Settings, bool], None]
"""Called with an operation, the arguments that were given, the settings, and whether JSON is wanted."""


def add_verbs(app: typer.Typer, act: Act, word: str = "") -> None:
    """Give the app the verb that `word` names, or all of them; a name may be written with hyphens too."""
    named = [operation for operation in OPERATIONS if operation.name == word.replace("-", "_")]
    for operation in named or OPERATIONS:
        summary = re.split(r"\.\s+(?=[A-Z])", operation.description)[0].rstrip(".")
        command = verb(operation, act)
        app.command(operation.name, short_help=summary, rich_help_panel="Operations")(command)
        if "_" in operation.name:
            app.command(operation.name.replace("_", "-"), hidden=True)(command)


def verb(operation: Operation, act: Act) -> Callable[..., None]:
    """A function from which typer makes the command of an operation."""
    fields = arguments_model(operation).model_fields
    by_position = positional(operation)

    def command(
        repo: Path | None,
        devices: str | None,
        executor: str | None,
        ray_address: str | None,
        as_json: bool,
        **texts: Any,
    ) -> None:
        settings = Settings.load(repo, devices, executor, ray_address)
        act(operation, _given(operation, texts), settings, as_json)

    parameters = [p for name, field in fields.items() for p in _parameters(name, field, name in by_position)]
    common = [
        _parameter("repo", RepoOption, None),
        _parameter("devices", DevicesOption, None),
        _parameter("executor", ExecutorOption, None),
        _parameter("ray_address", RayAddressOption, None),
        _parameter("as_json", JsonOption, False),
    ]
    command.__doc__ = inspect.getdoc(operation.method)
    command.__annotations__ = {}  # typer resolves these too, although the signature is what counts
    command.__signature__ = inspect.Signature([*parameters, *common])  # type: ignore[attr-defined]
    return command


def positional(operation: Operation) -> list[str]:
    """The arguments that are given by position: required, and not keyword-only in the operation's signature."""
    parameters = inspect.signature(operation.method).parameters.values()
    return [
        p.name for p in parameters if p.name != "self" and p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
    ]


def flag(name: str) -> str:
    """The option of an argument."""
    return f"--{name.replace('_', '-')}"


def kind(field: FieldInfo) -> str:
    """What a value of an argument looks like on the command line; empty for a flag."""
    one = plain_type(field)
    if choices := get_args(one) if get_origin(one) is Literal else ():
        return "|".join(choices) if len(choices) <= MOST_SHOWN else "NAME"
    if get_origin(one) is list:
        return "JSON" if get_origin(get_args(one)[0]) is dict else TEXTS
    return {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: ""}.get(one, "JSON")


def plain_type(field: FieldInfo) -> Any:
    """The type of an argument, apart from None."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation
    return next(part for part in get_args(field.annotation) if part is not type(None))


def meaning(name: str, field: FieldInfo) -> str:
    """What an argument is for: its own description, many choices, and its default where the text does not tell."""
    text = field.description or name.replace("_", " ").capitalize()
    if kind(field) == "NAME":
        text = f"{text}: {', '.join(get_args(plain_type(field)))}"
    silent = field.default in (None, False, "", PydanticUndefined) or "default" in text
    return text if silent else f"{text}; default: {field.default}"


def _parameters(name: str, field: FieldInfo, by_position: bool) -> list[inspect.Parameter]:
    shape, text = kind(field), meaning(name, field)
    if by_position:
        argument = typer.Argument(help=f"{text} (or {flag(name)})", metavar=name.upper(), show_default=False)
        twin = typer.Option(flag(name), hidden=True)
        return [
            _parameter(name, Annotated[str | None, argument], None),
            _parameter(_twin(name), Annotated[str | None, twin], None),
        ]
    if not shape:
        return [_parameter(name, Annotated[bool, typer.Option(flag(name), help=text)], False)]
    option = typer.Option(flag(name), help=text, metavar=shape, show_default=False)
    if field.is_required():
        return [_parameter(name, Annotated[str, option], inspect.Parameter.empty)]
    text_type: Any = list[str] | None if shape == TEXTS else str | None
    return [_parameter(name, Annotated[text_type, option], None)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _twin(name: str) -> str:
    """The name of the option that may stand in for a positional argument."""
    return f"{name}_option"


def _given(operation: Operation, values: dict[str, Any]) -> dict[str, Any]:
    """The arguments that the user gave, as the operation takes them."""
    for name in positional(operation):
        twin = values.pop(_twin(name))
        if (values[name] is None) == (twin is None):
            said = f"Missing argument {name.upper()}" if twin is None else f"{name.upper()} is given twice"
            raise typer.BadParameter(said, param_hint=name.upper())
        values[name] = twin if twin is not None else values[name]
    fields = arguments_model(operation).model_fields
    given = {name: value for name, value in values.items() if value not in (None, False, [])}
    read = {name: _read(name, value, "JSON" in kind(fields[name])) for name, value in given.items()}
    texts = {name: value for name, value in read.items() if isinstance(value, str)}
    return read | read_texts(operation, texts)


def _read(name: str, value: Any, structured: bool) -> Any:
    """The text of a file named by `@file`; of a repeated option, its texts or the one JSON array."""
    if isinstance(value, list) and (len(value) > 1 or not value[0].startswith(("[", "@"))):
        return value
    text: str = value[0] if isinstance(value, list) else value
    if not structured or not isinstance(text, str) or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{text[1:]!r} cannot be read: {error}", param_hint=flag(name)) from error
