"""Patterns of runs from before that RE2 does not take: Python runs them, in a process with a limit of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10.0
"""After so long such a pattern has found nothing."""

_PROGRAM = """
import json, re, sys
pattern, lines = json.load(sys.stdin)
found = []
for line in reversed(lines):
    found = found or [match[1] for match in re.finditer(pattern, line)]
json.dump(found[-1] if found else None, sys.stdout)
"""


def last_group(pattern: str, lines: Sequence[str], seconds: float = SECONDS) -> str | None:
    """As `patterns.last_group`, by Python's own expressions; None also where they took more than `seconds`."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, list(lines)]),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    found = json.loads(done.stdout) if done.returncode == 0 else None
    return found if isinstance(found, str) else None
