"""The loop where scores are noisy: repeats, confirmations, a best that is measured again, and changes on old bases."""

from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings
from tests.lab.noisy import NOISY, again, begun
from tests.lab.researcher import Researcher, researching
from tests.project import Project

pytestmark = pytest.mark.anyio


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", NOISY)


async def test_the_baseline_is_repeated_until_the_noise_is_seen(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        begin = await agent.begin(policy=None)
        assert begin.config["policy"] == "noise_aware"
        first = await agent.baseline()
        assert (first.status, first.action, first.value) == ("needs_confirmation", "confirm", 1.25)
        assert "train('mar8-1', seed=43)" in first.next_action
        assert "Nothing is known of the noise" in (await lab.reading.summary("mar8")).noise
        assert (await lab.verdicts.complete("mar8-1")) == first
        waiting = await lab.reading.suggest("mar8")
        assert waiting.pending_confirmations == ["mar8-1"]
        assert waiting.proposals[0]["arguments"] == {"experiment_id": "mar8-1"}
        for _ in range(2):
            assert (await again(agent, "mar8-1")).status == "needs_confirmation"
        done = await again(agent, "mar8-1")
        assert (done.status, done.runs) == ("keep", 4)
        assert done.value == pytest.approx(1.24)
        assert done.best_error == pytest.approx(0.011547 / 2, rel=1e-3)
        noise = (await lab.reading.summary("mar8")).noise
        assert "standard deviation of 0.011547, from 3 repeats" in noise
        assert "the best is 1.240000 +- 0.005774 over 4 run(s)." in noise
        assert [trial.seed for trial in await lab.training._bench.store.trials.of("mar8-1")] == [42, 43, 44, 45]


async def test_a_clear_gain_is_kept_at_once_and_a_small_one_is_confirmed(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        clear = await agent.attempt("faster", knobs={"LR": 0.2})
        assert (clear.status, clear.runs) == ("keep", 1)
        assert clear.numbers is not None
        assert clear.numbers["z"] == pytest.approx(0.09 / (0.011547 * 1.25**0.5), rel=1e-3)
        assert "unconfirmed and likely optimistic" in clear.reason

        small = await agent.attempt("shallower", "architecture", knobs={"DEPTH": 3})
        assert (small.status, small.action) == ("needs_confirmation", "confirm")
        with pytest.raises(WrongState, match="would come out the same"):
            await lab.training.train("mar8-3", seed=42)
        assert await lab.verdicts.complete("mar8-3") == small
        confirmed = await again(agent, "mar8-3")
        assert (confirmed.status, confirmed.runs, confirmed.value) == ("keep", 1, 1.12)  # the selected run is dropped
        assert confirmed.numbers is not None
        assert confirmed.numbers["n"] == 2
        worse = await agent.attempt("slower", knobs={"LR": 0.05})
        assert (worse.status, worse.near_miss) == ("discard", False)
        assert (await lab.reading.best("mar8")).error is not None


async def test_a_change_that_came_before_the_baseline_waits_for_it(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        agent.edit("WIDTH = 64", "WIDTH = 65")  # not the baseline, though it stands in the workspace
        early = await agent.attempt("eager", knobs={"LR": 0.3})
        assert early.status == "needs_confirmation"
        assert "Register with no change" in early.next_action
        for runs in range(4):
            suggested = await lab.reading.suggest("mar8")
            assert suggested.pending_confirmations == (["mar8-2"] if runs else [])
            tool, arguments = suggested.proposals[0]["tool"], suggested.proposals[0]["arguments"]
            assert tool == ("train" if runs else "register")
            measured = (await lab.registering.register(**arguments)).experiment_id if not runs else "mar8-2"
            assert arguments.get("experiment_id", measured) == measured == "mar8-2"
            if runs:
                assert "'mar8-2'" in (await lab.verdicts.complete("mar8-1")).next_action
            verdict = await again(agent, measured)
        assert verdict.status == "keep"
        assert (await lab.reading.best("mar8")).experiment.diff_summary == "no change"  # type: ignore[union-attr]

        suggested = await lab.reading.suggest("mar8")
        assert suggested.pending_confirmations == []
        assert suggested.proposals[0]["arguments"] == {"experiment_id": "mar8-1"}
        assert suggested.proposals[0]["tool"] == "complete"
        assert (await lab.verdicts.complete("mar8-1")).status == "keep"
        assert (await lab.reading.best("mar8")).experiment.experiment_id == "mar8-1"  # type: ignore[union-attr]


async def test_a_confirmation_goes_on_top_of_a_best_that_has_changed(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        await agent.propose("faster", knobs={"LR": 0.2})
        await agent.propose("shallower", "architecture", knobs={"DEPTH": 2})
        await lab.training.train("mar8-3", wait_seconds=60)
        assert (await lab.verdicts.complete("mar8-3")).status == "needs_confirmation"
        assert (await again(agent, "mar8-2")).status == "keep"

        verdict = await again(agent, "mar8-3")
        assert (verdict.status, verdict.displaced) == ("keep", []), verdict.reason
        shown = (await lab.reading.history("mar8", status="keep", detail="full")).experiments[0]
        assert (shown.parent_id, shown.diff_summary) == ("mar8-2", "DEPTH 4 -> 2, train.py +1 -1")
        script = project.git("show", "autoresearch/mar8:train.py")
        assert "LR = 0.2" in script
        assert "DEPTH = 2" in script


async def test_a_confirmation_that_does_not_fit_the_best_any_more_is_discarded(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        await agent.propose("faster", knobs={"LR": 0.2})
        await agent.propose("a bit faster", knobs={"LR": 0.12})
        await lab.training.train("mar8-3", wait_seconds=60)
        assert (await lab.verdicts.complete("mar8-3")).status == "needs_confirmation"
        assert (await again(agent, "mar8-2")).status == "keep"
        answer = await lab.training.train("mar8-3")
        assert "where it does not fit: train.py lines 3-3" in answer.next_action
        verdict = await lab.verdicts.complete("mar8-3")
        assert (verdict.status, verdict.near_miss) == ("discard", True)


async def test_a_gain_on_an_old_base_that_holds_against_the_best_displaces_it(
    settings: Settings, project: Project
) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        for name, lr in (("faster", 0.2), ("fastest", 0.3)):
            await agent.propose(name, knobs={"LR": lr})
        assert (await again(agent, "mar8-2")).status == "keep"
        stale = await again(agent, "mar8-3")
        assert (stale.status, stale.displaced) == ("keep", ["mar8-2"])
        parents = project.git("rev-list", "--parents", "-1", "autoresearch/mar8").split()[1:]
        assert len(parents) == 2


async def test_a_displaced_keep_is_suggested_once_to_be_put_on_top(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        await agent.propose("faster", knobs={"LR": 0.15})
        await agent.propose("shallower", "architecture", knobs={"DEPTH": -6})
        assert (await again(agent, "mar8-2")).status == "keep"
        assert (await again(agent, "mar8-3")).displaced == ["mar8-2"]
        call = (await lab.reading.suggest("mar8")).proposals[0]
        assert (call["tool"], call["arguments"]["combine"]) == ("register", ["mar8-2", "mar8-3"])
        both = (await lab.registering.register(**call["arguments"])).experiment_id
        assert all("combine" not in each["arguments"] for each in (await lab.reading.suggest("mar8")).proposals)
        assert (await again(agent, both)).status == "keep"
        script = project.git("show", "autoresearch/mar8:train.py")
        assert "LR = 0.15" in script
        assert "DEPTH = -6" in script


async def test_a_changed_comment_is_no_idea(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        await agent.baseline()
        comment = {"path": "train.py", "old": "# layers", "new": "# how many layers"}
        with pytest.raises(InvalidInput, match="Nothing but comments or formatting is changed against what mar8-1"):
            await agent.propose("words", edits=[comment])


async def test_a_gain_without_bounds_has_no_percentage(settings: Settings) -> None:
    async with researching(settings) as agent:
        changes = {"loss = 1 ": "loss = -1e308 ", ":.6f": ""}
        edits = [{"path": "train.py", "old": old, "new": new} for old, new in changes.items()]
        assert (await agent.attempt("far", edits=edits)).improved
        assert (await agent.lab.reading.summary("mar8")).improvement_percent is None


async def test_on_a_plateau_the_best_is_measured_again_and_near_misses_come_back(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        lucky = await agent.attempt("lucky", edits=[{"path": "train.py", "old": "42: 0.01", "new": "42: -0.05"}])
        assert lucky.status == "keep"
        for number in range(8):
            near = await agent.attempt(f"wider {number}", knobs={"WIDTH": 65 + number, "DEPTH": 5})
            assert near.near_miss
        suggested = await lab.reading.suggest("mar8")
        best = (await lab.reading.best("mar8")).experiment
        assert best is not None
        assert best.runs == 1
        call = suggested.proposals[0]
        assert (call["tool"], call["arguments"]["experiment_id"]) == ("train", best.experiment_id)
        assert "Plateau" in suggested.reason
        await lab.training.train(**call["arguments"], wait_seconds=60)
        assert (await lab.reading.suggest("mar8")).proposals[0]["tool"] == "complete"
        verdict = await lab.verdicts.complete(best.experiment_id)
        assert (verdict.status, verdict.runs) == ("keep", 2)
        assert verdict.value is not None
        assert verdict.value > (best.value or 0)
        assert len(verdict.reopened) == 2
        assert verdict.reopened[0] in verdict.next_action
        assert (await lab.verdicts.complete(best.experiment_id)).reopened == verdict.reopened
        after = await lab.reading.suggest("mar8")
        assert after.pending_confirmations == verdict.reopened
        assert "z 0." in after.suggestions[0]  # as it counts now, and not what made it a near miss
        await again(agent, verdict.reopened[0])
        assert (await lab.verdicts.complete(best.experiment_id)).reopened == verdict.reopened[1:]


async def test_a_kept_experiment_is_trained_again_only_with_a_new_seed(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        for seed in (None, 43):
            assert (await lab.training.train("mar8-1", seed=seed)).seed == (seed or 45)
        repeated = await lab.training.train("mar8-1", seed=99, wait_seconds=60)
        assert (repeated.status, repeated.seed) == ("trained", 99)
        assert "taken into the mean" in repeated.next_action
        verdict = await lab.verdicts.complete("mar8-1")
        assert (verdict.status, verdict.runs) == ("keep", 5)
        assert verdict.value == pytest.approx(1.24)


async def test_two_changes_are_put_together(settings: Settings, project: Project) -> None:
    async with researching(settings) as agent:
        for number, knobs in enumerate(({"LR": 0.12}, {"WIDTH": 128}, {"LR": 0.15}), 2):
            assert await agent.propose(f"idea {number}", knobs=knobs) == f"mar8-{number}"
        await agent.propose("both", "combination", combine=["mar8-2", "mar8-3"])
        script = project.git("show", "refs/autoresearch/mar8/mar8-5:train.py")
        assert "LR = 0.12" in script
        assert "WIDTH = 128" in script
        with pytest.raises(InvalidInput, match=r'train.py lines 3-3 of .*"LR = 0.12.*against .*"LR = 0.15') as refusal:
            await agent.propose("neither", "combination", combine=["mar8-2", "mar8-4"])
        assert "Nothing was changed" in refusal.value.todo
        assert (await agent.lab.reading.history("mar8")).total == 5


async def test_what_was_tried_is_not_tried_again_on_the_same_base(settings: Settings) -> None:
    async with researching(settings) as agent:
        await agent.attempt("too fast", knobs={"LR": 0.9})
        text = "very same change on the same base: discard: Worse by"
        with pytest.raises(InvalidInput, match=text):
            await agent.propose("in other words", edits=[{"path": "train.py", "old": "LR = 0.1 ", "new": "LR = 9e-1 "}])
        assert (await agent.attempt("shallower", knobs={"DEPTH": 3})).status == "keep"
        assert await agent.propose("too fast, on another base", knobs={"LR": 0.9}) == "mar8-4"


async def test_another_seed_is_no_idea(settings: Settings) -> None:
    async with researching(settings) as agent:
        seed = {"path": "train.py", "old": 'int(os.environ["AUTORESEARCH_SEED"])', "new": "1337"}
        with pytest.raises(InvalidInput, match="Nothing but the random seed"):
            await agent.propose("luck", edits=[seed])


async def test_an_experiment_may_start_from_any_earlier_one(settings: Settings, project: Project) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        assert (await agent.attempt("too deep", knobs={"DEPTH": 9})).status == "discard"
        branched = await agent.attempt("and faster", knobs={"LR": 0.3}, parent_id="mar8-2")
        assert (branched.status, branched.numbers and branched.numbers["base"]) == ("keep", "mar8-1")
        assert "DEPTH = 9" in project.git("show", "autoresearch/mar8:train.py")


async def test_results_on_other_data_are_not_compared(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        other = {"path": "train.py", "old": "os.environ['AUTORESEARCH_CACHE'][-3:]", "new": "'other'"}
        verdict = await agent.attempt("elsewhere", edits=[other])
        assert verdict.status == "discard"
        assert "Results with different fingerprints are never compared" in verdict.reason


async def test_strict_confirms_twice_what_noise_aware_keeps(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent, policy="strict")
        verdict = await agent.attempt("shallower", "architecture", knobs={"DEPTH": 2})
        assert verdict.status == "needs_confirmation"
        for _ in range(2):
            if verdict.status == "needs_confirmation":
                verdict = await again(agent, verdict.experiment_id)
        assert verdict.status == "keep"


async def test_following_what_is_proposed_gets_better(settings: Settings) -> None:
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await begun(agent)
        for _ in range(14):
            call = next(iter((await lab.reading.suggest("mar8")).proposals))
            if call["tool"] == "register":
                experiment_id = (await lab.registering.register(**call["arguments"])).experiment_id
                await lab.training.train(experiment_id, wait_seconds=60)
            else:
                experiment_id = call["arguments"]["experiment_id"]
                if call["tool"] == "train":
                    await lab.training.train(**call["arguments"], wait_seconds=60)
            await lab.verdicts.complete(experiment_id)
        summary = await lab.reading.summary("mar8")
        assert summary.improvement is not None
        assert summary.improvement > 0.05


async def test_where_the_script_as_it_is_crashes_the_first_that_trains_is_the_baseline(
    settings: Settings, project: Project
) -> None:
    broken = NOISY.replace("DEPTH = 4", "DEPTH = 0").replace("0.01 * DEPTH", "0.04 / DEPTH")
    project.commit("No layers", {"train.py": broken})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await agent.begin(policy="noise_aware")
        assert (await agent.baseline()).status == "crash"
        suggested = await lab.reading.suggest("mar8")
        assert "the script as it is crashes" in suggested.suggestions[0]
        assert "what trains well first is the baseline" in suggested.suggestions[0]

        mended = await agent.attempt("a layer", knobs={"DEPTH": 1})
        assert (mended.status, mended.reason.split(",")[0]) == ("needs_confirmation", "1 of 4 baseline runs")
        for _ in range(3):
            suggested = await lab.reading.suggest("mar8")
            assert suggested.pending_confirmations == ["mar8-2"]
            assert suggested.proposals[0]["arguments"] == {"experiment_id": "mar8-2"}
            mended = await again(agent, "mar8-2")
        assert (mended.status, mended.runs, mended.numbers) == ("keep", 4, None)
        assert (await agent.attempt("faster", knobs={"LR": 0.2})).status == "keep"
