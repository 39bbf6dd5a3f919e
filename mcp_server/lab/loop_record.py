"""The record of an artifact loop: a line for each iteration in `results.jsonl`, and how far the folder was brought."""

import json
import os
import time
from pathlib import Path
from typing import Any

from mcp_server.errors import NotReady
from mcp_server.lab.views import when
from mcp_server.research.experiment import Experiment, Run


class LoopRecord:
    """The files of a loop in its work folder. A line that a killed loop left unfinished is dropped.

    Attributes:
        file: `results.jsonl`.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.file = work / "results.jsonl"
        self._home = work / "home.json"
        self._lines: list[dict[str, Any]] = []
        if self.file.exists():
            whole, _, rest = self.file.read_bytes().rpartition(b"\n")
            if rest:
                os.truncate(self.file, len(whole) + 1 if whole else 0)
            self._lines = [_read(self.file, line) for line in whole.splitlines() if line.strip()]

    def iterations(self, tag: str) -> int:
        """How many iterations a run has had."""
        return max((line["iteration"] for line in self._lines if line["tag"] == tag), default=0)

    def known(self, tag: str) -> int:
        """The number of the last verdict of a run that has its line; verdicts are noted in their order."""
        return max((line.get("verdict", 0) for line in self._lines if line["tag"] == tag), default=0)

    def add_verdict(
        self, run: Run, experiment: Experiment, baseline: Experiment | None, seconds: float | None
    ) -> dict[str, Any] | None:
        """Append a verdict, and return its line; None if it is there already.

        Args:
            seconds: how long its iteration took, if that is known.
        """
        earlier = [line for line in self._lines if line["experiment_id"] == experiment.id]
        if any(line["verdict"] == experiment.decided for line in earlier):
            return None
        if experiment.unchanged or (baseline is not None and experiment.id == baseline.id):
            iteration = 0
        else:
            iteration = earlier[0]["iteration"] if earlier else self.iterations(run.tag) + 1
        line = _line(run, iteration, experiment.status, experiment.hypothesis, experiment.reason, seconds)
        line |= {
            "experiment_id": experiment.id,
            "verdict": experiment.decided,
            "accepted": experiment.status == "keep",
            "value": experiment.value,
            "best_before": experiment.best_before,
            "baseline": baseline.value if baseline else None,
            "delta": experiment.delta,
            "runs": experiment.runs,
            "near_miss": experiment.near_miss,
            "diff_summary": experiment.diff_summary,
            "commit": experiment.commit,
            "metrics": {name: experiment.metrics[name] for name in run.task.secondary if name in experiment.metrics},
        }
        return self._append(line)

    def add_refusal(self, run: Run, status: str, hypothesis: str, reason: str, seconds: float) -> dict[str, Any]:
        """Append an iteration that came to no experiment, and return its line."""
        return self._append(_line(run, self.iterations(run.tag) + 1, status, hypothesis, reason, seconds))

    def home(self, tag: str) -> str | None:
        """The commit that the folder was last brought to by a run, if that is known."""
        try:
            known = json.loads(self._home.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return str(known["commit"]) if known.get("tag") == tag else None

    def remember_home(self, tag: str, commit: str) -> None:
        """Remember the commit that the folder was brought to."""
        part = self._home.with_suffix(".part")
        part.write_text(json.dumps({"tag": tag, "commit": commit}), encoding="utf-8")
        part.replace(self._home)

    def _append(self, line: dict[str, Any]) -> dict[str, Any]:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.append(line)
        return line


def _read(file: Path, text: bytes) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(text)
        if isinstance(line["tag"], str) and isinstance(line["iteration"], int) and "experiment_id" in line:
            return line
    except (ValueError, KeyError, TypeError):
        pass
    raise NotReady(f"{str(file)!r} has a line that is not of this loop: {text[:80]!r}", "Move it away; it is made anew")


def _line(run: Run, iteration: int, status: str, hypothesis: str, reason: str, seconds: float | None) -> dict[str, Any]:
    """What every line has."""
    return {
        "at": when(time.time()),
        "tag": run.tag,
        "iteration": iteration,
        "status": status,
        "accepted": False,
        "metric": run.task.metric,
        "value": None,
        "hypothesis": hypothesis,
        "reason": reason,
        "experiment_id": None,
        "seconds": None if seconds is None else round(seconds, 3),
    }
