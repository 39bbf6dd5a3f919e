"""Callers over HTTP: of the app in this process, or of a server that listens on a port of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.interfaces.access import Access
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.http import build_app
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.serve import http_config
from mcp_server.settings import Settings

HERE = Access()
"""The access to a server that only this user of this machine reaches."""


def own(app: ASGIApp) -> ASGIApp:
    """The app as a program of the same user calls it: in this process there is no connection to tell that from."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"own_user": True}}, receive, send)

    return called


@asynccontextmanager
async def caller(
    settings: Settings, access: Access = HERE, limits: Limits | None = None, trusted: bool = False
) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the app, by default as a browser or script on this machine would call it."""
    async with Entrance(settings, trusted=trusted, shared=True) as entrance:
        transport = httpx2.ASGITransport(own(build_app(entrance, access, limits or Limits())))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as client:
            yield client


@dataclass(frozen=True)
class Listening:
    """A server that listens on a port of this machine."""

    port: int
    sockets: list["Socket"] = field(default_factory=list)

    async def connect(self) -> "Socket":
        """A bare connection to it."""
        self.sockets.append(Socket(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.sockets[-1]

    async def is_well(self) -> bool:
        """Whether it answers somebody who asks as one should."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10) as client:
            answers = [await client.get("/healthz"), await client.post("/api/list_runs", json={})]
        return all(answer.is_success for answer in answers)


@dataclass(frozen=True)
class Socket:
    """A connection on which nothing is sent but what a test says."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, text: str | bytes) -> None:
        """Send some bytes."""
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()

    async def hear(self, seconds: float = 10) -> str:
        """All that comes until the server closes; TimeoutError if it does not."""
        async with asyncio.timeout(seconds):
            try:
                return (await self.reader.read()).decode()
            except ConnectionError:
                return ""

    async def ask_how_it_is(self) -> str:
        """The status line of `/healthz`; nothing if the server closes."""
        try:
            await self.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return (await self.reader.readline()).decode().strip()
        except ConnectionError:
            return ""


@asynccontextmanager
async def listening(settings: Settings, limits: Limits, access: Access = HERE) -> AsyncIterator[Listening]:
    """A server on a free port of this machine, within these limits."""

    async with Entrance(settings, trusted=False, shared=True) as entrance:
        server = uvicorn.Server(http_config(entrance, access, limits))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(_served(server, listener))
            while not server.started:
                assert not serving.done()
                await asyncio.sleep(0)
            listening = Listening(listener.getsockname()[1])
            try:
                yield listening
            finally:
                for each in listening.sockets:
                    each.writer.transport.abort()
                await asyncio.gather(*(each.writer.wait_closed() for each in listening.sockets), return_exceptions=True)
                server.should_exit = server.force_exit = True
                await serving


async def _served(server: Any, listener: socket.socket) -> None:
    await server._serve(sockets=[listener])  # without handlers of signals, which are the test runner's
