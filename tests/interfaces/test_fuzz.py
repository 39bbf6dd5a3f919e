"""Whatever anybody sends: an answer that fits its schema or a refusal one can read, and a record that stays whole."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from subprocess import PIPE
from typing import Any, get_type_hints

import httpx2
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzzing
from hypothesis import strategies as st
from pydantic import TypeAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mcp_server.errors import ResearchError
from mcp_server.interfaces.answers import plain
from mcp_server.interfaces.arguments import arguments_model
from mcp_server.interfaces.entrance import Entrance, InternalError
from mcp_server.interfaces.openapi import document
from mcp_server.operations import OPERATIONS, Operation
from mcp_server.settings import Settings
from tests.interfaces.test_serving import SERVE, serving
from tests.lab.researcher import GOAL, researching
from tests.project import Project

LENIENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
GREETING = [
    {
        "jsonrpc": "2.0",
        "id": "first",
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": "last", "method": "tools/list"},
]
"""How a client begins, and its first question."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=12), each, max_size=4),
    max_leaves=8,
)
FAMILIAR = st.sampled_from(
    [
        *("mar8", "mar8-1", "mar8-2", "mar8-99", "apr1", "HEAD", "main", "refs/heads/main", "other", "hyperparams"),
        *("val_loss", "minimize", "maximize", "greedy", "noise_aware", "exploit", "train.py", "results.tsv", "*.py"),
        *(0, 1, 2, -1, 0.5, 1e300, True, None, [], {}, ["mar8-1", "mar8-2"], {"LR": 0.2}, {"DEPTH": 2}),
        *({"val_loss": 1.5}, {"val_loss": "NaN"}, "LR = 0.3", "it helps"),
    ]
)
"""Values that mean something to some operation, so that calls come further than the first check."""


def arguments(operation: Operation) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of an operation, those it needs among them, most with a value that means something somewhere."""
    values = FAMILIAR | FAMILIAR | JSON
    fields = arguments_model(operation).model_fields
    needed = {name: values for name, field in fields.items() if field.is_required()}
    return st.fixed_dictionaries(needed, optional={name: values for name in fields if name not in needed})


@contextmanager
def asking(settings: Settings) -> Iterator[tuple[Entrance, BlockingPortal]]:
    """A run with a keep, a discard and one that waits, and how to call the server from a test that is not async."""

    async def research() -> None:
        async with researching(settings) as agent:
            await agent.attempt("a higher rate learns faster", knobs={"LR": 0.3})
            await agent.attempt("deeper is better", knobs={"DEPTH": 8})
            await agent.propose("shallower is faster", knobs={"DEPTH": 2})

    with start_blocking_portal() as portal:
        portal.call(research)
        with portal.wrap_async_context_manager(Entrance(settings)) as entrance:
            yield entrance, portal


class Refused(Exception):  # noqa: N818 - no fault
    """A refusal as it should be."""


async def answer_of(entrance: Entrance, operation: Operation, given: dict[str, Any]) -> Any:
    """What a call answers; raises Refused where that is a sentence that one can read, and whatever else it raises."""
    try:
        return await entrance.call(operation, given)
    except InternalError:
        raise
    except ResearchError as error:
        assert 0 < len(str(error)) < 2 * 2000  # noqa: PT017 - it may be raised and need not be
        raise Refused from None


def state_of(project: Project) -> str:
    """The user's branch, index and committed files."""
    return project.git("rev-parse", "HEAD") + project.git("status", "--porcelain", "--branch", "--untracked-files=no")


def whole(project: Project, state: str) -> None:
    """The record is whole, and the user's own files, branch and index are as they were."""
    with closing(sqlite3.connect(project.root / ".autoresearch" / "research.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert state_of(project) == state


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_any_arguments(project: Project, settings: Settings, operation: Operation) -> None:
    model = TypeAdapter(get_type_hints(operation.method)["return"])
    state = state_of(project)
    with asking(settings) as (entrance, portal):

        @fuzzing(max_examples=60, deadline=None, suppress_health_check=LENIENT)
        @given(arguments(operation))
        def check(given: dict[str, Any]) -> None:
            if "wait_seconds" in given:
                given["wait_seconds"] = 0.1
            with suppress(Refused):
                answer = portal.call(answer_of, entrance, operation, given)
                model.dump_json(answer)
                json.dumps(plain(answer), allow_nan=False)

        check()
    whole(project, state)


SCHEMA = schemathesis.openapi.from_dict(document(secured=False))
ROUTES = [result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)]


@pytest.mark.parametrize("route", ROUTES, ids=lambda each: each.label)
def test_any_request(served: str, route: Any) -> None:
    """Each route answers what its description promises, to requests that fit it and to those that do not."""

    @fuzzing(max_examples=15, deadline=None, suppress_health_check=LENIENT)
    @given(st.one_of(*(route.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)))
    def check(case: Any) -> None:
        if isinstance(case.body, dict) and "wait_seconds" in case.body:
            case.body["wait_seconds"] = 0.1
        answer = case.call(base_url=served)
        case.validate_response(answer, checks=CHECKS)

    check()


NO_JSON = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"0",
    b'"text"',
    b"{",
    b"}",
    b"nonsense",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"method":""}',
    b'{"jsonrpc":"2.0","id":1,"method":7}',
    b'{"jsonrpc":"2.0","id":1,"method":"no/such"}',
    b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"summary","arguments":"x"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":null}}',
    b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"9999-99-99"}}',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping","method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"summary","arguments":{"tag":"\\ud800"}}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]',
]
"""Messages that are not quite JSON-RPC."""


def test_malformed_messages_on_stdio(project: Project) -> None:
    """Each is answered or passed over; what comes after them is answered, and stdout has nothing but the protocol."""
    words = [*SERVE, "--repo", str(project.root)]
    sent = b"\n".join([*NO_JSON, *(json.dumps(each).encode() for each in GREETING), b""])
    with subprocess.Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE) as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write(sent)
        server.stdin.flush()
        answers = []
        for line in server.stdout:
            answers.append(json.loads(line))
            assert answers[-1]["jsonrpc"] == "2.0"
            if answers[-1].get("id") == "last":
                break
        server.stdin.close()
        assert server.wait(timeout=30) == 0
    assert "tools" in answers[-1]["result"]


@pytest.mark.parametrize("body", NO_JSON, ids=[repr(body[:60]) for body in NO_JSON])
def test_malformed_messages_over_http(served: str, body: bytes) -> None:
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    answer = httpx2.post(f"{served}/mcp", content=body, headers=headers, timeout=30)
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert httpx2.post(f"{served}/api/list_runs", json={}, timeout=30).is_success


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose repository has a run; after all the tests its record is whole."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_LOCKS", str(folder / "locks"))
        patch.setenv("AUTORESEARCH_CACHE", str(folder / "cache"))
        project = Project.make(folder / "project")
        with serving(project) as (process, address):
            assert httpx2.post(f"{address}/api/setup_run", json={**GOAL, "tag": "mar8"}, timeout=60).is_success
            state = state_of(project)
            yield address
            assert process.poll() is None
        whole(project, state)
