"""What `suggest` finds in real trainings, beside random changes and Optuna alone: python benchmarks/search_real.py

Trains train.py on two cores of the CPU for a few seconds, equally often and with the same seeds in each arm, in turns
so that a busy machine hurts all alike. What each arm found best is then trained on seeds that it never saw, beside the
unchanged script. Prints the gain in val_bpb over the unchanged script, with its standard error, and exits 1 when that
of `suggest` is not above that of random knobs. In the arm of `suggest` the baselines, re-measures and confirmations
count as trainings.
"""

import argparse
import asyncio
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.search_arms import ROOT, Arm, Followed, RandomKnobs, Study, Trainer, present_and_ladders

CORES = 2
FRESH_SEEDS = 9000
"""The first seed of those that no arm sees."""


async def search(trainer: Trainer, script: str, trainings: int, repeat: int) -> dict[str, str]:
    """Let every arm train so often, one training of each in turn; the script that each found."""
    first = 1000 * (repeat + 1)
    async with AsyncExitStack() as stack:
        followed = await stack.enter_async_context(
            Followed.over(trainer, trainer.folder.with_name(f"suggest-{repeat}"), script)
        )
        arms: tuple[Arm, ...] = (RandomKnobs(trainer, script, first), Study(trainer, script, first), followed)
        for number in range(1, trainings + 1):
            for arm in arms:
                print(f"{repeat + 1}.{number:<3} {arm.name:13} {await arm.step(first + number)}", flush=True)
        return {arm.name: await arm.best() for arm in arms}


def measure(trainer: Trainer, unchanged: str, found: Mapping[str, str], seeds: Sequence[int]) -> dict[str, list[float]]:
    """By how much each arm's script is better than the unchanged one, seed by seed; a failure gains nothing."""
    gains: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        base = trainer.train(unchanged, seed)
        if base is None:
            raise RuntimeError("the unchanged script fails")
        for name, script in found.items():
            loss = base if script == unchanged else trainer.train(script, seed)
            gains[name].append(0.0 if loss is None else base - loss)
        told = ", ".join(f"{name} {gain[-1]:+.4f}" for name, gain in gains.items())
        print(f"seed {seed}: unchanged {base:.4f}; better by: {told}", flush=True)
    return gains


def changes(unchanged: str, script: str) -> str:
    """What an arm's script has other than the unchanged one."""
    before, after = present_and_ladders(unchanged)[0], present_and_ladders(script)[0]
    moved = [f"{name} {value!r}" for name, value in after.items() if before.get(name) != value]
    return ", ".join(moved) or "nothing"


def mean(gains: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The mean gain and its standard error: over repetitions, or over the seeds of the only one."""
    values = [statistics.fmean(each) for each in gains] if len(gains) > 1 else gains[0]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def table(results: Mapping[str, list[list[float]]]) -> dict[str, float]:
    """Print the gains and how they compare; the mean gain of each arm."""
    means = {name: mean(gains) for name, gains in results.items()}
    mine = means[Followed.name][0]
    print(f"\n{'arm':15}{'gain in val_bpb':>20}{'suggest gains':>16}")
    for name, (gain, error) in means.items():
        ratio = "" if name == Followed.name else f"{mine / gain:.2f} times" if gain > 0 else "-"
        print(f"{name:15}{f'{gain:.4f} +- {error:.4f}':>20}{ratio:>16}")
    return {name: gain for name, (gain, _) in means.items()}


def keep_to_cores() -> None:
    """Keep this process and its trainings to two cores, where the system can."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def main() -> int:
    """Search and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=20, metavar="N", help="of each arm")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one training")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="the whole search, with other seeds")
    parser.add_argument("--fresh", type=int, default=3, metavar="N", help="unseen seeds to measure what was found on")
    given = parser.parse_args()
    keep_to_cores()
    began = time.perf_counter()
    script = (ROOT / "train.py").read_text()
    results: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder) / "trainings", Path(folder) / "cache", given.seconds)
        trainer.prepare()
        for repeat in range(given.repeats):
            found = asyncio.run(search(trainer, script, given.trainings, repeat))
            for name, best in found.items():
                print(f"{name} found: {changes(script, best)}")
            seeds = range(FRESH_SEEDS + given.fresh * repeat, FRESH_SEEDS + given.fresh * (repeat + 1))
            for name, gains in measure(trainer, script, found, seeds).items():
                results[name].append(gains)
    means = table(results)
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.0f} min, load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0 if means[Followed.name] > means[RandomKnobs.name] else 1


if __name__ == "__main__":
    sys.exit(main())
