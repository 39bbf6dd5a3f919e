"""What a training's log says: its metrics, its progress, and the same text made safe to show."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mcp_server.research.cleaning import clean as clean
from mcp_server.research.cleaning import without_escapes
from mcp_server.research.experiment import Scalar
from mcp_server.research.marking import cited, fenced, on_one_line
from mcp_server.research.patterns import LONGEST_LINE, last_group
from mcp_server.research.task import Direction
from mcp_server.research.verdict import finite

Search = Callable[[str, Sequence[str]], str | None]
"""Finds the first group of the last match of a pattern in lines."""

MAX_METRICS = 64
"""Keys remembered of one log; of more, the ones printed last stay, because a summary ends a log."""

MAX_VALUE = 64

_METRIC = re.compile(r"\s*([A-Za-z_][\w./@-]{0,63})\s*:(?:\s+|(?=[-+.\d]))(\S.*)", re.ASCII)
_NUMBER = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d+)?|[-+]?(?:nan|inf|infinity))\s?%?", re.I)
_TOKEN = re.compile(r"[\w.+:/@-]{1,64}", re.ASCII)
_NOT_A_KEY = re.compile(r"(?:Error|Exception|Warning|Interrupt|Exit)$")

_SPOTTED = r"((?>[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf))(?!\w|[.,]\d)(?:\s?%)?)"
"""A number, whole: in `0.9s` and `12,5` there is none, since a part of it would be another."""

_VALUE = r"\s*+[:=]?\s*+([-+]?(?:\d[\d,]*\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf))"
_LOWER_IS_BETTER = re.compile(r"loss|error|bpb|perplexity|ppl|rmse|mae|mse|latency|seconds", re.IGNORECASE)
_HIGHER_IS_BETTER = re.compile(r"acc|accuracy|f1|auc|reward|r2|bleu|precision|recall|throughput", re.IGNORECASE)

_LINE_END = re.compile(r"[\r\n]+")
_STEP = re.compile(
    r"\b(?:step|iter|iteration|epoch|batch)\s*+[:=#]?\s*+\[?(\d{1,15})(?!\d)(?:\s*/\s*(\d{1,15})(?!\d))?", re.I
)
_LOSS = re.compile(r"\b(?:train[ _]?)?loss" + _VALUE, re.I)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s?%")
_ELAPSED = re.compile(r"\belapsed" + _VALUE + r"\s*s", re.I)
_REMAINING = re.compile(r"\b(?:remaining|eta)" + _VALUE + r"\s*s", re.I)


@dataclass(frozen=True)
class Progress:
    """How far a training says it is, from the last line of its log that says so.

    Attributes:
        text: the line itself, cleaned.
        loss: may be NaN or infinite, as printed.
        percent: 0 to 100; computed from `step 3/10` where the line names no percentage.
    """

    text: str
    step: int | None = None
    loss: float | None = None
    percent: float | None = None
    elapsed_seconds: float | None = None
    remaining_seconds: float | None = None


def parse_metrics(text: str) -> dict[str, Scalar]:
    """Read the `key: value` lines of a log; of a key printed twice, the last value counts.

    Values become int or float (`1e-3`, `12,345`, `39.80%`, `nan`, `inf`) where they can. Of text only a single token,
    such as a device or a hash, is a value: a sentence could give an agent orders. Lines with `|` are progress. At most
    `MAX_METRICS` keys are returned, the ones printed last.
    """
    metrics: dict[str, Scalar] = {}
    for line in _lines(text):
        match = _METRIC.fullmatch(line) if "|" not in line else None
        if match is None or _NOT_A_KEY.search(match[1]):
            continue
        said = match[2].rstrip(" \t\f\v")
        value = _scalar(said) if len(said) <= MAX_VALUE else None
        if value is None:
            continue
        metrics.pop(match[1], None)  # a dictionary keeps the place of a key's first insertion
        metrics[match[1]] = value
        if len(metrics) > MAX_METRICS:
            del metrics[next(iter(metrics))]
    return metrics


def find_metric(pattern: str, text: str, search: Search = last_group) -> Scalar | None:
    """The first group of the last match of a user's regular expression in a log, as a number; None without a match.

    The pattern is searched in each line by itself, carriage returns counting as line ends.

    Args:
        search: what runs the pattern.
    """
    found = search(pattern, list(_lines(text)))
    return None if found is None else _scalar(found.strip())


def spot_metric(name: str, text: str) -> Scalar | None:
    """The last number that a log gives to a name, wherever it stands in its line.

    It finds `val_acc` in `val_acc: 0.9`, `epoch 3 - val_acc: 0.9`, `val_acc=0.9` and `{"val_acc": 0.9}`; where there is
    nothing of the kind, in `val acc 0.9` and `val acc is 0.9`.
    """
    words = r"[\s_-]".join(re.escape(word) for word in name.split("_"))
    beginning = rf"(?i)(?<![\w./@-]){words}[\"']?"
    given = _spotted(rf"{beginning}\s*[:=]\s*{_SPOTTED}", text)
    return _spotted(rf"{beginning}\s+(?:is\s+)?{_SPOTTED}", text) if given is None else given


def _spotted(pattern: str, text: str) -> Scalar | None:
    """The number of the last match of a pattern of our own."""
    found = None
    for line in _lines(text):
        for match in re.finditer(pattern, line):
            found = match[1]
    return None if found is None else _scalar(found.strip())


def left_out(text: str) -> int:
    """The number of lines of a log that are too long to be read."""
    return sum(len(line) > LONGEST_LINE for line in _LINE_END.split(text))


def better_when(metric: str) -> Direction | None:
    """Which way a metric of this name gets better, as far as names tell."""
    lower, higher = _LOWER_IS_BETTER.search(metric), _HIGHER_IS_BETTER.search(metric)
    if bool(lower) == bool(higher):
        return None
    return "minimize" if lower else "maximize"


def parse_progress(text: str) -> Progress | None:
    """Read the last line of a log that names a step (or iteration, epoch, batch) together with a loss or a total."""
    for line in reversed(list(_lines(text))):
        step = _STEP.search(line)
        loss = _LOSS.search(line)
        if step is None or (loss is None and step[2] is None and "|" not in line):
            continue
        percent = finite(_float(_PERCENT.search(line)))
        if percent is None and step[2] and int(step[2]) > 0:
            percent = 100 * int(step[1]) / int(step[2])
        return Progress(
            text=clean(line, 200).strip(),
            step=int(step[1]),
            loss=_float(loss),
            percent=None if percent is None else min(100.0, percent),
            elapsed_seconds=finite(_float(_ELAPSED.search(line))),
            remaining_seconds=finite(_float(_REMAINING.search(line))),
        )
    return None


def as_data(text: str) -> str:
    """Fence cleaned text from a training, so that an agent reads it as data."""
    return fenced(text, "training-output")


def quoted(text: str, limit: int) -> str:
    """Text from a training within a sentence of ours: one line, of which the last `limit` characters stay, marked as
    data and in double quotes, of which it holds none itself."""
    return cited(clean(on_one_line(text), limit), limit, "the log says")


def _lines(text: str) -> Iterator[str]:
    """The lines of a log, carriage returns counting as line ends, without escape sequences and overlong lines.

    Characters of a line of more than `LONGEST_LINE` are never read as a metric or as progress.
    """
    for line in _LINE_END.split(text):
        if line and len(line) <= LONGEST_LINE:
            yield without_escapes(line)


def _scalar(text: str) -> Scalar | None:
    """The value as a number, or as the token that it is; None for other text."""
    if not _NUMBER.fullmatch(text) or not re.search(r"\d|n", text, re.I):
        return text if _TOKEN.fullmatch(text) else None
    text = text.replace(",", "").rstrip("% ")
    if re.fullmatch(r"[-+]?\d{1,18}", text):  # more digits than fit 64 bits are kept as a float
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _float(match: re.Match[str] | None) -> float | None:
    return float(match[1].replace(",", "")) if match else None
