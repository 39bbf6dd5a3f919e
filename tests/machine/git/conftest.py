"""Real repositories in tmp_path, with a home of their own and nothing inherited from whoever runs the tests."""

import os
from pathlib import Path

import pytest

from mcp_server.machine.git import Repository, Workspace, ensure_state_folder
from tests.machine.git.helpers import run_git


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".gitconfig").write_text(
        "[user]\n name = User\n email = user@example.com\n[init]\n defaultBranch = main\n"
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's checkout: two scripts, a package, and data that is ignored."""
    top = tmp_path / "project"
    (top / "src").mkdir(parents=True)
    (top / "data").mkdir()
    run_git(top, "init", "--quiet")
    (top / "train.py").write_text("LR = 0.1\nSTEPS = 10\nprint('loss: 1.0')\n")
    (top / "prepare.py").write_text("VOCAB = 256\n")
    (top / "src" / "model.py").write_text("WIDTH = 64\n")
    (top / ".gitignore").write_text("data/\n*.log\n")
    (top / "data" / "tokens.bin").write_bytes(b"\0" * 1000)
    run_git(top, "add", "--all")
    run_git(top, "commit", "--quiet", "-m", "Start")
    return top


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository.discover(folder)


@pytest.fixture
def base(repository: Repository) -> str:
    return repository.resolve("HEAD")


@pytest.fixture
def workspaces(repository: Repository) -> Path:
    return ensure_state_folder(repository.root / ".autoresearch") / "workspaces" / "mar8"


@pytest.fixture
def workspace(repository: Repository, workspaces: Path, base: str) -> Workspace:
    return Workspace.open_or_create(repository, workspaces / "ada", base, ["data"])
