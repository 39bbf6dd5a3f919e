"""The REST routes, the dashboard, and the guard in front of them."""

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_server.errors import NotReady
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.guard import read_token
from mcp_server.interfaces.http import build_app
from mcp_server.operations import OPERATIONS
from mcp_server.settings import Settings
from tests.lab.researcher import GOAL

pytestmark = pytest.mark.anyio
BASELINE = {"tag": "mar8", "hypothesis": "the baseline", "category": "other"}


@asynccontextmanager
async def caller(settings: Settings, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the app, by default as a browser or script on this machine would call it."""
    async with Entrance(settings, trusted=False, shared=True) as entrance:
        transport = httpx2.ASGITransport(build_app(entrance, **options))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as client:
            yield client


async def test_the_whole_loop(settings: Settings) -> None:
    async with caller(settings) as client:

        async def post(operation: str, **arguments: Any) -> dict[str, Any]:
            response = await client.post(f"/api/{operation}", json=arguments, timeout=60)
            assert response.status_code == 200, response.text
            answer = response.json()
            assert isinstance(answer, dict)
            return answer

        await post("setup_run", tag="mar8", **GOAL)
        experiment_id = (await post("register", **BASELINE))["experiment_id"]
        assert (await post("train", experiment_id=experiment_id, wait_seconds=50))["status"] == "trained"
        assert (await post("complete", experiment_id=experiment_id))["status"] == "keep"
        for operation in ("suggest", "history", "near_misses", "summary", "best", "export", "list_runs", "devices"):
            assert (await post(operation))["next_action"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("history", b"nonsense", 400, "The request body is not JSON: expected ident at line 1 column 2."),
        ("history", b'{"tag": "\\ud800"}', 400, "The request body is not JSON: "),
        ("history", b'{"limit": NaN}', 400, "The request body is not JSON: "),
        ("history", b"[" * 100_000, 400, "The request body is not JSON: "),
        ("history", b"[]", 400, "The request body is a JSON list. Send a JSON object of arguments."),
        ("history", b'{"tags": "a"}', 400, "history has no argument 'tags' (given 'a'). Use 'tag' instead."),
        ("setup_run", b'{"command": "rm"}', 400, "command cannot be set over HTTP"),
        ("history", b'{"tag": "none"}', 404, ""),
        ("train", b'{"experiment_id": "none-1"}', 404, ""),
        ("nothing", b"{}", 404, "There is nothing at /api/nothing. Use /, /mcp, /healthz or POST /api/ with one of"),
    ],
)
async def test_refusals(settings: Settings, path: str, body: bytes, status: int, said: str) -> None:
    async with caller(settings) as client:
        response = await client.post(f"/api/{path}", content=body)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert response.json()["error"].startswith(said)


async def test_states_and_missing_repositories_have_their_codes(settings: Settings, tmp_path: Path) -> None:
    async with caller(settings) as client:
        await client.post("/api/setup_run", json={"tag": "mar8", **GOAL})
        await client.post("/api/register", json=BASELINE)
        assert (await client.post("/api/complete", json={"experiment_id": "mar8-1"})).status_code == 409
    (tmp_path / "empty").mkdir()
    async with caller(Settings.load(tmp_path / "empty")) as client:
        response = await client.post("/api/list_runs")
        assert response.status_code == 503
        assert "is not in a git repository" in response.json()["error"]
        assert (await client.get("/healthz")).json()["status"] == "ok"


async def test_an_empty_body_and_any_content_type_will_do(settings: Settings) -> None:
    async with caller(settings) as client:
        assert (await client.post("/api/list_runs")).json()["runs"] == []
        assert (await client.post("/api/list_runs", content=b" \n", headers={"content-type": "text/plain"})).is_success


async def test_reading_answers_get_and_nothing_else_does(settings: Settings) -> None:
    async with caller(settings) as client:
        await client.post("/api/setup_run", json={"tag": "mar8", **GOAL})
        assert (await client.get("/api/history", params={"tag": "mar8", "limit": "1"})).json()["total"] == 0
        for operation in OPERATIONS:
            if not operation.reads:
                response = await client.get(f"/api/{operation.name}")
                assert response.status_code == 405
                assert response.json()["error"] == f"/api/{operation.name} does not answer GET. Use POST."


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8765"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, 200),
        ({"origin": "http://localhost:8765"}, 200),
        ({"host": "evil.example:8765"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "localhost:http"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example:8765"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_only_this_machine_is_answered(settings: Settings, headers: dict[str, str], status: int) -> None:
    async with caller(settings) as client:
        for path in ("/", "/healthz", "/api/list_runs"):
            assert (await client.get(path, headers=headers)).status_code == status
        if status != 200:
            assert (await client.post("/mcp", json={}, headers=headers)).status_code == status


async def test_a_request_has_a_bound(settings: Settings) -> None:
    async with caller(settings) as client:
        for path in ("/api/history", "/mcp"):
            for content in (b'{"tag": "' + b"x" * 5_000_000 + b'"}', _in_pieces(5)):
                response = await client.post(path, content=content)
                assert response.status_code == 413
                assert response.json()["error"].startswith("The request body is larger than 4194304 bytes.")


async def _in_pieces(count: int) -> AsyncIterator[bytes]:
    """A body whose length nobody told."""
    for _ in range(count):
        yield b" " * 1_000_000


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Basic ???", 401),
        (basic("wrong"), 401),
        (basic("s3cret"), 200),
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
    ],
)
async def test_a_token_opens_every_door(settings: Settings, given: str | None, status: int) -> None:
    headers = {"host": "gpu-box:8765", **({"authorization": given} if given else {})}
    async with caller(settings, host="0.0.0.0", token="s3cret") as client:
        for path in ("/", "/api/list_runs"):
            response = await client.get(path, headers=headers)
            assert response.status_code == status
            assert ("www-authenticate" in response.headers) == (status == 401)
        assert (await client.get("/healthz", headers=headers)).status_code == 200
        if status == 401:
            assert (await client.post("/mcp", json={}, headers=headers)).status_code == 401
        foreign = {**headers, "origin": "http://evil.example"}
        assert (await client.get("/", headers=foreign)).status_code == 403


def test_where_the_token_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from-file\n")
    assert read_token({}) is None
    assert read_token({"AUTORESEARCH_TOKEN": "here"}) == "here"
    assert read_token({"AUTORESEARCH_TOKEN": "here", "AUTORESEARCH_TOKEN_FILE": str(path)}) == "from-file"
    path.write_text("\n")
    with pytest.raises(NotReady, match="is empty"):
        read_token({"AUTORESEARCH_TOKEN_FILE": str(path)})
    with pytest.raises(NotReady, match="cannot be read"):
        read_token({"AUTORESEARCH_TOKEN_FILE": str(tmp_path / "none")})


async def test_the_dashboard_is_one_page_that_runs_only_its_own_script(settings: Settings) -> None:
    async with caller(settings) as client:
        page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    (nonce,) = set(re.findall(r"nonce=\"([^\"]+)\"", page.text))
    assert f"script-src 'nonce-{nonce}'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page.text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page.text)
    known = {operation.name for operation in OPERATIONS}
    asked = set(re.findall(r"call\(\"(\w+)\"", page.text))
    assert asked
    assert asked <= known
