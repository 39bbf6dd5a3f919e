"""Measure the archiver under archive.toml: megabytes of log a second of CPU time, the best of several rounds."""

import os
import time
from pathlib import Path

from archiver import Config, pack, sample_log

ROUNDS = 5


def main() -> None:
    """Print `mb_per_second: ...` and the size of the archive as a share of the log's."""
    config = Config.read(Path("archive.toml"))
    log = sample_log(0.4, int(os.environ.get("AUTORESEARCH_SEED", "42")))
    times, size = [], 0
    for _ in range(ROUNDS):
        started = time.process_time()
        size = len(pack(config, log))
        times.append(time.process_time() - started)
    print(f"ratio: {size / len(log):.4f}")
    print(f"mb_per_second: {len(log) / 1e6 / min(times):.4f}")


if __name__ == "__main__":
    main()
