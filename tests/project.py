"""A user's repository: a tiny training script under git, as somebody would have it before meeting this server."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """\
import os

LR = 0.1  # learning rate
DEPTH = 4  # layers
TRAP = ""  # how to go wrong

if TRAP == "crash":
    raise RuntimeError("shapes do not match")
if TRAP == "silent":
    raise SystemExit
if TRAP == "hang":
    import time

    time.sleep(600)
loss = float("nan") if TRAP == "nan" else 1 + abs(LR - 0.3) + 0.01 * DEPTH
print("step 1 | loss: 2.5")
print(f"val_loss: {loss:.6f}")
print(f"seed: {os.environ['AUTORESEARCH_SEED']}")
"""


@dataclass(frozen=True)
class Project:
    """The repository at `root`."""

    root: Path

    @classmethod
    def make(cls, root: Path, script: str = SCRIPT) -> "Project":
        """A new repository with one commit."""
        root.mkdir(parents=True)
        project = cls(root)
        project.git("init", "--quiet", "--initial-branch=main")
        project.commit("Start", {"train.py": script, "pyproject.toml": "[project]\n", "README.md": "mine\n"})
        return project

    def git(self, *words: str) -> str:
        """What git prints."""
        identity = ("-c", "user.name=User", "-c", "user.email=user@localhost", "-c", "commit.gpgsign=false")
        hooks = ("-c", "core.hooksPath=/dev/null")
        done = subprocess.run(
            ["git", *identity, *hooks, *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        """Write files without committing them."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, message: str, files: dict[str, str]) -> str:
        """Commit files; the commit's id."""
        self.write(files)
        self.git("add", "--", *files)
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def branch(self, tag: str) -> str:
        """The commit that a run's branch is at."""
        return self.git("rev-parse", f"autoresearch/{tag}")

    def script_at(self, commit: str) -> str:
        """The training script in a commit."""
        return self.git("show", f"{commit}:train.py")
