"""How long it takes to find identical and similar changes, and the points to tune from, among many experiments.

    python benchmarks/memory.py [--experiments 100000] [--rounds 50]

Most of the experiments change one of 30 knobs, the others code, so that every change has many like it. Exits 1 when the
slowest median is above 20 ms.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from mcp_server.machine.store import Store
from mcp_server.research.experiment import Run
from mcp_server.research.memory import Fingerprint, fingerprint
from mcp_server.research.task import Task

LIMIT = 0.020
TAG = "mar8"
KNOBS = 30
LINES = 100
DISTINCT = 3000
TASK = Task("loss", "minimize", 300.0, "train.py", "python train.py", "python", ("train.py",))


def script(numbers: random.Random) -> str:
    """The script with one knob, or a few lines, changed."""
    knobs = {f"KNOB_{n}": 1.0 for n in range(KNOBS)}
    lines = [f"x = layer_{n}(x)" for n in range(LINES)]
    if numbers.random() < 0.7:
        knobs[f"KNOB_{min(numbers.randrange(KNOBS), numbers.randrange(KNOBS))}"] = round(numbers.uniform(0, 2), 2)
    else:
        first = numbers.randrange(LINES)
        lines[first : first + numbers.randrange(1, 9)] = [f"x = other_{numbers.randrange(50)}(x)"]
    return "\n".join([*(f"{name} = {value}" for name, value in knobs.items()), *lines]) + "\n"


def changes(numbers: random.Random) -> list[Fingerprint]:
    """Fingerprints of many changes."""
    base = "\n".join([*(f"KNOB_{n} = 1.0" for n in range(KNOBS)), *(f"x = layer_{n}(x)" for n in range(LINES))]) + "\n"
    return [fingerprint({"train.py": (base, script(numbers))}) for _ in range(DISTINCT)]


def fill(path: Path, count: int, made: list[Fingerprint], numbers: random.Random) -> None:
    """Write so many experiments, each with a trial that ended, past the store: one at a time would take minutes."""
    knobs = json.dumps({f"KNOB_{n}": 1.0 for n in range(KNOBS)})
    drawn = [numbers.choice(made) for _ in range(count)]
    ids = [f"{TAG}-{number}" for number in range(1, count + 1)]
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO experiments (id, tag, number, agent, commit_sha, base_commit, hypothesis, category, request,"
            " registered_at, status, description, source, diff_summary, lines_added, lines_removed, changes)"
            " VALUES (?, ?, ?, 'ada', ?, 'base', 'better', 'other', ?, 0, 'trained', '', 'knobs', '', 1, 1, '{}')",
            [(name, TAG, number, name, name) for number, name in enumerate(ids, start=1)],
        )
        connection.executemany(
            "INSERT INTO trials (id, experiment_id, attempt, seed, device_kind, status, came_from, queued_at, metrics)"
            " VALUES (?, ?, 1, 42, 'cpu', 'finished', 'registered', 0, '{\"loss\": 1.5}')",
            [(f"{name}.1", name) for name in ids],
        )
        connection.executemany(
            "INSERT INTO fingerprints VALUES (?, ?, ?, ?, ?)",
            [(TAG, n, each.digest, json.dumps(each.sketch), knobs) for n, each in enumerate(drawn, start=1)],
        )
        connection.executemany(
            "INSERT INTO likenesses VALUES (?, ?, ?)",
            [(TAG, key, number) for number, each in enumerate(drawn, start=1) for key in each.keys],
        )
    connection.close()


async def median_of(rounds: int, ask: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """The median and the longest time that a question takes, in seconds."""
    took = []
    for turn in range(rounds):
        began = time.perf_counter()
        await ask(turn)
        took.append(time.perf_counter() - began)
    return statistics.median(took), max(took)


async def measure(count: int, rounds: int) -> int:
    """Fill a store, ask it, and print how long it took."""
    numbers = random.Random(1)
    made = changes(numbers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "research.db"
        async with Store.open(path) as store:
            await store.runs.add(Run(TAG, f"autoresearch/{TAG}", "base", TASK, "cpu", {}, 0.0))
        fill(path, count, made, numbers)
        async with Store.open(path) as store:
            memory = store.memory
            asked = {
                "identical": await median_of(rounds, lambda turn: memory.identical(TAG, made[turn % DISTINCT])),
                "similar": await median_of(rounds, lambda turn: memory.similar(TAG, made[turn % DISTINCT])),
                "500 points": await median_of(rounds, lambda turn: memory.points(TAG, "loss", "cpu")),
            }
    for name, (median, longest) in asked.items():
        print(f"{name:12} {median * 1000:6.1f} ms  (longest {longest * 1000:.1f} ms, {count:,} experiments)")
    return int(max(median for median, _ in asked.values()) > LIMIT)


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.experiments, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
