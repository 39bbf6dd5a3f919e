"""The MCP door in process, in both protocol eras."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, MCPError
from mcp_types import PromptReference, TextContent, TextResourceContents

from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.mcp_tools import build_server
from mcp_server.operations import OPERATIONS
from mcp_server.settings import Settings
from tests.interfaces.agents import MODES, refused, research, try_out, use
from tests.lab.researcher import GOAL
from tests.project import Project

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("mode", MODES)]
Mode = Literal["auto", "legacy"]


@asynccontextmanager
async def connected(settings: Settings, mode: Mode, trusted: bool = True) -> AsyncIterator[Client]:
    """A client of a server over these settings."""
    async with Entrance(settings, trusted) as entrance, Client(build_server(entrance), mode=mode) as client:
        yield client


async def read(client: Client, uri: str) -> str:
    """The text of a resource."""
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def opening(client: Client, **arguments: str) -> str:
    """The message that the prompt makes."""
    (message,) = (await client.get_prompt("research", arguments)).messages
    assert isinstance(message.content, TextContent)
    return message.content.text


async def test_the_whole_loop(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        await research(client, "mar8")
        assert "LR = 0.3" in await read(client, "autoresearch://runs/mar8/best")
        assert "+DEPTH = 8" in await read(client, "autoresearch://experiments/mar8-3/diff")
        assert "val_loss: " in await read(client, "autoresearch://experiments/mar8-3/log")


async def test_every_operation_is_a_tool(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == [operation.name for operation in OPERATIONS]
        for tool in tools.values():
            assert tool.description
            assert tool.output_schema is not None
            assert "next_action" in tool.output_schema["required"]
            assert tool.annotations is not None
            assert tool.annotations.destructive_hint is False
            assert tool.annotations.open_world_hint is False
        assert tools["summary"].annotations.read_only_hint  # type: ignore[union-attr]
        assert not tools["train"].annotations.read_only_hint  # type: ignore[union-attr]
        assert tools["train"].annotations.idempotent_hint  # type: ignore[union-attr]
        assert not tools["setup_run"].annotations.idempotent_hint  # type: ignore[union-attr]


async def test_instructions_teach_the_loop(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        assert client.instructions is not None
        steps = client.instructions[client.instructions.index("1.") :]
        places = [steps.index(name) for name in ("setup_run", "register", "train", "complete", "suggest")]
        assert places == sorted(places)
        assert len(client.instructions) < 1500


async def test_a_training_reports_progress(settings: Settings, project: Project, mode: Mode) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with connected(settings, mode) as client:
        await use(client, "setup_run", tag="mar8", **GOAL)
        made = await use(client, "register", tag="mar8", hypothesis="the baseline", category="other")
        arguments = {"experiment_id": made["experiment_id"], "wait_seconds": 60}
        result = await client.call_tool("train", arguments, progress_callback=listen)
        assert not result.is_error
    assert told
    assert [each[0] for each in told] == sorted(each[0] for each in told)
    assert all(message for *_, message in told)


async def test_numbers_that_no_float_holds_are_null(settings: Settings, mode: Mode) -> None:
    def printing(text: str) -> dict[str, str]:
        return {"train.py": f"print({text!r})\n"}

    async with connected(settings, mode) as client:
        await use(client, "setup_run", tag="mar8", **GOAL)
        assert await try_out(client, "mar8", "the baseline") == "keep"
        assert await try_out(client, "mar8", "low", files=printing("val_loss: -1e308")) == "keep"
        assert await try_out(client, "mar8", "high", files=printing("val_loss: 1e308")) == "discard"
        deltas = (await use(client, "diff", experiment_a="mar8-2", experiment_b="mar8-3"))["metric_deltas"]
        assert deltas == {"val_loss": None}
        for tool in ("summary", "suggest", "near_misses", "best"):
            await use(client, tool)
        made = await use(
            client, "register", tag="mar8", hypothesis="none", category="other", files=printing("val_loss: nan")
        )
        trained = await use(client, "train", experiment_id=made["experiment_id"], wait_seconds=60)
        assert (trained["status"], trained["metrics"]) == ("crash", {"val_loss": "nan"})


async def test_a_wrong_argument_is_told(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        assert "Use 'tag' instead" in await refused(client, "history", tags="mar8")


async def test_an_unknown_tool_names_the_closest(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        assert await refused(client, "histry") == "There is no tool 'histry'. Use history."


async def test_an_unknown_id_says_what_to_do(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        assert "mar8-77" in await refused(client, "train", experiment_id="mar8-77")


async def test_a_surprise_is_logged_and_told_without_its_text(
    settings: Settings, mode: Mode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(entrance: Entrance) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Entrance, "lab", fail)
    async with connected(settings, mode) as client:
        with caplog.at_level(logging.ERROR):
            said = await refused(client, "list_runs")
    assert said.startswith("list_runs failed inside the server with ZeroDivisionError. Call it again")
    assert "a secret" not in said
    assert "a secret" in caplog.text


async def test_without_a_repository_every_tool_says_so_until_there_is_one(tmp_path: Path, mode: Mode) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    async with connected(Settings.load(folder, "cpu:1"), mode) as client:
        for operation in OPERATIONS:
            given: dict[str, Any] = {
                "register": {"tag": "a", "hypothesis": "b", "category": "other"},
                "diff": {"experiment_a": "a-1", "experiment_b": "a-2"},
                "import": {"path": "results.tsv"},
                "set_strategy": {"tag": "a", "mode": "auto"},
            }.get(operation.name, {})
            if operation.name in ("train", "complete", "crash", "logs", "stop"):
                given = {"experiment_id": "a-1"}
            assert "is not in a git repository" in await refused(client, operation.name, **given)
        assert "is not in a git repository" in await opening(client, tag="mar8")
        with pytest.raises(MCPError, match="is not in a git repository"):
            await read(client, "autoresearch://program")
        Project(folder).git("init", "--quiet")
        Project(folder).commit("Start", {"train.py": "print('loss: 1')"})
        assert (await use(client, "list_runs"))["runs"] == []


async def test_untrusted_callers_choose_no_commands(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode, trusted=False) as client:
        for name in ("command", "train_script", "task"):
            said = await refused(client, "setup_run", tag="mar8", **GOAL, **{name: "rm"})
            assert said == (
                f"{name} cannot be set over HTTP (given 'rm'). Leave it out, or start the server with --allow-commands."
            )
        assert (await use(client, "setup_run", tag="mar8", preview=True, **GOAL))["tag"] == "mar8"


async def test_resources(settings: Settings, project: Project, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        listed = {each.uri for each in (await client.list_resources()).resources}
        listed |= {each.uri_template for each in (await client.list_resource_templates()).resource_templates}
        assert listed == {
            "autoresearch://program",
            "autoresearch://runs/{tag}/best",
            "autoresearch://experiments/{experiment_id}/diff",
            "autoresearch://experiments/{experiment_id}/log",
        }
        project.write({"program.md": "# Mine\n"})
        assert await read(client, "autoresearch://program") == "# Mine\n"


async def test_unknown_resources_have_the_code_of_the_era(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        for uri in (
            "autoresearch://nothing",
            "autoresearch://runs/none/best",
            "autoresearch://experiments/none-1/diff",
            "autoresearch://experiments/none-1/log",
        ):
            with pytest.raises(MCPError) as failure:
                await client.read_resource(uri)
            assert failure.value.error.code == (-32602 if mode == "auto" else -32002)
            assert failure.value.error.data == {"uri": uri}


async def test_the_prompt_begins_and_continues_a_run(settings: Settings, mode: Mode) -> None:
    async with connected(settings, mode) as client:
        begun = await opening(client, tag="mar8", goal="beat 1.0")
        assert begun.startswith("Begin a research run: call setup_run with tag='mar8'")
        assert "Goal: beat 1.0" in begun
        await use(client, "setup_run", tag="mar8", **GOAL)
        await try_out(client, "mar8", "the baseline")
        assert "resume=true" in await opening(client, tag="mar8")
        assert "a tag of your choice" in await opening(client)
        with pytest.raises(MCPError, match="There is no prompt 'serch'"):
            await client.get_prompt("serch")


async def test_tags_are_completed(settings: Settings, mode: Mode) -> None:
    reference = PromptReference(type="ref/prompt", name="research")
    async with connected(settings, mode) as client:
        for tag in ("mar8", "mar9", "apr1"):
            await use(client, "setup_run", tag=tag, **GOAL)
        answer = await client.complete(reference, {"name": "tag", "value": "mar"})
        assert sorted(answer.completion.values) == ["mar8", "mar9"]
        assert not (await client.complete(reference, {"name": "goal", "value": ""})).completion.values
