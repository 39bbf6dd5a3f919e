"""What a repository of many files costs: a run, an experiment and a training in it, beside those in a small one.

    python benchmarks/many_files.py [--files 20 20000] [--rounds 3]

The files lie in folders of a hundred; the training script does nothing. Trainings run one after the other on one
simulated device, so that what one takes is its checkout, its walls and its processes. Prints medians of the rounds, and
how many times those of the first repository the others are.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcp_server.lab.lab import Lab
from mcp_server.settings import Settings

SCRIPT = "LR = 1\nprint(f'loss: {LR}')\n"
FOLDER = 100
STEPS = ("setup_run", "register", "train", "complete")


def make_repository(root: Path, files: int) -> None:
    """A repository with a training script and so many other files."""
    for number in range(files - 1):
        folder = root / f"package{number // FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module{number % FOLDER}.py").write_text(f"NUMBER = {number}\n" * 20)
    root.mkdir(exist_ok=True)
    (root / "train.py").write_text(SCRIPT)
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "Start"]):
        subprocess.run(["git", *identity, *words], cwd=root, check=True)


async def measure(root: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, round by round; the first training, which starts the worker, is not counted."""
    took: dict[str, list[float]] = {step: [] for step in STEPS}
    async with Lab.open(Settings.load(root, "cpu:1")) as lab:
        began = time.perf_counter()
        await lab.setup.setup_run(
            tag="many", metric="loss", direction="minimize", time_budget_seconds=5.0, train_script="train.py"
        )
        took["setup_run"].append(time.perf_counter() - began)
        for number in range(rounds + 1):
            moments = [time.perf_counter()]
            edit = [{"path": "train.py", "old": "LR = 1\n", "new": f"LR = 1 + {number}\n"}] if number else None
            made = await lab.registering.register(tag="many", hypothesis="none", category="other", edits=edit)
            moments.append(time.perf_counter())
            trained = await lab.training.train(made.experiment_id, wait_seconds=600)
            moments.append(time.perf_counter())
            if trained.status != "trained":
                raise SystemExit(f"the training failed: {trained}")
            await lab.verdicts.complete(made.experiment_id)
            moments.append(time.perf_counter())
            if number:
                for step, begin, end in zip(STEPS[1:], moments[:-1], moments[1:], strict=True):
                    took[step].append(end - begin)
    return took


def table(medians: dict[int, dict[str, float]]) -> None:
    """Print the medians, and the ratio to the first repository."""
    counts: Sequence[int] = list(medians)
    print(f"{'':10}" + "".join(f"{count:>9,} files" for count in counts) + f"{'ratio':>10}")
    for step in STEPS:
        values = [medians[count][step] for count in counts]
        print(f"{step:10}" + "".join(f"{value:>13.2f} s" for value in values) + f"{values[-1] / values[0]:>10.1f}")


def main() -> int:
    """Measure each repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[20, 20_000], metavar="N", help="of each repository")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="experiments in each")
    given = parser.parse_args()
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTORESEARCH_CACHE"], os.environ["AUTORESEARCH_LOCKS"] = f"{folder}/cache", f"{folder}/locks"
        for count in given.files:
            root = Path(folder) / f"files-{count}"
            make_repository(root, count)
            took = asyncio.run(measure(root, given.rounds))
            medians[count] = {step: statistics.median(times) for step, times in took.items()}
    table(medians)
    return 0


if __name__ == "__main__":
    sys.exit(main())
