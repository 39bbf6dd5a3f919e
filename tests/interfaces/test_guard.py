"""The guard in front of every route: names, pages, tokens, and how much it lets through."""

import asyncio
import base64
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mcp_server.interfaces.access import Access
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.http import build_app
from mcp_server.interfaces.limits import Buckets, Limits, Rate
from mcp_server.interfaces.serve import log_to_stderr
from mcp_server.settings import Settings
from tests.interfaces.callers import caller

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef"
EXPOSED = Access(TOKEN, frozenset({"gpu-box"}), exposed=True)
DOORS = ("/", "/healthz", "/api/list_runs", "/api/openapi.json", "/nowhere")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8765"}, 200),
        ({"host": "LOCALHOST:8765"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "127.8.8.8"}, 200),
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, 200),
        ({"origin": "http://localhost:8765"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"host": "evil.example:8765"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1@evil.example"}, 421),
        ({"host": "evil.example@127.0.0.1"}, 421),
        ({"host": "127.0.0.1:8765/evil.example"}, 421),
        ({"host": "127.0.0.1, evil.example"}, 421),
        ({"host": "192.168.0.7"}, 421),
        ({"host": "0x7f000001"}, 421),
        ({"host": "2130706433"}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "localhost:http"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example:8765"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://evil.example@localhost:8765"}, 403),
        ({"origin": "http://localhost:8765 http://evil.example"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
async def test_only_this_machine_is_answered(settings: Settings, headers: dict[str, str], status: int) -> None:
    async with caller(settings) as client:
        for path in DOORS:
            answer = await client.get(path, headers=headers)
            assert answer.status_code == (404 if path == "/nowhere" and status == 200 else status)
        if status != 200:
            assert (await client.post("/mcp", json={}, headers=headers)).status_code == status
            assert (await client.post("/api/setup_run", json={}, headers=headers)).status_code == status


async def test_pages_of_other_sites_may_link_to_the_dashboard_and_no_more(settings: Settings) -> None:
    async with caller(settings) as client:
        for site in ("cross-site", "same-site"):
            headers = {"sec-fetch-site": site}
            assert (await client.get("/", headers=headers)).status_code == 200
            assert (await client.get("/api/list_runs", headers=headers)).status_code == 403
            assert (await client.get("/mcp", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("gpu-box:8765", 200),
        ("GPU-BOX", 200),
        ("192.168.0.7:8765", 200),
        ("[fd00::7]:8765", 200),
        ("localhost:8765", 200),
        ("evil.example", 421),
        ("gpu-box.evil.example", 421),
    ],
)
async def test_an_exposed_server_answers_to_addresses_and_its_own_names(
    settings: Settings, host: str, status: int
) -> None:
    async with caller(settings, EXPOSED) as client:
        answer = await client.get("/api/list_runs", headers={"host": host, "authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == status
        if status == 421:
            assert "AUTORESEARCH_HOSTS" in answer.json()["todo"]


def basic(password: str) -> str:
    """What a browser sends once its user has typed a password."""
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN.upper()}", 401),
        (f"Bearer  {TOKEN}", 401),
        (f"Token {TOKEN}", 401),
        ("Bearer tök\xe9n", 401),
        ("Basic ???", 401),
        (f"Basic {TOKEN}", 401),
        (basic("wrong"), 401),
        (basic(TOKEN), 200),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
    ],
)
async def test_a_token_opens_every_door(settings: Settings, given: str | None, status: int) -> None:
    headers = [
        (b"host", b"gpu-box:8765"),
        *([(b"authorization", given.encode("latin-1"))] if given is not None else []),
    ]
    async with caller(settings, EXPOSED) as client:
        for path in DOORS:
            if path in ("/healthz", "/nowhere"):
                continue
            response = await client.get(path, headers=headers)
            assert response.status_code == status
            scheme = response.headers.get("www-authenticate", "").partition(" ")[0]
            assert scheme == ("" if status == 200 else "Basic" if path == "/" else "Bearer")
        assert (await client.get("/healthz", headers=headers)).status_code == 200
        if status == 401:
            assert (await client.get("/nowhere", headers=headers)).status_code == 401
            assert (await client.post("/mcp", json={}, headers=headers)).status_code == 401
            assert (await client.post("/api/setup_run", json={}, headers=headers)).status_code == 401
        foreign = [*headers, (b"origin", b"http://evil.example")]
        assert (await client.get("/", headers=foreign)).status_code == 403


async def test_a_token_in_the_address_is_no_token(settings: Settings) -> None:
    async with caller(settings, EXPOSED) as client:
        for name in ("token", "access_token", "authorization"):
            assert (await client.get("/", params={name: TOKEN})).status_code == 401


async def test_a_token_that_the_server_made_opens_the_dashboard_by_its_address(settings: Settings) -> None:
    made = Access(TOKEN, made=Path("/home/me/.config/autoresearch/token"))
    async with caller(settings, made) as client:
        assert (await client.get("/")).status_code == 401
        assert (await client.get("/", params={"token": TOKEN})).status_code == 200
        for query in (f"token={TOKEN}x", "token=", f"token=x&token={TOKEN}", f"token={TOKEN}&token={TOKEN}", TOKEN):
            assert (await client.get(f"/?{query}")).status_code == 401
        for path in ("/api/list_runs", "/api/openapi.json", "/mcp", "/nowhere"):
            assert (await client.get(path, params={"token": TOKEN})).status_code == 401
            assert (await client.post(path, params={"token": TOKEN}, json={})).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/api/list_runs", headers=headers)).status_code == 200


async def test_without_a_token_who_is_not_known_to_be_the_user_is_refused(settings: Settings) -> None:
    async with Entrance(settings, trusted=True, shared=True) as entrance:
        app = build_app(entrance, Access(), Limits())
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:1") as client:
            for path in DOORS:
                answer = await client.get(path, headers={"authorization": f"Bearer {TOKEN}"})
                assert answer.status_code == (200 if path == "/healthz" else 403)
            for path in ("/mcp", "/api/setup_run"):
                answer = await client.post(path, json={})
                assert answer.status_code == 403
            assert "AUTORESEARCH_TOKEN_FILE" in answer.json()["todo"]


async def test_a_request_has_a_bound(settings: Settings) -> None:
    async with caller(settings) as client:
        for path in ("/api/history", "/mcp"):
            for content in (b'{"tag": "' + b"x" * 5_000_000 + b'"}', _in_pieces(5)):
                response = await client.post(path, content=content)
                assert response.status_code == 413
                assert response.json()["what"] == "The request body is larger than 4194304 bytes"


async def _in_pieces(count: int) -> AsyncIterator[bytes]:
    """A body whose length nobody told."""
    for _ in range(count):
        yield b" " * 1_000_000


async def test_who_asks_too_often_is_told_when_to_come_back(settings: Settings) -> None:
    limits = Limits(rate=Rate(per_second=0.1, burst=3), rate_of_strangers=Rate(per_second=0.1, burst=2))
    known, stranger = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer wrong"}
    async with caller(settings, EXPOSED, limits) as client:
        statuses = [(await client.get("/api/list_runs", headers=stranger)).status_code for _ in range(4)]
        assert statuses == [401, 401, 429, 429]
        statuses = [(await client.get("/api/list_runs", headers=known)).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429], "strangers at the same address use up nothing of the rate"
        answer = await client.post("/mcp", json={}, headers=known)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "10"
        assert answer.json()["todo"] == "Wait 10 s and ask less often"


async def test_what_a_foreign_page_sends_uses_up_nothing(settings: Settings) -> None:
    async with caller(settings, limits=Limits(rate=Rate(per_second=0.1, burst=1))) as client:
        for _ in range(5):
            assert (await client.get("/api/list_runs", headers={"origin": "http://evil.example"})).status_code == 403
        assert (await client.get("/api/list_runs")).status_code == 200


async def test_a_server_with_its_hands_full_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hesitate(self: object) -> None:
        begun.set()
        await go_on.wait()
        raise KeyError

    monkeypatch.setattr("mcp_server.interfaces.entrance.Entrance.lab", hesitate)
    async with caller(settings, limits=replace(Limits(), in_flight=1)) as client, asyncio.TaskGroup() as group:
        first = group.create_task(client.get("/api/list_runs"))
        await begun.wait()
        answer = await client.get("/healthz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["todo"] == "Try again in 5 s, with fewer connections"
        go_on.set()
        assert (await first).status_code == 500
        assert (await client.get("/healthz")).status_code == 200


def test_a_bucket_fills_again() -> None:
    now = 0.0
    buckets = Buckets(clock=lambda: now)
    rate = Rate(per_second=2, burst=2)
    assert [buckets.take("a", rate) for _ in range(3)] == [0, 0, 0.5]  # (1 - 0) / 2
    now = 0.25
    assert buckets.take("a", rate) == pytest.approx(0.25)  # (1 - 0.25 * 2) / 2
    now = 0.5
    assert buckets.take("a", rate) == 0
    now = 100
    assert [buckets.take("a", rate) for _ in range(3)] == [0, 0, 0.5], "never more than the burst"


def test_of_very_many_callers_the_last_are_remembered() -> None:
    buckets = Buckets(clock=lambda: 0.0)
    for number in range(3 * Buckets.REMEMBERED):
        assert buckets.take(number, Rate(1, 1)) == 0
    assert buckets.take(3 * Buckets.REMEMBERED - 1, Rate(1, 1)) == 1
    assert len(buckets._levels) == Buckets.REMEMBERED


async def test_browsers_are_told_to_keep_it_to_themselves(settings: Settings) -> None:
    async with caller(settings) as client:
        for path in DOORS:
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert "server" not in headers
            assert "access-control-allow-origin" not in headers


def test_the_log_holds_no_token_and_no_forged_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(logging.Logger, "root", root)
    log_to_stderr(TOKEN)
    try:
        raise ValueError(f"Authorization: Bearer {TOKEN}")
    except ValueError:
        root.exception("a caller sent %s\x1b[2J\rautoresearch: all is well", TOKEN)
    said = capsys.readouterr().err
    assert "Authorization: Bearer ***" in said
    assert "a caller sent ***?[2J?autoresearch" in said
    assert TOKEN not in said
    assert not any(char in said for char in "\x1b\r")
    assert sys.stderr
