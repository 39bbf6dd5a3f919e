"""Asking the user, through the client, what only the user can decide (MCP elicitation), in both protocol eras.

An older client is asked while the call waits; to a newer one the call answers that input is required, and the client
calls again with it. What was answered in earlier rounds travels in the call's state: it is nothing but arguments.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    ClientCapabilities,
    ElicitationCapability,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)

from mcp_server.errors import Undecided
from mcp_server.interfaces.arguments import input_schema
from mcp_server.operations import Operation

KEY = "decisions"
ASKED_AT_ONCE = "2026-07-28"
"""The first protocol revision in which a call answers that input is required; revisions sort by date."""

MOST_ROUNDS = 4
TYPES = ("string", "number", "integer", "boolean")

Call = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def call_and_ask(
    context: ServerRequestContext, params: CallToolRequestParams, operation: Operation, call: Call
) -> Any:
    """What `call` answers to the arguments and what the user adds to them; or that input is required.

    Raises:
        ResearchError: what `call` raises; Undecided where the client cannot ask, or the user does not answer.
    """
    given = {**(params.arguments or {}), **_state(params)}
    given, declined = _with_answer(given, (params.input_responses or {}).get(KEY))
    for _ in range(MOST_ROUNDS):
        try:
            return await call(given)
        except Undecided as undecided:
            can = context.session.check_client_capability(ClientCapabilities(elicitation=ElicitationCapability()))
            if not can or declined:
                raise
            form = _form(operation, undecided)
            if context.protocol_version >= ASKED_AT_ONCE:
                added = {name: value for name, value in given.items() if name not in (params.arguments or {})}
                return InputRequiredResult(
                    input_requests={KEY: ElicitRequest(params=form)}, request_state=json.dumps(added)
                )
            try:
                answer = await context.session.elicit_form(form.message, form.requested_schema, context.request_id)
            except MCPError:
                raise undecided from None
            given, declined = _with_answer(given, answer)
    return await call(given)


def _state(params: CallToolRequestParams) -> dict[str, Any]:
    """What was answered in earlier rounds; nothing where the state is not one of ours."""
    try:
        state = json.loads(params.request_state or "{}")
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _with_answer(given: Mapping[str, Any], answer: Any) -> tuple[dict[str, Any], bool]:
    """The arguments with what the user answered, and whether an answer was refused."""
    if not isinstance(answer, ElicitResult):
        return dict(given), False
    content = answer.content if answer.action == "accept" and answer.content else {}
    return {**given, **content}, not content


def _form(operation: Operation, undecided: Undecided) -> ElicitRequestFormParams:
    """The questions as a form, a field for each argument that takes an answer."""
    known = input_schema(operation)["properties"]
    fields = {}
    for name, question in undecided.questions.items():
        about = known.get(name, {})
        kind = about.get("type") if about.get("type") in TYPES else "string"
        fields[name] = {"type": kind, "title": name, "description": f"{question[:1].upper()}{question[1:]}?"}
        fields[name] |= {"enum": about["enum"]} if "enum" in about else {}
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return ElicitRequestFormParams(message=f"{undecided.what}.", requested_schema=schema)
