"""The OpenAPI 3.1 document of the REST routes, made from the operations table and the tracker's."""

from functools import cache
from typing import Any

from mcp_server import __version__
from mcp_server.interfaces import peer_openapi
from mcp_server.interfaces.answers import output_schema
from mcp_server.interfaces.arguments import input_schema
from mcp_server.operations import OPERATIONS, Operation

REFUSALS = {
    400: "An argument has a value that cannot be used, or the body is not a JSON object",
    401: "The token is missing or wrong",
    403: "A page of another site may not call this server",
    404: "No run, experiment or path bears this name",
    405: "The path does not answer this method",
    408: "The body came too slowly",
    409: "The operation is not possible in the present state of the run or experiment",
    413: "The body is too large",
    421: "The Host header names another server",
    429: "Too many requests a second",
    500: "Something that nobody foresaw; the log of the server holds the traceback",
    503: "The machine lacks something, or too many requests are under way",
}
"""What each status of a refusal means."""

RETRIED = (429, 503)
"""Refusals that say in Retry-After when to come back, where that is known."""

REFUSAL = {
    "type": "object",
    "description": "What was refused, and what to do about it",
    "properties": {
        "error": {"type": "string", "description": "Both in one sentence each"},
        "what": {"type": "string", "description": "What failed or was refused, with the value that was seen"},
        "todo": {"type": "string", "description": "What to do next"},
    },
    "required": ["error", "what", "todo"],
    "additionalProperties": False,
}

SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "The token of the server, where it has one"},
    "password": {"type": "http", "scheme": "basic", "description": "Any name, and the token as the password"},
}


@cache
def document(secured: bool) -> dict[str, Any]:
    """The document of a server that has a token, or of one that has none."""
    schemas: dict[str, Any] = {"Refusal": REFUSAL}
    paths = {f"/api/{operation.name}": _path(operation, schemas) for operation in OPERATIONS}
    paths |= peer_openapi.paths(schemas, REFUSALS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "autoresearch",
            "version": __version__,
            "description": "Research on a training script by experiment. Each route is also an MCP tool and a command.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "reading"},
            {"name": "changing"},
            {"name": "tracker", "description": "The routes of n-autoresearch"},
        ],
        "security": [{name: []} for name in SCHEMES] if secured else [],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": SCHEMES,
            "responses": {str(status): _refused(status) for status in REFUSALS},
        },
    }


def _path(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """The methods of an operation's route; its schemas are put beside the others."""
    arguments = _moved(input_schema(operation), schemas)
    schemas[f"{operation.name}_answer"] = _moved(output_schema(operation), schemas)
    body = {"required": bool(arguments.get("required")), "content": {"application/json": {"schema": arguments}}}
    path = {"post": _method(operation, operation.name) | {"requestBody": body}}
    if operation.reads:
        path["get"] = _method(operation, f"{operation.name}_by_query") | {"parameters": _query(arguments)}
    return path


def _method(operation: Operation, name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{operation.name}_answer"}
    answered = {"description": "Done", "content": {"application/json": {"schema": schema}}}
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in REFUSALS}
    return {
        "operationId": name,
        "summary": operation.description.split(". ")[0].rstrip("."),
        "description": operation.description,
        "tags": ["reading" if operation.reads else "changing"],
        "responses": {"200": answered, **refused},
    }


def _query(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of an operation that only reads as parameters of the query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": name in arguments.get("required", ()),
            "description": schema.get("description", name.replace("_", " ").capitalize()),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in arguments["properties"].items()
    ]


def _refused(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Refusal"}
    refused: dict[str, Any] = {
        "description": REFUSALS[status],
        "content": {"application/json": {"schema": schema}},
    }
    if status in RETRIED:
        seconds = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
        refused["headers"] = {"Retry-After": seconds}
    return refused


def _moved(schema: Any, schemas: dict[str, Any]) -> Any:
    """The schema with its definitions put among the components, where the references of OpenAPI find them."""
    if isinstance(schema, dict):
        for name, definition in schema.get("$defs", {}).items():
            schemas[name] = _moved(definition, schemas)
        moved = {key: _moved(value, schemas) for key, value in schema.items() if key != "$defs"}
        if isinstance(schema.get("$ref"), str):
            moved["$ref"] = schema["$ref"].replace("#/$defs/", "#/components/schemas/")
        return moved
    return [_moved(each, schemas) for each in schema] if isinstance(schema, list) else schema
