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
from mcp_server.operations import OPERATIONS, Operation

STATUS_CODES: dict[type[ResearchError], int] = {InvalidInput: 400, UnknownId: 404, WrongState: 409, NotReady: 503}


def routes(entrance: Entrance) -> list[Route]:
    """A route for every operation; those that only read answer GET as well, with the arguments in the query."""
    return [_route(entrance, operation) for operation in OPERATIONS]


def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as every route answers it."""
    return JSONResponse({"error": text}, status_code=status, headers=headers)


async def refuse_route(request: Request, error: Exception) -> Response:
    """Answer a path or method that leads nowhere."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        names = ", ".join(operation.name for operation in OPERATIONS)
        return refusal(404, f"There is nothing at {path}. Use /, /mcp, /healthz or POST /api/ with one of {names}.")
    allowed = (error.headers or {}).get("Allow", "another method")
    return refusal(
        error.status_code, f"{path} does not answer {request.method}. Use {allowed}.", dict(error.headers or {})
    )


def _route(entrance: Entrance, operation: Operation) -> Route:
    async def answer(request: Request) -> Response:
        try:
            if request.method == "POST":
                given = _object(await request.body())
            else:
                given = read_texts(operation, dict(request.query_params))
            return JSONResponse(plain(await entrance.call(operation, given)))
        except ResearchError as error:
            return refusal(STATUS_CODES.get(type(error), 500), str(error))

    return Route(f"/api/{operation.name}", answer, methods=["POST", "GET"] if operation.reads else ["POST"])


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
