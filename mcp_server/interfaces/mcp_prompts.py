"""The MCP prompt that begins or continues a run, with the tags of existing runs to choose from."""

from typing import Any

from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from mcp_server.errors import ResearchError
from mcp_server.interfaces.entrance import Entrance, boundary

RESEARCH = Prompt(
    name="research",
    title="Research",
    description="Begin or continue a run of experiments, and go on until told to stop",
    arguments=[
        PromptArgument(name="tag", description="Name of the run; an existing one is continued", required=False),
        PromptArgument(name="goal", description="What to find or improve, in your words", required=False),
    ],
)


def handlers(entrance: Entrance) -> dict[str, Any]:
    """The prompt and completion handlers of the server, by the names of its constructor's arguments."""

    async def get(context: ServerRequestContext, params: GetPromptRequestParams) -> GetPromptResult:
        if params.name != RESEARCH.name:
            raise MCPError(INVALID_PARAMS, f"There is no prompt {params.name!r}. Use {RESEARCH.name!r}.")
        given = params.arguments or {}
        text = await opening(entrance, given.get("tag", "").strip(), given.get("goal", "").strip())
        message = PromptMessage(role="user", content=TextContent(type="text", text=text))
        return GetPromptResult(description=RESEARCH.description, messages=[message])

    async def complete(context: ServerRequestContext, params: CompleteRequestParams) -> CompleteResult:
        tags = await _tags(entrance, params.argument.value) if params.argument.name == "tag" else []
        return CompleteResult(completion=Completion(values=tags[:100], total=len(tags), has_more=len(tags) > 100))

    return {"on_list_prompts": _list_prompts, "on_get_prompt": get, "on_completion": complete}


async def _list_prompts(context: ServerRequestContext, params: PaginatedRequestParams | None) -> ListPromptsResult:
    return ListPromptsResult(prompts=[RESEARCH])


async def opening(entrance: Entrance, tag: str, goal: str) -> str:
    """The text of the prompt `research`: what to begin with, the goal if there is one, then program.md."""
    known = tag in await _tags(entrance, tag) if tag else False
    argument = f"tag={tag!r}" if tag else "a tag of your choice"
    if known:
        opening = f"Continue the research run {tag!r}: call setup_run with {argument} and resume=true"
    else:
        opening = f"Begin a research run: call setup_run with {argument}"
    parts = [f"{opening}, do what next_action says, and go on experimenting until I stop you."]
    if goal:
        parts.append(f"Goal: {goal}")
    try:
        with boundary("reading program.md"):
            parts.append(await (await entrance.lab()).reading.program())
    except ResearchError as error:
        parts.append(str(error))
    return "\n\n".join(parts)


async def _tags(entrance: Entrance, prefix: str) -> list[str]:
    """The tags of existing runs that begin with `prefix`; none while there is no repository."""
    try:
        with boundary("completing a tag"):
            return await (await entrance.lab()).reading.tags(prefix)
    except ResearchError:
        return []
