"""Who may come in over HTTP: checks of Host, Origin, token and size before any route sees a request."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.errors import NotReady
from mcp_server.interfaces.rest import refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY_BYTES = 4 * 1024 * 1024
OPEN_PATHS = ("/healthz",)
"""Paths that need no token."""


def read_token(environ: Mapping[str, str]) -> str | None:
    """The bearer token from AUTORESEARCH_TOKEN, or from the file that AUTORESEARCH_TOKEN_FILE names; None without."""
    path = environ.get("AUTORESEARCH_TOKEN_FILE")
    if not path:
        return environ.get("AUTORESEARCH_TOKEN") or None
    try:
        token = Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotReady(f"AUTORESEARCH_TOKEN_FILE {path} cannot be read: {error}", "Name a readable text file") from None
    if not token:
        raise NotReady(f"AUTORESEARCH_TOKEN_FILE {path} is empty", "Write a token into it, e.g. openssl rand -hex 32")
    return token


class Guard:
    """ASGI middleware in front of every route.

    On a loopback address the Host header must name this machine, so that a web site whose name was pointed at 127.0.0.1
    gets nothing (DNS rebinding). An Origin header must be that of this server's own pages. With a token, every request
    must carry it, as a bearer or as the password that a browser asks for.
    """

    def __init__(self, app: ASGIApp, loopback: bool, token: str | None) -> None:
        self._app = RequestBodyLimitMiddleware(app, MAX_BODY_BYTES)
        self._loopback = loopback
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = _Place.read(f"//{headers.get('host', '')}")
        if self._loopback and host.name not in LOOPBACK:
            answer = refusal(421, f"Host {headers.get('host', '')!r} is not this server. Use 127.0.0.1 or localhost.")
        elif (origin := headers.get("origin")) is not None and not _Place.read(origin).same(host):
            answer = refusal(403, f"Origin {origin!r} may not call this server. Call it from its own page.")
        elif self._token and scope["path"] not in OPEN_PATHS and not _carries(headers, self._token):
            scheme = "Bearer" if scope["path"].startswith(("/mcp", "/api")) else "Basic"
            answer = refusal(
                401,
                "This server needs its token. Send the header 'Authorization: Bearer <token>'.",
                {"WWW-Authenticate": f'{scheme} realm="autoresearch"'},
            )
        else:
            await self._app(scope, receive, _in_json(scope, receive, send))
            return
        await answer(scope, receive, send)


def _in_json(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that turns the plain text by which a body is refused as too large into JSON."""
    refused = False

    async def pass_on(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 413:
            refused = True
            text = f"The request body is larger than {MAX_BODY_BYTES} bytes. Send less, or give a file by its path."
            await refusal(413, text, {"Connection": "close"})(scope, receive, send)
        elif not refused:
            await send(message)

    return pass_on


class _Place:
    """A host and port as a header names them."""

    def __init__(self, name: str | None, port: int | None) -> None:
        self.name = name
        self.port = port

    @classmethod
    def read(cls, url: str) -> "_Place":
        try:
            parts = urlsplit(url)
            return cls(parts.hostname, parts.port)
        except ValueError:
            return cls(None, None)

    def same(self, other: "_Place") -> bool:
        """Whether both are one server; the names of this machine count as one."""
        both_local = self.name in LOOPBACK and other.name in LOOPBACK
        return self.name is not None and self.port == other.port and (both_local or self.name == other.name)


def _carries(headers: Headers, token: str) -> bool:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            credentials = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(credentials.encode(), token.encode())
