"""The REST door: `POST /api/<operation>` with a JSON object, answered by the tool's structured result."""

from typing import Any

from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_server.errors import InvalidInput, NotReady, ResearchError, UnknownId, WrongState
from mcp_server.interfaces.answers import plain
from mcp_server.interfaces.arguments import read_texts
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.refusals import described, refusal
from mcp_server.operations import OPERATIONS, Operation

STATUS_CODES: dict[type[ResearchError], int] = {InvalidInput: 400, UnknownId: 404, WrongState: 409, NotReady: 503}


def routes(entrance: Entrance, secured: bool) -> list[Route]:
    """A route for every operation; those that only read answer GET as well, with the arguments in the query.

    Args:
        secured: whether callers need a token, as the OpenAPI document at /api/openapi.json will say.
    """

    async def describe(request: Request) -> Response:
        from mcp_server.interfaces.openapi import document

        return JSONResponse(document(secured))

    return [Route("/api/openapi.json", describe), *(_route(entrance, operation) for operation in OPERATIONS)]


async def refuse_route(request: Request, error: Exception) -> Response:
    """Answer a path or method that leads nowhere."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        names = ", ".join(operation.name for operation in OPERATIONS)
        return refusal(
            404,
            f"There is nothing at {path[:200]}",
            f"Use /, /mcp, /healthz, /api/openapi.json or POST /api/ with one of {names}",
        )
    headers = dict(error.headers or {})
    what = f"{path[:200]} does not answer {request.method}"
    return refusal(error.status_code, what, f"Use {headers.get('Allow', 'another method')}", headers)


async def refuse_surprise(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; its traceback stays in the log."""
    return refusal(
        500,
        f"{request.url.path[:200]} failed inside the server with {type(error).__name__}",
        "Send it again; if it stays, report it with the traceback in the log of the server",
    )


def _route(entrance: Entrance, operation: Operation) -> Route:
    async def answer(request: Request) -> Response:
        try:
            if request.method == "POST":
                given = _object(await request.body())
            else:
                given = read_texts(operation, dict(request.query_params))
            return JSONResponse(plain(await entrance.call(operation, given), "program"))
        except ResearchError as error:
            return JSONResponse(described(error), status_code=_status(error))

    return Route(f"/api/{operation.name}", answer, methods=["POST", "GET"] if operation.reads else ["POST"])


def _status(error: ResearchError) -> int:
    """The status of the nearest class that has one; a surprise has none."""
    return next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), 500)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body; nothing at all is an empty object."""
    if not body.strip():
        return {}
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"The request body is not JSON: {error}", "Send a JSON object of arguments") from None
    if not isinstance(given, dict):
        raise InvalidInput(f"The request body is a JSON {type(given).__name__}", "Send a JSON object of arguments")
    return given
