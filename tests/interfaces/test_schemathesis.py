"""What the OpenAPI document promises of the tracker's routes, of a run, experiments and a device that there are.

`test_fuzz` asks every route whatever schemathesis thinks of; few of the names that it makes up lead to an answer.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from mcp_server.interfaces.limits import Limits, Rate
from mcp_server.interfaces.openapi import document
from mcp_server.interfaces.peer_rest import TRAILS
from mcp_server.settings import Settings
from tests.interfaces.callers import caller
from tests.interfaces.trackers import Agent

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
KNOWN: dict[str, Any] = {
    "tag": "mar11",
    "experiment_id": "mar11-2",
    "experiment_a": "mar11-1",
    "experiment_b": "mar11-2",
    "gpu_id": "gpu-0",
    "parent_id": "mar11-1",
}
"""What there is."""

DOCUMENT = document(secured=False)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
PATHS = [f"/api/{trail.path}" for trail in TRAILS]
UNBOUNDED = Limits(rate=Rate(1e9, 1e9))


class Server:
    """The app on a loop of its own, so that one server answers every example of a test."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._open = caller(settings, limits=UNBOUNDED)

    def ask(self, **request: Any) -> Any:
        return self._runner.run(self.client.request(**request))

    @contextmanager
    def serving(self) -> Iterator["Server"]:
        with self._runner:
            self.client = self._runner.run(self._open.__aenter__())
            try:
                self._runner.run(self._populate())
                yield self
            finally:
                self._runner.run(self._open.__aexit__(None, None, None))

    async def _populate(self) -> None:
        agent = Agent(self.client)
        await agent.begin()
        await agent.attempt(0.99)
        await agent.register()
        await agent.enlist()


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with Server(settings).serving() as server:
        yield server


@pytest.mark.parametrize("path", PATHS)
def test_answers_are_as_described(server: Server, path: str) -> None:
    for method in DOCUMENT["paths"][path]:
        strategy = SCHEMA[path][method.upper()].as_strategy()

        @given(strategy)
        @effort(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def ask(case: schemathesis.Case[Any]) -> None:
            for part in (case.body, case.query, case.path_parameters):
                if isinstance(part, dict):
                    part.update({name: value for name, value in KNOWN.items() if name in part})
            request = case.as_transport_kwargs(base_url="http://127.0.0.1:8765")
            request.pop("cookies", None)
            case.validate_response(server.ask(**request), checks=CHECKS)

        ask()
