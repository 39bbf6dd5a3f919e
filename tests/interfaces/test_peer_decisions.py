"""The tracker's decisions side by side with the plainest model of them, on random histories."""

import asyncio
import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_server.settings import Settings
from tests.interfaces.callers import caller
from tests.interfaces.peer_model import CATEGORIES, Tracker
from tests.interfaces.trackers import Agent

VALUES = st.integers(0, 12).map(lambda step: 0.99 + step * 0.0005)
"""Few values, so that there are ties and near misses."""

STEPS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(CATEGORIES)),
    st.tuples(st.just("complete"), st.integers(0, 50), VALUES),
    st.tuples(st.just("attempt"), st.sampled_from(CATEGORIES[:3]), VALUES),
    st.tuples(st.just("crash"), st.integers(0, 50)),
    st.tuples(st.just("set"), st.sampled_from(["explore", "exploit", "combine", "ablation"])),
)
TAGS = (f"run{number}" for number in itertools.count())


class Both:
    """A run at the server, and the same run in the model."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.model = agent, Tracker()
        self.ids: list[str] = []
        self.open: list[int] = []

    async def take(self, step: tuple[Any, ...]) -> None:
        """Take a step in both; what they answer must agree."""
        match step:
            case "register", category:
                await self.register(category)
            case "attempt", category, value:
                await self.register(category)
                await self.complete(len(self.open) - 1, value)
            case "complete", which, value if self.open:
                await self.complete(which % len(self.open), value)
            case "crash", which if self.open:
                index = self.open.pop(which % len(self.open))
                answer = await self.agent.call("experiment/crash", experiment_id=self.ids[index], error="it broke")
                agree(answer, self.model.crash(index) | {"experiment_id": self.ids[index]})
            case "set", mode:
                await self.agent.call("search/set-strategy", tag=self.agent.tag, mode=mode, reason="I say so")
                self.model.set_strategy(mode, 0.7, 1.0)

    async def register(self, category: str) -> None:
        self.ids.append(await self.agent.register(category=category))
        self.model.register(category)
        self.open.append(len(self.ids) - 1)

    async def complete(self, which: int, value: float) -> None:
        index = self.open.pop(which)
        agree(await self.agent.complete(self.ids[index], value), self.model.complete(index, value))

    async def compare(self) -> None:
        """What is said of the whole run must agree."""
        tag = self.agent.tag
        agree(await self.agent.call("search/strategy", tag=tag), self.model.strategy())
        agree(await self.agent.call("search/suggest", tag=tag), self.model.suggest())
        summary = await self.agent.call("report/summary", tag=tag)
        agree(summary["stats"], self.model.stats())
        history = await self.agent.call("experiment/history", tag=tag)
        assert [(e["id"], e["category"], e["status"]) for e in history["experiments"]] == [
            (name, entry.category, entry.status) for name, entry in zip(self.ids, self.model.entries, strict=True)
        ]


def agree(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """All that is expected is answered; numbers to twelve digits, as they are sent."""
    for name, value in expected.items():
        assert rounded(answer[name]) == rounded(value), name


def rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@given(st.lists(STEPS, min_size=1, max_size=45))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_decision_is_the_trackers(settings: Settings, steps: list[tuple[Any, ...]]) -> None:
    async def live() -> None:
        async with caller(settings) as client:
            both = Both(Agent(client, next(TAGS)))
            await both.agent.begin()
            for step in steps:
                await both.take(step)
            await both.compare()

    asyncio.run(live())


def test_every_rule_of_the_strategy_is_reached(settings: Settings) -> None:
    """Each of these histories ends in another rule, so that none of them is left to chance."""
    worse = [("attempt", "optimizer", 0.999)] * 12
    near = [("attempt", "optimizer", 0.9905)] * 2
    histories: dict[str, list[tuple[Any, ...]]] = {
        "explore": [("attempt", "optimizer", 0.99), *worse[:6]],
        "exploit": [("attempt", "optimizer", 0.999 - step * 0.0005) for step in range(6)],
        "exploit, carefully": [("register", "other"), ("crash", 0)] * 6,
        "ablation": [("attempt", "optimizer", 0.99), *worse, *worse],
        "combine": [("attempt", "optimizer", 0.99), *near, *worse, *worse],
    }

    async def live() -> None:
        async with caller(settings) as client:
            for mode, steps in histories.items():
                both = Both(Agent(client, next(TAGS)))
                await both.agent.begin()
                for step in steps:
                    await both.take(step)
                assert both.model.strategy()["mode"] == mode.split(",")[0]
                await both.compare()

    asyncio.run(live())
