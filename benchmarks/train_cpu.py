"""What train.py reaches on a CPU: python benchmarks/train_cpu.py

Prepares the `stdlib` profile in a cache of its own, trains three times for ten seconds on two threads, and prints the
median val_bpb and how much longer a run takes than its budget, from the start of Python to its end. The exit code is 1
when a bound is missed. The clock counts CPU time, so a busy machine costs time over the budget but hardly any score.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGET = 10.0  # seconds
MOST_VAL_BPB = 1.72
MOST_OVERHEAD = 9.0  # seconds


def run(script: str, *arguments: str, **environment: str) -> tuple[str, float]:
    """Runs a script of this repository; its output and its seconds."""
    begin = time.perf_counter()
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.perf_counter() - begin


def main() -> int:
    scores, overheads = [], []
    with tempfile.TemporaryDirectory() as cache:
        _, seconds = run("prepare.py", "--profile", "stdlib", "--vocab-size", "2048", AUTORESEARCH_CACHE=cache)
        print(f"prepared in {seconds:.1f} s", flush=True)
        fixed = {"AUTORESEARCH_CACHE": cache, "AUTORESEARCH_TIME_BUDGET": str(BUDGET), "AUTORESEARCH_DEVICE": "cpu"}
        for seed in ("1", "2", "3"):
            output, seconds = run("train.py", AUTORESEARCH_THREADS="2", AUTORESEARCH_SEED=seed, **fixed)
            summary = dict(re.findall(r"^(\w+): +(\S+)$", output, re.MULTILINE))
            scores.append(float(summary["val_bpb"]))
            overheads.append(seconds - BUDGET)
            parts = (
                f"{key} {summary[key]}" for key in ("num_steps", "startup_seconds", "training_seconds", "eval_seconds")
            )
            print(f"seed {seed}: val_bpb {scores[-1]:.4f}, {overheads[-1]:.1f} s over the budget,", *parts, flush=True)
    score, overhead = statistics.median(scores), statistics.median(overheads)
    print(f"median val_bpb:   {score:.4f} (at most {MOST_VAL_BPB})")
    print(f"median overhead:  {overhead:.1f} s (at most {MOST_OVERHEAD})")
    print(f"load of machine:  {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0 if score <= MOST_VAL_BPB and overhead <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())
