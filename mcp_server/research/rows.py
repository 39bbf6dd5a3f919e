"""Gains by row of text: differences of two models on the same rows, and how far another choice of rows would move them.

A gain on hidden text is a sample of rows; those of the validation text are what the metric is defined on.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcp_server.research.experiment import Numbers
from mcp_server.research.noise import clamp, mean
from mcp_server.research.task import Task
from mcp_server.research.verdict import finite, show

MOST_ROWS = 1024
"""Of each text that are taken from a judge."""
LONGEST = 2**15
"""Characters of a judge's rows that are read; a trial's result has room for twice as many."""
ROUNDING = 1e-4
"""What the score may differ by from what its rows sum up to, as a share of the score where that is more than 1."""

Column = tuple[float, ...]


@dataclass(frozen=True)
class Rows:
    """What a model scores on each row of a text: its metric is sum(losses) / sum(weights).

    Attributes:
        losses: (rows,) in units of the metric times that of the weights, as bits.
        weights: (rows,) as bytes; above 0.
    """

    losses: Column
    weights: Column

    @property
    def score(self) -> float:
        """The metric on all rows."""
        return math.fsum(self.losses) / math.fsum(self.weights)


@dataclass(frozen=True)
class RowScores:
    """What one training scores by row.

    Attributes:
        of: names the rows; only what is of the same is compared.
        hidden: None where there is no hidden text.
    """

    of: str
    validation: Rows
    hidden: Rows | None = None


@dataclass(frozen=True)
class RowGain:
    """A gain on a text, in units of the metric; positive is better.

    Attributes:
        error: its standard error over rows, as if they had been drawn from many; 0 of one row.
    """

    gain: float
    error: float

    def words(self) -> str:
        """Both numbers for a person."""
        return f"{show(self.gain)} ± {show(self.error)}"


@dataclass(frozen=True)
class RowGains:
    """A gain on both texts."""

    validation: RowGain
    hidden: RowGain | None = None


Comparison = tuple[RowScores, Sequence[RowScores]]
"""One training of a candidate, and those of what it is compared with."""


def parse(text: str) -> RowScores | None:
    """What a judge left of its rows; None where it is not of this form.

    {"of": name, "validation": [[loss, ...], [weight, ...]], "hidden": the same or nothing}
    """
    try:
        said = json.loads(text) if 0 < len(text) <= LONGEST else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("of"), str) or not said["of"]:
        return None
    validation, hidden = _rows(said.get("validation")), _rows(said.get("hidden"))
    if validation is None or (hidden is None and said.get("hidden") is not None):
        return None
    return RowScores(said["of"], validation, hidden)


def bears_out(text: str, value: float, audit: float | None) -> bool:
    """Whether rows sum up to the scores that the judge gave on the validation text and on the hidden text."""
    found = parse(text)
    if found is None or (found.hidden is None) != (audit is None):
        return False
    return _equal(found.validation.score, value) and (
        found.hidden is None or audit is None or _equal(found.hidden.score, audit)
    )


def compare_rows(task: Task, comparisons: Sequence[Comparison]) -> RowGains | None:
    """The gain by row on both texts, averaged over the trainings of either side.

    None where nothing is compared, or where any of it is of other rows.
    """
    trainings = [each for one, others in comparisons for each in (one, *others)]
    if not trainings or not all(others for _, others in comparisons):
        return None
    if any(each.of != trainings[0].of or _sizes(each) != _sizes(trainings[0]) for each in trainings):
        return None
    validation = _gain(task, [(one.validation, [each.validation for each in others]) for one, others in comparisons])
    hidden = [
        (one.hidden, [each.hidden for each in others if each.hidden is not None])
        for one, others in comparisons
        if one.hidden is not None
    ]
    return RowGains(validation, _gain(task, hidden) if hidden else None)


def with_rows(numbers: Numbers, gains: RowGains | None) -> Numbers:
    """The numbers of a verdict with the gains by row, as far as they are known."""
    if gains is None:
        return numbers
    told = replace(numbers, validation_gain=gains.validation.gain, validation_error=gains.validation.error)
    if gains.hidden is None:
        return told
    return replace(told, hidden_gain=gains.hidden.gain, hidden_error=gains.hidden.error)


def counted_error(error: float, gains: RowGains | None) -> float:
    """The standard error of the gain that counts, from that of training alone.

    On hidden text, which rows were drawn adds to it: sqrt(error^2 + error over rows^2). That counts where the gain on
    hidden text is the smaller, or the less certain of two.
    """
    if gains is None or gains.hidden is None:
        return error
    validation, hidden = gains.validation.gain, gains.hidden.gain
    sampled = clamp(math.hypot(error, gains.hidden.error))
    less_certain = validation > 0 and hidden * error < validation * sampled  # z on either, without a division
    return sampled if hidden < validation or less_certain else error


def _gain(task: Task, comparisons: Sequence[tuple[Rows, Sequence[Rows]]]) -> RowGain:
    """The gain G = sum(D) / sum(w) of differences D by row of weight w, and its standard error.

    That of a ratio of sums (Cochran, Sampling Techniques, 3rd edition 1977, section 2.11), with e = D - G w and R rows:
    sqrt(R / (R - 1) sum(e^2)) / sum(w).
    """
    weights = comparisons[0][0].weights
    of_each = [
        [
            task.improvement(loss, mean(bases))
            for loss, *bases in zip(one.losses, *(b.losses for b in rest), strict=True)
        ]
        for one, rest in comparisons
    ]
    differences = [mean(row) for row in zip(*of_each, strict=True)]
    total, count = math.fsum(weights), len(weights)
    gain = math.fsum(differences) / total
    squares = math.fsum((d - gain * w) ** 2 for d, w in zip(differences, weights, strict=True))
    error = math.sqrt(count / (count - 1) * squares) / total if count > 1 else 0.0
    return RowGain(clamp(gain), clamp(error))


def _rows(said: object) -> Rows | None:
    if not isinstance(said, list) or len(said) != 2 or not all(isinstance(column, list) for column in said):
        return None
    losses, weights = ([finite(value) for value in column] for column in said)
    known = [value for value in losses if value is not None and abs(value) < 1e15]
    above = [value for value in weights if value is not None and 0 < value < 1e15]
    whole = len(known) == len(losses) == len(weights) == len(above)
    return Rows(tuple(known), tuple(above)) if whole and 0 < len(known) <= MOST_ROWS else None


def _sizes(scores: RowScores) -> tuple[Column, Column]:
    return scores.validation.weights, scores.hidden.weights if scores.hidden else ()


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= ROUNDING * max(1.0, abs(other))
