"""The files that a new project begins with: the fixed harness, the script to research, and the rules of the trade."""

from pathlib import Path

NAMES = ("prepare.py", "portable.py", "scoring.py", "train.py", "program.md")


def task_files() -> dict[str, Path]:
    """The built-in tasks by name."""
    folder = Path(__file__).resolve().parents[1] / "tasks"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def starter_files() -> dict[str, Path]:
    """Where each of the files is: in `mcp_server/starter` of an installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "starter"
    return {name: (folder if folder.is_dir() else package.parent) / name for name in NAMES}
