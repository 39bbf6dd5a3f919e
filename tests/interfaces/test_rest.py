"""The REST routes and the dashboard."""

import re
from pathlib import Path
from typing import Any

import pytest

from mcp_server.interfaces.entrance import Entrance
from mcp_server.operations import OPERATIONS
from mcp_server.settings import Settings
from tests.interfaces.callers import caller
from tests.lab.researcher import GOAL

pytestmark = pytest.mark.anyio
BASELINE = {"tag": "mar8", "hypothesis": "the baseline", "category": "other"}


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
        ("nothing", b"{}", 404, "There is nothing at /api/nothing. Use /, /mcp, /healthz, /api/openapi.json or POST"),
    ],
)
async def test_refusals(settings: Settings, path: str, body: bytes, status: int, said: str) -> None:
    async with caller(settings) as client:
        response = await client.post(f"/api/{path}", content=body)
    assert response.status_code == status
    answer = response.json()
    assert set(answer) == {"error", "what", "todo"}
    assert answer["error"] == f"{answer['what']}. {answer['todo']}."
    assert answer["error"].startswith(said)


async def test_a_surprise_is_answered_without_its_text(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(entrance: Entrance) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Entrance, "lab", fail)
    async with caller(settings) as client:
        response = await client.post("/api/list_runs")
    assert response.status_code == 500
    assert response.json()["what"] == "list_runs failed inside the server with ZeroDivisionError"
    assert "a secret" not in response.text
    assert "Traceback" not in response.text


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
