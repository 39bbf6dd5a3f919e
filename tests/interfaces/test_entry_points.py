"""The page of entry points, typed as it stands, in a repository that it describes."""

import re
import shlex
from pathlib import Path

import pytest

from tests.interfaces.shell import Done, Shell
from tests.project import SCRIPT, Project

PAGE = Path(__file__).parents[2] / "docs" / "entry-points.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE))
SMALL = (
    (r"--agent claude", "--agent builtin"),
    (r"--until 08:00|--experiments 20", "--experiments 2"),
    (r"seconds 300", "seconds 5"),
    (r"seconds: 300", "seconds: 5"),
)
"""What makes an evening of a night."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A script with the constants that the page speaks of, which is not noisy."""
    return Project.make(tmp_path / "project", SCRIPT.replace("TRAP = ", "DROPOUT = 0.1  # share\nTRAP = ", 1))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell on a machine with one device."""
    monkeypatch.setenv("AUTORESEARCH_DEVICES", "cpu:1")
    return Shell(monkeypatch, capsys)


def blocks(section: str, language: str) -> list[str]:
    """The examples of a section, made small."""
    found = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    for pattern, small in SMALL:
        found = [re.sub(pattern, small, block) for block in found]
    return found


def typed(shell: Shell, project: Project, section: str) -> list[Done]:
    """Type the command lines of a section, each of which must succeed."""
    lines = [words for block in blocks(section, "sh") for line in block.splitlines() if (words := shlex.split(line))]
    done = [shell.run(*words[1:], cwd=project.root) for words in lines if words[0] == "autoresearch"]
    assert done
    for each in done:
        assert (each.code, each.err) == (0, ""), each
    return done


def begin(shell: Shell, project: Project, tag: str = "mar8") -> None:
    """A night of two experiments lies behind."""
    words = f"night --agent builtin --tag {tag} --experiments 2 --metric val_loss --time-budget-seconds 5"
    assert shell.run(*words.split(), cwd=project.root).code == 0


def table(project: Project) -> list[str]:
    """The statuses and descriptions in the results file."""
    return [line.split("\t", 3)[3] for line in (project.root / "results.tsv").read_text().splitlines()[1:]]


def test_overnight_on_my_script(shell: Shell, project: Project) -> None:
    [night] = typed(shell, project, "Overnight on my script")
    assert "the night ends: 2 experiments are done" in night.out
    assert "# Progress of run" in (project.root / "autoresearch-summary.md").read_text()
    assert len(table(project)) == 2


def test_one_hypothesis_first(shell: Shell, project: Project) -> None:
    *_, verdict = typed(shell, project, "One hypothesis first")
    assert "keep" in verdict.out
    assert table(project) == ["keep\tthe script as it is", "keep\ta higher rate learns faster (provisional)"]


def test_exactly_n_experiments_then_a_report(shell: Shell, project: Project) -> None:
    [night] = typed(shell, project, "Exactly N experiments, then a report")
    assert "2 tonight" in night.out
    assert len(table(project)) == 2
    assert "2 in all" in night.out
    assert "sweep-2" in (project.root / "autoresearch-summary.md").read_text()


def test_a_plan_of_my_own(shell: Shell, project: Project) -> None:
    [plan] = blocks("A plan of my own", "yaml")
    project.write({"plan.yaml": plan})
    preview, night = typed(shell, project, "A plan of my own")
    assert "LR = 0.2, 0.4, DEPTH = 2" in preview.out
    assert "4 experiments of the run (max_experiments) are used up" in night.out
    tried = [line.split("\t")[1] for line in table(project)]
    assert [re.split(r":| \(provisional", words)[0] for words in tried[1:]] == [
        "LR 0.1 -> 0.2",
        "LR 0.2 -> 0.4",
        "DEPTH 4 -> 2",
    ]
    assert "# Summary of run plan" in (project.root / "autoresearch-summary.md").read_text()


def test_continue_a_run(shell: Shell, project: Project) -> None:
    begin(shell, project)
    [night] = typed(shell, project, "Continue a run")
    assert "4 in all" in night.out
    assert len(table(project)) == 4


def test_continue_a_foreign_session(shell: Shell, project: Project) -> None:
    kept = project.commit(
        "raise LR", {"train.py": (project.root / "train.py").read_text().replace("= 0.1  # l", "= 0.2  # l")}
    )
    before = f"commit\tval_loss\tmemory_gb\tstatus\tdescription\n{kept[:7]}\t1.14\t0.0\tkeep\traise LR to 0.2\n"
    project.write({"results.tsv": before})
    imported, night = typed(shell, project, "Continue a foreign session")
    assert "1.14" in imported.out
    assert "2 tonight" in night.out
    assert (project.root / "results.tsv").read_text().startswith(before)
    assert [line.split("\t")[0] for line in table(project)] == ["keep"] * 3


def test_analyse_last_night_only(shell: Shell, project: Project) -> None:
    begin(shell, project)
    before = (table(project), project.git("for-each-ref"), project.git("status", "--porcelain"))
    report, history = typed(shell, project, "Analyse last night only")
    assert "# Progress of run mar8" in report.out
    assert "This is what happened since" in report.out
    assert "mar8-2" in history.out
    assert (table(project), project.git("for-each-ref"), project.git("status", "--porcelain")) == before


def test_hand_it_over_and_take_results_elsewhere(shell: Shell, project: Project) -> None:
    begin(shell, project)
    project.write({"README.md": "not committed\n"})
    shown, squash, branches = typed(shell, project, "Hand it over")
    assert "mar8-2" in shown.out
    assert "autoresearch/mar8-final" in squash.out
    assert "autoresearch/mar8-idea-2" in branches.out
    assert (project.root / "README.md").read_text() == "not committed\n"
    [merge] = [
        words.split() for block in blocks("Hand it over", "sh") for words in block.splitlines() if "git" in words
    ]
    project.git(*merge[1:])
    assert project.git("rev-parse", "main") == project.git("rev-parse", "autoresearch/mar8-final")

    *_, tsv, _ = typed(shell, project, "Results elsewhere")
    assert tsv.out == (project.root / "results.tsv").read_text()
    assert r"\toprule" in (project.root / "table.tex").read_text()
    assert len((project.root / "results.csv").read_text().splitlines()) == 3
    assert len((project.root / "results.jsonl").read_text().splitlines()) == 2


def test_every_intent_of_the_page_is_typed_here() -> None:
    text = Path(__file__).read_text()
    assert [section for section in SECTIONS if f'"{section}"' not in text] == []
