"""A corpus small enough to prepare in a moment."""

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ("--vocab-size", "256", "--seq-len", "32", "--eval-tokens", "2048")
Script = Callable[..., subprocess.CompletedProcess[str]]


def write_corpus(folder: Path, files: int = 120) -> Path:
    """Text files that differ, of a few hundred characters each."""
    folder.mkdir()
    for i in range(files):
        lines = [f"def line_{i}_{j}():\n    return {i * j} + {i} * x\n" for j in range(12)]
        (folder / f"file{i:03d}.txt").write_text("".join(lines))
    return folder
