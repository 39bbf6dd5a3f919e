"""Ray clusters for tests, each in a process of its own, so that nothing of Ray is in that of the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CLUSTER = Path(__file__).parent / "cluster"
NAMES = ("AUTORESEARCH_", "RAY_", "GIT_")


class Nodes:
    """A cluster. Every machine of it has a cache and locks of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NAMES)}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120", "HOME": str(folder)}
        with (folder / "ray.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(CLUSTER / "nodes.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        try:
            self.address = self._answer()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, cpus: int = 1, gpus: str = "") -> None:
        """Let a machine join.

        Args:
            gpus: its simulated GPUs, as `gpus/pynvml.py` takes them.
        """
        (self.folder / name).mkdir()
        place = {"AUTORESEARCH_CACHE": str(self.cache(name)), "AUTORESEARCH_LOCKS": str(self.folder / name / "locks")}
        simulated = {"PYTHONPATH": str(CLUSTER / "gpus"), "SIMULATED_GPUS": gpus}
        self._ask(
            {"add": name, "cpus": cpus, "gpus": len(gpus.split(",")) if gpus else 0, "environment": place | simulated}
        )

    def kill(self, name: str) -> None:
        """Take a machine away without a warning."""
        self._ask({"kill": name})

    def cache(self, name: str) -> Path:
        return self.folder / name / "cache"

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def _ask(self, what: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            if line.strip() == "done" or (":" in line and " " not in line.strip()):
                return line.strip()
        raise AssertionError((self.folder / "ray.log").read_text()[-2000:])
