"""Handing a run over, as a maintainer sees it: new branches on main, and nothing else moved."""

from typing import Any

import pytest

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.results import Finalized
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher, researching
from tests.project import SCRIPT, Project

pytestmark = pytest.mark.anyio


async def two_keeps(agent: Researcher) -> None:
    """A run that kept a rate, discarded a depth and kept another."""
    await agent.attempt("a higher rate", knobs={"LR": 0.2}, description="LR doubled")
    await agent.attempt("deeper", "architecture", knobs={"DEPTH": 8})
    await agent.attempt("shallower learns faster", "architecture", knobs={"DEPTH": 2})


async def finalize(agent: Researcher, **arguments: Any) -> Finalized:
    return await agent.lab.finalizing.finalize(agent.tag, **arguments)


def state(project: Project) -> tuple[str, ...]:
    """What must stay as it is: the checkout, its branch, and every branch that was there."""
    return (
        project.git("status", "--porcelain"),
        project.git("symbolic-ref", "HEAD"),
        project.git("rev-parse", "main", "autoresearch/mar8"),
        (project.root / "train.py").read_text(),
    )


async def test_what_was_kept_is_shown_in_order(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await two_keeps(agent)
        before = state(project)
        shown = await finalize(agent)
        assert [kept["experiment_id"] for kept in shown.kept] == ["mar8-2", "mar8-4"]
        assert [kept["change"] for kept in shown.kept] == ["LR doubled", "shallower learns faster"]
        assert (shown.baseline, shown.value, shown.branches, shown.conflicts) == (1.24, 1.12, [], [])
        assert "mode='squash'" in shown.next_action
        assert state(project) == before
        assert project.git("branch", "--list", "autoresearch/mar8-*") == ""


async def test_squash_makes_one_commit_on_a_main_that_has_moved(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await two_keeps(agent)
        project.commit("Meanwhile", {"README.md": "ours\n"})
        project.write({"train.py": "half an edit\n"})  # a dirty tree is nobody's business here
        before = state(project)
        made = await finalize(agent, mode="squash")
        assert [each["branch"] for each in made.branches] == ["autoresearch/mar8-final"]
        assert made.onto == "main"
        assert "were never measured together" in made.notes[0]
        assert project.git("rev-parse", "autoresearch/mar8-final^") == project.git("rev-parse", "main")
        assert project.git("diff", "--stat", "main", "autoresearch/mar8-final").count("train.py") == 1
        script = project.script_at("autoresearch/mar8-final")
        assert "LR = 0.2  # learning rate\nDEPTH = 2  # layers" in script
        message = project.git("log", "-1", "--format=%B", "autoresearch/mar8-final")
        assert message.startswith("Improve val_loss by 0.120000\n\nval_loss 1.240000 at first, 1.120000 with these")
        assert "- LR doubled (mar8-2, better by 0.100000)\n- shallower learns faster (mar8-4" in message
        assert state(project) == before
        assert await finalize(agent, mode="squash") == made  # asking again changes nothing


async def test_rebase_makes_a_commit_for_each_idea(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await two_keeps(agent)
        made = await finalize(agent, mode="rebase")
        assert made.notes == []
        subjects = project.git("log", "--reverse", "--format=%s", "main..autoresearch/mar8-final").splitlines()
        assert subjects == ["a higher rate", "shallower learns faster"]
        tree = project.git("rev-parse", "autoresearch/mar8-final^{tree}")
        assert tree == project.git("rev-parse", "autoresearch/mar8^{tree}")  # what was measured, to the byte
        message = project.git("log", "-1", "--format=%B", "autoresearch/mar8-final^")
        assert "LR doubled" in message
        assert "val_loss 1.140000. Better by 0.100000: val_loss 1.140000 against the best, 1.240000." in message
        commit = project.git("rev-parse", "refs/autoresearch/mar8/mar8-2")
        assert message.endswith(f"Experiment: mar8-2\nCategory: hyperparams\nMeasured-Commit: {commit}")


async def test_branches_make_each_idea_reviewable_alone(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await two_keeps(agent)
        await agent.attempt("a rate between", knobs={"LR": 0.25})
        made = await finalize(agent, mode="branches")
        names = [each["branch"] for each in made.branches]
        assert names == ["autoresearch/mar8-idea-2", "autoresearch/mar8-idea-4", "autoresearch/mar8-idea-5"]
        assert "LR = 0.2 " in project.script_at(names[0])
        assert "LR = 0.1  # learning rate\nDEPTH = 2" in project.script_at(names[1])  # without the first idea
        assert project.git("rev-list", "--count", f"main..{names[1]}") == "1"
        # 0.2 -> 0.25 does not fit a main that has 0.1
        assert made.notes == [f"{names[2]} holds the ideas before it too: alone it does not fit main."]
        assert project.git("rev-list", "--count", f"main..{names[2]}") == "3"


async def test_conflicts_are_reported_hunk_by_hunk_and_nothing_is_made(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await two_keeps(agent)
        project.commit("Another rate", {"train.py": SCRIPT.replace("LR = 0.1", "LR = 0.7")})
        before = state(project)
        for mode in ("squash", "rebase", "branches"):
            refused = await finalize(agent, mode=mode)
            assert refused.branches == []
            assert [conflict["path"] for conflict in refused.conflicts] == ["train.py"]
            assert "LR = 0.7" in refused.conflicts[0]["present"]
            assert "LR = 0.2" in refused.conflicts[0]["change"]
            assert "Nothing was changed" in refused.next_action
        assert refused.conflicts[0]["experiment_id"] == "mar8-2"
        assert state(project) == before
        assert project.git("branch", "--list", "autoresearch/mar8-*") == ""
        start = project.git("rev-parse", "main~1")
        assert (await finalize(agent, mode="rebase", onto=start)).branches


async def test_a_branch_that_is_there_is_never_moved(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("a higher rate", knobs={"LR": 0.2})
        await finalize(agent, mode="squash")
        before = project.git("rev-parse", "autoresearch/mar8-final")
        await agent.attempt("higher still", knobs={"LR": 0.25})
        with pytest.raises(WrongState, match=r"exists, at .*git branch -m"):
            await finalize(agent, mode="squash")
        assert project.git("rev-parse", "autoresearch/mar8-final") == before


async def test_there_must_be_something_to_hand_over(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        with pytest.raises(WrongState, match="nothing but its baseline"):
            await finalize(agent, mode="squash")
        await agent.attempt("a higher rate", knobs={"LR": 0.2})
        with pytest.raises(WrongState, match="has all that run 'mar8' kept already"):
            await finalize(agent, mode="rebase", onto="autoresearch/mar8")
        with pytest.raises(InvalidInput, match="not a commit"):
            await finalize(agent, mode="rebase", onto="nowhere")
        with pytest.raises(InvalidInput, match="nowhere"):
            await finalize(agent, onto="nowhere")
        project.git("branch", "--move", "main", "trunk")
        assert (await finalize(agent, mode="squash")).onto == "trunk"  # the one checked out


async def test_a_keep_that_another_overtook_is_left_out_and_named(project: Project, settings: Settings) -> None:
    async with researching(settings) as agent:
        rate = await agent.propose("a higher rate", knobs={"LR": 0.3})
        await agent.attempt("shallower", "architecture", knobs={"DEPTH": 3})
        await agent.lab.training.train(rate, wait_seconds=60)
        await agent.lab.verdicts.complete(rate)
        made = await finalize(agent, mode="rebase")
        assert ([kept["experiment_id"] for kept in made.kept], made.displaced) == (["mar8-2"], ["mar8-3"])
        assert "DEPTH = 4" in project.script_at("autoresearch/mar8-final")
