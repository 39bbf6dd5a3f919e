"""How much of an honest gain is left when the smaller of those on validation and on hidden text counts.

    python benchmarks/audit_rule.py [--seconds 5] [--seeds 4]

Trains variations of the bundled train.py on a CPU, each with several seeds, and has every model scored by scoring.py
on the validation text and on the hidden text. Any two of the models are then taken for a best and what would displace
it, wherever the second is better on the validation text: all of these gains are honest, and some are mere luck.
Printed is what is left of them, and the share of which nothing is, by their size in standard deviations of one run. It
exits with 1 where nothing is left of more than one in a hundred of those above three standard deviations.

A second table holds the gain of each variation over the script as it is, both averaged over their seeds, by row: on
either text with its standard error over rows, and by how many standard errors both gains differ.
"""

import argparse
import itertools
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.judged import facts_of, judged  # noqa: E402
from mcp_server.research.rows import RowScores, compare_rows, parse  # noqa: E402
from mcp_server.research.task import Task  # noqa: E402

PYTHON = sys.executable
TASK = Task("val_bpb", "minimize", 5, "train.py", "python train.py", PYTHON, ("train.py",))
VARIATIONS = (
    "",
    "MATRIX_LR = 0.02",
    "MATRIX_LR = 0.08",
    "DEPTH = 1",
    "WIDTH = 64",
    "WARMDOWN = 0.3",
    "TOTAL_BATCH_SIZE = 4096",
)
"""What each sets in the script; nothing, in the first."""

BOUNDS = (0.0, 1.0, 3.0, 10.0, math.inf)
"""Of the gains that are counted together, in standard deviations."""
MOST_LOST = 0.01

Scores = tuple[float, float]
"""val_bpb on the validation text, and on the hidden text."""


def script_of(folder: Path, variation: str) -> Path:
    """A checkout with the variation of the script."""
    folder.mkdir()
    for name in ("prepare.py", "portable.py", "scoring.py", "train.py"):
        (folder / name).write_text((ROOT / name).read_text())
    script = folder / "train.py"
    name = variation.partition(" ")[0]
    text, count = re.subn(rf"^{name} = [^ ]+", variation, script.read_text(), flags=re.MULTILINE) if name else ("", 1)
    assert count == 1, variation
    script.write_text(text or script.read_text())
    return script


def train(script: Path, seed: int, environment: Mapping[str, str]) -> tuple[Scores, RowScores]:
    """Train a variation with a seed, and have the model scored on both texts: as a whole, and by row."""
    with tempfile.TemporaryDirectory() as out:
        variables = {**environment, "AUTORESEARCH_OUT": out, "AUTORESEARCH_SEED": str(seed)}
        variables |= {"AUTORESEARCH_SCRIPT": str(script)}
        subprocess.run([PYTHON, script], cwd=script.parent, env=variables, stdout=subprocess.DEVNULL, check=True)
        rows = Path(out, "rows.json")
        said = judged(Path(out), variables, script.parent, rows=rows)[1]
        facts = facts_of(said)
        assert "score" in facts, said
        by_row = parse(rows.read_text())
        assert by_row is not None
        return (float(facts["score"]), float(facts["audit"])), by_row


def sigma_of(results: Iterable[Sequence[Scores]]) -> float:
    """The standard deviation of one run, pooled over the variations."""
    return math.sqrt(statistics.mean(statistics.variance(val for val, _ in runs) for runs in results))


def report(results: Sequence[Sequence[Scores]]) -> float:
    """Print how gains fare; returns the share of which nothing is left, of those above three standard deviations."""
    sigma = sigma_of(results)
    pairs = [
        (before[0] - after[0], before[1] - after[1])
        for before, after in itertools.permutations(itertools.chain(*results), 2)
        if after[0] < before[0]
    ]
    print(f"\none run: sigma {sigma:.4f} val_bpb; {len(pairs)} gains, which are not independent of each other")
    off = statistics.stdev(seen - gain for gain, seen in pairs)
    print(f"on the hidden text a gain is another by {off:.4f} (one standard deviation)\n")
    print("| gain, in sigma | gains | seen on the hidden text | counts | nothing left of |\n|---|---|---|---|---|")
    large = [0, 0]
    for low, high in itertools.pairwise(BOUNDS):
        inside = [each for each in pairs if low <= each[0] / sigma < high]
        if not inside:
            continue
        lost = sum(seen <= 0 for _, seen in inside)
        whole = sum(gain for gain, _ in inside)
        share, left = sum(seen for _, seen in inside) / whole, sum(min(each) for each in inside) / whole
        counts = f"{len(inside)} | {share:.0%} of it | {left:.0%} | {lost} ({lost / len(inside):.1%})"
        print(f"| {low:g} to {high:g} | {counts} |")
        if low >= 3:
            large = [large[0] + lost, large[1] + len(inside)]
    return large[0] / max(1, large[1])


def report_rows(variations: Sequence[str], results: Sequence[Sequence[RowScores]]) -> list[float]:
    """Print the gains over the first by row; returns by how many standard errors those on both texts differ."""
    print("\n| against the script as it is | on validation text | on hidden text | they differ by |\n|---|---|---|---|")
    found = []
    for variation, runs in zip(variations[1:], results[1:], strict=True):
        gains = compare_rows(TASK, [(run, results[0]) for run in runs])
        assert gains is not None
        assert gains.hidden is not None
        validation, hidden = gains.validation, gains.hidden
        found.append((validation.gain - hidden.gain) / math.hypot(validation.error, hidden.error))
        print(f"| {variation} | {validation.words()} | {hidden.words()} | {found[-1]:+.1f} standard errors |")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="budget of one training")
    parser.add_argument("--seeds", type=int, default=4, help="of each variation, at least 2")
    arguments = parser.parse_args()
    results, by_row = [], []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"AUTORESEARCH_CACHE": f"{folder}/cache", "AUTORESEARCH_DEVICE": "cpu"}
        environment |= {"AUTORESEARCH_TIME_BUDGET": str(arguments.seconds), "AUTORESEARCH_THREADS": "2"}
        prepared = [PYTHON, str(ROOT / "prepare.py"), "--profile", "stdlib", "--vocab-size", "2048"]
        subprocess.run(prepared, env=environment, stdout=subprocess.DEVNULL, check=True)
        for number, variation in enumerate(VARIATIONS):
            script = script_of(Path(folder, str(number)), variation)
            trained = [train(script, seed, environment) for seed in range(1, arguments.seeds + 1)]
            runs = [scores for scores, _ in trained]
            results.append(runs)
            by_row.append([rows for _, rows in trained])
            shown = ", ".join(f"{val:.4f} / {audit:.4f}" for val, audit in runs)
            print(f"{variation or 'as it is'}: {shown} (validation / hidden)", flush=True)
    report_rows(VARIATIONS, by_row)
    return 1 if report(results) > MOST_LOST else 0


if __name__ == "__main__":
    sys.exit(main())
