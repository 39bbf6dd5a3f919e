"""Scorer and judge as a worker runs them, in processes of their own, for a model that was handed in."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def judged(
    out: Path,
    environment: Mapping[str, str],
    folder: Path = ROOT,
    scorer: Sequence[str] = (sys.executable, "scoring.py", "score"),
    rows: Path | None = None,
) -> tuple[int, str, str]:
    """Make all passes over the model in `out`: the judge's exit code in the last, and what each of both said.

    Args:
        environment: of both, with the prepared data.
        folder: holds scoring.py.
        scorer: the words of the scorer's command.
        rows: where to put the scores by row; None: nowhere.
    """
    with tempfile.TemporaryDirectory() as private:
        for number in range(1, 10):
            given = {**environment, "AUTORESEARCH_OUT": str(out), "AUTORESEARCH_PASS": str(number)}
            code, said, scorers = _pass(folder, given, given | {"AUTORESEARCH_PRIVATE": private}, scorer)
            if not re.search(r"^again: 1$", said, re.MULTILINE):
                break
        if rows is not None and code == 0:
            rows.write_text(Path(private, "rows.json").read_text())
    return code, said, scorers


def _pass(
    folder: Path, scorers: Mapping[str, str], judges: Mapping[str, str], words: Sequence[str]
) -> tuple[int, str, str]:
    asked, answered = os.pipe(), os.pipe()

    def begin(words: Sequence[str], given: int, made: int, seen: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, stdin=given, stdout=made, stderr=subprocess.PIPE, text=True, env=seen, cwd=folder
        )

    judge_words = (sys.executable, "scoring.py", "judge")
    with (
        begin(words, asked[0], answered[1], scorers) as scorer,
        begin(judge_words, answered[0], asked[1], judges) as judge,
    ):
        for descriptor in (*asked, *answered):
            os.close(descriptor)
        said = judge.communicate(timeout=600)[1], scorer.communicate(timeout=600)[1]
    return judge.returncode, *said


def facts_of(said: str) -> dict[str, str]:
    """What the judge printed as `key: value`."""
    return dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
