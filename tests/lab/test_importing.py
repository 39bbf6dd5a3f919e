"""Going on where an earlier session stopped, by the table and the commits that it left."""

from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady, Undecided, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.lab.results import Imported
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import SCRIPT, Project

pytestmark = pytest.mark.anyio


def session(project: Project) -> Path:
    """What the original loop leaves: a branch with its keeps, discards reset away, and a table that git ignores."""
    project.git("checkout", "--quiet", "-b", "autoresearch/mar5")
    rows = [(project.git("rev-parse", "--short=7", "HEAD"), "1.240000\t0.5", "keep", "baseline")]
    kept = SCRIPT.replace("LR = 0.1", "LR = 0.2")
    rows.append((project.commit("Higher rate", {"train.py": kept})[:7], "1.140000\t0.5", "keep", "raise LR to 0.2"))
    worse = project.commit("Deeper", {"train.py": kept.replace("DEPTH = 4", "DEPTH = 8")})[:7]
    rows.append((worse, "1.180000\t0.6", "discard", "depth 8"))
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    rows.append(("0123456", "0.000000\t0.0", "crash", "double width (OOM)"))
    project.git("checkout", "--quiet", "main")
    table = project.root / "results.tsv"
    lines = [f"{commit}\t{value}\t{status}\t{what}\n" for commit, value, status, what in rows]
    table.write_text("commit\tval_loss\tmemory_gb\tstatus\tdescription\n" + "".join(lines))
    return table


async def take_in(lab: Lab, **arguments: Any) -> Imported:
    given = {"path": "results.tsv", "tag": "mar8", "time_budget_seconds": 5.0}
    return await lab.importing.import_(**{**given, **arguments})


async def test_a_session_goes_on_in_a_run_that_knows_what_was_tried(project: Project, settings: Settings) -> None:
    table = session(project)
    before = table.read_text()
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(base_ref="autoresearch/mar5")
        made = await take_in(lab)
        assert (made.metric, made.imported) == ("val_loss", 4)
        assert made.counts == {"keep": 2, "discard": 1, "crash": 1}
        assert made.best_reported == {"value": 1.14, "what": "raise LR to 0.2"}
        assert "baseline" in made.next_action

        summary = await lab.reading.summary("mar8")
        assert (summary.best, summary.baseline, summary.experiments) == (None, None, 0)
        assert (await agent.baseline()).value == 1.14  # where that session stood, measured here
        with pytest.raises(InvalidInput, match="mar8-3 made the very same change on the same base: discard"):
            await agent.propose("deeper", knobs={"DEPTH": 8})
        assert (await agent.attempt("shallower", knobs={"DEPTH": 2})).status == "keep"
        assert (await lab.reading.summary("mar8")).best == (await lab.reading.history("mar8")).experiments[0]

        report = (await lab.reporting.report("mar8")).text or ""
        assert "4 of an earlier session, as they were reported" in report
        assert "2: 1 baseline, 1 kept" in report
    lines = table.read_text().removeprefix(before).splitlines()
    assert [line.split("\t")[1:] for line in lines] == [
        ["1.140000", "0.0", "keep", "the baseline"],
        ["1.120000", "0.0", "keep", "shallower (provisional)"],
    ]


async def test_what_was_reported_is_shown_as_reported(project: Project, settings: Settings) -> None:
    session(project)
    async with Lab.open(settings) as lab:
        made = await take_in(lab)
        assert made.base_commit == project.git("rev-parse", "autoresearch/mar5")
        assert made.workspace is not None
        crash, worse, kept, start = (await lab.reading.history("mar8", detail="full")).experiments
        assert (crash.status, crash.value, crash.commit) == ("crash", None, "0123456")
        assert (worse.diff_summary or "").startswith("DEPTH 4 -> 8")
        assert worse.changes == {"DEPTH": [4, 8]}
        assert worse.delta == pytest.approx(-0.04)
        assert (kept.origin, kept.reason) == (
            "reported",
            "As it was reported in results.tsv, line 3; not measured here.",
        )
        assert start.diff_summary == "no change"
        text = (await lab.reading.export("mar8", "tsv")).text
        assert text == (project.root / "results.tsv").read_text()


async def test_its_commits_outlive_the_next_cleaning(project: Project, settings: Settings) -> None:
    session(project)
    async with Lab.open(settings) as lab:
        await take_in(lab)
        worse = (await lab.reading.history("mar8", status="discard", detail="full")).experiments[0]
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "--quiet", "--prune=now")
    assert project.script_at(worse.commit).count("DEPTH = 8") == 1


async def test_limits_count_from_the_import_on(project: Project, settings: Settings) -> None:
    session(project)
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(max_experiments=2)
        await take_in(lab)
        await agent.baseline()
        await agent.attempt("shallower", knobs={"DEPTH": 2})
        with pytest.raises(WrongState, match="has its 2 experiments"):
            await agent.propose("shallower still", knobs={"DEPTH": 1})


async def test_suggestions_rest_on_what_was_reported(project: Project, settings: Settings) -> None:
    session(project)
    async with Lab.open(settings) as lab:
        await take_in(lab)
        suggested = await lab.reading.suggest("mar8")
        assert suggested.suggestions[0].startswith("baseline: measure the script as it is first")
        assert suggested.category_stats["optimizer"] == {"tries": 1, "keeps": 1}
        verdict = await Researcher(lab).baseline()
        while verdict.status == "needs_confirmation":  # under noise the baseline is measured more than once
            await lab.training.train("mar8-5", wait_seconds=60)
            verdict = await lab.verdicts.complete("mar8-5")
        assert verdict.status == "keep"
        again = await lab.reading.suggest("mar8")
        assert not [p for p in again.proposals if p["arguments"].get("knobs") == {"DEPTH": 8}]
        assert any(
            "DEPTH 4 -> 2: 0 of 1 changes of it alone paid (4 gave 1.140000, 8 gave 1.180000)" in s
            for s in again.suggestions
        )


async def test_importing_twice_is_harmless_and_another_table_is_refused(project: Project, settings: Settings) -> None:
    table = session(project)
    async with Lab.open(settings) as lab:
        first = await take_in(lab)
        again = await take_in(lab)
        assert (again.imported, again.counts, again.base_commit) == (first.imported, first.counts, first.base_commit)
        assert (await lab.reading.history("mar8")).total == 4
        table.write_text(table.read_text() + "abcdef0\t1.1\t0.5\tkeep\tanother\n")
        with pytest.raises(WrongState, match=r"has experiments of its own.*Import the table under a new tag"):
            await take_in(lab)


async def test_a_table_without_commits_of_this_repository_begins_at_head(project: Project, settings: Settings) -> None:
    text = (
        "commit\tval_loss\tmemory_gb\tstatus\tdescription\nabcdef0\t1.2\t0\tkeep\tbaseline\n-\t9\t0\tdiscard\tdepth\n"
    )
    async with Lab.open(settings) as lab:
        project.write({"other.tsv": text})
        made = await take_in(lab, path="other.tsv")
        assert made.base_commit == project.git("rev-parse", "HEAD")
        assert "'abcdef0' is not in this repository" in made.notes[0]
        assert [e.commit for e in (await lab.reading.history("mar8")).experiments] == ["unknown", "abcdef0"]


async def test_what_only_the_user_knows_is_asked(project: Project, settings: Settings) -> None:
    session(project)
    async with Lab.open(settings) as lab:
        with pytest.raises(Undecided, match="how many seconds may one training take"):
            await take_in(lab, time_budget_seconds=None)
        with pytest.raises(InvalidInput, match=r"'absent.tsv' is no file"):
            await take_in(lab, path="absent.tsv")
        assert (await lab.reading.list_runs()).runs == []


async def test_the_metric_that_is_decided_elsewhere_comes_first(project: Project, settings: Settings) -> None:
    table = "commit,train_loss,val_loss,status,description\na1b2c3d,9,1.5,keep,as it was\nb,8,1.4,better,?\n"
    (project.root / "earlier.csv").write_text(table)
    async with Lab.open(settings) as lab:
        guessed = await take_in(lab, tag="mar7", path="earlier.csv")
        assert guessed.metric == "val_loss"
        assert "val_loss is taken for the metric; if it is not, give metric: there are train_loss too." in guessed.notes
        (project.root / "autoresearch.toml").write_text('metric = "train_loss"\n')
        assert (await take_in(lab, path="earlier.csv")).metric == "train_loss"
        again = await take_in(lab, path="earlier.csv")
        assert (again.metric, again.imported) == ("train_loss", 1)
        (project.root / "task.yaml").write_text("target: 3\n")
        told = (await take_in(lab, path="earlier.csv", task="task.yaml")).notes
        assert any(note.startswith("task.yaml, line 1, target: target of run 'mar8' is None, not 3.0") for note in told)
        with pytest.raises(InvalidInput, match=r"time_budget_seconds of run 'mar8' is 5\.0, not 9"):
            await take_in(lab, path="earlier.csv", time_budget_seconds=9.0)
        with pytest.raises(InvalidInput, match="metric of run 'mar8' is 'train_loss', not 'val_loss'"):
            await take_in(lab, path="earlier.csv", metric="val_loss")


async def test_nothing_is_begun_where_nothing_can_be_trained(project: Project, settings: Settings) -> None:
    session(project)
    (project.root / "autoresearch.toml").write_text('nonsense = "x"\n')
    async with Lab.open(settings) as lab:
        with pytest.raises((InvalidInput, NotReady), match="nonsense"):
            await take_in(lab)
        assert (await lab.reading.list_runs()).runs == []
