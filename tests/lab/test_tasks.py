"""Runs that are set up by a task file or autoresearch.toml, and the limits that they set."""

from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady, Undecided, WrongState
from mcp_server.lab.lab import Lab
from mcp_server.lab.sources import find_task
from mcp_server.machine.git import Repository
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import SCRIPT, Project

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

TASK = """\
name: small
artifacts: [model.py]
mutation: {max_lines: 4}
runner: {command: python model.py, budget_seconds: 5}
scorer: {command: python score.py, metric: quality, direction: maximize}
checks: [python check.py]
policy: greedy
"""
FILES = {
    "jobs/task.yaml": TASK,
    "jobs/model.py": "VALUE = 1\nprint('quality: 99')\n",
    "jobs/score.py": "from model import VALUE\nprint('quality:', VALUE)\n",
    "jobs/check.py": "from model import VALUE\nassert VALUE < 10, 'too much'\n",
}


def source(shown: Any, name: str) -> tuple[str, str]:
    """The value of a field in the table of the config, and where it came from."""
    row = next(row for row in shown.research_config if row["field"] == name)
    return row["value"], row["source"]


async def test_a_task_in_a_folder_decides_all_and_its_limits_hold(project: Project, settings: Settings) -> None:
    project.commit("A task", FILES)
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        agent.run = run = await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml")
        assert run.config["editable"] == ["jobs/model.py"]
        assert source(run, "metric") == ("quality", "task jobs/task.yaml")
        assert run.config["readonly"] == ["jobs/score.py", "jobs/check.py", "jobs/task.yaml"]
        assert (await agent.baseline()).value == 1
        better = await agent.attempt("more", edits=[{"path": "jobs/model.py", "old": "= 1", "new": "= 5"}])
        assert (better.status, better.value) == ("keep", 5)
        rejected = await agent.attempt("too much", edits=[{"path": "jobs/model.py", "old": "= 5", "new": "= 50"}])
        assert (rejected.status, rejected.value, rejected.best_value) == ("discard", None, 5)
        assert "The check 'python check.py' failed" in rejected.reason
        with pytest.raises(InvalidInput, match="touches 6 lines, and this task allows 4"):
            await agent.propose("long", files={"jobs/model.py": "A = 1\nB = 1\nC = 1\nVALUE = 7\n"})
        with pytest.raises(InvalidInput, match=r"score\.py' is read-only"):
            await agent.propose("cheat", files={"jobs/score.py": "print('quality: 100')\n"})


async def test_a_baseline_that_fails_its_checks_is_a_crash(project: Project, settings: Settings) -> None:
    project.commit("A task", FILES | {"jobs/check.py": "raise SystemExit('never')\n"})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", task="jobs")
        verdict = await agent.baseline()
        assert (verdict.status, "never" in verdict.reason) == ("crash", True)


async def test_arguments_come_before_the_task_and_the_task_before_the_config_file(
    project: Project, settings: Settings
) -> None:
    project.commit("A task", FILES)
    project.write(
        {"autoresearch.toml": 'task = "jobs"\nmax_experiments = 7\ntarget = 9.0\n[runner]\nbudget_seconds = 1\n'}
    )
    async with Lab.open(settings) as lab:
        shown = await lab.setup.setup_run(tag="mar8", target=8.0, preview=True)
        assert source(shown, "time_budget_seconds") == ("5", "task jobs")
        assert source(shown, "max_experiments") == ("7", "autoresearch.toml")
        assert source(shown, "target") == ("8", "argument")
        assert source(shown, "near_miss_threshold") == ("0.002", "default")
        assert "ask whether it is right" in shown.next_action


async def test_what_is_nowhere_is_asked(project: Project, settings: Settings) -> None:
    project.write({"autoresearch.toml": 'metric = "val_loss"\n'})
    async with Lab.open(settings) as lab:
        with pytest.raises(Undecided, match="how many seconds") as asked:
            await lab.setup.setup_run(tag="mar8")
        assert list(asked.value.questions) == ["time_budget_seconds"]
        shown = await lab.setup.setup_run(tag="mar8", time_budget_seconds=3.0, preview=True)
        assert source(shown, "direction") == ("minimize", "guessed from the metric's name")


async def test_a_task_outside_of_the_repository_counts_from_its_top(
    project: Project, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "elsewhere.yaml"
    path.write_text("artifacts: train.py\nrunner: {budget_seconds: 5}\nscorer: {metric: val_loss}\npolicy: greedy\n")
    async with Lab.open(settings) as lab:
        shown = await lab.setup.setup_run(tag="mar8", task=str(path), preview=True)
        assert (shown.config["command"], shown.config["folder"]) == ("python train.py", "")


async def test_the_built_in_task_is_a_file(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "gpt", SCRIPT)
    async with Lab.open(Settings.load(project.root, "cpu:1")) as lab:
        with pytest.raises(InvalidInput, match=r"repository with our prepare\.py"):
            await lab.setup.setup_run(tag="mar8", task="gpt")
        project.commit("Harness", {"prepare.py": '"""Ours."""\n\nHARNESS = "autoresearch-mcp"\n'})
        with pytest.raises(NotReady, match=r"python prepare\.py"):
            await lab.setup.setup_run(tag="mar8", task="gpt")


async def test_the_number_of_experiments_and_the_target_end_a_run(project: Project, settings: Settings) -> None:
    project.write(
        {"autoresearch.toml": 'metric = "val_loss"\ntime_budget_seconds = 5\npolicy = "greedy"\ntarget = 1.1\n'}
    )
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        await lab.setup.setup_run(tag="mar8", max_experiments=3)
        await agent.baseline()
        assert (await agent.attempt("better", knobs={"LR": 0.25})).status == "keep"
        with pytest.raises(WrongState, match="reached its target"):
            await agent.propose("more", knobs={"LR": 0.3})
        await lab.setup.setup_run(tag="mar9", max_experiments=1, target=0.0)
        other = Researcher(lab, "mar9")
        await other.baseline()
        with pytest.raises(WrongState, match="has its 1 experiments"):
            await other.propose("more", knobs={"LR": 0.3})


async def test_what_the_platform_decides_is_in_the_config_and_reaches_the_training(
    project: Project, settings: Settings
) -> None:
    script = "import os\nprint('val_loss: 1')\nprint('precision:', os.environ['AUTORESEARCH_PRECISION'])\n"
    project.commit("Tell", {"train.py": script})
    async with Lab.open(settings) as lab:
        agent = Researcher(lab)
        run = await agent.begin()
        assert run.platform["system"].startswith(("Linux", "Darwin"))
        assert source(run, "precision") == (run.platform["precision"], "this cpu")
        assert {"compile", "attention", "optimizer_state"} < {row["field"] for row in run.research_config}
        assert any(note.startswith("Adjusted to cpu: ") for note in run.adjustments)
        verdict = await agent.baseline()
        best = await lab.bench.store.experiments.get(verdict.experiment_id)
        assert best.metrics["precision"] == run.platform["precision"]


def test_the_built_in_task_is_about_the_top_of_the_repository_that_it_lies_in() -> None:
    """Someone who cloned this project, installed it in place and researches in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    path, folder = find_task(Repository.discover(ROOT), "gpt")
    assert (path.name, path.is_relative_to(ROOT), folder) == ("gpt.yaml", True, "")


LINES = [
    ("artifacts:\n  - model.py\n  - 'no*'\n", "4, artifacts: editable pattern 'jobs/**/no*' matches no committed file"),
    ("readonly: [.git/x]\n", "2, readonly: readonly pattern 'jobs/.git/x' lies in .git"),
    ("inputs:\n  - /etc\n", "3, inputs: inputs pattern 'jobs/etc' matches nothing"),
    ("inputs:\n  - score.py\n", "3, inputs: inputs pattern 'jobs/score.py' matches only committed files"),
    ("runner:\n  folder: ../x\n", "3, runner.folder: folder 'jobs/../x' contains '..'"),
    ("runner:\n  folder: nowhere\n", "3, runner.folder: folder 'jobs/nowhere' holds no committed file"),
    ("runner: {command: nosuchprogram}\n", "2, runner.command: command begins with 'nosuchprogram', which is not"),
    ("runner: {memory: {batch: NOSUCH}}\n", "2, runner.memory.batch: 'NOSUCH' is no constant of jobs/model.py"),
    ("runner: {memory: {batch: RATE}}\n", "2, runner.memory.batch: RATE is 0.5, not a whole number"),
    ("runner: {memory: {checkpointing: VALUE}}\n", "2, runner.memory.checkpointing: VALUE is 1, not True or False"),
    (
        "runner: {memory: {batch: --batch}}\n",
        "2, runner.memory.batch: The default of --batch in jobs/model.py is no plain",
    ),
    ("runner: {command: ./nope}\n", "2, runner.command: command './nope' runs 'jobs/nope', which is no committed file"),
    ("runner: {command: bash nope.sh}\n", "2, runner.command: command 'bash nope.sh' runs 'jobs/nope.sh'"),
    ("runner: {command: A=1 python model.py}\n", "Begin with `env A=1`, or use runner.environment"),
    ("results_file: jobs/score.py\n", "2, results_file: results_file 'jobs/score.py' is not named as data"),
    ("results_file: ../x.tsv\n", "2, results_file: results_file '../x.tsv' contains '..'"),
    ("scope: [other, other]\n", "2, scope: scope names other more than once"),
    ("checks:\n  - 'true'\n  - nosuchprogram x\n", "4, checks: checks begins with 'nosuchprogram', which is not on"),
    ("scorer:\n  command: python nothere.py\n", "3, scorer.command: command 'python nothere.py' runs 'jobs/nothere"),
    ("scorer:\n  command: python3 -u mine.py\n", "which is no committed file. Commit it: trainings see what is"),
    ("scorer:\n  rescore: python score.py\n", "3, scorer.rescore: only one of scorer.rescore and scorer.judge"),
    ("mutator: python nothere.py\n", "2, mutator: mutator 'python nothere.py' runs 'jobs/nothere.py'"),
    ("vary:\n  VALUE: [2]\n  NOSUCH: [1]\n", "4, vary: 'NOSUCH' is"),
    ("vary:\n  VALUE: [1]\n", "2, vary: the plan varies nothing: each value is what the script has"),
    ("hold:\n  VALUE: 3\n", "3, hold: the plan holds VALUE at 3, and jobs/model.py has 1"),
    ("task: other\n", "2, task: a task names another, 'other'. Only autoresearch.toml and plans may"),
]


@pytest.mark.parametrize(("text", "says"), LINES)
async def test_what_does_not_fit_the_repository_is_told_with_its_line(
    project: Project, settings: Settings, text: str, says: str
) -> None:
    script = {"jobs/model.py": "VALUE = 1\nRATE = 0.5\nparser.add_argument('--batch', default=VALUE)\n"}
    project.commit("A task", {**FILES, **script, "jobs/task.yaml": f"train_script: model.py\n{text}"})
    (project.root / "jobs" / "mine.py").touch()
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput) as refused:
            await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml", metric="accuracy", time_budget_seconds=5)
        assert str(refused.value).startswith("task.yaml, line ")
        assert says in str(refused.value)
        assert (await lab.reading.list_runs()).runs == []


RIGHT = [
    "runner: {command: python -mmodel extra.py}\n",
    "runner: {command: \"python -c'import model' extra.py\"}\n",
    "runner: {command: python -u -X dev ./model.py}\n",
    "runner: {command: python linked/model.py}\n",
    "runner: {folder: ./}\n",
    "runner: {folder: inner/}\n",
    "checks: [python score.py, python written.py]\n",
    "vary: {VALUE: [3.0, 3.0, 1.0e+1]}\n",
    "runner: {memory: {batch: '../conf.yaml:train.size'}}\n",
]


@pytest.mark.parametrize("text", RIGHT)
async def test_what_is_right_is_not_refused(project: Project, settings: Settings, text: str) -> None:
    (project.root / "jobs").mkdir()
    (project.root / "jobs" / "linked").symlink_to("inner")
    project.git("add", "jobs/linked")
    more = {"conf.yaml": "train: {size: 8}\neval: {size: 8}\n", "jobs/inner/model.py": "VALUE = 1\n"}
    task = f"train_script: model.py\ndirection: maximize\n{text}"
    project.commit("A task", {**FILES, **more, "jobs/task.yaml": task})
    async with Lab.open(settings) as lab:
        made = await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml", metric="quality", time_budget_seconds=5)
        assert made.config["max_experiments"] in (None, 3)


async def test_a_script_that_is_a_link_is_told_from_its_file(project: Project, settings: Settings) -> None:
    (project.root / "link.py").symlink_to("train.py")
    project.git("add", "link.py")
    project.commit("A link", {"run.sh": "python train.py\n"})
    goal: dict[str, Any] = {"metric": "val_loss", "time_budget_seconds": 5}
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput, match=r"'link\.py' is a symbolic link to 'train\.py'. Name the file that it"):
            await lab.setup.setup_run(tag="mar8", train_script="link.py", **goal)
        with pytest.raises(InvalidInput, match=r"'run\.sh' is no Python script, and there is no command"):
            await lab.setup.setup_run(tag="mar8", train_script="run.sh", **goal)


async def test_a_wrong_config_file_is_named_with_its_line(project: Project, settings: Settings) -> None:
    (project.root / "autoresearch.toml").write_text('policy = "greedy"\ntask = "poetry"\n')
    async with Lab.open(settings) as lab:
        with pytest.raises(InvalidInput, match=r"^autoresearch\.toml, line 2, task: task 'poetry' is not known here"):
            await lab.setup.setup_run(tag="mar8")


async def test_a_run_is_resumed_with_the_task_that_it_was_begun_with(project: Project, settings: Settings) -> None:
    project.commit("A task", FILES)
    async with Lab.open(settings) as lab:
        await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml")
        assert (await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml", resume=True)).config["metric"] == "quality"
        project.write({"jobs/task.yaml": TASK.replace("max_lines: 4", "max_lines: 9")})
        [told] = (await lab.setup.setup_run(tag="mar8", task="jobs/task.yaml", resume=True)).adjustments
        says = "task.yaml, line 3, mutation.max_lines: max_lines of run 'mar8' is 4, not 9: the run goes on as it was"
        assert says in told
        project.write({"autoresearch.toml": "task = 'jobs/task.yaml'\nmetric = 3\n"})  # it is not asked again
        await lab.setup.setup_run(tag="mar8", metric="quality", resume=True)
        with pytest.raises(InvalidInput, match="run 'mar8' is not of the task 'gpt'"):
            await lab.setup.setup_run(tag="mar8", task="gpt", resume=True)
