"""The user at the other end of a connection from this machine, as the kernel knows it.

A socket is owned by whoever made it, and the kernel of Linux tells the owner of both ends of a loopback connection. It
is asked through its socket diagnostics (sock_diag(7)), which look one connection up; where these are closed, by
`/proc/net/tcp` and `tcp6` (proc(5)).
"""

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

End = tuple[str, int]
"""An address and a port."""

ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT = 1, 4, 5, 8
"""States of TCP by their numbers in the kernel (include/net/tcp_states.h)."""
_OPEN = (ESTABLISHED, CLOSE_WAIT)
_HAS_AN_OWNER = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT)

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NO_COOKIE = 4, 20, 1, 0xFFFFFFFF
_HEADER, _REQUEST = struct.Struct("=IHHII"), struct.Struct("=BBBBI")
_STATE_AT, _UID_AT = _HEADER.size + 1, _HEADER.size + 4 + 48 + 12
_SECONDS = 2.0


@dataclass(frozen=True)
class Found:
    """A socket of this machine.

    Attributes:
        state: of TCP.
        uid: the user who made it.
        inode: 0 once no program holds it any more; its owner then means nothing.
    """

    state: int
    uid: int
    inode: int


def owner_of_peer(connection: socket.socket) -> int | None:
    """The user whose program is at the other end of a TCP connection; None where that cannot be told.

    That is so for a peer on another machine, in another network namespace, behind a translation of addresses, one that
    is gone, and one whose user has no number here (user_namespaces(7)).
    """
    try:
        peer, own = _end(connection.getpeername()), _end(connection.getsockname())
        found = _ask(peer, own)
        # While ours is open nobody else can have had both of its ends: what was found is what sent us its bytes.
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _OPEN:
            return None
    except (OSError, ValueError, AttributeError, struct.error):
        return None
    if found is None or not found.inode or found.state not in _HAS_AN_OWNER or found.uid == _nobody_in_particular():
        return None
    return found.uid


def owners_are_told(lookup: Callable[[socket.socket], int | None] = owner_of_peer) -> bool:
    """Whether this system tells the owners of connections: tried on one of our own, since no name of a system says."""
    if sys.platform != "linux":
        return False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), _SECONDS) as ours,
            listener.accept()[0] as accepted,
        ):
            return ours.getsockname() == accepted.getpeername() and lookup(accepted) == os.geteuid()
    except OSError:
        return False


def _end(address: tuple[str, int]) -> End:
    """The end of a connection; an address of version 4 within one of version 6 is the former."""
    found = ipaddress.ip_address(address[0].partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found), address[1]


def _ask(peer: End, own: End) -> Found | None:
    try:
        return by_diagnostics(peer, own)
    except OSError:  # no such socket, or no such question
        return by_tables(peer, own)


def by_diagnostics(peer: End, own: End) -> Found | None:
    """The socket that has `peer` as its own end and `own` as its other, by the kernel's socket diagnostics.

    Raises OSError where there is none, or the kernel does not answer such questions.
    """
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    ends = struct.pack(">HH", peer[1], own[1])
    ends += b"".join(socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (peer, own))
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    request += ends + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(_SECONDS)
        asking.send(header + request)
        answer = asking.recv(8192)
    kind = _HEADER.unpack_from(answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(code, os.strerror(code))
    if answer[_STATE_AT + 3 : _STATE_AT + 7] != ends[:4]:  # a listener answers where the connection is gone
        return None
    return Found(answer[_STATE_AT], *struct.unpack_from("=II", answer, _UID_AT))


def by_tables(peer: End, own: End, folder: Path = Path("/proc/self/net")) -> Found | None:
    """The same by the tables of `/proc/net`, which are as long as there are connections."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (folder / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        ports = f":{peer[1]:04X} "
        for line in lines:
            if ports in line:
                fields = line.split()
                if (_decoded(fields[1]), _decoded(fields[2])) == (peer, own):
                    return Found(int(fields[3], 16), int(fields[7]), int(fields[9]))
    return None


def _decoded(field: str) -> End:
    """An end as the tables write it: the address in words of 32 bits, each in the order of this machine."""
    address, _, port = field.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return _end((str(ipaddress.ip_address(packed)), int(port, 16)))


@cache
def _nobody_in_particular() -> int | None:
    """The number that stands for every user without a number of its own in this user namespace; None in the first."""
    try:
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 65534
