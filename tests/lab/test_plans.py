"""A structured experiment plan, from its file to its last variation."""

import json
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

PLAN: dict[str, Any] = {
    "description": "Does a higher rate help a shallower model?",
    "metric": "val_loss",
    "direction": "minimize",
    "time_budget_seconds": 5,
    "policy": "greedy",
    "vary": {"LR": [0.1, "2e-1", 1], "DEPTH": [2]},
    "hold": {"TRAP": ""},
}


def write(project: Project, name: str = "plan.json", **more: Any) -> str:
    """JSON, which is YAML as well."""
    project.write({name: json.dumps({**PLAN, **more})})
    return name


async def follow(agent: Researcher) -> list[str]:
    """Carry out the first suggestion until the run is over; what was changed."""
    done: list[str] = []
    for _ in range(20):
        call = (await agent.lab.reading.suggest(agent.tag)).proposals[0]
        try:
            registered = await agent.lab.registering.register(**call["arguments"])
        except WrongState:
            return done
        await agent.lab.training.train(registered.experiment_id, wait_seconds=60)
        await agent.lab.verdicts.complete(registered.experiment_id)
        done.append(registered.diff_summary.split(", train.py")[0])
    raise AssertionError(done)


@pytest.mark.parametrize(("name", "ending"), [("plan.json", ""), ("plan.yaml", "\n# a comment\n")])
async def test_a_plan_pre_fills_a_run(project: Project, settings: Settings, name: str, ending: str) -> None:
    write(project, name)
    (project.root / name).write_text((project.root / name).read_text() + ending)
    async with Lab.open(settings) as lab:
        made = await lab.setup.setup_run(tag="mar8", plan=name, preview=True)
    rows = {row["field"]: (row["value"], row["source"]) for row in made.research_config}
    assert rows["metric"] == ("val_loss", f"plan {name}")
    assert rows["vary"] == ("LR = 0.1, 0.2, 1.0, DEPTH = 2", f"plan {name}")
    assert rows["hold"] == ("TRAP = none", f"plan {name}")
    assert rows["max_experiments"] == ("4", "baseline and plan")


async def test_the_plan_is_carried_out_one_constant_at_a_time_and_then_reported(
    project: Project, settings: Settings
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        agent.run = await lab.setup.setup_run(tag="mar8", plan=write(project))
        await agent.baseline()
        suggested = await lab.reading.suggest("mar8")
        assert suggested.suggestions[0].startswith("optimizer: LR 0.1 -> 0.2: as planned, 3 left. Compare with mar8-1")
        assert await follow(agent) == ["LR 0.1 -> 0.2", "LR 0.2 -> 1.0", "DEPTH 4 -> 2"]
        assert (project.root / "autoresearch-summary.md").exists()


async def test_a_grid_has_every_combination(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        vary = {"LR": [0.1, 0.2], "DEPTH": [2, 4]}
        agent.run = await lab.setup.setup_run(tag="mar8", plan=write(project, vary=vary, grid=True))
        await agent.baseline()
        assert await follow(agent) == ["DEPTH 4 -> 2", "LR 0.1 -> 0.2", "DEPTH 2 -> 4"]


async def test_what_is_held_fixed_stays(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        agent.run = await lab.setup.setup_run(tag="mar8", plan=write(project, hold=["DEPTH"], vary={"LR": [0.2]}))
        await agent.baseline()
        with pytest.raises(InvalidInput, match="DEPTH is held fixed by the plan of run 'mar8'"):
            await agent.propose("deeper", knobs={"DEPTH": 8})
        with pytest.raises(InvalidInput, match="DEPTH is held fixed"):
            await agent.propose("no depth", edits=[{"path": "train.py", "old": "DEPTH = 4  # layers", "new": ""}])


async def test_arguments_come_before_the_plan_and_the_plan_before_the_file(
    project: Project, settings: Settings
) -> None:
    project.write({"autoresearch.toml": 'metric = "accuracy"\nresults_file = "mine.tsv"\n'})
    async with Lab.open(settings) as lab:
        plan = write(project)
        made = await lab.setup.setup_run(tag="mar8", plan=plan, time_budget_seconds=9.0, max_experiments=2)
        config = made.config
        assert (config["metric"], config["results_file"]) == ("val_loss", "mine.tsv")
        assert (config["time_budget_seconds"], config["max_experiments"]) == (9.0, 2)
        assert "plan.json" not in " ".join(config["editable"])
        again: dict[str, Any] = {"tag": "mar8", "resume": True, "time_budget_seconds": 9.0, "max_experiments": 2}
        await lab.setup.setup_run(plan=plan, **again)
        assert not (await lab.setup.setup_run(plan=plan, **again)).adjustments
        [told] = (await lab.setup.setup_run(tag="mar8", plan=plan, resume=True)).adjustments
        assert "line 1, time_budget_seconds: time_budget_seconds of run 'mar8' is 9.0, not 5.0: the run goes on" in told
        [told] = (await lab.setup.setup_run(plan=write(project, vary={"LR": [0.5]}), **again)).adjustments
        assert "vary of run 'mar8' is" in told
        with pytest.raises(InvalidInput, match=r"max_experiments of run 'mar8' is 2, not 3. Leave max_experiments out"):
            await lab.setup.setup_run(plan=plan, **{**again, "max_experiments": 3})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"vary": {"LRR": [1]}}, "'LRR' is no knob of the script. Did you mean LR"),
        ({"vary": {"LR": []}}, "no values for LR"),
        ({"vary": {"LR": ["fast"]}}, "LR"),
        ({"vary": {"LR": 0.1}}, "varies nothing"),
        ({"vary": {"LR": [0.2]}, "hold": ["LR"]}, "varies LR and holds it fixed"),
        ({"hold": {"DEPTH": 6}, "vary": {"LR": [0.2]}}, "holds DEPTH at 6, and train.py has 4"),
        ({"hold": ["WIDTH"]}, "'WIDTH' is no knob"),
        ({"vary": {"LR": [n / 1000 for n in range(1, 600)]}}, "more than 500 variations"),
        ({"varry": {}}, "Did you mean 'vary'"),
        ({"vary": [1]}, "line 1: vary is"),
    ],
)
async def test_a_plan_that_does_not_fit_the_script_is_refused(
    project: Project, settings: Settings, more: dict[str, Any], said: str
) -> None:
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput) as refused:
            await lab.setup.setup_run(tag="mar8", plan=write(project, **more))
        assert said in str(refused.value)
        with pytest.raises(InvalidInput, match="'absent' is no file"):
            await lab.setup.setup_run(tag="mar8", plan="absent")
        assert (await lab.reading.list_runs()).runs == []
