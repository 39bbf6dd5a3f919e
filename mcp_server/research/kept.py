"""Kept changes as a person reads of them: baseline, claimed or provisional, by all runs that there are now."""

import re
from collections.abc import Iterable, Sequence

from mcp_server.research.claims import Assessment
from mcp_server.research.experiment import Experiment
from mcp_server.research.tables import results_line
from mcp_server.research.task import Task

BASELINE, PROVISIONAL, TAKEN_BACK = "baseline", "provisional", "not kept any more"
_ENDING = re.compile(r" \((?:claimed: |provisional\b|not kept any more\))[^()\t]*\)?$")
"""What a line of the results file says last of a change that was kept."""


def kept_words(e: Experiment, assessment: Assessment | None) -> str:
    """What may be told of an experiment that is kept; empty for others, and for what was measured elsewhere.

    Args:
        assessment: of the best and of what it was made from; all else that is kept is provisional.
    """
    if e.status != "keep" or e.imported:
        return ""
    if e.unchanged or (assessment is not None and e.id == assessment.chain.levels[0].name):
        return BASELINE
    claim = assessment.steps.get(e.id) if assessment is not None else None
    return PROVISIONAL if claim is None else claim.brief()


def told_line(e: Experiment, task: Task, assessment: Assessment | None) -> str:
    """A line of the results file, without its end; what may be told of a kept change follows it in brackets."""
    said = kept_words(e, assessment)
    return results_line(e, task, "" if said == BASELINE else said)


def same_line(one: str, other: str) -> bool:
    """Whether two lines tell of one verdict, whatever may be told of it by now."""
    return one == other or (_key(one) == _key(other) and _cells(one)[1:4] == _cells(other)[1:4])


def restated(lines: Sequence[str], kept: Iterable[str]) -> list[str]:
    """The lines of a results file with those of kept changes as they are now; those that somebody edited stay.

    Args:
        lines: each with its end.
        kept: the present lines of what is kept, without ends.
    """
    present: dict[tuple[str, str], str] = {}
    double = set()
    for line in kept:
        double |= {_key(line)} & present.keys()
        present[_key(line)] = line
    later: set[tuple[str, str]] = set()
    found = []
    for line in reversed(lines):
        key = _key(line)
        if _status(line) == "keep" and key not in double:
            ours = _stem(line) != line.rstrip("\n")  # a table of before may have the like, and stays as it was
            now = present.get(key, f"{_stem(line)} ({TAKEN_BACK})" if ours and key in later else None)
            found.append(line if now is None else f"{now}\n")
        else:
            later.add(key)
            found.append(line)
    return found[::-1]


def _stem(line: str) -> str:
    """A line without its end, and without what may be told of a kept change."""
    return _ENDING.sub("", line.rstrip("\n"))


def _cells(line: str) -> list[str]:
    return _stem(line).split("\t")


def _key(line: str) -> tuple[str, str]:
    """The commit and the description, which stay as they are when a change is measured again."""
    cells = _cells(line)
    return cells[0], cells[-1].removeprefix("'")


def _status(line: str) -> str:
    cells = _cells(line)
    return cells[3] if len(cells) == 5 else ""
