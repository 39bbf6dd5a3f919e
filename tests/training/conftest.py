"""A small prepared configuration, made once, and trainings in folders of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import prepare
from tests.training.small import ROOT, SMALL, Script, write_corpus


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds one small configuration of single bytes."""
    folder = tmp_path_factory.mktemp("training")
    corpus = write_corpus(folder / "corpus")
    environment = os.environ | {"AUTORESEARCH_CACHE": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "prepare.py"), "--path", str(corpus), *SMALL]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    return folder / "cache"


@pytest.fixture
def data(cache: Path, monkeypatch: pytest.MonkeyPatch) -> prepare.Data:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(cache))
    return prepare.open_data()


@pytest.fixture
def runtime() -> prepare.Runtime:
    """One thread of a CPU, as most tests want it."""
    return prepare.Runtime(device="cpu", seed=1, budget=10.0, threads=1, bf16=False, memory_gib=0.0, out=None)


@pytest.fixture
def script(cache: Path, tmp_path: Path) -> Script:
    """Runs a script of this repository in a subprocess whose environment holds nothing of the caller's."""

    def run(name: Path | str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = name if isinstance(name, Path) else ROOT / name
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AUTORESEARCH_CACHE": str(cache)} | environment
        command = [sys.executable, str(path), *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    return run
