"""The guard in front of every route: it checks Host, Origin and caller; it bounds rate, number and size of requests."""

import asyncio
import math
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.interfaces.access import Access, Place
from mcp_server.interfaces.connection import Connection, connection_of
from mcp_server.interfaces.limits import Buckets, Limits
from mcp_server.interfaces.refusals import refusal

OPEN_PATHS = ("/healthz",)
"""Paths that need no token."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer says to a browser, unless the route says otherwise."""

BUSY_SECONDS = 5
"""After this long a caller may try again where too many requests were under way."""


@dataclass(frozen=True)
class Caller:
    """Whom a request comes from.

    Attributes:
        connection: what it came on; None where it did not come over a socket.
        own_user: whether it is known to come from the user of this process.
        party: whom it is counted for.
    """

    address: str
    connection: Connection | None
    own_user: bool
    party: Hashable

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """The caller of a request."""
        address = scope["client"][0] if scope.get("client") else ""
        connection = connection_of(scope)
        own_user = connection.own_user if connection else scope.get("state", {}).get("own_user") is True
        return cls(address, connection, own_user, connection.party if connection else (address, own_user))


class Guard:
    """ASGI middleware that lets a request through to the app, or answers it by itself.

    The order matters. What a web page of somebody else's makes a browser send is refused first and costs nothing, so
    that it cannot use up the rate of the user at the same address. Callers without the token have a rate of their own.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._buckets = Buckets()
        self._in_flight: Counter[Hashable] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        caller = Caller.of(scope)
        refused = self._foreign(scope["path"], headers) or self._hasty_or_unknown(scope, headers, caller)
        if refused is not None:
            await refused(scope, receive, send)
            return
        body = await self._body(headers, receive)  # not counted as under way: it comes when the client likes
        if isinstance(body, Response):
            await body(scope, receive, send)
        elif body is not None and not self._room_for(caller):
            await self._full()(scope, receive, send)
        elif body is not None:
            with self._counted(caller):
                await self._app(scope, _replaying(body, receive), send)

    def _full(self) -> Response:
        return refusal(
            503,
            f"{sum(self._in_flight.values())} requests are being answered, which is as many as this server takes",
            f"Try again in {BUSY_SECONDS} s, with fewer connections",
            {"Retry-After": str(BUSY_SECONDS)},
        )

    def _foreign(self, path: str, headers: Headers) -> Response | None:
        """The refusal of what was sent to another name, or by a page of another site."""
        named = headers.get("host", "")
        host = Place.of_host(named)
        if host is None or not self._access.answers_to(host):
            more = "" if self._access.token is None else ", or add the name to AUTORESEARCH_HOSTS"
            return refusal(421, f"Host {named[:100]!r} is not this server", f"Use 127.0.0.1 or localhost{more}")
        todo = "Call it from its own page, or from a program"
        if (origin := headers.get("origin")) is not None:
            place = Place.of_origin(origin)
            if place is None or not place.same(host):
                return refusal(403, f"Origin {origin[:100]!r} may not call this server", todo)
        elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and path != "/":
            return refusal(403, "Pages of other sites may not call this server", todo)
        return None

    def _hasty_or_unknown(self, scope: Scope, headers: Headers, caller: "Caller") -> Response | None:
        """The refusal of a caller who asks too often, without the token, or as another user."""
        path = scope["path"]
        known = self._access.admits(headers.get("authorization", ""), caller.own_user) or self._by_address(scope)
        rate = self._limits.rate if known else self._limits.rate_of_strangers
        if wait := self._buckets.take((caller.party, known), rate):
            seconds = str(math.ceil(wait))
            return refusal(
                429,
                f"More than {rate.per_second:g} requests a second came from {caller.address or 'this caller'}",
                f"Wait {seconds} s and ask less often",
                {"Retry-After": seconds},
            )
        if known or path in OPEN_PATHS:
            return None
        if self._access.token is None:
            return refusal(
                403,
                "This server answers only the user who started it, and this connection is not known to be that user's",
                "Call it as that user, not through a proxy of another; or give the server a token "
                "(AUTORESEARCH_TOKEN_FILE), and send it",
                {"Connection": "close"},
            )
        scheme = "Bearer" if path.startswith(("/mcp", "/api")) else "Basic"
        return refusal(
            401,
            "This server needs its token",
            "Send the header 'Authorization: Bearer <token>'; in a browser, give it as the password",
            {"WWW-Authenticate": f'{scheme} realm="autoresearch"'},
        )

    def _by_address(self, scope: Scope) -> bool:
        """Whether the dashboard is opened with the token that the server made, as it stands in the printed address."""
        if scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
            return False
        tokens = QueryParams(scope["query_string"]).getlist("token")
        return len(tokens) == 1 and self._access.opens(tokens[0])

    def _room_for(self, caller: "Caller") -> bool:
        """Whether a request may begin, if need be in place of one whose answer nobody takes."""
        limits, connection = self._limits, caller.connection
        if self._in_flight[caller.party] >= limits.in_flight_of_peer:
            return connection is not None and connection.make_room(connection.party, ("unread", "listening"))
        if sum(self._in_flight.values()) >= limits.in_flight:
            return connection is not None and connection.make_room(None, ("unread", "listening"))
        return True

    @contextmanager
    def _counted(self, caller: "Caller") -> Iterator[None]:
        self._in_flight[caller.party] += 1
        try:
            yield
        finally:
            self._in_flight[caller.party] -= 1
            self._in_flight += Counter()  # drops the parties that are at zero

    async def _body(self, headers: Headers, receive: Receive) -> bytes | Response | None:
        """The whole body, or a refusal where it is too large or comes too slowly; None if the client went away."""
        most = self._limits.body_bytes
        body = bytearray()
        told = headers.get("content-length", "0")
        too_large = int(told) > most if told.isdecimal() else False
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while not too_large:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    too_large = len(body) > most
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            what = f"The request body did not arrive within {self._limits.body_seconds:g} s"
            return refusal(408, what, "Send it at once", {"Connection": "close"})
        if too_large:
            what = f"The request body is larger than {most} bytes"
            return refusal(413, what, "Send less, or give a file by its path", {"Connection": "close"})
        return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out a body already read, and then whatever comes."""
    handed_out = False

    async def replay() -> Message:
        nonlocal handed_out
        if handed_out:
            return await receive()
        handed_out = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send) -> Send:
    """A `send` that adds to each answer what browsers should know."""

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return pass_on
