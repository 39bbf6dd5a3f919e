"""The HTTP door: one app with MCP at /mcp, REST at /api, the dashboard at / and /healthz, behind one guard."""

from mcp.server.transport_security import TransportSecuritySettings
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_server import __version__
from mcp_server.interfaces import peer_rest, rest
from mcp_server.interfaces.access import Access
from mcp_server.interfaces.dashboard import dashboard
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.guard import Guard
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.mcp_tools import build_server


def build_app(entrance: Entrance, access: Access, limits: Limits) -> ASGIApp:
    """The whole app."""
    app = build_server(entrance).streamable_http_app(
        max_request_body_size=limits.body_bytes,
        max_sessions=limits.sessions,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard's own matter
        custom_starlette_routes=[
            Route("/", dashboard),
            Route("/healthz", healthz),
            *rest.routes(entrance, secured=access.token is not None),
            *peer_rest.routes(entrance),
        ],
    )
    app.add_exception_handler(HTTPException, rest.refuse_route)
    app.add_exception_handler(Exception, rest.refuse_surprise)
    return Guard(app, access, limits)


async def healthz(request: Request) -> Response:
    """Say that the server is up, without touching the repository."""
    return JSONResponse({"status": "ok", "version": __version__})
