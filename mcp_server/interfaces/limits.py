"""How much one server takes on over HTTP, so that no caller can stall the others."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """So many requests a second in the long run, and so many at once."""

    per_second: float
    burst: float


@dataclass(frozen=True)
class Limits:
    """The bounds of an HTTP server. They are far beyond what agents, a dashboard and a few scripts need.

    Attributes:
        body_bytes: the size of a request body.
        body_seconds: how long a client may take to send it.
        header_seconds: how long a client may take to send the head of a request, from the moment that one is awaited.
        write_seconds: how long a client may leave an answer unread.
        idle_seconds: how long a connection is kept between two requests.
        connections, connections_of_peer: open connections, of all clients and of one caller (an address; on this
            machine a user).
        connections_of_strangers: open connections of callers who will be refused for being of another user.
        in_flight, in_flight_of_peer: requests that have come whole and are being answered, streams of events included.
        sessions: MCP sessions that are remembered; a session unused for half an hour is forgotten.
        rate: requests of one address.
        rate_of_strangers: requests of one address that lack the token.
    """

    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 30
    header_seconds: float = 10
    write_seconds: float = 60
    idle_seconds: int = 5
    connections: int = 512
    connections_of_peer: int = 384
    connections_of_strangers: int = 32
    in_flight: int = 384
    in_flight_of_peer: int = 256
    sessions: int = 1000
    rate: Rate = Rate(per_second=200, burst=2000)
    rate_of_strangers: Rate = Rate(per_second=10, burst=50)


class Buckets:
    """A token bucket for each caller; of very many callers, those seen last are remembered."""

    REMEMBERED = 4096

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, caller: Hashable, rate: Rate) -> float:
        """Take one request from a caller's bucket; 0, or the seconds until there is one to take."""
        now = self._clock()
        level, seen = self._levels.pop(caller, (rate.burst, now))
        level = min(rate.burst, level + (now - seen) * rate.per_second)
        wait = 0.0 if level >= 1 else (1 - level) / rate.per_second
        self._levels[caller] = (level if wait else level - 1, now)
        if len(self._levels) > self.REMEMBERED:
            self._levels.popitem(last=False)
        return wait
