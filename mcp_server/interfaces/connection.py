"""HTTP connections that cannot be held by saying little: uvicorn's own wait for as long as a client likes."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcp_server.errors import ResearchError
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.refusals import described


class Connection(H11Protocol):
    """A connection that ends when the head of a request takes too long, or an answer stays unread."""

    limits = Limits()

    _awaiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await a request, unless there are too many connections."""
        super().connection_made(transport)
        of_peer = sum(_peer(each) == _peer(self) for each in self.connections)
        if len(self.connections) > self.limits.connections or of_peer > self.limits.connections_of_peer:
            self._close_saying(503, ResearchError("Too many connections are open", "Close some and try again in 5 s"))
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take what came, and stop the clock once it is a request."""
        super().data_received(data)
        if self._in_request():
            self._stop_awaiting()

    def on_response_complete(self) -> None:
        """Await the next request, from now on."""
        super().on_response_complete()
        if not self._in_request():
            self._await_request()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """It reads."""
        super().resume_writing()
        self._stop_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        super().connection_lost(exc)
        self._stop_awaiting()
        self._stop_unread()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, as every other refusal says it."""
        self._close_saying(400, ResearchError(msg, "Speak HTTP/1.1, with less than 16 kB of headers"))

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        if self._awaiting is None:
            self._awaiting = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _await_reading(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def _give_up(self) -> None:
        """Close once the last answer is sent, which a client that reads nothing can put off for a while only."""
        self.transport.close()
        self._await_reading()

    def _stop_awaiting(self) -> None:
        if self._awaiting is not None:
            self._awaiting.cancel()
            self._awaiting = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _close_saying(self, status: int, error: ResearchError) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(described(error)).encode()
            headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            if status == 503:
                headers["retry-after"] = "5"
            head = h11.Response(status_code=status, headers=list(headers.items()))
            for part in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()


def connection_within(limits: Limits) -> type[Connection]:
    """The class of connections with these limits."""
    return type("Connection", (Connection,), {"limits": limits})


def _peer(connection: object) -> str | None:
    client = getattr(connection, "client", None)
    return client[0] if client else None
