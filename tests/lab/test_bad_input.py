"""What bad input gets: a clear refusal that says what was seen and what to do, and nothing changed or lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady, ResearchError, UnknownId, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.researcher import GOAL, Researcher, researching
from tests.project import Project

pytestmark = pytest.mark.anyio

EDIT = {"path": "train.py", "old": "LR = 0.1", "new": "LR = 0.2"}


def trace(project: Project) -> tuple[str, ...]:
    """All that git knows and the user's files: what a refusal must leave as it was."""
    return (
        project.git("for-each-ref"),
        project.git("status", "--porcelain"),
        project.git("config", "--list", "--local"),
        project.git("worktree", "list"),
    )


@pytest.mark.parametrize(
    "tag", ["", "-x", "a b", "a..b", "a/b", "x.lock", "x.", "é", "t" * 65, "../up", "a\nb", "@{1}"]
)
async def test_a_tag_that_is_none(project: Project, settings: Settings, tag: str) -> None:
    async with Lab.open(settings) as lab:
        before = trace(project)
        with pytest.raises(InvalidInput, match="tag"):
            await lab.setup.setup_run(tag=tag, **GOAL)
        with pytest.raises(InvalidInput, match="agent name"):
            await lab.setup.setup_run(tag="good", agent=tag, **GOAL)
        assert trace(project) == before


async def test_a_tag_that_exists_in_any_letter_case(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        before = trace(project)
        for tag in ("mar8", "MAR8"):
            with pytest.raises(WrongState, match="resume=true"):
                await agent.lab.setup.setup_run(tag=tag, **GOAL)
        assert trace(project) == before


SETUPS: list[tuple[dict[str, Any], str]] = [
    ({"metric": "val loss"}, "e.g. val_loss, which finds `val loss 0.9` too"),
    ({"metric": None}, "Ask the user: which metric"),
    ({"metric": "thing", "direction": None}, "lower or higher"),
    ({"time_budget_seconds": None}, "Ask the user: how many seconds"),
    ({"time_budget_seconds": float("nan")}, "time_budget_seconds is nan"),
    ({"train_script": "absent.py"}, "not in the commit"),
    ({"train_script": "../train.py"}, "'..'"),
    ({"train_script": "/etc/passwd"}, "not relative"),
    ({"train_script": "x" * 5000}, "too long"),
    ({"command": "python train.py\npython train.py"}, "several lines"),
    ({"command": "python train.py " + "x" * 5000}, "has 5016 characters"),
    ({"metric": "x" * 100}, "not a name"),
    ({"command": "python 'train.py"}, "cannot be split"),
    ({"command": "make train"}, "names no committed script"),
    ({"editable": ["*.rs"]}, "matches no committed file"),
    ({"inputs": ["data/*"]}, "matches nothing"),
    ({"inputs": ["/etc"]}, "not relative"),
    ({"inputs": ["../data"]}, "'..'"),
    ({"inputs": ["C:/data"]}, "not relative"),
    ({"inputs": ["link/*"]}, "through a symbolic link out of the repository"),
    ({"inputs": ["**/**/**/*"]}, "more than twice"),
    ({"inputs": ["x"] * 101}, "has 101 patterns"),
    ({"editable": ["../*.py"]}, "'..'"),
    ({"editable": [".git/hooks/*"]}, "lies in .git"),
    ({"editable": ["[z-a].py"]}, "ends before it begins"),
    ({"readonly": ["a\nb"]}, "control characters"),
    ({"readonly": ["**/a/**/b/**"]}, "more than twice"),
    ({"results_file": "link/results.tsv"}, "leads out of the repository"),
    ({"results_file": "/tmp/results.tsv"}, "not relative"),
    ({"results_file": ".git/results.tsv"}, "lies in .git"),
    ({"results_file": "../results.tsv"}, "'..'"),
    ({"results_file": "README.md"}, "tools or agents read"),
    ({"results_file": "train.py"}, "not named as data"),
    ({"scope": []}, "scope is empty"),
    ({"scope": ["optimizer", "other", "optimizer"]}, "scope names optimizer more than once"),
    ({"policy": "careful"}, "policy 'careful' is unknown"),
    ({"policy": "noise_aware", "external": True}, "external run does by itself"),
    ({"max_experiments": 0}, "max_experiments is 0"),
    ({"target": float("inf")}, "target is inf"),
    ({"near_miss_threshold": -1.0}, "near_miss_threshold is -1"),
    ({"task": "poetry"}, "task 'poetry' is not known"),
    ({"base_ref": "nowhere"}, "not a commit"),
    ({"base_ref": "--all"}, "not a commit"),
    ({"base_ref": "--output=/tmp/x"}, "not a commit"),
    ({"base_ref": ":/Start"}, "not a commit"),
    ({"base_ref": "HEAD:train.py"}, "not a commit"),
    ({"base_ref": "HEAD\nmain"}, "not a commit"),
    ({"base_ref": "main "}, "not a commit"),
    ({"base_ref": ""}, "not a commit"),
    ({"base_ref": "main" * 1000}, "not a commit"),
]


@pytest.mark.parametrize(("wrong", "says"), SETUPS)
async def test_a_run_that_cannot_be(
    project: Project, settings: Settings, tmp_path: Path, wrong: dict[str, Any], says: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data.bin").touch()
    (project.root / "link").symlink_to(tmp_path / "elsewhere")
    async with Lab.open(settings) as lab:
        before = trace(project)
        with pytest.raises(InvalidInput, match=says.replace("..", r"\.\.")):
            await lab.setup.setup_run(tag="mar8", **{**GOAL, **wrong})
        assert trace(project) == before
        assert (await lab.reading.list_runs()).runs == []


REGISTERS: list[tuple[dict[str, Any], type[ResearchError], str]] = [
    ({"hypothesis": "  "}, InvalidInput, "hypothesis is empty"),
    ({"hypothesis": "x" * 5000}, InvalidInput, "5000 characters"),
    ({"category": "vibes"}, InvalidInput, "category 'vibes' is unknown"),
    ({"tag": "nope"}, UnknownId, "No run has the tag 'nope'"),
    ({"agent": "nobody"}, InvalidInput, "No agent is called 'nobody'"),
    ({"parent_id": "mar8-99"}, UnknownId, "mar8-99"),
    ({"edits": [{**EDIT, "old": "LR = 7"}]}, InvalidInput, "absent from 'train.py'"),
    ({"edits": [{**EDIT, "old": "loss"}]}, InvalidInput, "occurs 4 times"),
    ({"edits": [{**EDIT, "path": "/etc/passwd"}]}, InvalidInput, "not relative"),
    ({"edits": [{**EDIT, "path": "../train.py"}]}, InvalidInput, "'..'"),
    ({"edits": [{**EDIT, "path": "README.md", "old": "mine"}]}, InvalidInput, "outside of the editable files"),
    ({"edits": [{"path": "train.py", "find": "LR"}]}, InvalidInput, "path, old and new"),
    ({"edits": []}, InvalidInput, "edits is empty"),
    ({"files": {"new.py": "x = 1\n"}}, InvalidInput, "outside of the editable files"),
    ({"files": {"pyproject.toml": "[project]\nname='x'\n"}}, InvalidInput, "declares dependencies"),
    ({"files": {".git/config": "x"}}, InvalidInput, "lies in .git"),
    ({"knobs": {"LRR": 0.2}}, InvalidInput, "LRR"),
    ({"knobs": {"LR": "high"}}, InvalidInput, "LR"),
    ({"knobs": {"LR": 0.1}}, InvalidInput, "LR"),
    ({"knobs": {"LR": 0.2}, "edits": [EDIT]}, InvalidInput, "edits and knobs"),
    ({"combine": ["mar8-1", "mar8-1"]}, InvalidInput, "two different experiments"),
    ({"combine": ["mar8-1"]}, InvalidInput, "two different experiments"),
    ({"combine": ["mar8-1", "mar8-99"]}, UnknownId, "mar8-99"),
    ({"commit_sha": "0" * 40}, InvalidInput, "not a commit"),
    ({}, InvalidInput, "no change"),
]


@pytest.mark.parametrize(("wrong", "kind", "says"), REGISTERS)
async def test_a_change_that_cannot_be_registered(
    project: Project, settings: Settings, wrong: dict[str, Any], kind: type[ResearchError], says: str
) -> None:
    async with researching(settings) as agent:
        before, script = trace(project), agent.script.read_text()
        with pytest.raises(kind, match=says.replace("..", r"\.\.")):
            await agent.propose(**{"hypothesis": "better", **wrong})
        assert trace(project) == before
        assert agent.script.read_text() == script
        assert (await agent.lab.reading.history("mar8")).total == 1


async def test_a_forbidden_edit_in_the_workspace_stays_there(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        readme = agent.script.with_name("README.md")
        readme.write_text("theirs\n")
        with pytest.raises(InvalidInput, match=r"README\.md"):
            await agent.propose("rewritten")
        assert readme.read_text() == "theirs\n"


async def test_a_link_leads_nowhere(project: Project, settings: Settings, tmp_path: Path) -> None:
    async with researching(settings, editable=["*.py"]) as agent:
        outside = tmp_path / "outside.py"
        outside.write_text("SECRET = 1\n")
        agent.script.with_name("link.py").symlink_to(outside)
        with pytest.raises(InvalidInput, match="symbolic link"):
            await agent.propose("a link")


async def test_a_category_outside_the_scope(settings: Settings) -> None:
    async with researching(settings, scope=["optimizer"]) as agent:
        with pytest.raises(InvalidInput, match="outside the scope"):
            await agent.propose("deeper", "architecture", knobs={"DEPTH": 5})


@pytest.mark.parametrize("ask", ["train", "complete", "crash", "logs", "stop", "experiment_diff"])
async def test_an_unknown_experiment(settings: Settings, ask: str) -> None:
    async with researching(settings) as agent:
        lab = agent.lab
        calls: dict[str, Callable[[str], Any]] = {
            "train": lab.training.train,
            "complete": lab.verdicts.complete,
            "crash": lab.verdicts.crash,
            "logs": lab.training.logs,
            "stop": lab.training.stop,
            "experiment_diff": lab.reading.experiment_diff,
        }
        with pytest.raises(UnknownId, match="mar8-77"):
            await calls[ask]("mar8-77")


async def test_a_verdict_before_the_training(settings: Settings) -> None:
    async with researching(settings) as agent:
        experiment_id = await agent.propose("better", knobs={"LR": 0.2})
        with pytest.raises(WrongState, match="train"):
            await agent.lab.verdicts.complete(experiment_id)


async def test_a_score_that_was_typed_in(settings: Settings) -> None:
    async with researching(settings) as agent:
        experiment_id = await agent.propose("worse", knobs={"LR": 0.9})
        for metrics in ({"val_loss": 0.1}, {"speed": 3.0}):
            with pytest.raises((WrongState, InvalidInput), match="train"):
                await agent.lab.verdicts.complete(experiment_id, metrics=metrics)
        await agent.lab.training.train(experiment_id)
        with pytest.raises(InvalidInput, match="not what was measured"):
            await agent.lab.verdicts.complete(experiment_id, metrics={"val_loss": 0.1})
        verdict = await agent.lab.verdicts.complete(experiment_id, metrics={"val_loss": 1.64})
        assert verdict.status == "discard"


async def test_completing_twice_gives_the_same_answer_once(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        first = await agent.attempt("better", knobs={"LR": 0.2})
        assert await agent.lab.verdicts.complete("mar8-2") == first
        with pytest.raises(InvalidInput, match="not what was measured"):
            await agent.lab.verdicts.complete("mar8-2", metrics={"val_loss": 0.5})
        assert (project.root / "results.tsv").read_text().count("better") == 1


@pytest.mark.parametrize("uncommitted", ["train.py", "notes.md"])
async def test_uncommitted_changes_are_left_out_by_name(project: Project, settings: Settings, uncommitted: str) -> None:
    project.write({uncommitted: "UNFINISHED = 1\n"})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        run = await agent.begin()
        assert any("Uncommitted" in note and uncommitted in note for note in run.adjustments)
        assert "UNFINISHED" not in agent.script.read_text()
    assert (project.root / uncommitted).read_text() == "UNFINISHED = 1\n"


async def test_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="git init"):
        async with Lab.open(Settings.load(tmp_path)):
            pass


async def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    project = Project(tmp_path / "empty")
    project.root.mkdir()
    project.git("init", "--quiet")
    async with Lab.open(Settings.load(project.root, "cpu:1")) as lab:
        with pytest.raises(NotReady, match="no commit yet"):
            await lab.setup.setup_run(tag="mar8", **GOAL)


async def test_hooks_and_signing_of_the_user_break_nothing(project: Project, settings: Settings) -> None:
    hooks = project.root / ".git" / "hooks"
    for hook in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / hook).write_text("#!/bin/sh\nexit 1\n")
        (hooks / hook).chmod(0o755)
    for name, value in (("commit.gpgsign", "true"), ("gpg.program", "false"), ("core.hooksPath", str(hooks))):
        project.git("config", name, value)
    async with researching(settings) as agent:
        agent.edit("LR = 0.1", "LR = 0.2")
        assert (await agent.attempt("a higher rate")).status == "keep"


async def test_no_data_for_the_built_in_task(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "gpt")
    project.commit("Harness", {"prepare.py": '"""Ours."""\n\nHARNESS = "autoresearch-mcp"\n'})
    async with Lab.open(Settings.load(project.root, "cpu:1")) as lab:
        with pytest.raises(NotReady, match=r"python prepare\.py"):
            await lab.setup.setup_run(tag="mar8")
        preview = await lab.setup.setup_run(
            tag="mar8", preview=True, metric="val_loss", command="python train.py", time_budget_seconds=5.0
        )
        assert preview.config["command"] == "python train.py"


async def test_a_preview_makes_nothing(project: Project, settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        before = trace(project)
        shown = await lab.setup.setup_run(tag="mar8", preview=True, **GOAL)
        assert shown.workspace is None
        assert shown.config["metric"] == "val_loss"
        assert trace(project) == before
        assert (await lab.reading.list_runs()).runs == []


async def test_a_preview_of_a_run_that_exists_makes_nothing_either(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        before = trace(project)
        shown = await agent.lab.setup.setup_run(tag="mar8", resume=True, preview=True, agent="ghost")
        assert shown.workspace is None
        assert trace(project) == before
        assert (await agent.lab.reading.list_runs()).runs[0].agents == ["agent-1"]


@pytest.mark.parametrize(
    ("results_file", "says"),
    [("folder.tsv", "is a folder"), ("README.md/results.tsv", "leads through a file"), ("link.tsv", "symbolic link")],
)
async def test_a_results_file_that_cannot_be(
    project: Project, settings: Settings, tmp_path: Path, results_file: str, says: str
) -> None:
    (project.root / "folder.tsv").mkdir()
    (project.root / "link.tsv").symlink_to(tmp_path / "elsewhere.tsv")
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput, match=says):
            await lab.setup.setup_run(tag="mar8", results_file=results_file, **GOAL)


async def test_a_table_of_the_users_own_is_left_alone(project: Project, settings: Settings) -> None:
    project.write({"results.tsv": "mine\n"})
    async with researching(settings) as agent:
        assert agent.run is not None
        assert agent.run.config["results_file"] == "results-mar8.tsv"
    assert (project.root / "results.tsv").read_text() == "mine\n"
    assert (project.root / "results-mar8.tsv").read_text().count("keep") == 1
