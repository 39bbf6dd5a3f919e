"""Improve the artifacts of a task: the same as `autoresearch task run`.

python scripts/run_task.py --task tasks/skill-quality/task.yaml --iterations 5
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcp_server.interfaces.cli import main


def words(given: list[str]) -> list[str]:
    """The words of the command line of `autoresearch` for those of this script."""
    rest = list(given)
    for place, word in enumerate(rest):
        if word == "--task":
            rest.pop(place)
        elif word.startswith("--task="):
            rest[place] = word.removeprefix("--task=")
    return ["autoresearch", "task", "run", *rest]


if __name__ == "__main__":
    sys.argv = words(sys.argv[1:])
    main()
