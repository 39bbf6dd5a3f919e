"""Clients that hold a connection without using it: they are let go, and nobody else waits for them."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from mcp_server.errors import NotReady
from mcp_server.interfaces.access import Access
from mcp_server.interfaces.limits import Limits
from mcp_server.settings import Settings
from tests.interfaces.callers import Listening, Socket, listening

pytestmark = pytest.mark.anyio

HASTY = Limits(header_seconds=0.3, body_seconds=0.3, write_seconds=0.3, idle_seconds=1)
"""Limits under which patience is short, so that a test need not be patient."""

PATIENT = Limits(header_seconds=60, body_seconds=60, write_seconds=60)
HEAD = "POST /api/list_runs HTTP/1.1\r\nHost: localhost\r\n"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


async def test_a_head_that_never_ends(settings: Settings) -> None:
    async with listening(settings, HASTY) as server:
        for beginning in ("", "GET", "GET / HTTP/1.1\r\n", HEAD, f"{HEAD}X-Long: "):
            connection = await server.connect()
            await connection.say(beginning)
            assert await connection.hear() == ""


async def test_a_head_that_drips(settings: Settings) -> None:
    async with listening(settings, HASTY) as server:
        connection = await server.connect()
        closed = asyncio.create_task(connection.hear())
        await connection.say(HEAD)
        while not closed.done():  # every drop comes sooner than any wait between two of them would end
            await asyncio.sleep(0.02)
            try:
                await connection.say("X: y\r\n")
            except ConnectionError:
                break
        assert await closed == ""


async def test_dripping_between_two_requests(settings: Settings) -> None:
    async with listening(settings, HASTY) as server:
        connection = await server.connect()
        await connection.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET")
        assert (await connection.hear()).count("HTTP/1.1 200") == 1


async def test_a_body_that_never_ends(settings: Settings) -> None:
    async with listening(settings, HASTY) as server:
        connection = await server.connect()
        await connection.say(f"{HEAD}Content-Length: 100\r\n\r\n{{")
        head, _, body = (await connection.hear()).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408")
        assert json.loads(body)["what"] == "The request body did not arrive within 0.3 s"


async def test_a_body_that_nobody_wants_is_not_awaited(settings: Settings) -> None:
    async with listening(settings, HASTY, Access("0123456789abcdef")) as server:
        connection = await server.connect()
        await connection.say(f"{HEAD}Content-Length: 1000000\r\n\r\n{{")
        assert (await connection.hear()).startswith("HTTP/1.1 401")


async def test_an_answer_that_nobody_reads(settings: Settings) -> None:
    async with listening(settings, HASTY) as server:
        connection = await server.connect()
        for _ in range(300):  # far more than the buffers between us hold
            connection.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            while True:  # until the server has had enough
                try:
                    await connection.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                except ConnectionError:
                    break
                await asyncio.sleep(0.02)
        assert await server.is_well()


async def test_what_is_no_http(settings: Settings) -> None:
    async with listening(settings, PATIENT) as server:
        for noise in (b"\x16\x03\x01\x02\x00", b"SSH-2.0-OpenSSH\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000):
            connection = await server.connect()
            await connection.say(noise + b"\r\n\r\n")
            head, _, body = (await connection.hear()).partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 400")
            assert json.loads(body)["todo"].startswith("Speak HTTP/1.1")
        assert await server.is_well()


async def test_others_are_answered_meanwhile(settings: Settings) -> None:
    """A hundred of each kind hold on: to heads, to bodies, and to streams of events whose end they never read."""
    async with listening(settings, PATIENT) as server:
        held = [await silent(server) for _ in range(100)]
        held += [await hesitant(server) for _ in range(100)]
        held += [await listener(server) for _ in range(100)]
        async with asyncio.timeout(10):
            assert await server.is_well()
        for connection in held:
            connection.writer.transport.abort()
        assert await server.is_well()


async def silent(server: Listening) -> Socket:
    """A client that begins a head."""
    connection = await server.connect()
    await connection.say(HEAD)
    return connection


async def hesitant(server: Listening) -> Socket:
    """A client that begins a body."""
    connection = await server.connect()
    await connection.say(f"{HEAD}Content-Length: 100\r\n\r\n{{")
    return connection


async def listener(server: Listening) -> Socket:
    """An MCP client that opens a stream of events and then does nothing."""
    kinds = "Host: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    body = json.dumps(INITIALIZE)
    first = await server.connect()
    await first.say(f"POST /mcp HTTP/1.1\r\n{kinds}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    [session] = [line for line in (await first.hear()).split("\r\n") if line.lower().startswith("mcp-session-id")]
    connection = await server.connect()
    await connection.say(f"GET /mcp HTTP/1.1\r\n{kinds}{session}\r\n\r\n")
    assert (await connection.reader.readline()).startswith(b"HTTP/1.1 200")
    return connection


async def unread(server: Listening) -> Socket:
    """A client that asks for far more than it reads."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # so that the kernel buffers little
    bare.setblocking(False)
    await asyncio.get_running_loop().sock_connect(bare, ("127.0.0.1", server.port))
    await asyncio.get_running_loop().sock_sendall(bare, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    reader, writer = await asyncio.open_connection(sock=bare)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    server.sockets.append(Socket(reader, writer))
    return server.sockets[-1]


@pytest.mark.parametrize("count", [4, 400])
@pytest.mark.parametrize("slow", [silent, hesitant, unread, listener])
async def test_slow_callers_starve_nobody(
    settings: Settings, slow: Callable[[Listening], Awaitable[Socket]], count: int
) -> None:
    """Nothing ends by time here, and all come from one address: those who wait longest make room."""
    async with listening(settings, PATIENT) as server:
        for _ in range(count):
            await slow(server)
        for _ in range(3):
            async with asyncio.timeout(10):
                assert await server.is_well()


async def test_the_one_that_waited_longest_makes_room(settings: Settings) -> None:
    for limits in (replace(PATIENT, connections=3), replace(PATIENT, connections_of_peer=3)):
        async with listening(settings, limits) as server:
            held = [await silent(server) for _ in range(3)]
            assert "200" in await (await server.connect()).ask_how_it_is()
            head, _, body = (await held[0].hear()).partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 503")
            assert "retry-after: 5" in head.lower()
            assert json.loads(body)["what"] == "Others needed the connection, which had waited longest"
            for each in held[1:]:
                await each.say("Content-Length: 0\r\nConnection: close\r\n\r\n")
                assert (await each.hear()).startswith("HTTP/1.1 200"), "the others may go on"


async def test_there_can_be_only_so_many_connections(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on which the server is at work make room for nobody."""
    begun: list[int] = []
    go_on = asyncio.Event()

    async def hesitate(self: object) -> None:
        begun.append(1)
        await go_on.wait()
        raise NotReady("The repository is away", "Come back")

    monkeypatch.setattr("mcp_server.interfaces.entrance.Entrance.lab", hesitate)
    for limits in (replace(PATIENT, connections=3), replace(PATIENT, connections_of_peer=3)):
        begun.clear()
        go_on.clear()
        async with listening(settings, limits) as server, asyncio.timeout(10):
            held = [await server.connect() for _ in range(3)]
            for each in held:
                await each.say(f"{HEAD}Content-Length: 0\r\nConnection: close\r\n\r\n")
            while len(begun) < 3:  # noqa: ASYNC110 - the server says nothing meanwhile
                await asyncio.sleep(0.01)
            head, _, body = (await (await server.connect()).hear()).partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 503")
            assert "retry-after: 5" in head.lower()
            assert json.loads(body)["what"] == "Too many connections are open"
            go_on.set()
            assert all("The repository is away" in answer for answer in [await each.hear() for each in held])
