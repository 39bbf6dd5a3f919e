"""Scorer and judge that are the user's own, and those that are not, from set-up to verdict."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.errors import NotReady
from mcp_server.lab.lab import Lab
from mcp_server.machine.sandbox import probe
from mcp_server.settings import Settings
from tests.lab.researcher import Researcher
from tests.project import Project

pytestmark = pytest.mark.anyio

TRAIN = """\
import os
from pathlib import Path

WEIGHT = 4.0

Path(os.environ["AUTORESEARCH_OUT"], "weight").write_text(str(WEIGHT))
print(f"val_loss: {abs(WEIGHT - 1):.6f}")
"""
SCORE = """\
import os, pathlib, sys
sys.stdin.readline()
print(pathlib.Path(os.environ["AUTORESEARCH_OUT"], "weight").read_text(), flush=True)
"""
JUDGE = """\
import sys
from measure import distance
print(flush=True)
print(f"score: {distance(float(sys.stdin.readline()))}", file=sys.stderr)
"""
MEASURE = "import colorsys\n\ndef distance(weight):\n    return abs(weight - 1)\n"
EVIL = "def distance(weight):\n    return 0.0\n"
SHADOW = """\
import os, sys
if os.path.basename(os.getcwd()) == "scoring":
    print("---", "score: 0", sep="\\n", file=sys.stderr, flush=True)
    os._exit(0)
"""
"""A module that ends the judge that imports it, with the best of scores."""
TASK = """\
artifacts: {artifacts}
runner: {{budget_seconds: 5}}
scorer: {{metric: val_loss, direction: minimize, rescore: python {at}score.py, judge: python {at}judge.py}}
policy: greedy
"""
WALLS = pytest.param("require", marks=pytest.mark.skipif(bool(probe()[1]), reason="there is no sandbox"))
VERIFIED = {"off": "verified (unsandboxed)", "require": "verified"}


def files(at: str = "", artifacts: str = "['**']", **others: str) -> dict[str, str]:
    """A project whose judge imports a module beside it."""
    named = {"score.py": SCORE, "judge.py": JUDGE, "measure.py": MEASURE}
    judging = {f"{at}{name}": text for name, text in named.items()}
    return {"train.py": TRAIN, "task.yaml": TASK.format(at=at, artifacts=artifacts), **judging, **others}


@pytest.fixture(params=["off", WALLS])
def sandbox(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def commit_of(project: Project, experiment_id: str) -> str:
    """The commit of an experiment."""
    return project.git("rev-parse", f"refs/autoresearch/{experiment_id.rpartition('-')[0]}/{experiment_id}")


async def baseline(lab: Lab, tag: str, **arguments: Any) -> tuple[Any, Any]:
    """What is told when a run is set up, and the verdict on its baseline."""
    run = await lab.setup.setup_run(tag=tag, task="task.yaml", **arguments)
    return run, await Researcher(lab, tag).baseline()


async def test_committed_by_the_user_it_verifies_whatever_is_editable(
    project: Project, settings: Settings, sandbox: str
) -> None:
    project.commit("A task", files())
    async with Lab.open(replace(settings, sandbox=sandbox)) as lab:
        run, first = await baseline(lab, "mar8")
        assert {"score.py", "judge.py", "measure.py"} <= set(run.config["readonly"])
        assert "Read-only, since scorer or judge import it: measure.py." in " ".join(run.adjustments)
        assert (first.status, first.value, first.verification) == ("keep", 3, VERIFIED[sandbox])


async def test_in_a_folder_of_its_own_as_a_package(project: Project, settings: Settings, sandbox: str) -> None:
    judge = JUDGE.replace("from measure", "from .measure")
    task = TASK.format(at="", artifacts="train.py").replace("python judge.py", "python -m eval.judge")
    task = task.replace("python score.py", "python eval/score.py")
    package = {"eval/__init__.py": "", "eval/judge.py": judge, "eval/measure.py": MEASURE, "eval/score.py": SCORE}
    project.commit("A task", {"train.py": TRAIN, "task.yaml": task, **package})
    async with Lab.open(replace(settings, sandbox=sandbox)) as lab:
        _, first = await baseline(lab, "mar8")
        assert (first.status, first.verification) == ("keep", VERIFIED[sandbox])


async def test_what_an_agent_committed_beside_it_is_not_imported(
    project: Project, settings: Settings, sandbox: str
) -> None:
    """Everything is editable, and a second run begins with the commit of an experiment of the first."""
    project.commit("A task", files())
    async with Lab.open(replace(settings, sandbox=sandbox)) as lab:
        await baseline(lab, "one")
        added = {"colorsys.py": SHADOW, "sitecustomize.py": SHADOW, "torch/__init__.py": SHADOW}
        made = await Researcher(lab, "one").propose("helpers", files=added)
        run, first = await baseline(lab, "two", base_ref=commit_of(project, made))
        told = "Scorer and judge do not see what experiments brought into the commit: colorsys.py, sitecustomize.py"
        assert any(note.startswith(told) for note in run.adjustments)
        assert (first.status, first.value, first.verification) == ("keep", 3, VERIFIED[sandbox])


@pytest.mark.parametrize("name", ["judge.py", "measure.py"])
async def test_what_an_agent_changed_of_it_verifies_nothing(project: Project, settings: Settings, name: str) -> None:
    judge = JUDGE.replace("distance(float(sys.stdin.readline()))", "0.0")
    project.commit("A task", files(artifacts=f"[train.py, {name}]"))
    async with Lab.open(settings) as lab:
        changed = {"judge.py": judge, "measure.py": EVIL}[name]
        run, first = await baseline(lab, "one")
        told = f"experiments may change {name}, which scores or is imported by what does"
        assert any(told in note and "`reported`" in note for note in run.adjustments)
        assert (first.status, first.verification) == ("keep", "reported")
        assert f"Reported and not verified: {told}." in first.notes
        made = await Researcher(lab, "one").propose("easier", files={name: changed})
        commit = commit_of(project, made)
        project.write({"task.yaml": TASK.format(at="", artifacts="train.py")})  # no longer editable
        run, second = await baseline(lab, "two", base_ref=commit)
        assert any(f"as an experiment made it in commit {commit[:7]}" in note for note in run.adjustments)
        assert second.verification == "reported"
        assert any("Reported and not verified" in note for note in second.notes)


async def test_untracked_code_beside_it_is_not_imported(project: Project, settings: Settings, sandbox: str) -> None:
    project.commit("A task", files() | {".gitignore": "colorsys.py\nstash/\nlonely.so\n"})
    untracked = {"colorsys.py": SHADOW, "stash/colorsys.py": SHADOW, "stash/deep/data.txt": "1", "lonely.so": ""}
    project.write(untracked)
    async with Lab.open(replace(settings, sandbox=sandbox)) as lab:
        inputs = ["colorsys.py", "stash", "lonely.so"]
        _, first = await baseline(lab, "mar8", inputs=inputs)
        assert (first.status, first.value, first.verification) == ("keep", 3, VERIFIED[sandbox])


async def test_a_link_beside_it_is_the_users_where_it_leads_to_what_is_committed(
    project: Project, settings: Settings
) -> None:
    (project.root / "measure.py").symlink_to("shared/distance.py")
    made = {name: text for name, text in files().items() if name != "measure.py"}
    project.write({"shared/distance.py": MEASURE})
    project.git("add", "measure.py", "shared")
    project.commit("A task", made)
    async with Lab.open(settings) as lab:
        run, first = await baseline(lab, "one")
        assert "shared/distance.py" in run.config["readonly"]
        assert (first.value, first.verification) == (3, "verified" if first.sandboxed else "verified (unsandboxed)")
        outside = project.root.parent / "outside.py"
        outside.write_text(EVIL)
        (project.root / "measure.py").unlink()
        (project.root / "measure.py").symlink_to(outside)
        project.git("commit", "--quiet", "--all", "--message", "elsewhere")
        run, second = await baseline(lab, "two")
        assert any("measure.py is a link to" in note and "not committed" in note for note in run.adjustments)
        assert second.verification == "reported"


async def test_a_judge_that_imports_what_is_researched_verifies_nothing(project: Project, settings: Settings) -> None:
    judging = {"judge.py": JUDGE.replace("import sys", "import sys\nif False: import train")}
    project.commit("A task", files() | judging)
    async with Lab.open(settings) as lab:
        run = await lab.setup.setup_run(tag="mar8", task="task.yaml", preview=True)
        assert "experiments may change train.py, which scores" in run.config["unjudged"]
        assert "measure.py" not in run.config["readonly"]


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ("python -c 'print(1)'", "runs no script that is committed"),
        ("python -X pycache_prefix=/tmp/x judge.py", "runs no script that is committed"),
        ("python {outside}", "runs no script that is committed"),
        ("echo judge.py", "runs no script that is committed"),
    ],
)
async def test_a_judge_that_is_no_committed_script_verifies_nothing(
    project: Project, settings: Settings, judge: str, told: str
) -> None:
    outside = project.root.parent / "outside.py"
    outside.write_text(JUDGE)
    judge = judge.format(outside=outside)
    task = TASK.format(at="", artifacts="train.py").replace("python judge.py", f'"{judge}"')
    project.commit("A task", files() | {"task.yaml": task})
    async with Lab.open(settings) as lab:
        run = await lab.setup.setup_run(tag="mar8", task="task.yaml", preview=True)
        assert any(told in note for note in run.adjustments)
        assert (run.config["judge_command"], told in run.config["unjudged"]) == ("", True)


async def test_data_of_another_format_are_told_of_when_a_run_is_set_up(project: Project, settings: Settings) -> None:
    project.commit("The harness", {"prepare.py": 'HARNESS = "autoresearch-mcp"\nFORMAT = 7  # of the folder\n'})
    folder = settings.cache / "data" / "small"
    folder.mkdir(parents=True)
    (folder.parent / "current.json").write_text('{"folder": "small"}')
    async with Lab.open(settings) as lab:
        (folder / "manifest.json").write_text('{"format": 6, "files": {}}')
        with pytest.raises(NotReady, match=r"of format 6, and prepare\.py here reads 7"):
            await lab.setup.setup_run(tag="mar8", preview=True)
        (folder / "manifest.json").write_text('{"format": 7, "files": {}}')
        assert (await lab.setup.setup_run(tag="mar8", preview=True)).config["builtin"]
