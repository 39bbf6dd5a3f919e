"""The HTTP door: one app with MCP at /mcp, REST at /api, the dashboard at / and /healthz, behind one guard."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_server import __version__
from mcp_server.interfaces import peer_rest, rest
from mcp_server.interfaces.dashboard import dashboard
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.guard import LOOPBACK, MAX_BODY_BYTES, Guard
from mcp_server.interfaces.mcp_tools import build_server


def build_app(entrance: Entrance, host: str = "127.0.0.1", token: str | None = None) -> ASGIApp:
    """The whole app.

    Args:
        host: the address that it will be served on.
        token: what every request must carry, if anything.
    """
    app = build_server(entrance).streamable_http_app(
        host=host,
        max_request_body_size=MAX_BODY_BYTES,
        custom_starlette_routes=[
            Route("/", dashboard),
            Route("/healthz", healthz),
            *rest.routes(entrance),
            *peer_rest.routes(entrance),
        ],
    )
    app.add_exception_handler(HTTPException, rest.refuse_route)
    return Guard(app, loopback=host in LOOPBACK, token=token)


async def healthz(request: Request) -> Response:
    """Say that the server is up, without touching the repository."""
    return JSONResponse({"status": "ok", "version": __version__})
