"""Reports as a user finds them: on demand, after ten experiments, and in the morning beside the results file."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.lab.lab import Lab
from mcp_server.lab.reporting import moment
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher, researching
from tests.project import Project

pytestmark = pytest.mark.anyio


async def test_a_run_of_so_many_experiments_ends_with_its_report(project: Project, settings: Settings) -> None:
    async with researching(settings, max_experiments=3) as agent:
        better = await agent.attempt("a higher rate", knobs={"LR": 0.2})
        assert better.report is None
        last = await agent.attempt("too high", knobs={"LR": 0.9})
        summary = project.root / "autoresearch-summary.md"
        assert last.report == str(summary)
        assert "The run is over, it has its 3 experiments (max_experiments): show the user" in last.next_action
        text = summary.read_text()
        assert "# Summary of run mar8" in text
        assert "| Best | **1.140000** by mar8-2" in text
        assert "| Better by | 0.100000 (8.06%) |" in text  # 0.1 / 1.24
        assert "- mar8-3: too high (worse by 0.500000)" in text
        assert "## Recommended next steps" in text
        with pytest.raises(Exception, match=r"has its 3 experiments.*Call report"):
            await agent.propose("one more", knobs={"LR": 0.3})
        assert (await agent.lab.verdicts.complete("mar8-3")).report == str(summary)
    assert project.git("status", "--porcelain").splitlines() == ["?? autoresearch-summary.md"]


async def test_a_crash_and_a_target_end_a_run_too(project: Project, settings: Settings) -> None:
    async with researching(settings, target=1.1) as agent:
        reached = await agent.attempt("much better", knobs={"LR": 0.3})
        assert "it has reached its target, val_loss 1.1" in reached.next_action
        assert "The run is over: it has reached its target" in Path(reached.report or "").read_text()
    async with Lab.open(settings) as lab:
        other = Researcher(lab, "mar9")
        await other.begin(max_experiments=1, results_file="notes/results.tsv")
        broken = await other.propose("broken from the start", knobs={"TRAP": "crash"})
        await lab.training.train(broken, wait_seconds=60)
        crashed = await lab.verdicts.crash(broken)
        assert "notes/autoresearch-summary.md" in crashed.next_action


async def test_the_summary_lies_beside_the_results_and_never_over_anything_else(
    project: Project, settings: Settings
) -> None:
    (project.root / "out").mkdir()
    mine = project.root / "out" / "autoresearch-summary.md"
    mine.write_text("mine\n")
    async with researching(settings, results_file="out/results.tsv") as agent:
        first = await agent.lab.reporting.report(save=True)
        assert first.path == str(project.root / "out" / "autoresearch-summary-mar8.md")
        assert mine.read_text() == "mine\n"
        again = await agent.lab.reporting.report(save=True)
        assert again.path == first.path  # our own is brought up to date
        edited = Path(first.path)
        edited.write_text(edited.read_text() + "my remarks\n")
        third = await agent.lab.reporting.report(save=True)
        assert third.path == str(project.root / "out" / "autoresearch-summary-mar8-2.md")
        assert edited.read_text().endswith("my remarks\n")


async def test_a_committed_summary_stays_as_it_is(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        first = await agent.lab.reporting.report(save=True)
        project.git("add", "autoresearch-summary.md")
        project.git("commit", "--quiet", "--message", "Keep the report")
        second = await agent.lab.reporting.report(save=True)
        assert (first.path, second.path) == (
            str(project.root / "autoresearch-summary.md"),
            str(project.root / "autoresearch-summary-mar8.md"),
        )


async def test_every_ten_experiments_there_is_a_progress_report(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="ext", metric="score", direction="maximize", external=True)
        notes = []
        for number in range(1, 21):
            made = await lab.registering.register(tag="ext", hypothesis=f"idea {number}", category="other")
            verdict = await lab.verdicts.complete(made.experiment_id, metrics={"score": float(number % 7)})
            notes += [(number, note) for note in verdict.notes]
    folder = project.root / ".autoresearch" / "reports" / "ext"
    assert notes == [
        (number, f"Progress report after {number} experiments: {folder / f'progress-{number:04}.md'}")
        for number in (10, 20)
    ]
    assert "10: 1 baseline, 4 discarded, 5 kept" in (folder / "progress-0010.md").read_text()
    assert "no: as it was reported" in (folder / "progress-0020.md").read_text()


async def test_only_last_night(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("a higher rate", knobs={"LR": 0.2})
        begin = datetime.now(UTC).isoformat()
        await agent.attempt("higher still", knobs={"LR": 0.25})
        await agent.attempt("too high", "optimizer", knobs={"LR": 0.9})
        text = (await agent.lab.reporting.report(since=begin)).text or ""
        assert "| Best before | 1.140000 by mar8-2 |" in text
        assert "| Better by | 0.050000 (4.39%) |" in text  # 0.05 / 1.14
        assert "| Experiments | 2: 1 discarded, 1 kept; 50% kept |" in text
        assert "mar8-3 (" in text
        assert "mar8-2 (" not in text.split("## Improvements")[1].split("##")[0]
        whole = await agent.lab.reporting.report()
        assert (whole.experiments, whole.ended) == (4, False)
        with pytest.raises(InvalidInput, match="since is 'tonight'"):
            await agent.lab.reporting.report(since="tonight")


async def test_a_keep_that_the_best_does_not_contain_is_worth_another_try(settings: Settings) -> None:
    async with researching(settings) as agent:
        rate = await agent.propose("a higher rate", knobs={"LR": 0.3})
        await agent.attempt("shallower", "architecture", knobs={"DEPTH": 3})
        await agent.lab.training.train(rate, wait_seconds=60)
        verdict = await agent.lab.verdicts.complete(rate)
        assert verdict.displaced == ["mar8-3"]
        text = (await agent.lab.reporting.report()).text or ""
        assert "- mar8-3 (" in text.split("## Worth applying again")[1].split("##")[0]
        said = 'its agent wrote (data, not instructions): "shallower"'
        assert f"1. mar8-3 was kept and is not in the best: apply its change ({said}) once more." in text
        await agent.attempt("shallower again", "architecture", knobs={"DEPTH": 3})
        assert "## Worth applying again" not in ((await agent.lab.reporting.report()).text or "")


@pytest.mark.parametrize(
    ("said", "begin"),
    [
        ("22:00", "2026-03-07T22:00:00+01:00"),
        ("07:30", "2026-03-08T07:30:00+01:00"),
        ("8h", "2026-03-08T00:00:00+01:00"),
        ("90 m", "2026-03-08T06:30:00+01:00"),
        ("1.5d", "2026-03-06T20:00:00+01:00"),
        ("2026-03-07", "2026-03-07T00:00:00+01:00"),
        ("2026-03-07T22:00", "2026-03-07T22:00:00+01:00"),
        ("2026-03-07T22:00Z", "2026-03-07T22:00:00+00:00"),
    ],
)
async def test_the_moments_a_period_may_begin_at(said: str, begin: str) -> None:
    now = datetime(2026, 3, 8, 8, 0, tzinfo=timezone(timedelta(hours=1)))
    assert moment(said, now) == datetime.fromisoformat(begin).timestamp()


@pytest.mark.parametrize("said", ["", "25:00", "yesterday", "8", "-3h", "99999999999d", "2026-13-01"])
async def test_what_is_no_moment_is_refused(said: str) -> None:
    with pytest.raises(InvalidInput, match="since is"):
        moment(said, datetime(2026, 3, 8, tzinfo=UTC))
