"""How often the rule of the audit data rejects an honest gain.

    python benchmarks/audit_rule.py [--seconds 5] [--seeds 4]

Trains variations of the bundled train.py on a CPU, each with several seeds, and has every model scored by scoring.py
on the validation tokens and on the audit split. Any two of the models are then taken for a best and what would
displace it, wherever the second is better on the validation tokens: all of these gains are honest, and some are mere
luck. Printed is the share of them that the rule rejects, by their size in standard deviations of one run. It exits
with 1 where more than one in a hundred of those above three standard deviations is rejected.
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

from mcp_server.research.rescoring import too_little

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
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
MOST_REJECTED = 0.01

Scores = tuple[float, float]
"""val_bpb on the validation tokens, and on the audit split."""


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


def score(script: Path, split: str, environment: Mapping[str, str]) -> float:
    """The judge's score of what the training handed in, on one split."""
    variables = {**environment, "AUTORESEARCH_SPLIT": split}
    questions, answers = os.pipe(), os.pipe()
    command = [PYTHON, "scoring.py"]
    scorer = subprocess.Popen(
        [*command, "score"], cwd=script.parent, env=variables, stdin=questions[0], stdout=answers[1]
    )
    judge = subprocess.Popen(
        [*command, "judge"],
        cwd=script.parent,
        env=variables,
        stdin=answers[0],
        stdout=questions[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    for end in (*questions, *answers):
        os.close(end)
    said = judge.communicate()[1]
    scorer.wait()
    found = re.search(r"^score: +(\S+)$", said, re.MULTILINE)
    assert found, said
    return float(found[1])


def train(script: Path, seed: int, environment: Mapping[str, str]) -> Scores:
    """Train a variation with a seed, and have the model scored on both splits."""
    with tempfile.TemporaryDirectory() as out:
        variables = {**environment, "AUTORESEARCH_OUT": out, "AUTORESEARCH_SEED": str(seed)}
        variables |= {"AUTORESEARCH_SCRIPT": str(script)}
        subprocess.run([PYTHON, script], cwd=script.parent, env=variables, stdout=subprocess.DEVNULL, check=True)
        return score(script, "val", variables), score(script, "audit", variables)


def sigma_of(results: Iterable[Sequence[Scores]]) -> float:
    """The standard deviation of one run, pooled over the variations."""
    return math.sqrt(statistics.mean(statistics.variance(val for val, _ in runs) for runs in results))


def report(results: Sequence[Sequence[Scores]]) -> float:
    """Print how the gains fare; returns the share that is rejected of those above three standard deviations."""
    sigma = sigma_of(results)
    pairs = [
        (before[0] - after[0], before[1] - after[1], before[0])
        for before, after in itertools.permutations(itertools.chain(*results), 2)
        if after[0] < before[0]
    ]
    print(f"\none run: sigma {sigma:.4f} val_bpb; {len(pairs)} gains, which are not independent of each other")
    off = statistics.stdev(seen - gain for gain, seen, _ in pairs)
    print(f"on the audit split a gain is another by {off:.4f} (one standard deviation)\n")
    print("| gain, in sigma | gains | seen on the audit split | rejected |\n|---|---|---|---|")
    large = [0, 0]
    for low, high in itertools.pairwise(BOUNDS):
        inside = [each for each in pairs if low <= each[0] / sigma < high]
        if not inside:
            continue
        rejected = sum(too_little(gain, seen, sigma, max(1.0, size)) for gain, seen, size in inside)
        share = sum(seen for _, seen, _ in inside) / sum(gain for gain, _, _ in inside)
        print(
            f"| {low:g} to {high:g} | {len(inside)} | {share:.0%} of it | {rejected} ({rejected / len(inside):.1%}) |"
        )
        if low >= 3:
            large = [large[0] + rejected, large[1] + len(inside)]
    return large[0] / max(1, large[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="budget of one training")
    parser.add_argument("--seeds", type=int, default=4, help="of each variation, at least 2")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"AUTORESEARCH_CACHE": f"{folder}/cache", "AUTORESEARCH_DEVICE": "cpu"}
        environment |= {"AUTORESEARCH_TIME_BUDGET": str(arguments.seconds), "AUTORESEARCH_THREADS": "2"}
        prepared = [PYTHON, str(ROOT / "prepare.py"), "--profile", "stdlib", "--vocab-size", "2048"]
        subprocess.run(prepared, env=environment, stdout=subprocess.DEVNULL, check=True)
        for number, variation in enumerate(VARIATIONS):
            script = script_of(Path(folder, str(number)), variation)
            runs = [train(script, seed, environment) for seed in range(1, arguments.seeds + 1)]
            results.append(runs)
            shown = ", ".join(f"{val:.4f} / {audit:.4f}" for val, audit in runs)
            print(f"{variation or 'as it is'}: {shown} (val / audit)", flush=True)
    return 1 if report(results) > MOST_REJECTED else 0


if __name__ == "__main__":
    sys.exit(main())
