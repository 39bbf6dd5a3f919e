"""In which order ideas come: what a draw says of categories, weighed with what their knobs promise."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mcp_server.research import guidance
from mcp_server.research.evidence import Evidence, gather
from mcp_server.research.experiment import NO_CHANGE, Experiment, Numbers, Run, Status
from mcp_server.research.knobs import read_knobs
from mcp_server.research.lines import Point
from mcp_server.research.noise import Noise
from mcp_server.research.proposals import Scene
from mcp_server.research.script import effective, outline
from mcp_server.research.strategy import Rank
from mcp_server.research.suggestions import suggest
from mcp_server.research.task import Category, Task

SCRIPT = "MATRIX_LR = 0.04\nWARMDOWN = 0.5  # share of the budget\nUSE_NORM = True\n"
KNOBS = {name: knob.value for name, knob in read_knobs(SCRIPT).items()}
TASK = Task("val_loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",))
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)
BASE, FASTER = Point(KNOBS, 1.0), Point({**KNOBS, "MATRIX_LR": 0.08}, 1.05)


def values(points: Sequence[Point], scheduling: float, optimizer: float, sigma: float = 0.01) -> list[object]:
    """The values that are proposed first, after these draws."""
    ranks = [Rank("scheduling", 0, 0, scheduling, ""), Rank("optimizer", 0, 0, optimizer, "")]
    evidence = Evidence(source=SCRIPT, points=tuple(points), noise=Noise(prior=sigma))
    scene = Scene(TASK, evidence, effective(outline(SCRIPT), "cpu"))
    return [proposal.arguments["knobs"] for proposal in guidance.ideas(RUN, scene, ranks) if proposal.tool]


def test_the_draw_decides_between_knobs_that_promise_alike() -> None:
    tried = [BASE, Point({**KNOBS, "MATRIX_LR": 0.08}, 1.0), Point({**KNOBS, "WARMDOWN": 0.7}, 1.0)]
    assert values(tried, 0.6, 0.4) == [{"WARMDOWN": 0.3}, {"MATRIX_LR": 0.02}]
    assert values(tried, 0.4, 0.6) == [{"MATRIX_LR": 0.02}, {"WARMDOWN": 0.3}]


@pytest.mark.parametrize(("draws", "first"), [((0.6, 0.4), "MATRIX_LR"), ((0.99, 0.01), "WARMDOWN")])
def test_what_knobs_promise_outweighs_all_but_a_clear_draw(draws: tuple[float, float], first: str) -> None:
    (found, *_) = values([BASE, FASTER], *draws)  # 0.55 * 0.9 > 0.35 * 1.1, but 0.55 * 0.51 < 0.35 * 1.49
    assert isinstance(found, dict)
    assert list(found) == [first]


def test_what_is_within_the_noise_is_no_slope() -> None:
    (found, *_) = values([BASE, FASTER], 0.6, 0.4, sigma=0.1)
    assert isinstance(found, dict)
    assert list(found) == ["WARMDOWN"]


def waiting(number: int, z: float | None, summary: str = "LR 1 -> 2") -> Experiment:
    numbers = None if z is None else Numbers(z, 1.0, z, 1, 4, 1.0, 3, "e1", "e1")
    return Experiment(
        f"e{number}", "mar8", number, "ann", "c", "b", f"idea {number}", "other", "", 0.0, "needs_confirmation",
        diff_summary=summary, numbers=numbers,
    )  # fmt: skip


BASELINE, EAGER, HOPEFUL, DOUBTFUL = waiting(1, None, NO_CHANGE), waiting(2, None), waiting(3, 0.9), waiting(4, 0.4)


@pytest.mark.parametrize(
    ("best", "pending", "calls", "confirmations"),
    [
        (False, [], [], []),
        (False, [EAGER], [], []),  # nothing to compare it with: running it again would not help
        (False, [EAGER, BASELINE], ["train e1"], ["e1"]),
        (True, [EAGER], ["complete e2"], []),  # it has a result, and now there is something to compare it with
        (True, [DOUBTFUL, EAGER, HOPEFUL], ["complete e2", "train e3", "train e4"], ["e3", "e4"]),
    ],
)
def test_what_waits_is_served_when_it_can_be(
    best: bool, pending: list[Experiment], calls: list[str], confirmations: list[str]
) -> None:
    kept = replace(BASELINE, status="keep", value=1.0)
    evidence = Evidence(best=kept if best else None, pending=tuple(pending))
    owed = guidance.owed(RUN, evidence)
    assert [f"{each.tool} {each.arguments['experiment_id']}" for each in owed] == calls
    assert [e.id for e in guidance.to_confirm(evidence)] == confirmations


@pytest.mark.parametrize(
    ("status", "call"),
    [("registered", "train"), ("trained", "complete"), ("queued", None), ("training", None)],
)
def test_a_baseline_that_nobody_goes_on_with_comes_first(status: Status, call: str | None) -> None:
    suggestion = suggest(RUN, gather(TASK, [replace(BASELINE, status=status)], SCRIPT))
    assert [(each.tool, each.arguments) for each in suggestion.calls if "e1" in each.text] == (
        [(call, {"experiment_id": "e1"})] if call else []
    )


@pytest.mark.parametrize(("crashed", "tool"), [(False, "register"), (True, None)])
def test_a_baseline_is_proposed_as_a_call_until_it_has_crashed(crashed: bool, tool: str | None) -> None:
    before = [replace(BASELINE, status="crash")] if crashed else []
    suggestion = suggest(RUN, gather(TASK, before, SCRIPT))
    assert suggestion.suggestions[0].startswith("baseline: ")
    found = [call for call in suggestion.calls if call.text == suggestion.suggestions[0]]
    assert [call.tool for call in found] == ([tool] if tool else [])
    assert all(call.arguments["commit_sha"] == RUN.base_commit for call in found)


def test_a_combination_is_of_what_gained_most_however_far_from_the_present_best() -> None:
    def near(number: int, category: Category, d: float, value: float) -> Experiment:
        numbers = Numbers(d, 1.0, d, 1, 4, 1.0, 3, "e1", "e1")
        return replace(
            waiting(number, None), status="discard", category=category, numbers=numbers, delta=d, value=value,
            near_miss=True, diff_summary=f"change {number}",
        )  # fmt: skip

    kept = replace(BASELINE, status="keep", value=1.0, decided=1)
    dull = [near(number, "optimizer" if number % 2 else "attention", 0.1, 1.001) for number in range(2, 40)]
    old = [near(40, "optimizer", 0.9, 1.5), near(41, "attention", 0.8, 1.5)]
    evidence = replace(gather(TASK, [kept, *dull, *old], SCRIPT), discards=8, noise=Noise(prior=1.0), standing=None)
    scene = Scene(TASK, evidence, effective(outline(SCRIPT), "cpu"))
    first = next(iter(guidance.ideas(RUN, scene, guidance.rank(RUN, evidence))))
    assert first.arguments == {"combine": ["e40", "e41"]}

    under_way = tuple(replace(waiting(50 + n, None), status="training", category="combination") for n in range(8))
    busy = Scene(TASK, replace(evidence, in_flight=under_way), scene.outline)  # 9 of 50 would be too many
    assert all(p.category != "combination" for p in guidance.ideas(RUN, busy, guidance.rank(RUN, busy.evidence)))
