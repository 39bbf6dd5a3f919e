"""A shell in which command lines are typed, without a process for each."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_server.interfaces import cli
from tests.project import Project


@dataclass(frozen=True)
class Done:
    """What came of a command line."""

    code: int
    out: str
    err: str


class Shell:
    """Runs command lines in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "160")

    def run(self, *words: str, cwd: Path | None = None) -> Done:
        """Run the console script."""
        self._monkeypatch.setattr(sys, "argv", ["autoresearch", *words])
        if cwd:
            self._monkeypatch.chdir(cwd)
        self._capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code
        out, err = self._capsys.readouterr()
        if isinstance(code, str):  # what the interpreter would print, and the exit code that it would have
            return Done(1, out, f"{err}{code}\n")
        return Done(int(str(code or 0)), out, err)

    def ask(self, project: Project, *words: str) -> dict[str, Any]:
        """The structured result of a verb that must succeed."""
        done = self.run(*words, "--repo", str(project.root), "--devices", "cpu:1", "--json")
        assert done.code == 0, done.err
        answer: dict[str, Any] = json.loads(done.out)
        return answer
