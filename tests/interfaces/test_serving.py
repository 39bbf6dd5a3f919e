"""Real servers: over stdio and HTTP, in both protocol eras, from start to end."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from mcp import Client, StdioServerParameters

from mcp_server.interfaces.access import Access
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.serve import announcement
from mcp_server.settings import Settings
from tests.interfaces.agents import MODES, refused, research, use
from tests.interfaces.callers import listening
from tests.lab.researcher import GOAL
from tests.project import Project

SERVE = [sys.executable, "-m", "mcp_server", "serve", "--devices", "cpu:1"]
Mode = Literal["auto", "legacy"]


def surroundings() -> dict[str, str]:
    """The folders of this test, which the SDK's client would not hand on."""
    return {name: value for name, value in os.environ.items() if name.startswith("AUTORESEARCH_")}


def over_stdio(project: Project) -> StdioServerParameters:
    """How a client starts the server."""
    words = [*SERVE[1:], "--repo", str(project.root)]
    return StdioServerParameters(command=SERVE[0], args=words, env=surroundings())


@contextmanager
def serving(project: Project, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server over HTTP, and its address."""
    command = [*SERVE, "--repo", str(project.root), "--http", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            address = re.search(r"http://[^/]+", told)
            assert address, told + process.stderr.read()
            yield process, address[0]
        finally:
            process.kill()


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES)
async def test_the_whole_loop_over_stdio(project: Project, mode: Mode) -> None:
    async with Client(over_stdio(project), mode=mode) as client:
        await research(client, "mar8")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES)
async def test_the_whole_loop_over_http(project: Project, mode: Mode) -> None:
    with serving(project) as (_, address):
        async with Client(f"{address}/mcp", mode=mode) as client:
            await research(client, "mar8")
            assert "command cannot be set over HTTP" in await refused(client, "setup_run", command="true")


@pytest.mark.anyio
async def test_commands_may_be_allowed_over_http(project: Project) -> None:
    with serving(project, "--allow-commands") as (_, address):
        async with Client(f"{address}/mcp") as client:
            made = await use(client, "setup_run", tag="mar8", command="python train.py", **GOAL)
            assert made["config"]["command"] == "python train.py"


def test_the_end_of_stdin_ends_the_server(project: Project) -> None:
    done = subprocess.run([*SERVE, "--repo", str(project.root)], input="", capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


INITIALIZE = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", '
    '"capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}\n'
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_on_stdio_quietly(project: Project, number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*SERVE, "--repo", str(project.root)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        server.stdin.write(INITIALIZE)
        server.stdin.flush()
        assert '"result"' in server.stdout.readline()
        began = time.monotonic()
        server.send_signal(number)
        assert server.wait(timeout=10) == 0
        assert time.monotonic() - began < 3
        assert server.stdout.read() == ""
        assert server.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_on_http_quietly(project: Project, number: signal.Signals) -> None:
    with serving(project) as (server, address):
        assert httpx2.get(f"{address}/healthz").is_success
        session = httpx2.post(
            f"{address}/mcp",
            content=INITIALIZE,
            headers={"content-type": "application/json", "accept": "application/json, text/event-stream"},
        ).headers["mcp-session-id"]
        headers = {"accept": "text/event-stream", "mcp-session-id": session}
        with httpx2.stream("GET", f"{address}/mcp", headers=headers):  # a client that keeps listening
            began = time.monotonic()
            server.send_signal(number)
            assert server.wait(timeout=10) == 0
            assert time.monotonic() - began < 5
        assert server.stderr is not None
        assert server.stderr.read() == ""


def test_a_port_in_use_is_one_sentence(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*SERVE, "--repo", str(project.root), "--http", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr == (
        f"autoresearch: Cannot listen on 127.0.0.1 port {port}: Address already in use. "
        "Choose another with --host or --port.\n"
    )


def test_other_machines_need_a_token(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*SERVE, "--repo", str(project.root), "--http", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "can be reached from other machines, and no token is set" in done.stderr
    monkeypatch.setenv("AUTORESEARCH_TOKEN", "s3cret-s3cret-s3cret")
    with serving(project, "--host", "0.0.0.0") as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{local}/api/list_runs").status_code == 401
        assert httpx2.get(f"{local}/api/list_runs", headers={"authorization": "Bearer s3cret-s3cret-s3cret"}).is_success


@pytest.mark.anyio
async def test_where_no_kernel_tells_who_calls_the_token_that_was_made_opens(
    settings: Settings, tmp_path: Path
) -> None:
    access = Access.load("127.0.0.1", {"XDG_CONFIG_HOME": str(tmp_path)}, owners=lambda: False)
    async with listening(settings, Limits(), access) as server:
        url = f"http://127.0.0.1:{server.port}"
        found = re.search(r"dashboard (\S+),", announcement(url, access))
        assert found
        kept = {"Authorization": f"Bearer {(tmp_path / 'autoresearch/token').read_text().strip()}"}
        async with httpx2.AsyncClient(timeout=30) as client:
            assert (await client.get(found[1])).status_code == 200
            assert (await client.get(f"{url}/")).status_code == 401
            for path in ("/api/list_runs", "/api/openapi.json"):
                assert (await client.get(f"{url}{path}")).status_code == 401
                assert (await client.get(f"{url}{path}", headers=kept)).status_code == 200
            for path in ("/mcp", "/api/setup_run"):
                assert (await client.post(f"{url}{path}", json={})).status_code == 401
                assert (await client.post(f"{url}{path}", json={}, headers=kept)).status_code == 400
