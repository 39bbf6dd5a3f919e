"""The end of a budget: what is run again so that more can be told, and what is questioned."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mcp_server.research.chain import Level
from mcp_server.research.claims import assess
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import NO_CHANGE, Experiment, KnobValue, Run
from mcp_server.research.guidance import CLOSING_RUNS, LONG_STUCK, QUESTIONED, closing, questioned
from mcp_server.research.noise import Noise
from mcp_server.research.plateau import PLATEAU
from mcp_server.research.proposals import Scene
from mcp_server.research.script import effective, outline
from mcp_server.research.task import CATEGORIES, Task

SCRIPT = "LR = 0.2\nDEPTH = 4\n"
TASK = Task(
    "val_loss", "minimize", 5, "train.py", "python train.py", "python", ("train.py",), CATEGORIES, max_experiments=100
)
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)


def kept(number: int, changes: Mapping[str, tuple[KnobValue, KnobValue]], **others: object) -> Experiment:
    made = Experiment(
        f"e{number}", "mar8", number, "ann", "c", "b", f"idea {number}", "other", "", 0.0, "keep", value=1.0, delta=0.1,
        changes=changes, diff_summary="a change" if number > 1 else NO_CHANGE, source="knobs",
    )  # fmt: skip
    return replace(made, **others)  # type: ignore[arg-type]


START, FIRST, SECOND = kept(1, {}), kept(2, {"LR": (0.1, 0.2)}), kept(3, {"DEPTH": (6, 4)})


def chain(*levels: tuple[float, int], finished: int = 99, discards: int = 0, **others: object) -> Evidence:
    """Levels by gain over the baseline, in units of the noise, and number of runs."""
    found = assess([Level(f"e{i}", gain, runs) for i, (gain, runs) in enumerate(levels, 1)], Noise(40.0, 40), [])
    keeps = (SECOND, FIRST, START)[3 - len(levels) :]
    seeds = {f"e{i}": frozenset(range(42, 42 + runs)) for i, (_, runs) in enumerate(levels, 1)}
    made = Evidence(
        counts={"other": Count(finished, 3)}, keeps=keeps, recent=keeps, best=keeps[0], baseline=START, source=SCRIPT,
        assessment=found, discards=discards, level_seeds=seeds,
    )  # fmt: skip
    return replace(made, **others)  # type: ignore[arg-type]


def runs(evidence: Evidence, run: Run = RUN) -> list[tuple[str, int]]:
    return [(each.arguments["experiment_id"], each.arguments["seed"]) for each in closing(run, evidence)]


def asked(evidence: Evidence, run: Run = RUN) -> list[tuple[str, Mapping[str, object]]]:
    scene = Scene(run.task, evidence, effective(outline(SCRIPT), "cpu"))
    return [(each.tool, each.arguments) for each in questioned(run, scene)]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (((0.0, 4), (2.0, 2)), [("e2", 44)]),  # the best has fewer runs: a seed of the baseline's
        (((0.0, 2), (2.0, 4)), [("e1", 44)]),  # the baseline has
        (((0.0, 2), (2.0, 2)), [("e2", 44)]),  # as many: a seed that neither had
        (((0.0, 6), (9.0, 6)), []),  # all is claimed
        (((0.0, 6), (0.5, 6)), []),  # as many runs as are asked for
        (((0.0, 6), (1.0, 2), (9.0, 6)), [("e2", 44)]),  # the best is claimed: of its steps, the nearest to a claim
    ],
)
def test_what_brings_a_claim_nearest_is_run_again(
    levels: tuple[tuple[float, int], ...], expected: list[tuple[str, int]]
) -> None:
    assert runs(chain(*levels)) == expected


def test_only_at_the_end_and_not_twice_at_once() -> None:
    levels = ((0.0, 4), (2.0, 2))
    endless = replace(RUN, task=replace(TASK, max_experiments=None))
    assert runs(chain(*levels, finished=97)) == []
    assert runs(chain(*levels, finished=98)) == [("e2", 44)]
    assert runs(chain(*levels), endless) == []
    assert runs(chain(*levels, discards=LONG_STUCK * PLATEAU), endless) == [("e2", 44)]
    assert runs(chain(*levels, levels_busy=frozenset({"e2"}))) == []
    assert runs(chain(*levels), replace(RUN, task=replace(TASK, policy="greedy"))) == []
    assert runs(chain(*levels, assessment=None)) == []


LOST = ((0.0, 6), (-3.0, 6), (4.0, 6))
"""The first change was kept for its luck, the second one is good."""


def test_a_change_that_does_not_hold_is_put_back_on_the_best() -> None:
    [(tool, arguments)] = asked(chain(*LOST))
    assert (tool, arguments) == ("register", {"knobs": {"LR": 0.1}})
    code = replace(FIRST, changes={}, source="edits")
    evidence = replace(chain(*LOST), keeps=(SECOND, code, START), recent=())
    assert asked(evidence) == []  # it cannot be taken out as it is
    assert asked(replace(evidence, removable=frozenset({"e2"}))) == [("register", {"revert": "e2"})]


@pytest.mark.parametrize(
    "other",
    [
        kept(4, {"LR": (0.2, 0.1)}, status="discard"),
        kept(4, {}, category="ablation", hypothesis="e2 does not hold any more", status="discard"),
    ],
)
def test_nothing_is_questioned_twice(other: Experiment) -> None:
    assert asked(chain(*LOST, recent=(other, SECOND, FIRST, START))) == []


def test_one_by_one_and_while_there_is_budget() -> None:
    under_way = replace(SECOND, id="e7", number=7, status="training", category="ablation", changes={"A": (1, 2)})
    assert asked(chain(*LOST, in_flight=(under_way,), finished=98)) == []
    assert asked(chain(*LOST, finished=100)) == []
    assert asked(chain(*LOST, finished=50)) == []
    assert asked(chain(*LOST, finished=50, discards=LONG_STUCK * PLATEAU)) != []
    few = replace(RUN, task=replace(TASK, max_experiments=10))
    assert asked(chain(*LOST, finished=10 - QUESTIONED), few) != []
    assert asked(chain(*LOST, finished=9 - QUESTIONED), few) == []


def test_what_holds_is_left_alone_and_what_made_the_code_shorter() -> None:
    assert asked(chain((0.0, 6), (3.0, 6), (4.0, 6))) == []
    shorter = replace(FIRST, lines_added=1, lines_removed=4)
    assert asked(chain(*LOST, keeps=(SECOND, shorter, START))) == []
    assert asked(chain(*LOST), replace(RUN, task=replace(TASK, scope=("optimizer",)))) == []


def test_a_doubtful_best_is_run_again_first() -> None:
    found = asked(chain((0.0, 6), (3.0, 6), (0.5, 1)))
    assert found == [("train", {"experiment_id": "e3", "seed": 43})]
    assert asked(chain((0.0, 6), (3.0, 6), (0.5, CLOSING_RUNS))) == []
