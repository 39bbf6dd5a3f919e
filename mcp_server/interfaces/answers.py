"""What an operation answers, as JSON that every door sends alike."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mcp_server.operations import Operation
from mcp_server.research.marking import Document, Words, marked


@cache
def output_schema(operation: Operation) -> dict[str, Any]:
    """The JSON schema of what an operation answers."""
    schema = TypeAdapter(get_type_hints(operation.method)["return"]).json_schema(schema_generator=_Untitled)
    return _without_titles(schema)


Reader = Literal["agent", "program", "person"]
"""Who reads an answer: an agent; a program or an agent, over REST or with --json; a person, in a table."""


def plain(value: Any, reader: Reader = "person") -> Any:
    """The value as JSON types, and small: without optional fields that are None, and without digits that are noise.

    A number that is infinite or NaN becomes None.

    Args:
        reader: for an agent the words of agents are marked as data; for a program too, but for whole documents.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(content, reader)
            for field in fields(value)
            if (content := getattr(value, field.name)) is not None or field.default is MISSING
        }
    if isinstance(value, Mapping):
        return {str(key): plain(content, reader) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, reader) for each in value]
    if isinstance(value, Words):
        as_it_is = reader == "person" or (reader == "program" and isinstance(value, Document))
        return str(value) if as_it_is else marked(value)
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None  # JSON has no NaN
    return value


class _Untitled(GenerateJsonSchema):
    """Schemas without titles, in which every float may be null: see `plain`."""

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().float_schema(schema), {"type": "null"}]}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("title", None)
    return schema
