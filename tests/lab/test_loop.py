"""The loop as an agent lives it: set up, baseline, ideas, verdicts, and what is left in git and on disk."""

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher, researching
from tests.project import SCRIPT, Project

pytestmark = pytest.mark.anyio


async def test_a_night_in_small(project: Project, settings: Settings) -> None:
    start = project.git("rev-parse", "HEAD")
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        run = await agent.begin()
        assert (run.tag, run.branch, run.agent) == ("mar8", "autoresearch/mar8", "agent-1")
        assert "register" in run.next_action

        first = await agent.baseline()
        assert (first.status, first.value, first.delta) == ("keep", 1.24, None)
        assert project.branch("mar8") == start

        better = await agent.attempt("a higher rate", knobs={"LR": 0.2})
        assert (better.status, better.action, better.workspace_updated) == ("keep", "keep_commit", True)
        assert better.delta == pytest.approx(0.1)
        assert project.script_at(project.branch("mar8")).count("LR = 0.2  # learning rate") == 1

        worse = await agent.attempt(
            "deeper", "architecture", edits=[{"path": "train.py", "old": "DEPTH = 4", "new": "DEPTH = 8"}]
        )
        assert (worse.status, worse.action, worse.near_miss) == ("discard", "git_reset", False)
        assert worse.best_value == pytest.approx(1.14)

        agent.edit("DEPTH = 4", "DEPTH = 2")
        shallower = await agent.attempt("shallower", "simplification")
        assert (shallower.status, shallower.workspace_updated) == ("keep", True)
        assert "DEPTH = 2" in agent.script.read_text()
        assert "LR = 0.2" in agent.script.read_text()

        summary = await lab.reading.summary("mar8")
        assert summary.counts == {"keep": 3, "discard": 1, "total": 4}
        assert summary.improvement == pytest.approx(0.12)
        assert [point["value"] for point in summary.progression] == [1.24, 1.14, 1.12]

    assert project.git("rev-parse", "HEAD") == start
    assert project.git("status", "--porcelain") == ""
    lines = (project.root / "results.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["commit", "val_loss", "memory_gb", "status", "description"]
    assert [line.split("\t")[3] for line in lines[1:]] == ["keep", "keep", "discard", "keep"]


async def test_every_experiment_stays_reachable(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("worse", knobs={"LR": 0.9})
        commit = project.git("rev-parse", "refs/autoresearch/mar8/mar8-2")
        assert "LR = 0.9" in project.script_at(commit)
        assert project.git("log", "-1", "--format=%an %s", commit) == "autoresearch worse"


async def test_the_next_idea_is_edited_while_the_present_one_trains(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        agent.edit("LR = 0.1", "LR = 0.2")
        first = await agent.propose("a higher rate")
        agent.edit("DEPTH = 4", "DEPTH = 3")  # before the verdict
        await agent.lab.training.train(first)
        verdict = await agent.lab.verdicts.complete(first)

        assert verdict.status == "keep"
        assert not verdict.workspace_updated
        assert "edits" in verdict.notes[0]
        assert "DEPTH = 3" in agent.script.read_text()

        second = await agent.attempt("one layer less")
        assert second.status == "keep"
        assert (await agent.lab.reading.diff("mar8-2", "mar8-3")).diff.count("\n-") == 2  # the header and one line


async def test_edits_apply_to_the_best_and_leave_the_workspace_alone(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        agent.edit("DEPTH = 4", "DEPTH = 1")
        verdict = await agent.attempt("a higher rate", knobs={"LR": 0.2})
        assert verdict.status == "keep"
        assert not verdict.workspace_updated
        assert "DEPTH = 1" in agent.script.read_text()
        assert "DEPTH = 4" in project.script_at(project.branch("mar8"))


async def test_a_change_can_start_from_any_experiment(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("too high", knobs={"LR": 0.9})
        child = await agent.propose("and shallower", parent_id="mar8-2", knobs={"DEPTH": 2})
        commit = project.git("rev-parse", f"refs/autoresearch/mar8/{child}")
        assert "LR = 0.9" in project.script_at(commit)
        assert project.git("rev-parse", f"{commit}^") == project.git("rev-parse", "refs/autoresearch/mar8/mar8-2")


async def test_whole_files_and_existing_commits_are_sources_too(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        text = agent.script.read_text()
        kept = await agent.attempt("rewritten", files={"train.py": text.replace("LR = 0.1", "LR = 0.15")})
        assert kept.status == "keep"
        project.git("switch", "--quiet", "--create", "mine", "autoresearch/mar8")
        commit = project.commit("My idea", {"train.py": text.replace("LR = 0.1", "LR = 0.25")})
        mine = await agent.attempt("by hand", commit_sha=commit)
        assert mine.status == "keep"
        assert "LR = 0.25" in project.script_at(project.branch("mar8"))


async def test_a_near_miss_is_told_from_a_loss(settings: Settings) -> None:
    async with researching(settings, near_miss_threshold=0.05) as agent:
        near = await agent.attempt("a little deeper", knobs={"DEPTH": 5})
        far = await agent.attempt("much deeper", knobs={"DEPTH": 40})
        assert (near.near_miss, far.near_miss) == (True, False)
        assert near.delta == pytest.approx(-0.01)
        found = await agent.lab.reading.near_misses("mar8")
        assert [miss.experiment_id for miss in found.near_misses] == ["mar8-2"]


async def test_a_metric_to_maximize(settings: Settings) -> None:
    async with researching(settings, direction="maximize") as agent:
        up = await agent.attempt("deeper is higher", knobs={"DEPTH": 5})
        down = await agent.attempt("shallower is lower", knobs={"DEPTH": 3})
        assert (up.status, down.status) == ("keep", "discard")
        assert up.delta == pytest.approx(0.01)


async def test_suggestions_speak_of_this_script(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("a higher rate", knobs={"LR": 0.2})
        suggested = await agent.lab.reading.suggest("mar8")
        assert suggested.strategy == "explore"
        assert any("LR = 0.2" in text and "mar8-2" in text for text in suggested.suggestions)


async def test_a_strategy_set_by_hand_holds_until_auto(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.lab.verdicts.set_strategy("mar8", "ablation", "clean up")
        await agent.attempt("a higher rate", knobs={"LR": 0.2})
        assert (await agent.lab.reading.suggest("mar8")).strategy == "ablation"
        assert (await agent.lab.verdicts.set_strategy("mar8", "auto")).mode == "explore"


async def test_the_target_and_the_number_of_experiments_end_a_run(settings: Settings) -> None:
    async with researching(settings, target=1.1, max_experiments=3) as agent:
        reached = await agent.attempt("much better", knobs={"LR": 0.3})
        assert "target" in reached.next_action
        with pytest.raises(Exception, match="reached its target"):
            await agent.propose("one more", knobs={"LR": 0.31})


async def test_history_in_pages(settings: Settings) -> None:
    async with researching(settings) as agent:
        for rate in (0.2, 0.25, 0.9):
            await agent.attempt(f"rate {rate}", knobs={"LR": rate})
        page = await agent.lab.reading.history("mar8", limit=3)
        assert [shown.experiment_id for shown in page.experiments] == ["mar8-4", "mar8-3", "mar8-2"]
        assert page.total == 4
        rest = await agent.lab.reading.history("mar8", limit=3, cursor=page.next_cursor)
        assert [shown.experiment_id for shown in rest.experiments] == ["mar8-1"]
        assert rest.next_cursor is None
        kept = await agent.lab.reading.history("mar8", status="keep", category="hyperparams", detail="full")
        assert [shown.changes for shown in kept.experiments] == [{"LR": [0.2, 0.25]}, {"LR": [0.1, 0.2]}]


@pytest.mark.parametrize(
    ("form", "says"), [("tsv", "commit\tval_loss"), ("jsonl", '"hypothesis": "the baseline"'), ("markdown", "baseline")]
)
async def test_exports(project: Project, settings: Settings, form: str, says: str) -> None:
    async with researching(settings) as agent:
        shown = await agent.lab.reading.export("mar8", form)  # type: ignore[arg-type]
        assert shown.text is not None
        assert says in shown.text
        written = await agent.lab.reading.export("mar8", form, "reports/run.txt")  # type: ignore[arg-type]
        assert written.text is None
        assert (project.root / "reports/run.txt").read_text() == shown.text
        with pytest.raises(Exception, match="exists"):
            await agent.lab.reading.export("mar8", form, "reports/run.txt")  # type: ignore[arg-type]


async def test_an_external_run_takes_reported_numbers(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        run = await lab.setup.setup_run(tag="ext", metric="score", direction="maximize", external=True)
        assert run.workspace is None
        for number, score in enumerate((1.0, 3.0, 2.0), 1):
            registered = await lab.registering.register(tag="ext", hypothesis=f"idea {number}", category="other")
            verdict = await lab.verdicts.complete(registered.experiment_id, metrics={"score": score})
            assert verdict.origin == "reported"
        best = await lab.reading.best("ext")
        assert best.experiment is not None
        assert (best.experiment.experiment_id, best.experiment.value) == ("ext-2", 3.0)
        assert "autoresearch/ext" not in project.git("branch", "--list")


async def test_the_results_file_has_every_verdict_in_order(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("broken", knobs={"TRAP": "crash"})
        await agent.attempt("better", knobs={"LR": 0.2})
    table = project.root / "results.tsv"
    assert [line.split("\t")[1:4] for line in table.read_text().splitlines()[1:]] == [
        ["1.240000", "0.0", "keep"],
        ["0.000000", "0.0", "crash"],
        ["1.140000", "0.0", "keep"],
    ]


async def test_an_external_run_speaks_of_the_callers_commits(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(
            tag="ext", metric="val_loss", direction="minimize", external=True, train_script="train.py"
        )
        first = await lab.registering.register(tag="ext", hypothesis="baseline", category="other")
        await lab.verdicts.complete(first.experiment_id, metrics={"val_loss": 2.0})
        commit = project.commit("Mine", {"train.py": SCRIPT.replace("LR = 0.1", "LR = 0.2")})
        second = await lab.registering.register(
            tag="ext", hypothesis="a higher rate", category="hyperparams", commit_sha=commit
        )
        assert (second.commit, second.lines_added, second.lines_removed) == (commit, 1, 1)
        assert second.diff_summary.startswith("LR 0.1 -> 0.2")
        back = await lab.setup.setup_run(tag="ext", resume=True)
        assert "Train ext-2 yourself" in back.next_action
        await lab.verdicts.complete(second.experiment_id, metrics={"val_loss": 1.0})
        assert (await lab.reading.best("ext")).commit == commit
        with pytest.raises(Exception, match="agent name"):
            await lab.registering.register(tag="ext", hypothesis="x", category="other", agent="zed!")
