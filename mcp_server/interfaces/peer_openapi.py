"""The tracker's routes in the OpenAPI document, made from their bodies and answers."""

import re
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mcp_server.interfaces import peer_answers as answers
from mcp_server.interfaces.peer_rest import TRAILS, Trail

REFUSED = (400, 401, 403, 404, 405, 408, 413, 421, 429, 500, 503)
"""The statuses of refusals; what is not possible now is a 400 here."""
COMPONENTS = "#/components/schemas/tracker_{model}"
MEANING = {400: "The request cannot be used, or is not possible now", 404: "No experiment, run or GPU bears this name"}


def paths(schemas: dict[str, Any], meanings: dict[int, str]) -> dict[str, Any]:
    """The paths of the tracker; their schemas are put among `schemas`.

    Args:
        meanings: what each status of a refusal means.
    """
    fault = _schema(answers.Fault, "serialization", schemas)
    refused = {str(status): _json(MEANING.get(status, meanings[status]), fault) for status in REFUSED}
    return {f"/api/{trail.path}": {trail.method.lower(): _method(trail, schemas, refused)} for trail in TRAILS}


def _method(trail: Trail, schemas: dict[str, Any], refused: dict[str, Any]) -> dict[str, Any]:
    answered = _json("Done", _schema(trail.shape, "serialization", schemas))
    method: dict[str, Any] = {
        "operationId": "tracker_" + re.sub(r"\W+", "_", trail.path.replace("{gpu_id}", "")),
        "summary": trail.description.split(".")[0],
        "description": trail.description,
        "tags": ["tracker"],
        "responses": {"200": answered, **refused},
    }
    body = _schema(trail.body, "validation", schemas)
    if "{gpu_id}" in trail.path:
        body["properties"].pop("gpu_id")
        body["required"] = [name for name in body["required"] if name != "gpu_id"]
        text = {"type": "string", "minLength": 1, "maxLength": 200}
        described = {
            "name": "gpu_id",
            "in": "path",
            "required": True,
            "description": "gpu-0, gpu-1, ...",
            "schema": text,
        }
        method["parameters"] = [described]
    if trail.method == "POST":
        method["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return method


def _schema(model: Any, mode: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a body or answer, with those that it refers to put among `schemas`."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    schema = adapter.json_schema(ref_template=COMPONENTS, mode=mode, schema_generator=_Untitled)
    for name, definition in schema.pop("$defs", {}).items():
        schemas[f"tracker_{name}"] = definition
    return schema


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
