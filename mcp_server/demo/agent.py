"""The scripted agent: it follows what the server suggests, and has ideas of its own now and then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp import Client

from mcp_server.demo.board import Board
from mcp_server.demo.ideas import Idea
from mcp_server.night.follower import Follower

TAG = "demo"
SCRIPT = "train.py"
METRIC = "val_bpb"
POLL_SECONDS = 1.0
"""How long one call of `train` waits: its answers feed the display."""

OWN_EVERY = 3
"""An own idea after so many trainings; the rest follow what is suggested."""


class Agent:
    """Researches one script.

    Attributes:
        follower: takes the experiments round the loop.
    """

    def __init__(self, client: Client, board: Board) -> None:
        self.follower = Follower(client, TAG, board, POLL_SECONDS)
        self._board = board
        self._workspace = Path()

    async def research(self, ideas: Sequence[Idea], trainings: int, seconds: float) -> None:
        """Set a run up and use so many trainings: for what the server suggests, and now and then for an own idea."""
        follower = self.follower
        self._board.say("setting up")
        run = await follower.ask(
            "setup_run",
            tag=TAG,
            agent="scripted",
            metric=METRIC,
            direction="minimize",
            train_script=SCRIPT,
            time_budget_seconds=seconds,
            readonly=["prepare.py"],
        )
        self._workspace = Path(run["workspace"])
        await follower.experiment("other", "The script as it is: the baseline", {})
        own = list(ideas)
        while follower.trainings < trainings:
            suggested = await follower.ask("suggest", tag=TAG)
            if suggested["pending_confirmations"] or not own or follower.trainings % OWN_EVERY:
                if not await follower.follow(suggested["proposals"]):
                    break
            else:
                idea = own.pop(0)
                await follower.experiment(idea.category, idea.hypothesis, self._changed(idea), idea.lesson)
        self._board.say("")

    def _changed(self, idea: Idea) -> dict[str, Any]:
        """The arguments of `register` that carry the change; what is made in the workspace needs none."""
        if idea.source == "edits":
            return {"edits": [{"path": SCRIPT, "old": old, "new": new} for old, new in idea.replacements]}
        script = self._workspace / SCRIPT
        script.write_text(idea.applied(script.read_text()))
        return {}

    async def leave(self) -> None:
        """End what still trains, and wait until it has ended."""
        if self.follower.open:
            self._board.say("stopping the training")
        await self.follower.leave()
