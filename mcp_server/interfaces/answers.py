"""What an operation answers, as JSON that every door sends alike."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mcp_server.operations import Operation
from mcp_server.research.marking import Words, marked


@cache
def output_schema(operation: Operation) -> dict[str, Any]:
    """The JSON schema of what an operation answers."""
    schema = TypeAdapter(get_type_hints(operation.method)["return"]).json_schema(schema_generator=_Untitled)
    return _without_titles(schema)


def plain(value: Any, to_agent: bool = False) -> Any:
    """The value as JSON types, and small: without optional fields that are None, and without digits that are noise.

    A number that is infinite or NaN becomes None.

    Args:
        to_agent: an agent reads it, so that words of other agents are marked as data; programs want them as they are.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(content, to_agent)
            for field in fields(value)
            if (content := getattr(value, field.name)) is not None or field.default is MISSING
        }
    if isinstance(value, Mapping):
        return {str(key): plain(content, to_agent) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, to_agent) for each in value]
    if isinstance(value, Words):
        return marked(value) if to_agent else str(value)
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
