"""The values that a knob may sensibly take: a ladder around its present value, on the scale that suits it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_server.research.experiment import KnobValue
from mcp_server.research.moves import moves
from mcp_server.research.script import Setting, words_of

REACH = 5
"""Rungs on either side of the present value, at most."""
CLEAR_FACTOR, CLEAR_RUNGS = 2.0, 2
"""A clear step changes a number about so much, for less does not show above the noise; or it goes so many rungs."""

_ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""The digits that a person chooses when a number spans scales; each is 1.25 to 1.5 times the one before."""
_DECADES = (1.0,)
_THIRDS = (1.0, 2.0, 5.0)
_MOMENTA = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
_SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_NO_RATE = (0.0, 0.001, 0.01, 0.1)
_TOO_NEAR = 1.12
"""A rung that differs from the present value by a smaller factor cannot be told from it."""

_LARGEST = 1e300
_LARGEST_WHOLE = 2**63 - 2048

_ALWAYS_NEAR_ONE = r"betas?|momentum|ema|gamma"
_NEAR_ONE = rf"{_ALWAYS_NEAR_ONE}|lr_decay|decay"
_CHANCES = r"dropout|drop|prob|smoothing"
_PARTS = r"ratio|frac|fraction|warm\w*|cool\w*|final|share"
_SIZES = (
    r"batch|tokens|seq|vocab|len|length|channels?|dim|rank|context|block_size|size|width|n?embd|hidden|heads?|d_model"
)
_WIDTHS = r"width|n_embd|embd|d_model|model_dim|hidden_(dim|size)"


@dataclass(frozen=True)
class Ladder:
    """The values of one number (or switch) of a script.

    Attributes:
        name: the knob.
        element: which element of the knob's tuple; None where the knob is no tuple.
        rungs: the values, the present one among them; ascending if `ordered`.
        bounded: whether they run from one fixed bound to another, as shares and momenta do, so that ratios of them say
            little.
    """

    name: str
    element: int | None
    present: KnobValue
    rungs: tuple[KnobValue, ...]
    ordered: bool = True
    bounded: bool = False

    @property
    def place(self) -> int:
        """Where the present value stands."""
        return _index(self.rungs, self.present)

    def value_in(self, values: Mapping[str, KnobValue]) -> KnobValue:
        """The ladder's own value in the values of all knobs; the present one where there is none."""
        value = values.get(self.name, self.present)
        if self.element is None:
            return value
        return value[self.element] if isinstance(value, tuple) and self.element < len(value) else self.present

    def nearest(self, value: KnobValue) -> int | None:
        """The rung that a value stands on or nearest to; None if it is of another kind."""
        if not self.ordered:
            return _index(self.rungs, value) if _shown(value) in map(_shown, self.rungs) else None
        number = _as_number(value)
        if number is None:
            return None
        rungs = [_as_number(rung) or 0.0 for rung in self.rungs]
        return min(range(len(rungs)), key=lambda i: _distance(rungs[i], number))

    def clear_step(self, way: int) -> int | None:
        """The rung that a clear step up (1) or down (-1) leads to, None where there is none that way.

        It changes the present value about twofold, or by two rungs where ratios say little.
        """
        beyond = range(self.place + way, len(self.rungs) if way > 0 else -1, way)
        if not beyond:
            return None
        present = 0.0 if self.bounded else _as_number(self.present) or 0.0
        ratios = {rung: _ratio(_as_number(self.rungs[rung]) or 0.0, present) for rung in beyond}
        nearest = min(beyond, key=lambda rung: abs(ratios[rung] - CLEAR_FACTOR))
        return nearest if math.isfinite(ratios[nearest]) else beyond[min(CLEAR_RUNGS, len(beyond)) - 1]

    def put(self, knob: KnobValue, rung: int) -> KnobValue:
        """The knob's whole value with this rung in its place."""
        if self.element is None or not isinstance(knob, tuple):
            return self.rungs[rung]
        return (*knob[: self.element], self.rungs[rung], *knob[self.element + 1 :])


def ladders(setting: Setting, others: Mapping[str, KnobValue]) -> tuple[Ladder, ...]:
    """The ladders of a setting: one, or one for each number of a tuple; none where nothing sensible can be said.

    Args:
        others: the script's settings by name; a number of heads must divide the width, for example.
    """
    name, value = setting.knob.name, setting.knob.value
    if _says(words_of(name), "device_batch|micro_?batch"):
        return ()  # it decides speed and memory, not what is learned
    if isinstance(value, tuple):
        parts = [(i, element, _rungs(element, setting, others)) for i, element in enumerate(value)]
        return tuple(
            Ladder(name, i, element, rungs, bounded=_is_bounded(element, words_of(name)))
            for i, element, rungs in parts
            if len(rungs) > 1
        )
    if isinstance(value, bool | str):
        options = (value, *(move.value for move in moves(setting, others)))
        return (Ladder(name, None, value, options, ordered=False),) if len(options) > 1 else ()
    rungs = _rungs(value, setting, others)
    return (Ladder(name, None, value, rungs, bounded=_is_bounded(value, words_of(name))),) if len(rungs) > 1 else ()


def _rungs(value: KnobValue, setting: Setting, others: Mapping[str, KnobValue]) -> tuple[KnobValue, ...]:
    """The rungs for a number, none farther than REACH from it and none outside of what the comment allows."""
    words, comment = words_of(setting.knob.name), setting.knob.comment
    found: Sequence[float]
    match value:
        case bool():
            return ()
        case int():
            found = _whole(value, words, others)
        case float():
            found = _real(value, words)
        case _:
            return ()
    if not found:
        return ()
    low, high = _limits(comment)
    ascending = sorted({v for v in found if low <= v <= high} | {value})
    place = ascending.index(value)
    near = ascending[max(0, place - REACH) : place + REACH + 1]
    off = [type(value)(0)] if value > 0 and near[0] > 0 and _zero_is_off(words, comment) and low <= 0 else []
    return (*off, *near)


def _whole(value: int, words: str, others: Mapping[str, KnobValue]) -> Sequence[int]:
    if value < 0:
        return ()
    if value == 0:
        return (0, 1, 2)
    width = _named(others, _WIDTHS)
    if _says(words, "head_dim") and width and width % value == 0:
        return [size for size in _doublings(value) if width % size == 0]
    if _says(words, "heads?") and width and width % value == 0:
        return [n for n in range(1, min(width, value * 64) + 1) if width % n == 0 and (n % 2 == 0 or value % 2)]
    if _says(words, _WIDTHS):
        head = _named(others, "head_dim")
        unit = head if head and value % head == 0 else 1
        if unit == 1 or _is_power(value):
            return [size for size in _widths(value) if size % unit == 0]
        return range(max(unit, value - REACH * unit), value + REACH * unit + 1, unit)
    if (_says(words, _SIZES) and value > 2) or (_is_power(value) and value >= 32):
        return _doublings(value)
    if value < 16:
        return range(max(1, value - REACH), value + REACH + 1)
    return [round(v) for v in _series(value, _ROUND) if 1 <= v < _LARGEST_WHOLE]


def _real(value: float, words: str) -> Sequence[float]:
    if _is_bounded(value, words):
        if value >= 0.5 and _says(words, _NEAR_ONE):
            return _MOMENTA
        return _SHARES[:-2] if _says(words, _CHANCES) else _SHARES
    if value == 0:
        return _NO_RATE
    if value < 0:
        return [-v for v in _series(-value, _ROUND)]
    if _says(words, r"eps|epsilon"):
        return _series(value, _DECADES)
    return _series(value, _THIRDS if _says(words, "base|theta") else _ROUND)


def _is_bounded(value: KnobValue, words: str) -> bool:
    """Whether a number is a momentum or a share by its name and value."""
    if not isinstance(value, float):
        return False
    if 0.5 <= value < 1 and _says(words, _NEAR_ONE):
        return not _says(words, "weight") or _says(words, _ALWAYS_NEAR_ONE)
    return 0 <= value <= 1 and _says(words, rf"{_CHANCES}|{_PARTS}")


def _series(value: float, digits: Sequence[float]) -> list[float]:
    """Round numbers within three decades of a positive value, at most two where the digits are only decades."""
    decade = math.floor(math.log10(value))
    span = 2 if len(digits) == 1 else 3
    series = [float(f"{digit}e{decade + step}") for step in range(-span, span + 1) for digit in digits]
    return [number for number in series if 0 < number < math.inf and _ratio(number, value) > _TOO_NEAR]


def _doublings(value: int) -> list[int]:
    """The value doubled up to three times, and halved as often as it stays whole."""
    halves = [value >> n for n in (3, 2, 1) if value % (1 << n) == 0]
    return [*halves, value, *(value << n for n in (1, 2, 3) if value << n < 2**62)]


def _widths(value: int) -> list[int]:
    """The doublings of a value, and between them sizes as round: of 96 also 64 and 128, of 64 also 48 and 96."""
    doublings = _doublings(value)
    between = [
        size * 2 // 3 if value % 3 == 0 else size * 3 // 4 for size in doublings if value % 3 == 0 or size % 4 == 0
    ]
    return sorted({*doublings, *between})


def _limits(comment: str) -> tuple[float, float]:
    """The bounds that a knob's comment speaks of, such as `at most 5`."""
    least = re.search(r"\bat least (\d+(?:\.\d+)?)\b", comment)
    most = re.search(r"\bat most (\d+(?:\.\d+)?)\b", comment)
    return float(least[1]) if least else -math.inf, float(most[1]) if most else math.inf


def _zero_is_off(words: str, comment: str) -> bool:
    return _says(words, "weight_decay|wd") or re.search(r"\b0\b[^;,]{0,12}\b(no|none|off)\b", comment) is not None


def _named(others: Mapping[str, KnobValue], pattern: str) -> int | None:
    """The first count among the settings whose name says this."""
    counts = {name: v for name, v in others.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0}
    return next((v for name, v in counts.items() if _says(words_of(name), pattern)), None)


def _is_power(value: int) -> bool:
    return value & (value - 1) == 0


def _says(words: str, pattern: str) -> bool:
    return re.search(rf"(?:^|_)(?:{pattern})(?:_|$)", words) is not None


def _as_number(value: KnobValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None


def _ratio(one: float, other: float) -> float:
    if one * other <= 0:
        return math.inf
    small, large = sorted((abs(one), abs(other)))
    return large / small


def _distance(one: float, other: float) -> tuple[float, float]:
    """How far two numbers are apart: by their ratio where they have one, and then by their difference."""
    return _ratio(one, other) if one != other else 1.0, abs(one - other)


def _shown(value: KnobValue) -> str:
    return repr(value)


def _index(rungs: Sequence[KnobValue], value: KnobValue) -> int:
    return [_shown(rung) for rung in rungs].index(_shown(value))
