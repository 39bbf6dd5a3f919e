"""What an operation takes, derived from its signature, and what is said when a caller gives something else."""

import inspect
import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mcp_server.errors import InvalidInput
from mcp_server.operations import Operation

INJECTED = ("self", "progress")
"""Parameters that the door fills in, not the caller."""

DEEPEST = 32
"""Lists and objects within each other in an argument."""

_SHOWN = 80
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@cache
def arguments_model(operation: Operation) -> type[BaseModel]:
    """The model of an operation's arguments: strict, and closed to names that it does not know."""
    hints = get_type_hints(operation.method, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(operation.method).parameters.items():
        if name not in INJECTED:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (_described(hints[name]), default)
    return create_model(operation.name, __config__=ConfigDict(extra="forbid", strict=True), **fields)


@cache
def input_schema(operation: Operation) -> dict[str, Any]:
    """The JSON schema of an operation's arguments, without what only costs tokens."""
    schema = arguments_model(operation).model_json_schema(schema_generator=_Terse)
    del schema["title"]
    return schema


def check_arguments(operation: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given arguments, checked, as `operation.call` takes them; raises InvalidInput."""
    model = arguments_model(operation)
    parsed = {name: _unpacked(model, name, value) for name, value in given.items()}
    for name, value in parsed.items():
        if fault := _fault(name) or _fault(value):
            raise InvalidInput(f"{_brief(name)[1:-1]} {fault}", "Send plain JSON: UTF-8 text, and numbers of 64 bits")
    try:
        checked = model.model_validate(parsed)
    except ValidationError as error:
        raise _refusal(operation, model, error) from None
    return {name: getattr(checked, name) for name in model.model_fields}


def read_texts(operation: Operation, texts: Mapping[str, str]) -> dict[str, Any]:
    """Turn texts from a command line or a query string into arguments: JSON, except where a text is wanted."""
    fields = arguments_model(operation).model_fields
    return {
        name: text if name not in fields or str in _kinds(fields[name].annotation) else _json_or_text(text)
        for name, text in texts.items()
    }


def _fault(value: Any) -> str:
    """Why nothing behind the doors could keep a value: git, SQLite and programs take no such text or number."""
    waiting = [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        if depth > DEEPEST:
            return f"is nested more than {DEEPEST} deep"
        match each:
            case str() if "\0" in each:
                return "contains a NUL character"
            case str() if _LONE_SURROGATE.search(each):
                return "contains half a character (a lone surrogate)"
            case int() if not -(2**63) <= each < 2**63:
                return "holds a number beyond 64 bits"
            case dict():
                waiting += [(part, depth + 1) for pair in each.items() for part in pair]
            case list() | tuple():
                waiting += [(part, depth + 1) for part in each]
    return ""


class _Terse(GenerateJsonSchema):
    """No titles, and an optional argument is one that may be left out: null and its default go unsaid."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default", ...) in (None, ""):
            del described["default"]
        return described


def _described(hint: Any) -> Any:
    """The annotation with its plain texts turned into the description of the field."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    texts = [note for note in notes if isinstance(note, str)]
    bounds = [note for note in notes if not isinstance(note, str)]
    return Annotated[(kind, *bounds, Field(description=" ".join(texts) or None))]


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation admits at its top level, e.g. {list, NoneType} for `list[str] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (dict, list):
        return {origin}
    if origin is not None and all(isinstance(arg, str) for arg in get_args(annotation)):
        return {str}  # Literal["a", "b"]
    if origin is not None:
        return set().union(*(_kinds(arg) for arg in get_args(annotation)))
    return {annotation}


def _unpacked(model: type[BaseModel], name: str, value: Any) -> Any:
    """Read a list or object that came as a JSON text, as some clients send them, and 20.0 as the number 20."""
    if name not in model.model_fields:
        return value
    kinds = _kinds(model.model_fields[name].annotation)
    if isinstance(value, str) and kinds & {dict, list} and str not in kinds:
        return _json_or_text(value)
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)
    return value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _refusal(operation: Operation, model: type[BaseModel], error: ValidationError) -> InvalidInput:
    """One sentence on the first thing that is wrong; a name that is not known says most, so it goes first."""
    problems = error.errors(include_url=False, include_context=True)
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    name = ".".join(str(part) for part in problem["loc"])
    field = model.model_fields.get(str(problem["loc"][0]) if problem["loc"] else "")
    meaning = f" ({field.description})" if field and field.description else ""
    shown = _brief(problem["input"])
    match problem["type"]:
        case "extra_forbidden":
            return InvalidInput(f"{operation.name} has no argument {name!r} (given {shown})", _instead(model, name))
        case "missing":
            return InvalidInput(f"{operation.name} needs {name!r}, which is missing", f"Give {name}{meaning}")
        case "literal_error":
            return InvalidInput(f"{name} is {shown}", f"Choose from {problem['ctx']['expected']}")
        case _:
            return InvalidInput(f"{name} is {shown}", re.sub(r"^\w+ should", "It should", problem["msg"]) + meaning)


def _instead(model: type[BaseModel], name: str) -> str:
    close = get_close_matches(name, model.model_fields, n=1, cutoff=0.5)
    if close:
        return f"Use {close[0]!r} instead"
    known = ", ".join(model.model_fields)
    return f"It takes {known}" if known else "It takes no arguments"


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
