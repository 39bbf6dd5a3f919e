"""Regular expressions that users and agents give: they run in time linear in the text, whatever they are.

RE2 runs them, which has no look-arounds and no references to groups: what needs those can take for ever. RE2 is linear
for one match; all matches of a line together may read it once for each. So lines have a bound, and all matches are gone
through in one line only, the last one that has any; groups, which cost the more the more there are, are asked for in
one match only. What one character costs is bounded by the size of the compiled pattern.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mcp_server.errors import InvalidInput

LONGEST = 2000
"""Characters of a pattern."""

LARGEST = LONGEST + 100
"""Instructions of a compiled pattern: at each character of a text RE2 may be at every one of them."""

LONGEST_LINE = 1000
"""Characters of a line; no pattern is searched in a longer one."""

_INSTEAD = (
    (r"\(\?<?[=!]", "a look-ahead or look-behind", "Write what stands around the number outside of the parentheses"),
    (r"\\\d|\(\?P=", "a reference to a group", "Write out what the group matches"),
    (r"\(\?>|[*+?}]\+", "a possessive or atomic group", "Leave the + or ?> out: nothing is tried twice anyway"),
    (r"\(\?\(", "a condition on a group", "Write out both cases with |"),
    (r"\\Z", r"\Z", "Write $"),
    (r"\\u|\\U|\\N", "a character by its number or name", "Write the character itself, or \\x{41}"),
    (r"\{\d*,?\d*\}", "more than 1000 repetitions", "Write * or +"),
    (r"\(\?#|\(\?[aiLmsux-]+", "a comment or flag that is not one of i, m, s and U", "Leave it out"),
)
"""What Python's expressions have and RE2 has not, how it is called, and what to write instead."""


class TooDemandingError(ValueError):
    """RE2 does not take a pattern; the text says in its words why."""


def check_pattern(pattern: str) -> None:
    """Raise InvalidInput unless it is a regular expression with a group, of the kind that runs in linear time."""
    check_syntax(pattern)
    try:
        size = _compiled(pattern).programsize
    except TooDemandingError as refused:
        found = next((each for each in _INSTEAD if re.search(each[0], str(refused)) or _in(each[0], pattern)), None)
        has, todo = (found[1], found[2]) if found else (f"what RE2 calls '{refused}'", "Leave that out")
        raise InvalidInput(
            f"pattern {pattern!r} has {has}, which does not run in linear time",
            f"{todo}; all else of https://github.com/google/re2/wiki/Syntax may be used",
            ["metric_pattern"],
        ) from None
    if size > LARGEST:
        what = f"pattern {pattern[:200]!r} has {size:,} steps when its repetitions are written out"
        raise InvalidInput(what, f"Keep it below {LARGEST:,}: write * or + for long repetitions", ["metric_pattern"])


def check_syntax(pattern: str) -> None:
    """Raise InvalidInput unless it is a regular expression with a group, for RE2 or for Python."""
    if len(pattern) > LONGEST:
        raise InvalidInput(f"pattern has {len(pattern)} characters", f"Keep it below {LONGEST}")
    try:
        groups = _compiled(pattern).groups
    except TooDemandingError:
        try:
            groups = re.compile(pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidInput(f"pattern {pattern!r} is no regular expression: {error}", f"Mend it: {error}") from None
    if groups < 1:
        raise InvalidInput(
            f"pattern {pattern!r} has no group", "Put the number in parentheses, e.g. 'loss = ([0-9.]+)'"
        )


def is_linear(pattern: str) -> bool:
    """Whether RE2 takes a pattern. Older runs may have one that it does not take."""
    try:
        _compiled(pattern)
    except TooDemandingError:
        return False
    return True


def last_group(pattern: str, lines: Sequence[str]) -> str | None:
    """The first group of the last match of a pattern in lines, each by itself; None without a match.

    Lines are searched from the last one on, up to the first that has a match; lines longer than `LONGEST_LINE` are
    skipped.

    Raises TooDemandingError where RE2 does not take it.
    """
    expression, spans = _compiled(pattern), _compiled(pattern, groups=False)
    for line in reversed(lines):
        if len(line) > LONGEST_LINE:
            continue
        searched = line.encode("utf-8", "replace")  # \B also matches between the bytes of a character
        starts = [match.start() for match in spans.finditer(searched)]
        if starts:
            found = expression.match(searched, starts[-1])[1]
            return None if found is None else str(found, "utf-8", "replace")
    return None


def _in(construct: str, pattern: str) -> bool:
    """Whether a construct stands in a pattern outside of an escape."""
    return re.search(construct, re.sub(r"\\[\\(\[{*+?]", "", pattern)) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str, groups: bool = True) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.never_capture = not groups
    try:
        return re2.compile(pattern.encode("utf-8", "replace").decode(), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise TooDemandingError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None
