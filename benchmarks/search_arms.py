"""Ways of searching for better knobs of train.py, each advanced by one training at a time."""

import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna

from mcp_server.errors import ResearchError
from mcp_server.lab.lab import Lab
from mcp_server.machine.devices import find_devices
from mcp_server.machine.git.command import git
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import write_knobs as with_knobs
from mcp_server.research.knobs import written
from mcp_server.research.ladders import Ladder, ladders
from mcp_server.research.script import effective, outline
from mcp_server.settings import Settings

ROOT = Path(__file__).parents[1]
HARNESS = ("prepare.py", "portable.py", "scoring.py")
DEVICES = "cpu:1"
TAG = "search"
CALLS = 8
"""At most so many calls without a training, such as `complete` after a repeat, come before the next training."""
ENOUGH = 3600.0

Values = Mapping[str, KnobValue]


class Arm(Protocol):
    """A way of searching. It begins with the unchanged script, and all that it trains counts."""

    name: str

    async def step(self, seed: int) -> str:
        """Train once with this seed, and say in a few words what was trained and what came of it."""
        ...

    async def best(self) -> str:
        """The script that it would hand over now."""
        ...


def bring_harness(folder: Path) -> None:
    """Put the files that a training script imports beside it."""
    for name in HARNESS:
        (folder / name).write_text((ROOT / name).read_text())


@dataclass(frozen=True)
class Trainer:
    """Trains scripts as the lab does: on the same device, threads, data and budget."""

    folder: Path
    cache: Path
    seconds: float

    def prepare(self) -> None:
        """Prepare the data, and the folder that trainings run in."""
        self.folder.mkdir(parents=True)
        bring_harness(self.folder)
        self._run("prepare.py", "--profile", "stdlib", "--vocab-size", "2048").check_returncode()

    def train(self, script: str, seed: int) -> float | None:
        """The val_bpb of a script; None where it failed."""
        (self.folder / "train.py").write_text(script)
        found = re.search(r"^val_bpb: +(\S+)$", self._run("train.py", seed=seed).stdout, re.MULTILINE)
        return float(found[1]) if found else None

    def _run(self, script: str, *arguments: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
        threads = str(len(find_devices(DEVICES)[0].cores))
        environment = {name: text for name, text in os.environ.items() if not name.startswith("AUTORESEARCH_")} | {
            "AUTORESEARCH_CACHE": str(self.cache),
            "AUTORESEARCH_TIME_BUDGET": f"{self.seconds:g}",
            "AUTORESEARCH_SEED": str(seed),
            "AUTORESEARCH_DEVICE": "cpu",
            "AUTORESEARCH_THREADS": threads,
            "OMP_NUM_THREADS": threads,
        }
        command = [sys.executable, script, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


def present_and_ladders(script: str) -> tuple[dict[str, KnobValue], list[Ladder]]:
    """The knobs of a script that have an effect on a CPU, and the ladders that `suggest` takes their values from."""
    settings = [setting for setting in effective(outline(script), "cpu").settings if setting.settable]
    present = {setting.knob.name: setting.knob.value for setting in settings}
    return present, [ladder for setting in settings for ladder in ladders(setting, present)]


class RandomKnobs:
    """One or two knobs of the best script so far, drawn at random, are set to values drawn at random."""

    name = "random knobs"

    def __init__(self, trainer: Trainer, script: str, seed: int) -> None:
        self._trainer = trainer
        self._draw = random.Random(seed)
        self._best, self._loss = script, float("inf")
        self._begun = False

    async def step(self, seed: int) -> str:
        values = self._drawn() if self._begun else {}
        script = with_knobs(self._best, values) if values else self._best
        loss = self._trainer.train(script, seed)
        better = loss is not None and loss < self._loss
        if better and loss is not None:
            self._best, self._loss = script, loss
        self._begun = True
        return f"{_shown(values)}: {_number(loss)}{' best' if better else ''}"

    async def best(self) -> str:
        return self._best

    def _drawn(self) -> Values:
        present, all_ladders = present_and_ladders(self._best)
        drawn: dict[str, KnobValue] = {}
        for ladder in self._draw.sample(all_ladders, self._draw.choice((1, 2))):
            rung = self._draw.choice([n for n in range(len(ladder.rungs)) if n != ladder.place])
            drawn[ladder.name] = ladder.put(drawn.get(ladder.name, present[ladder.name]), rung)
        return drawn


class Study:
    """Optuna's tree-structured Parzen estimator over all knobs at once, as it comes."""

    name = "Optuna alone"

    def __init__(self, trainer: Trainer, script: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._trainer, self._script = trainer, script
        self._present, self._ladders = present_and_ladders(script)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._study.enqueue_trial({self._key(ladder): ladder.place for ladder in self._ladders})

    async def step(self, seed: int) -> str:
        trial = self._study.ask()
        values = self._values({self._key(ladder): self._rung(trial, ladder) for ladder in self._ladders})
        loss = self._trainer.train(with_knobs(self._script, values) if values else self._script, seed)
        if loss is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, loss)
        return f"{len(values)} knobs changed: {_number(loss)}"

    async def best(self) -> str:
        values = self._values(self._study.best_params)
        return with_knobs(self._script, values) if values else self._script

    def _rung(self, trial: optuna.Trial, ladder: Ladder) -> int:
        rungs = range(len(ladder.rungs))
        if ladder.ordered:
            return trial.suggest_int(self._key(ladder), 0, rungs[-1])
        return int(trial.suggest_categorical(self._key(ladder), list(rungs)))

    def _values(self, rungs: Mapping[str, int]) -> Values:
        values = dict(self._present)
        for ladder in self._ladders:
            values[ladder.name] = ladder.put(values[ladder.name], rungs[self._key(ladder)])
        return {name: value for name, value in values.items() if value != self._present[name]}

    @staticmethod
    def _key(ladder: Ladder) -> str:
        return ladder.name if ladder.element is None else f"{ladder.name}[{ladder.element}]"


class Followed:
    """The first proposal of `suggest`, over and over; baselines, repeats and confirmations are trainings too."""

    name = "suggest"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._said: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def over(cls, trainer: Trainer, folder: Path, script: str) -> AsyncIterator["Followed"]:
        """A run in a repository of its own."""
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        (folder / "train.py").write_text(script)
        bring_harness(folder)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "The training script as it comes")
        locks = folder.with_name(f"{folder.name}-locks")
        async with Lab.open(Settings(folder, None, trainer.cache, locks, DEVICES)) as lab:
            await lab.setup.setup_run(tag=TAG, time_budget_seconds=trainer.seconds, policy="noise_aware")
            yield cls(lab)

    async def step(self, seed: int) -> str:
        for _ in range(CALLS):
            tool, arguments = await self._next()
            if tool == "complete":
                await self._lab.verdicts.complete(**arguments)
                continue
            name = arguments["experiment_id"] if tool == "train" else await self._registered(arguments)
            trained = await self._lab.training.train(name, wait_seconds=ENOUGH, seed=seed)
            if trained.seed != seed:  # it does not fit on the present best, and was discarded without a training
                continue
            verdict = await self._lab.verdicts.complete(name)
            value = trained.metrics.get("val_bpb")
            z = f", z {verdict.numbers['z']:.2f}" if verdict.numbers else ""
            shown = _number(value if isinstance(value, float) else None)
            return f"{name} {self._said.get(name, 'unchanged')}: {shown}: {verdict.status}{z}"
        raise RuntimeError(f"suggest asked for no training in {CALLS} calls")

    async def best(self) -> str:
        return await self._lab.reading.best_script(TAG)

    async def _next(self) -> tuple[str, dict[str, Any]]:
        """The first of what is proposed; before there is a baseline, that."""
        proposals: Sequence[dict[str, Any]] = (await self._lab.reading.suggest(TAG)).proposals
        if not self._said:
            return "register", {"tag": TAG, "hypothesis": "The script as it is", "category": "other"}
        if not proposals:
            raise RuntimeError("suggest proposes nothing that a call carries out")
        return proposals[0]["tool"], dict(proposals[0]["arguments"])

    async def _registered(self, arguments: dict[str, Any]) -> str:
        try:
            registered = await self._lab.registering.register(**arguments)
        except ResearchError as refusal:
            raise RuntimeError(f"what was proposed is refused: {refusal}") from refusal
        self._said[registered.experiment_id] = _shown(arguments.get("knobs") or {}) or registered.diff_summary
        return registered.experiment_id


def _shown(values: Values) -> str:
    return ", ".join(f"{name} {written(value)}" for name, value in values.items()) or "unchanged"


def _number(loss: float | None) -> str:
    return "failed" if loss is None else f"{loss:.4f}"
