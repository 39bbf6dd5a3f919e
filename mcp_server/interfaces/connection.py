"""HTTP connections that cannot be held by saying little: uvicorn's own wait for as long as a client likes.

Time bounds each: a head, and an answer that is not read. Number bounds all of them: where there are too many, the one
that has kept the server waiting longest makes room for the newest, so that whoever asks and reads is answered however
many others do not.
"""

import asyncio
import json
import os
from collections.abc import Hashable, Iterable
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcp_server.errors import ResearchError
from mcp_server.interfaces.access import Access
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.refusals import described
from mcp_server.interfaces.socket_owner import owner_of_peer

Waits = Literal["unread", "unsaid", "listening"]
"""What keeps a connection: a client that does not read, one that has not said all of its request, or a stream of
events that has nothing to tell and is opened again by its client wherever it ends."""


class Connection(H11Protocol):
    """A connection that ends when the head of a request takes too long, or an answer stays unread.

    Attributes:
        own_user: whether the caller is of the user of this process; asked only where there is no token.
    """

    limits = Limits()
    access = Access()
    own_user = False

    _awaiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await a request, unless there are too many connections that are in use."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if self.access.token is None:
            self.own_user = owner_of_peer(transport.get_extra_info("socket")) == os.geteuid()
        self.app_state = {**self.app_state, "connection": self}
        if self._room():
            self._await_request()
        else:
            self._close_saying(503, ResearchError("Too many connections are open", "Close some and try again in 5 s"))

    @property
    def party(self) -> Hashable:
        """Whom it is counted for: an address, and of this machine's callers whether they are of this user."""
        return (self.client[0] if self.client else None, self.own_user)

    @property
    def waits(self) -> Waits | None:
        """What its client owes; None while it is the server's turn, and once it is closing."""
        if self.transport.is_closing():
            return None
        if self.flow.write_paused:
            return "unread"
        if not self._in_request() or self.cycle.more_body:
            return "unsaid"
        stream = self.scope["method"] == "GET" and self.scope["path"].rstrip("/") == "/mcp"
        return "listening" if stream and self.cycle.response_started else None

    def make_room(self, party: Hashable | None, kinds: Iterable[Waits]) -> bool:
        """Close the connection that has waited for its client longest, of the first of the kinds that there is.

        Args:
            party: only one of this party; None for any.
        """
        others = [each for each in self._open() if each is not self and (party is None or each.party == party)]
        for kind in kinds:
            if waiting := [each for each in others if each.waits == kind]:
                min(waiting, key=lambda each: each._since)._make_way(kind)
                return True
        return False

    def data_received(self, data: bytes) -> None:
        """Take what came, and stop the clock once it is a request."""
        super().data_received(data)
        if self._in_request():
            self._stop_awaiting()

    def on_response_complete(self) -> None:
        """Await the next request, from now on."""
        super().on_response_complete()
        if not self._in_request():
            self._since = self.loop.time()
            self._await_request()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._since = self.loop.time()
        self._await_reading()

    def resume_writing(self) -> None:
        """It reads."""
        super().resume_writing()
        self._since = self.loop.time()
        self._stop_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        super().connection_lost(exc)
        self._stop_awaiting()
        self._stop_unread()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, as every other refusal says it."""
        self._close_saying(400, ResearchError(msg, "Speak HTTP/1.1, with less than 16 kB of headers"))

    def _open(self) -> list["Connection"]:
        """The connections that are not closing already."""
        return [each for each in self.connections if isinstance(each, Connection) and not each.transport.is_closing()]

    def _room(self) -> bool:
        """Whether it may stay: there is room for it, or one that waits makes some."""
        stranger = self.access.token is None and not self.own_user
        most = self.limits.connections_of_strangers if stranger else self.limits.connections_of_peer
        others = self._open()
        if sum(each.party == self.party for each in others) > most:
            return self.make_room(self.party, ("unsaid", "unread", "listening"))
        return len(others) <= self.limits.connections or self.make_room(None, ("unsaid", "unread", "listening"))

    def _make_way(self, kind: Waits) -> None:
        """Close for another: at once where the client does not read, else with a word."""
        if kind == "unread":
            self.transport.abort()
        else:
            said = "Others needed the connection, which had waited longest"
            self._close_saying(503, ResearchError(said, "Send a request at once and whole; try again in 5 s"))
            self._await_reading()

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


def connection_within(limits: Limits, access: Access) -> type[Connection]:
    """The class of connections with these limits, to a server with this access."""
    return type("Connection", (Connection,), {"limits": limits, "access": access})


def connection_of(scope: Any) -> Connection | None:
    """The connection that a request came on; None for one that did not come over a socket."""
    found = scope.get("state", {}).get("connection")
    return found if isinstance(found, Connection) else None
