"""What is nowhere to be found is asked of the user, where the client can ask; else the answer is the question."""

from typing import Any, Literal

import pytest
from mcp import Client
from mcp_types import ElicitRequestParams, ElicitResult

from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.mcp_tools import build_server
from mcp_server.settings import Settings
from tests.interfaces.agents import MODES, refused, use
from tests.project import Project

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("mode", MODES)]
Mode = Literal["auto", "legacy"]


class User:
    """Answers what the client shows, and remembers the forms."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.forms: list[dict[str, Any]] = []

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.forms.append(params.model_dump()["requested_schema"])
        return self.answers.pop(0)


def said(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


async def test_the_user_is_asked_for_what_is_nowhere(settings: Settings, mode: Mode) -> None:
    user = User(said(metric="val_loss", direction="minimize", time_budget_seconds=4))
    async with (
        Entrance(settings) as entrance,
        Client(build_server(entrance), mode=mode, elicitation_callback=user) as client,
    ):
        shown = await use(client, "setup_run", tag="mar8", preview=True)
    assert (shown["config"]["metric"], shown["config"]["time_budget_seconds"]) == ("val_loss", 4)
    [form] = user.forms
    assert form["properties"]["direction"]["enum"] == ["minimize", "maximize"]
    assert form["properties"]["time_budget_seconds"]["type"] == "number"
    assert form["properties"]["metric"]["description"].startswith("Which metric does the training print")


async def test_one_question_may_lead_to_another(project: Project, settings: Settings, mode: Mode) -> None:
    project.git("mv", "train.py", "main.py")
    project.git("commit", "--quiet", "--message", "Move")
    user = User(said(train_script="main.py"), said(time_budget_seconds=4.5))
    async with (
        Entrance(settings) as entrance,
        Client(build_server(entrance), mode=mode, elicitation_callback=user) as client,
    ):
        shown = await use(client, "setup_run", tag="mar8", preview=True, metric="val_loss")
    assert (shown["config"]["train_script"], shown["config"]["time_budget_seconds"]) == ("main.py", 4.5)
    assert [list(form["properties"]) for form in user.forms] == [["train_script"], ["time_budget_seconds"]]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_who_does_not_answer_gets_the_question(
    settings: Settings, mode: Mode, action: Literal["decline", "cancel"]
) -> None:
    async with (
        Entrance(settings) as entrance,
        Client(build_server(entrance), mode=mode, elicitation_callback=User(ElicitResult(action=action))) as client,
    ):
        assert "Ask the user: which metric" in await refused(client, "setup_run", tag="mar8")


async def test_a_client_that_cannot_ask_gets_the_question(settings: Settings, mode: Mode) -> None:
    async with Entrance(settings) as entrance, Client(build_server(entrance), mode=mode) as client:
        assert "Ask the user: which metric" in await refused(client, "setup_run", tag="mar8")
