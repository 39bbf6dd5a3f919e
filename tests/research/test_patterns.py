r"""Patterns of users: linear in time whatever they are, and refused with what to write instead where that cannot be."""

import time
from collections.abc import Iterator, Sequence
from typing import overload

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.machine import demanding
from mcp_server.research.metrics import find_metric, left_out, parse_metrics, parse_progress, spot_metric
from mcp_server.research.patterns import LONGEST, LONGEST_LINE, TooDemandingError, check_pattern, is_linear, last_group

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


class Watched(Sequence[str]):
    """Lines that note which of them are looked at."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, int):
            self.seen.append(index)
        return self.lines[index]

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("([0-9])(?:[0-9 ]*x)?", "1" * LONGEST_LINE),
        ("(a)(?:.*z)?", "a" * LONGEST_LINE),
        (r"([+-]|\d)(?:[^;]*;)?", "-" * LONGEST_LINE),
        (r"(\w??)", "w" * LONGEST_LINE),
        ("()", "e" * LONGEST_LINE),
        ("((?:ab)+)(?:(?:ab|c)*d)?", "abc" * (LONGEST_LINE // 3)),
    ],
)
def test_all_matches_are_gone_through_in_one_line_only(pattern: str, line: str) -> None:
    """All matches of a line together may read it once for each: that is done for the last line that has any."""
    check_pattern(pattern)
    lines = Watched([line] * 500 + ["?" * 9] * 3 if pattern not in ("()", r"(\w??)") else [line] * 500)
    assert last_group(pattern, lines) is not None
    assert lines.seen == list(range(len(lines) - 1, 498, -1))


def test_a_pattern_has_a_bound_when_it_is_written_out_too() -> None:
    long = "|".join(["(?:[ab]*a[ab]{900}c)"] * 5) + "|(c)"
    for pattern in (long, "(?:[ab]{1000}){1}(?:[ab]{1000})(?:[ab]{1000})(x)", "(.*a)" + "(?:b{1,30}){1,33}" * 2):
        with pytest.raises(InvalidInput, match="steps when its repetitions are written out"):
            check_pattern(pattern)
        assert is_linear(pattern), "a run of before keeps it"
    check_pattern(r"(?i)(\pL+)\s(\w+)")


def test_groups_are_asked_for_in_one_match_only() -> None:
    """For each match RE2 would copy a thousand groups at each character: a minute for one line."""
    pattern = "(" * 950 + ")" * 950
    check_pattern(pattern)
    assert last_group(pattern, ["a" * LONGEST_LINE] * 200) == ""


@pytest.mark.parametrize("pattern", ["(1)", "([0-9])(?:[0-9 ]*x)?", "^(1+)$", "()"])
def test_a_line_has_a_bound(pattern: str) -> None:
    longest = "1" * LONGEST_LINE
    assert last_group(pattern, [longest]) is not None
    assert last_group(pattern, [longest + "1"]) is None
    assert last_group(pattern, ["1", longest + "1", "1" * 16_000]) == ("" if pattern == "()" else "1")
    assert left_out(f"1\n{longest}\r{longest}1\n" + "1" * 16_000) == 2


@pytest.mark.parametrize(
    ("pattern", "lines", "found"),
    [
        ("a([0-9])", ["a1 a2", "a3 a4", "b"], "4"),
        ("a([0-9])?", ["a1", "a2 a"], None),
        ("(x*)", ["xx", "y"], ""),
        ("([0-9.]+)$", ["1.5", "2.25", "2.25!"], "2.25"),
        ("(a)", [], None),
        (r"\b(a)", ["a aab a"], "a"),
        ("^(a|b)", ["ab", "cab"], "a"),
        ("(é)|b", ["ébé", "c"], "é"),
        ("(a)|b", ["ab"], None),
        ("(a*)(?:b|$)", ["aab aa"], ""),
        (r"(\w)\B", ["ab cd"], "c"),
        (r"(\d?)\B|x", ["é1éé"], ""),
    ],
)
def test_the_last_match_counts_whoever_runs_the_pattern(pattern: str, lines: list[str], found: str | None) -> None:
    assert last_group(pattern, lines) == demanding.last_group(pattern, lines) == found


@pytest.mark.parametrize(
    ("head", "filling", "tail"),
    [
        *(("a: x", " ", "y"), ("step", " ", "y"), ("loss", "\t", "y"), ("step 1/", " ", "y"), ("step=", "[", "")),
        *(("val_acc", " ", "y"), ("val acc is", " ", "y"), ("val_acc=", "1,111", "."), ("", "1", ""), (" ", " ", ":")),
        *(("", "\x1b]", ""), ("", "\x9b1;", ""), ("", "step ", ""), ("", "a:", ""), ("loss", "=", "")),
    ],
)
def test_reading_a_line_takes_no_longer_than_its_parts(head: str, filling: str, tail: str) -> None:
    """What grows with the square of a line takes eight times as long for the same text in lines eight times as long."""

    def seconds(length: int) -> float:
        line = head + filling * ((length - len(head) - len(tail)) // len(filling)) + tail
        text = "\n".join([line] * (96_000 // length))
        begun = time.process_time()
        parse_metrics(text)
        parse_progress(text)
        spot_metric("val_acc", text)
        return time.process_time() - begun

    assert min(seconds(960) for _ in range(3)) < 3 * min(seconds(120) for _ in range(3))
