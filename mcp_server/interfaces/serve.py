"""Serving: MCP over stdio, or MCP, REST and the dashboard over HTTP. Both end quickly and quietly on a signal."""

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server.errors import NotReady
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.mcp_tools import build_server
from mcp_server.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from mcp.server import Server

    from mcp_server.interfaces.access import Access
    from mcp_server.interfaces.limits import Limits

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSING_SECONDS = 0.3


def serve_stdio(settings: Settings, calls: Path | None = None) -> None:
    """Serve MCP on stdin and stdout until stdin ends or a signal comes; for `calls` see `Entrance`."""
    log_to_stderr()
    asyncio.run(_serve_stdio(settings, calls))


def serve_http(settings: Settings, host: str = "127.0.0.1", port: int = 8765, allow_commands: bool = False) -> None:
    """Serve MCP at /mcp, REST at /api and the dashboard at / until a signal comes.

    Raises:
        NotReady: the port is taken, or the address is reachable from elsewhere and no token is set.
    """
    from mcp_server.interfaces.access import Access

    access = Access.load(host, os.environ)
    os.environ.pop("AUTORESEARCH_TOKEN", None)  # no program that this process starts needs it
    log_to_stderr(access.token)
    asyncio.run(_serve_http(settings, _bind(host, port), host, access, allow_commands))


def log_to_stderr(secret: str | None = None) -> None:
    """Send warnings and errors to stderr, but never `secret`: on stdio, stdout belongs to the protocol."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Discreet(secret))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _Discreet(logging.Formatter):
    """Leaves a secret out, and control characters, by which what a caller sent could forge lines of the log."""

    def __init__(self, secret: str | None) -> None:
        super().__init__("autoresearch: %(levelname)s %(message)s")
        self._secret = secret

    def format(self, record: logging.LogRecord) -> str:
        text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", super().format(record))
        return text.replace(self._secret, "***") if self._secret else text


async def _serve_stdio(settings: Settings, calls: Path | None) -> None:
    stopping = asyncio.Event()
    async with Entrance(settings, calls=calls) as entrance:
        with _on_signals(stopping.set):
            serving = asyncio.create_task(_over_stdio(build_server(entrance)))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if stopping.is_set():
                serving.cancel()
                await asyncio.wait({serving}, timeout=_CLOSING_SECONDS)
            else:
                await _until_gone(serving)
    if not serving.done():
        os._exit(0)  # the SDK's thread waits for stdin and cannot be interrupted; everything else is closed


async def _until_gone(serving: "asyncio.Task[None]") -> None:
    """Await the end of serving; a client that died while it was answered is an end like any other."""
    try:
        await serving
    except* BrokenPipeError:
        pass


async def _over_stdio(server: "Server[Any]") -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


async def _serve_http(
    settings: Settings, listener: socket.socket, host: str, access: "Access", allow_commands: bool
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # the original raises a signal again once it has shut down, which ends in a traceback

    async with Entrance(settings, trusted=allow_commands, shared=True) as entrance:
        server = Server(http_config(entrance, access))

        def stop() -> None:
            logging.getLogger("uvicorn.error").disabled = True  # a client cut off while it listens is no error now
            server.force_exit = server.should_exit
            server.should_exit = True

        with _on_signals(stop):
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{listener.getsockname()[1]}"
            print(announcement(url, access), file=sys.stderr, flush=True)  # noqa: T201
            await server.serve(sockets=[listener])


def announcement(url: str, access: "Access") -> str:
    """What the user is told once the server listens at `url`; a token that it made itself stands in the address."""
    if access.made is None:
        return f"autoresearch: dashboard {url}/, MCP {url}/mcp, REST {url}/api"
    return (
        f"autoresearch: dashboard {url}/?token={access.token}, MCP {url}/mcp, REST {url}/api\n"
        "autoresearch: this system does not tell whose a connection is, so MCP and REST need the header "
        f"'Authorization: Bearer <token>'. The token is kept in {access.made}; docs/connect.md says where agents "
        "take it from."
    )


def http_config(entrance: Entrance, access: "Access", limits: "Limits | None" = None) -> "uvicorn.Config":
    """How uvicorn serves everything: without a log of requests, and within limits."""
    import uvicorn

    from mcp_server.interfaces.connection import connection_within
    from mcp_server.interfaces.http import build_app
    from mcp_server.interfaces.limits import Limits

    limits = limits or Limits()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a client's bad request is no news to the user
    return uvicorn.Config(
        build_app(entrance, access, limits),
        http=connection_within(limits, access),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anybody may write them
        server_header=False,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=1,
    )


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise NotReady(
            f"Cannot listen on {host} port {port}: {reason}", "Choose another with --host or --port"
        ) from None


@contextmanager
def _on_signals(act: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, act)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
