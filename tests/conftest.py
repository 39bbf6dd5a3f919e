"""Every test gets a home, locks and a cache of its own, and nothing of the environment of whoever runs the tests.

AUTORESEARCH_SANDBOX alone is handed on, so that the suite can be run with walls around trainings and without.
"""

import os
from pathlib import Path

import pytest

from mcp_server.settings import Settings
from tests.project import Project


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that cannot be written, so that touching it fails; folders of the test's own for all else."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_", "AUTORESEARCH_"))]:
        if name != "AUTORESEARCH_SANDBOX":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent-home")
    monkeypatch.setenv("AUTORESEARCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A user's repository with a training script of a tenth of a second."""
    return Project.make(tmp_path / "project")


@pytest.fixture
def settings(project: Project) -> Settings:
    """Settings for one CPU device."""
    return Settings.load(project.root, "cpu:1")
