"""An agent on the other side of the protocol: it works through the loop with the tools alone."""

import json
from typing import Any

from mcp import Client
from mcp_types import TextContent

from tests.lab.researcher import GOAL

MODES = ("auto", "legacy")
"""The two protocol eras, as the SDK's client names them."""


async def use(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed; the SDK checks its answer against the tool's output schema."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], TextContent)
    assert not result.is_error, result.content[0].text
    assert isinstance(result.structured_content, dict)
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that must refuse; what it says."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def research(client: Client, tag: str) -> None:
    """Measure the baseline, keep a better experiment, discard a worse one, and look at it all."""
    await use(client, "setup_run", tag=tag, **GOAL)
    assert await try_out(client, tag, "the baseline") == "keep"
    assert await try_out(client, tag, "a higher rate learns faster", knobs={"LR": 0.3}) == "keep"
    assert await try_out(client, tag, "deeper is better", knobs={"DEPTH": 8}) == "discard"
    for tool in ("suggest", "history", "near_misses", "summary", "best", "export"):
        assert (await use(client, tool, tag=tag))["next_action"]
    assert (await use(client, "diff", experiment_a=f"{tag}-1", experiment_b=f"{tag}-2"))["diff"]
    assert (await use(client, "logs", experiment_id=f"{tag}-3"))["total_lines"]
    assert (await use(client, "devices"))["devices"]
    assert [run["tag"] for run in (await use(client, "list_runs"))["runs"]] == [tag]


async def try_out(client: Client, tag: str, hypothesis: str, **source: Any) -> str:
    """Register, train and complete one experiment; the verdict."""
    made = await use(client, "register", tag=tag, hypothesis=hypothesis, category="hyperparams", **source)
    experiment_id = made["experiment_id"]
    trained = await use(client, "train", experiment_id=experiment_id, wait_seconds=60)
    assert trained["status"] == "trained", trained
    return str((await use(client, "complete", experiment_id=experiment_id))["status"])
