"""Where cheats are tried: the real harness on a corpus of a moment, a run with its baseline, and a real lab.

Every cheat finds the same place: it is put back, with its record, its data and its git repository, to where it was
after the baseline.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

import prepare
from mcp_server.errors import ResearchError
from mcp_server.lab.lab import Lab
from mcp_server.machine.environment import MARK
from mcp_server.settings import Settings
from tests.project import Project

ROOT = Path(__file__).parents[2]
TAG = "mar8"
BASELINE = f"{TAG}-1"
GOAL: dict[str, Any] = {"tag": TAG, "time_budget_seconds": 3.0, "policy": "greedy", "inputs": ["data"]}
"""Greedy, since under it the least gain is a keep at once: no second training stands between a cheat and its aim."""

SIZES = ("--vocab-size", "256", "--seq-len", "32", "--eval-tokens", "65536")
FILES = {"train": 50, "val": 6, "audit": 6}
STEPS = {
    "DEPTH = 2": "STEPS = 40\nDEPTH = 2",
    "clock.running():": "clock.running() and step < STEPS:",
    "step, clock.progress)": "step, step / STEPS)",
}
"""What is edited of the training script before the run begins. A fixed number of steps, which take a part of the budget
only, come out the same however busy the machine is."""
SMALL = {
    **STEPS,
    "DEPTH = 2": "STEPS = 40\nDEPTH = 1",
    "WIDTH = 96": "WIDTH = 32",
    "TOTAL_BATCH_SIZE = 2048": "TOTAL_BATCH_SIZE = 512",
}

WEAK, STRONG = "HEAD_LR = 0.0005", "HEAD_LR = 0.008"
"""The baseline learns too slowly; an honest experiment mends that."""

HONEST = {WEAK: STRONG}
MARGIN = 0.01
"""Bits per byte that a cheat beside an honest improvement may seem to add to it."""
PATIENCE = 280.0
"""Seconds that a training with its scoring may take on a busy machine."""

Edits = Mapping[str, str]


def make_corpus(folder: Path) -> None:
    """Texts of random words, eight of its own in each: what is learnt of one text says little about another."""
    folder.mkdir()
    wanted = dict(FILES)
    for name in (f"text-{number:03d}.txt" for number in range(1000)):
        if wanted[prepare.split_of(name)]:
            wanted[prepare.split_of(name)] -= 1
            chance = random.Random(name)
            words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(8)]
            (folder / name).write_text(" ".join(chance.choices(words, k=2000)) + "\n")


def make_python(repository: Path) -> None:
    """A virtual environment of the repository's own, in which a cheat may install what it likes."""
    packages = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())
    place = repository / ".venv"
    inner = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    inner.mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (place / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (inner / "borrowed.pth").write_text(f"{packages}\n")


def edited(text: str, edits: Edits) -> str:
    """A script with each text replaced that occurs once."""
    for old, new in edits.items():
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment.

    Attributes:
        status: its verdict; `refused` where it cannot be registered, `unjudged` where there is no result to judge.
        reason: what a person is told.
        claimed: the score that the training printed last, as far as that is a number.
        recorded: the gain over the best before that the record has of it; None where there is none.
        verification: whether that was scored anew, as the record says.
    """

    status: str
    reason: str
    claimed: float | None
    recorded: float | None = None
    verification: str = "reported"

    def gains(self, more_than: float = 0.0) -> bool:
        """Whether it was kept, for more than so much, whatever is said of how far its score can be trusted."""
        return self.status == "keep" and (self.recorded is None or self.recorded > more_than)


class Scene:
    """One repository with its run, its cache and its locks, below a folder.

    Attributes:
        sandbox: what AUTORESEARCH_SANDBOX is set to.
        bundled: whether the script trains as it comes, on the sources of Python's standard library; else it is small.
    """

    def __init__(self, folder: Path, sandbox: str, bundled: bool = False) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.bundled = bundled
        self.place, self.saved = folder / "place", folder / "saved"
        self.cache, self.repository = self.place / "cache", self.place / "repository"
        self.settings = Settings(self.repository, None, self.cache, folder / "locks", "cpu:1", sandbox=sandbox)

    @property
    def walls(self) -> bool:
        """Whether trainings run behind walls."""
        return self.sandbox == "require"

    @property
    def state(self) -> Path:
        """The folder with the record and the trials."""
        return self.repository / ".autoresearch"

    @property
    def data(self) -> Path:
        """The folder of the prepared data."""
        return next((self.cache / "data").glob("*-v*-t*"))

    def fill(self) -> None:
        """Commit the harness and a script that learns too slowly, and prepare the data from texts beside them."""
        project = Project.make(
            self.repository,
            edited((ROOT / "train.py").read_text(), {**(STEPS if self.bundled else SMALL), STRONG: WEAK}),
        )
        harness = {name: (ROOT / name).read_text() for name in ("prepare.py", "portable.py", "scoring.py")}
        patience = f"[runner]\nstartup_seconds = {PATIENCE}\n"  # on a busy machine cheats too shall come to their end
        files = {".gitignore": ".venv/\ndata/\ncorpus/\n", "autoresearch.toml": patience}
        project.commit("The harness", {**harness, **files})
        project.write({"data/words.txt": "the user's own\n"})
        make_python(self.repository)
        make_corpus(self.repository / "corpus")
        self.prepare()

    def prepare(self) -> None:
        """Prepare the data, as a user does."""
        variables = os.environ | {"AUTORESEARCH_CACHE": str(self.cache)}
        small = ("--path", str(self.repository / "corpus"), *SIZES)
        command = [sys.executable, str(ROOT / "prepare.py"), *(("--profile", "stdlib") if self.bundled else small)]
        subprocess.run(command, env=variables, check=True, capture_output=True, timeout=PATIENCE)

    @asynccontextmanager
    async def lab(self) -> AsyncIterator[Lab]:
        """A lab whose trainings keep to one core; those of test processes that run side by side take different ones."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        if cores:
            os.sched_setaffinity(0, [cores[number % len(cores)]])
        try:
            async with Lab.open(self.settings) as lab:
                yield lab
        finally:
            if cores:
                os.sched_setaffinity(0, cores)

    async def begin(self) -> None:
        """Set a run up, measure its baseline, and remember all of it."""
        async with self.lab() as lab:
            await lab.setup.setup_run(**GOAL | ({"time_budget_seconds": 5.0} if self.bundled else {}))
            await lab.training.train(await register(lab, {}), wait_seconds=PATIENCE)
            baseline = await outcome(lab, BASELINE)
            assert baseline.status == "keep", baseline
        self.settle()
        shutil.copytree(self.place, self.saved, symlinks=True)

    def restore(self) -> None:
        """Put everything back to where it was after the baseline."""
        self.settle()
        shutil.rmtree(self.place)
        shutil.copytree(self.saved, self.place, symlinks=True)

    async def attempt(self, edits: Edits) -> Outcome:
        """What becomes of an experiment that edits the training script so, once its worker is done with it."""
        async with self.lab() as lab:
            await lab.setup.setup_run(tag=TAG, resume=True)
            try:
                experiment_id = await register(lab, edits)
            except ResearchError as error:
                return Outcome("refused", str(error), None)
            return await self.trained(lab, experiment_id)

    async def trained(self, lab: Lab, experiment_id: str, seed: int | None = None) -> Outcome:
        """What becomes of an experiment that is trained now, once its worker is done with it."""
        trained = await lab.training.train(experiment_id, wait_seconds=PATIENCE, seed=seed)
        assert trained.status not in ("queued", "training"), trained
        await outcome(lab, experiment_id)  # as an agent that does not wait would ask
        await asyncio.to_thread(self.settle)
        return self.recorded(await outcome(lab, experiment_id), experiment_id)

    async def until(self, lab: Lab, experiment_id: str, shown: str) -> None:
        """Wait until the log of an experiment's training shows a text."""
        deadline = time.monotonic() + PATIENCE
        while shown not in await lab.training.full_log(experiment_id):
            assert time.monotonic() < deadline, f"{experiment_id} never showed {shown!r}"
            await asyncio.sleep(0.1)

    def recorded(self, outcome: Outcome, experiment_id: str) -> Outcome:
        """The outcome with what the record says of the experiment's gain."""
        with self.store() as store:
            found = store.execute("SELECT delta, verification FROM experiments WHERE id = ?", [experiment_id])
            row = found.fetchone()
        return replace(outcome, recorded=row["delta"], verification=row["verification"])

    def metrics(self, experiment_id: str) -> dict[str, Any]:
        """What the record has of an experiment's first training."""
        with self.store() as store:
            found = store.execute("SELECT metrics FROM trials WHERE experiment_id = ?", [experiment_id]).fetchone()
        metrics: dict[str, Any] = json.loads(found["metrics"])
        return metrics

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """The record, to be read."""
        with closing(sqlite3.connect(f"file:{self.state / 'research.db'}?mode=ro", uri=True)) as store:
            store.row_factory = sqlite3.Row
            yield store

    def settle(self) -> None:
        """Wait until no worker is left; fails where something of a training outlives them all."""
        deadline = time.monotonic() + PATIENCE
        while left := list(self._alive()):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.05)

    def _alive(self) -> Iterator[list[str]]:
        """The words of every process of this place: its workers, and whatever a training left."""
        for process in psutil.process_iter(["cmdline", "status"]):
            with suppress(psutil.Error, OSError):
                words = process.info["cmdline"] or []
                ours = any(str(self.folder) in word for word in words)
                ours = ours or process.environ().get(MARK, "").startswith(str(self.folder))
                if ours and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    yield words

    def record(self) -> dict[str, Any]:
        """What the record says of the run and its baseline, and what the branch is at."""
        with self.store() as store:
            assert tuple(store.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
            run = dict(store.execute("SELECT * FROM runs").fetchone())
            baseline = dict(store.execute("SELECT * FROM experiments WHERE id = ?", [BASELINE]).fetchone())
            kept = [row["id"] for row in store.execute("SELECT id FROM experiments WHERE status = 'keep'")]
        run.pop("next_number"), run.pop("listed")
        return {"run": run, "baseline": baseline, "kept": kept, "branch": Project(self.repository).branch(TAG)}

    def prepared(self) -> dict[str, str]:
        """The SHA-256 of every file of the prepared data."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(self.data.iterdir())}


async def register(lab: Lab, edits: Edits, tag: str = TAG) -> str:
    """Register an edit of the training script; its id."""
    changes = [{"path": "train.py", "old": old, "new": new} for old, new in edits.items()]
    made = await lab.registering.register(tag=tag, hypothesis="it is better", category="other", edits=changes or None)
    return made.experiment_id


async def outcome(lab: Lab, experiment_id: str) -> Outcome:
    """The verdict on an experiment, or why there is none."""
    printed = re.findall(r"^val_bpb: +(\S+)$", await lab.training.full_log(experiment_id), re.MULTILINE)
    claimed = float(printed[-1]) if printed else None
    try:
        verdict = await lab.verdicts.complete(experiment_id)
    except ResearchError as error:
        return Outcome("unjudged", str(error), claimed)
    return Outcome(verdict.status, verdict.reason, claimed)
