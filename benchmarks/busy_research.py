"""Research on a machine that others keep busy: python benchmarks/busy_research.py --load 16 --minutes 60

Processes that do nothing but compute keep the load of the machine at `--load` while a scripted agent researches the
bundled train.py on the CPU: it registers one constant after another and does whatever repeats `suggest` asks for. Then
they go, and every change is trained beside the unchanged script on seeds that the research never saw. Prints each
change with its verdict, what is claimed of it, and its gain on the quiet machine, and exits 1 where a training without
its CPU time was judged, where a change that the quiet machine shows to be worse was kept, or where the best is worse
there than a change that was turned down, by more than two standard errors.
"""

import argparse
import asyncio
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.search_arms import DEVICES, ROOT, Trainer, bring_harness
from mcp_server.errors import ResearchError
from mcp_server.lab.lab import Lab
from mcp_server.machine.devices import find_devices
from mcp_server.machine.git.command import git
from mcp_server.research.effort import ENOUGH
from mcp_server.research.experiment import KnobValue
from mcp_server.settings import Settings

TAG = "busy"
IDEAS: Sequence[Mapping[str, KnobValue]] = (
    {"MATRIX_LR": 0.004},
    {"DEPTH": 1},
    {"SCALAR_LR": 0.45},
    {"WIDTH": 192},
    {"EMBEDDING_LR": 0.06},
    {"TOTAL_BATCH_SIZE": 1024, "DEVICE_BATCH_SIZE": 4},
    {"ROPE_BASE": 9000.0},
    {"WARMDOWN": 0.1},
    {"MLP_RATIO": 4},
    {"HEAD_LR": 0.016},
)
"""Changes of all kinds: for the worse, for the better, and next to nothing."""
PATIENT = 3600.0
FRESH_SEEDS = 7000
"""The first seed of those that the research never sees."""
BUSY = "while True: pass"


@contextmanager
def kept_busy(load: int) -> Iterator[None]:
    """The machine with so many processes that compute, beside those that others run; they end with the block."""
    others = round(os.getloadavg()[0])
    crowd = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(max(0, load - others))]
    print(f"load of the machine {others}, and {len(crowd)} processes more, on {os.cpu_count()} cores", flush=True)
    try:
        yield
    finally:
        for process in crowd:
            process.kill()
        for process in crowd:
            process.wait()


@dataclass
class Researcher:
    """An agent that tries its ideas in turn, and does first whatever `suggest` asks to be repeated."""

    lab: Lab
    names: dict[str, Mapping[str, KnobValue]] = field(default_factory=dict)

    async def research(self, until: float) -> None:
        """Go on until the ideas are used up and nothing is left to repeat, or the time is up."""
        baseline = await self.lab.registering.register(tag=TAG, hypothesis="The script as it is", category="other")
        self.names[baseline.experiment_id] = {}
        await self._train(baseline.experiment_id)
        waiting = list(IDEAS)
        while time.time() < until:
            if due := await self._due():
                await self._do(due)
            elif waiting:
                await self._try(waiting.pop(0))
            else:
                break

    async def _due(self) -> dict[str, Any] | None:
        """The most urgent repeat or verdict that `suggest` asks for."""
        proposals = (await self.lab.reading.suggest(TAG)).proposals
        return next((each for each in proposals if each["tool"] in ("train", "complete")), None)

    async def _do(self, due: Mapping[str, Any]) -> None:
        name, seed = due["arguments"]["experiment_id"], due["arguments"].get("seed")
        if due["tool"] == "complete":
            verdict = await self.lab.verdicts.complete(name)
            print(f"{name} again: {verdict.status}: {verdict.reason}", flush=True)
        else:
            await self._train(name, seed)

    async def _try(self, knobs: Mapping[str, KnobValue]) -> None:
        try:
            registered = await self.lab.registering.register(
                tag=TAG, hypothesis=f"Try {_words(knobs)}", category="other", knobs=dict(knobs)
            )
        except ResearchError as refusal:
            print(f"{_words(knobs)}: refused: {refusal}", flush=True)
            return
        self.names[registered.experiment_id] = knobs
        await self._train(registered.experiment_id)

    async def _train(self, name: str, seed: int | None = None) -> None:
        trained = await self.lab.training.train(name, seed=seed, wait_seconds=PATIENT)
        print(f"{name} {_words(self.names.get(name, {}))}: {trained.status}, {trained.effort}", flush=True)
        if trained.starved:
            print(f"    {trained.starved}", flush=True)
        if trained.status == "error":
            print(f"    {trained.error}", flush=True)
            return
        verdict = await self.lab.verdicts.complete(name)
        print(f"    {verdict.status}, {verdict.value}: {verdict.reason}", flush=True)


async def judged_starved(lab: Lab, seconds: float) -> list[str]:
    """The trainings that count though they had less of their budget than they must have had, in words."""
    cores = len(find_devices(DEVICES)[0].cores)
    trials = [
        trial
        for view in (await lab.reading.history(TAG, limit=100)).experiments
        for trial in await lab.bench.store.trials.of(view.experiment_id)
        if trial.status == "finished" and not trial.error
    ]
    print(f"\n{len(trials)} trainings count", flush=True)
    return [
        f"{trial.id} was judged with {trial.cpu_seconds:.1f} CPU seconds on {cores} cores"
        for trial in trials
        if trial.starved or trial.cpu_seconds / cores < ENOUGH * seconds
    ]


@dataclass
class Quiet:
    """Trainings on the machine without the crowd, on seeds that the research never saw; each script once."""

    trainer: Trainer
    seeds: Sequence[int]
    losses: dict[str, list[float]] = field(default_factory=dict)

    def gain(self, script: str, base: str) -> tuple[float, float]:
        """By how much a script is better than another, by pairs of the same seed, and the standard error of that."""
        gains = [b - a for a, b in zip(self._trained(script), self._trained(base), strict=True)]
        return statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))

    def _trained(self, script: str) -> list[float]:
        if script not in self.losses:
            found = [self.trainer.train(script, seed) for seed in self.seeds]
            self.losses[script] = [math.nan if loss is None else loss for loss in found]
        return self.losses[script]


def repository(folder: Path, script: str) -> Path:
    """A repository with the training script and what it imports."""
    root = folder / "repository"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    (root / "train.py").write_text(script)
    bring_harness(root)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The training script as it comes")
    return root


async def busy_hour(root: Path, quiet: Quiet, script: str, load: int, minutes: float) -> list[str]:
    """Research and measure; what went wrong, in words."""
    trainer = quiet.trainer
    async with Lab.open(Settings(root, None, trainer.cache, root.parent / "locks", DEVICES)) as lab:
        await lab.setup.setup_run(tag=TAG, time_budget_seconds=trainer.seconds, policy="noise_aware")
        researcher = Researcher(lab)
        with kept_busy(load):
            await researcher.research(time.time() + 60 * minutes)
        summary = await lab.reading.summary(TAG)
        views = {view.experiment_id: view for view in (await lab.reading.history(TAG, limit=100)).experiments}
        wrong = await judged_starved(lab, trainer.seconds)
        best = await lab.reading.best_script(TAG)
    print(f"{summary.counts}; {summary.starved or 'no training was starved'}; {summary.noise}; {summary.told}\n")
    print("| change | verdict | gain by the verdict | told | gain on the quiet machine |\n|---|---|---:|---|---:|")
    for name, knobs in researcher.names.items():
        changed, base = (git(root, "show", f"{views[name].commit}{up}:train.py") for up in ("", "~1" if knobs else ""))
        gain, error = quiet.gain(changed, base)
        row = (
            _words(knobs),
            views[name].status,
            views[name].delta,
            views[name].told or "",
            f"{gain:+.4f} ± {error:.4f}",
        )
        print(f"| {' | '.join(str(each) for each in row)} |", flush=True)
        wrong += faults(f"{name} ({_words(knobs)})", views[name].status, (gain, error), quiet.gain(changed, best))
    gain, error = quiet.gain(best, script)
    print(f"| the best, against the baseline | | {summary.improvement} | | {gain:+.4f} ± {error:.4f} |")
    return wrong


def faults(name: str, verdict: str, over_base: tuple[float, float], over_best: tuple[float, float]) -> list[str]:
    """What the quiet machine shows to be wrong about a verdict, by more than two standard errors."""
    if verdict == "keep" and over_base[0] < -2 * over_base[1]:
        return [f"{name} was kept, and is worse by {-over_base[0]:.4f} ± {over_base[1]:.4f}"]
    if verdict in ("discard", "rejected") and over_best[0] > 2 * over_best[1]:
        return [f"{name} was turned down, and is better than the best by {over_best[0]:.4f} ± {over_best[1]:.4f}"]
    return []


def _words(knobs: Mapping[str, KnobValue]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items()) or "unchanged"


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=int, default=16, metavar="N", help="of the machine, while the research goes on")
    parser.add_argument("--minutes", type=float, default=60.0, help="of research; no training begins after them")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one training")
    parser.add_argument("--fresh", type=int, default=4, metavar="N", help="unseen seeds on the quiet machine")
    given = parser.parse_args()
    script = (ROOT / "train.py").read_text()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = Trainer(Path(folder) / "trainings", Path(folder) / "cache", given.seconds)
        trainer.prepare()
        began = time.perf_counter()
        quiet = Quiet(trainer, range(FRESH_SEEDS, FRESH_SEEDS + given.fresh))
        root = repository(Path(folder), script)
        wrong = asyncio.run(busy_hour(root, quiet, script, given.load, given.minutes))
    print(f"\n{(time.perf_counter() - began) / 60:.0f} min; {'; '.join(wrong) or 'nothing was wrong'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
