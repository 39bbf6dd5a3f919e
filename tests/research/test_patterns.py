r"""Patterns of users: linear in time whatever they are, and refused with what to write instead where that cannot be."""

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.machine import demanding
from mcp_server.research.metrics import find_metric
from mcp_server.research.patterns import LONGEST, TooDemandingError, check_pattern, is_linear, last_group

CATASTROPHES = (
    *(
        "(a+)+$",
        "(a|a)*$",
        "(a|aa)+$",
        "((a*)*)*b",
        "(?:(?:a{1,30}){1,30}){0,1}(x)",
        "(.*a){12}$",
        "^(([a-z])+.)+[A-Z]",
    ),
    *("^(([a-z])+.)+[A-Z]", r"(\w+\s?)+$", r"(\d+)*\.?(\d+)*loss", "(x+x+)+y", "(?:a?){50}(a{50})", "(a*)*(b*)*(c)"),
)


@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_no_pattern_takes_long(pattern: str) -> None:
    """A search that tries every way would go on for longer than a test may take, and than the machine will last."""
    check_pattern(pattern)
    text = "\n".join(["a" * 990 + "!", "x" * 999, "1" * 999, "a " * 490 + "!"] * 10)
    find_metric(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "has", "todo"),
    [
        ("(?<=loss )([0-9.]+)", "a look-ahead or look-behind", "outside of the parentheses"),
        ("(?<!train )loss (.+)", "a look-ahead or look-behind", "outside of the parentheses"),
        ("loss (?=[0-9])(.+)", "a look-ahead or look-behind", "outside of the parentheses"),
        ("loss (?!nan)(.+)", "a look-ahead or look-behind", "outside of the parentheses"),
        (r"(.)oss\1 ([0-9])", "a reference to a group", "Write out"),
        (r"(?P<q>.)oss(?P=q)", "a reference to a group", "Write out"),
        ("loss (?>[0-9]+)(x)", "a possessive or atomic group", "Leave"),
        ("loss ([0-9]++)", "a possessive or atomic group", "Leave"),
        ("(x)?(?(1)a|b)", "a condition on a group", "both cases"),
        (r"loss (.*)\Z", r"\Z", r"Write \$"),
        (r"\u006coss (.*)", "a character by its number", "Write the character"),
        ("loss ([0-9]{2000})", "more than 1000 repetitions", r"Write \* or \+"),
        ("loss (.*)(?#c)", "a comment or flag", "Leave it out"),
        ("(?x) loss (.*)", "a comment or flag", "Leave it out"),
    ],
)
def test_what_does_not_run_in_linear_time_is_refused_with_what_to_write(pattern: str, has: str, todo: str) -> None:
    with pytest.raises(InvalidInput, match=todo) as refusal:
        check_pattern(pattern)
    assert f" has {has}" in refusal.value.what
    assert "does not run in linear time" in refusal.value.what
    assert not is_linear(pattern)
    with pytest.raises(TooDemandingError):
        last_group(pattern, ["loss 1"])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("acc = (", "missing ), unterminated"), ("(a", "is no regular"), ("*", "is no regular"), ("a", "has no group")],
)
def test_what_is_no_pattern(pattern: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_pattern(pattern)
    assert says in str(refusal.value)


def test_a_pattern_has_a_bound() -> None:
    with pytest.raises(InvalidInput, match="has 2001 characters"):
        check_pattern("(a)" + "b" * (LONGEST - 2))
    check_pattern("(a)" + "b" * (LONGEST - 3))


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"verlust é (\S+)", "verlust é 0.5 é", 0.5),
        (r"(?i)LOSS[:=] *(\d+\.\d+)", "loss: 1.5\nLoss=2.5", 2.5),
        (r"(?P<value>\d+)$", "a 1\nb 22", 22),
        (r"x(\d)?", "x1\nx", None),
        (r"loss (\S+)", "loss 1\n\ud800 loss 2", 2),
        ("[[:alpha:]]+=([[:digit:]]+)", "é=1 ab=7", 7),
    ],
)
def test_what_patterns_find(pattern: str, text: str, found: float | None) -> None:
    check_pattern(pattern)
    assert find_metric(pattern, text) == found


def test_what_python_runs_for_a_run_of_before_has_a_bound() -> None:
    assert demanding.last_group("(?=a)((a+)+)$", ["a" * 900 + "!"], 0.5) is None
    assert demanding.last_group("(", ["a"]) is None
