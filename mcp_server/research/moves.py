"""Where a setting could go from its present value: steps on the scale that suits it, near ones first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_server.research.experiment import KnobValue
from mcp_server.research.script import Setting, words_of

Heading = tuple[int, int]
"""Which element of the value moves (0 for a plain number) and which way, +1 or -1."""


@dataclass(frozen=True)
class Move:
    """Another value for a setting; `heading` is None where values have no order (switches, text)."""

    value: KnobValue
    heading: Heading | None = None


def heading(old: KnobValue, new: KnobValue) -> Heading | None:
    """Which way a change went, if exactly one number moved."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        moved = [(i, heading(a, b)) for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        return (moved[0][0], moved[0][1][1]) if len(moved) == 1 and moved[0][1] else None
    if _is_number(old) and _is_number(new) and old != new:
        return 0, (1 if new > old else -1)  # type: ignore[operator]
    return None


def moves(setting: Setting, others: Mapping[str, KnobValue]) -> tuple[Move, ...]:
    """The values worth trying for a setting, alternating up and down, near before far.

    Args:
        others: the script's other settings by name; a head must divide the width, for example.
    """
    value, words = setting.knob.value, words_of(setting.knob.name)
    if isinstance(value, bool):
        return (Move(not value),)
    if isinstance(value, str):
        return tuple(Move(text) for text in (*setting.options, *_patterns(value, words)))
    if isinstance(value, tuple):
        return tuple(
            Move((*value[:i], step, *value[i + 1 :]), heading((*value[:i], element), (*value[:i], step)))
            for i, element in enumerate(value)
            if _is_number(element)
            for step in _steps(element, words, others)  # type: ignore[arg-type]
        )
    if value is None:
        return ()
    return tuple(Move(step, heading(value, step)) for step in _steps(value, words, others))


def halfway(one: KnobValue, other: KnobValue) -> KnobValue:
    """A value between two numbers of one kind: the geometric middle if they are far apart; None if there is none."""
    if not _is_number(one) or not _is_number(other) or type(one) is not type(other):
        return None
    low, high = sorted((one, other))  # type: ignore[type-var]
    far = low > 0 and high / low > 1.3  # type: ignore[operator]
    middle = (low * high) ** 0.5 if far else (low + high) / 2  # type: ignore[operator]
    result: KnobValue = round(middle) if isinstance(one, int) else _nice(middle)
    return None if result in (one, other) else result


def _steps(value: float, words: str, others: Mapping[str, KnobValue]) -> list[float]:
    up, down = _whole_steps(value, words, others) if isinstance(value, int) else _real_steps(value, words)
    if _has(words, "batch"):
        up, down = down, up  # under a budget of time a smaller batch means more steps: look there first
    steps = [step for pair in zip(up, down, strict=True) for step in pair if step is not None and step != value]
    return list(dict.fromkeys(steps))


Steps = tuple[list[float | None], list[float | None]]
"""The steps up and the steps down, the near one first, None where there is none."""


def _whole_steps(value: int, words: str, others: Mapping[str, KnobValue]) -> Steps:
    width = next((v for name, v in others.items() if isinstance(v, int) and _is_width(words_of(name))), None)
    head_dim = next((v for name, v in others.items() if isinstance(v, int) and "head_dim" in words_of(name)), None)
    if value <= 0:
        return [1 if value == 0 else None, None], [None, None]
    if _has(words, r"n?heads?") and width and width % value == 0:
        divisors = [d for d in range(1, width + 1) if width % d == 0 and (value % 2 or d % 2 == 0)]
        place = divisors.index(value)
        return _pad(divisors[place + 1 :]), _pad(divisors[:place][::-1])
    if _is_width(words):
        unit = head_dim or 1
        step = max(unit, round(value / 4 / unit) * unit)
        return [value + step, value + 2 * step], _pad([v for v in (value - step, value - 2 * step) if v > 0])
    power = value & (value - 1) == 0
    if _has(words, r"batch|tokens|seq|vocab|len|channels|dim|rank|context|block_size|size") and value > 2:
        return [value * 2, value * 4], [value // 2, value // 4]
    if value < 64:
        step = max(1, round(value / 4))
        return [value + step, value + 2 * step], _pad([v for v in (value - step, value - 2 * step) if v > 0])
    if power:
        return [value * 3 // 2, value * 2], [value * 3 // 4, value // 2]
    return [round(_nice(value * f)) for f in (1.5, 2)], [round(_nice(value / f)) for f in (1.5, 2)]


def _real_steps(value: float, words: str) -> Steps:
    if _has(words, r"betas?|momentum|ema|gamma") and 0.5 <= value < 1:
        away = 1 - value
        return [_short(1 - away / 2), None], [_short(1 - away * 2) if away < 0.5 else None, None]
    shares = r"ratio|frac|fraction|warm\w*|cool\w*|final|dropout|drop|prob|smoothing|share"
    if _has(words, shares) and 0 <= value <= 1:
        step = 0.1 if value >= 0.2 else 0.05
        ups = [_short(v) for v in (value + step, value + 2 * step) if v <= 1]
        return _pad(ups), _pad([_short(max(0.0, value - n * step)) for n in (1, 2) if value > 0])
    if value == 0:
        return ([0.01, 0.1] if _has(words, "weight_decay|wd") else [0.1, None]), [None, None]
    near, far = (10, 100) if _has(words, "eps|epsilon") else (5, 25) if _has(words, "base|theta") else (1.5, 2)
    grown = [_nice(value * near), _nice(value * far)]
    shrunk = [_nice(value / near), _nice(value / far)]
    return (_pad(grown), _pad(shrunk)) if value > 0 else (_pad(shrunk), _pad(grown))


def _patterns(value: str, words: str) -> list[str]:
    """Other patterns of the same letters: one letter fewer in front, one more, the last one alone."""
    if not _has(words, "pattern") or not re.fullmatch(r"[A-Za-z]{1,12}", value):
        return []
    found = dict.fromkeys([value[1:], value[0] + value, value[-1]])
    return [text for text in found if text and text != value]


def _is_width(words: str) -> bool:
    return _has(words, r"width|n_embd|embd|d_model|model_dim|hidden_(dim|size)")


def _has(words: str, pattern: str) -> bool:
    return re.search(rf"(?:^|_)(?:{pattern})(?:_|$)", words) is not None


def _is_number(value: KnobValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nice(number: float) -> float:
    """Two significant digits, so that proposals read like a person's."""
    return float(f"{number:.2g}")


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _pad(steps: Sequence[float]) -> list[float | None]:
    return [*steps[:2], *[None] * (2 - len(steps[:2]))]
