"""The OpenAPI document: valid, complete, and what the server itself answers."""

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from mcp_server.interfaces.access import Access
from mcp_server.interfaces.openapi import document
from mcp_server.interfaces.peer_rest import TRAILS
from mcp_server.operations import OPERATIONS
from mcp_server.settings import Settings
from tests.interfaces.callers import caller

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("secured", [True, False])
def test_it_is_valid_and_has_every_operation(secured: bool) -> None:
    described = document(secured)
    OpenAPIV31SpecValidator(described).validate()
    paths = [operation.name for operation in OPERATIONS] + [trail.path for trail in TRAILS]
    assert list(described["paths"]) == [f"/api/{path}" for path in paths]
    for trail in TRAILS:
        (method,) = described["paths"][f"/api/{trail.path}"].values()
        assert method["description"] == trail.description != ""
    for operation in OPERATIONS:
        methods = described["paths"][f"/api/{operation.name}"]
        assert set(methods) == ({"post", "get"} if operation.reads else {"post"})
        assert methods["post"]["description"] == operation.description
        for status in ("400", "401", "413", "429", "503"):
            assert methods["post"]["responses"][status] == {"$ref": f"#/components/responses/{status}"}


@pytest.mark.anyio
async def test_a_server_describes_itself(settings: Settings) -> None:
    async with caller(settings) as client:
        described = (await client.get("/api/openapi.json")).json()
    assert (described["openapi"], described["security"]) == ("3.1.0", [])
    async with caller(settings, Access(TOKEN)) as client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        described = (await client.get("/api/openapi.json", headers=headers)).json()
    assert described["security"] == [{"token": []}, {"password": []}]
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
