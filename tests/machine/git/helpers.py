"""What several of these tests do."""

import subprocess
from pathlib import Path

from mcp_server.machine.git import Repository, tree_with_files


def run_git(folder: Path, *arguments: str) -> str:
    """Git as the user runs it, hooks and configuration included."""
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_files(repository: Repository, base: str, **files: str | None) -> str:
    """A commit on top of `base` in which the files, dots in their names written as `_`, have these texts."""
    named = {name.replace("_py", ".py").replace("__", "/"): text for name, text in files.items()}
    return repository.commit_tree(tree_with_files(repository, base, named), [base], "Try something", 1_700_000_000)
