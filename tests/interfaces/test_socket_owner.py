"""Whose a connection is: real sockets of real users, in all the ways in which an owner can be lost or borrowed."""

import encodings.idna  # noqa: F401 - another user may not read where Python keeps it
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from mcp_server.interfaces.socket_owner import by_diagnostics, by_tables, owner_of_peer, owners_are_told
from tests.interfaces.test_serving import serving
from tests.project import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel tells")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

NOBODY = 65534
PLACES = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")
"""Addresses to connect to; the last is of version 4 in a socket of version 6."""


@contextmanager
def being(uid: int) -> Iterator[None]:
    """What is made meanwhile belongs to another user."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def connected(place: str, uid: int | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: the client's, and what the server accepted."""
    mapped = place.startswith("::ffff:")
    listened = place.rpartition(":")[2] if mapped else place
    family = socket.AF_INET6 if ":" in listened else socket.AF_INET
    with socket.create_server((listened, 0), family=family) as listener:
        if uid is None:
            client = socket.socket(socket.AF_INET6 if ":" in place else socket.AF_INET)
        else:
            with being(uid):
                client = socket.socket(socket.AF_INET6 if ":" in place else socket.AF_INET)
        with client:
            client.connect((place, listener.getsockname()[1]))
            accepted, _ = listener.accept()
            with accepted:
                yield client, accepted


def _plain(end: tuple[str, int]) -> tuple[str, int]:
    return end[0].removeprefix("::ffff:"), end[1]


@pytest.mark.parametrize("place", PLACES)
def test_ones_own(place: str) -> None:
    with connected(place) as (_, accepted):
        assert owner_of_peer(accepted) == os.geteuid()


@as_root
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("uid", [1, 1000, NOBODY])
def test_another_user(place: str, uid: int) -> None:
    with connected(place, uid) as (_, accepted):
        assert owner_of_peer(accepted) == uid


@as_root
@pytest.mark.parametrize("place", PLACES)
def test_both_ways_of_asking_agree(place: str) -> None:
    with connected(place, 1000) as (_, accepted):
        peer, own = (_plain(end) for end in (accepted.getpeername(), accepted.getsockname()))
        assert by_tables(peer, own) == by_diagnostics(peer, own)
        found = by_tables(peer, own)
        assert found is not None
        assert found.uid == 1000


def test_a_socket_that_is_half_closed_still_has_an_owner() -> None:
    with connected("127.0.0.1") as (client, accepted):
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert accepted.recv(100)
        assert owner_of_peer(accepted) == os.geteuid()


@as_root
@pytest.mark.parametrize("abrupt", [False, True])
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_who_has_gone_is_nobody(abrupt: bool, uid: int) -> None:
    """The kernel may say 0 of a socket that no program holds any more: a server of root would let everybody in."""
    with connected("127.0.0.1", uid) as (client, accepted):
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        if abrupt:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert owner_of_peer(accepted) is None


def taken_over(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """What a stranger's torn connection was accepted as, and a connection of ours from the same end.

    The system may lend that port to a program that connects elsewhere meanwhile: then another one is tried.
    """
    for _ in range(100):
        with being(NOBODY):
            stranger = socket.create_connection(listener.getsockname())
        ends = stranger.getsockname()
        stranger.sendall(b"POST / HTTP/1.1\r\n\r\n")
        accepted, _ = listener.accept()
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(ends)
        except OSError:
            accepted.close()
            own.close()
            continue
        own.connect(listener.getsockname())
        return accepted, own
    raise AssertionError("every port was lent to somebody else")


@as_root
def test_an_end_that_another_has_taken_over_is_not_its_own() -> None:
    """Somebody sends, tears the connection down, and another user has the very same ends before the server looks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted, own = taken_over(listener)
        with accepted, own, listener.accept()[0] as second:
            assert owner_of_peer(second) == 0
            assert owner_of_peer(accepted) is None


def test_a_listener_at_the_port_of_who_has_gone_is_not_the_caller() -> None:
    with connected("127.0.0.1") as (client, accepted):
        ends, others = client.getsockname(), accepted.getpeername()
        assert ends == others
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with socket.create_server(ends):
            assert owner_of_peer(accepted) is None
            with suppress(OSError):
                assert by_diagnostics(ends, ("127.0.0.1", 1)) is None


def test_a_server_without_its_tables_is_told_nothing(tmp_path: Path) -> None:
    assert by_tables(("127.0.0.1", 1), ("127.0.0.1", 2), tmp_path) is None


def test_a_system_is_tried_not_believed() -> None:
    assert owners_are_told()
    assert not owners_are_told(lambda connection: None)
    assert not owners_are_told(lambda connection: os.geteuid() + 1)


CALLER = """
import encodings.idna, http.client, json, os, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
host, port = sys.argv[1], int(sys.argv[2])
found = {{}}
for method, path in [("GET", "/"), ("GET", "/?token=0"), ("GET", "/healthz"), ("GET", "/api/list_runs"),
                     ("POST", "/api/list_runs"), ("POST", "/api/setup_run"), ("POST", "/mcp"), ("GET", "/mcp"),
                     ("GET", "/api/openapi.json"), ("GET", "/nowhere"), ("POST", "/init")]:
    for extra in ({{}}, {{"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer root", "X-Real-Uid": "0"}}):
        call = http.client.HTTPConnection(host, port, timeout=20)
        call.request(method, path, "{{}}", {{"Host": f"127.0.0.1:{{port}}", "Content-Type": "application/json",
                     "Accept": "application/json, text/event-stream", **extra}})
        found.setdefault(method + " " + path, []).append(call.getresponse().status)
print(json.dumps(found))
"""


def ask(uid: int, address: str, host: str = "127.0.0.1") -> dict[str, list[int]]:
    """The statuses that another user's program gets at every door."""
    words = [sys.executable, "-c", CALLER.format(uid=uid), host, address.rpartition(":")[2]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    statuses: dict[str, list[int]] = json.loads(done.stdout)
    return statuses


@as_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_another_user_finds_every_door_shut(project: Project, host: str) -> None:
    with serving(project) as (_, address):
        found = ask(NOBODY, address, host)
        assert found.pop("GET /healthz") == [200, 200]
        assert set(map(tuple, found.values())) == {(403, 403)}
        assert httpx2.get(f"{address}/api/list_runs").json()["runs"] == []
        own = ask(0, address, host)
        assert own["GET /"] == own["GET /api/list_runs"] == [200, 200]


@as_root
def test_a_token_lets_other_users_in(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_TOKEN", "root-root-root-root")
    with serving(project) as (_, address):
        assert httpx2.get(f"{address}/api/list_runs").status_code == 401
        headers = {"Authorization": "Bearer root-root-root-root"}
        with being(NOBODY):
            assert httpx2.get(f"{address}/api/list_runs", headers=headers).status_code == 200


@as_root
def test_another_user_cannot_keep_ones_own_callers_out(project: Project) -> None:
    with serving(project) as (_, address):
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        held = []
        with being(NOBODY):
            for number in range(600):
                held.append(socket.create_connection(place))
                with suppress(OSError):
                    held[-1].sendall(b"POST /api/list_runs HTTP/1.1\r\nHost: localhost\r\nX: ")
                if number % 100 == 99:
                    os.seteuid(0)
                    assert httpx2.get(f"{address}/api/list_runs", timeout=10).status_code == 200
                    os.seteuid(NOBODY)
        for each in held:
            each.close()
