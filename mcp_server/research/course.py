"""Where to go next along one knob while few of its values were measured, and how likely that is to pay.

A density over two or three values says nothing, but a slope does: the best bet is to go on where the last step won, and
a good one to go the other way where one way clearly lost. A step that showed nothing says that the knob hardly matters.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcp_server.research.ladders import Ladder
from mcp_server.research.lines import Past
from mcp_server.research.script import words_of

SIZE, RATE, OTHER = 0.6, 0.5, 0.35
"""How likely a first step is to pay: of what sets the cost of a training step, of learning rates, of all else."""
WON, LEVEL, DIP = 0.7, 0.2, 0.12
"""The same where the last step won, where what was tried showed nothing, and where both ways lost."""
LOST = 0.05
"""So much more than a first step does the other way of a knob promise that is known to matter, for one way lost."""

_SIZES = r"batch|depth|n?layers?|width|n_embd|embd|d_model|model_dim|hidden_(?:dim|size)"
_RATES = r"lrs?|learning_rate"


@dataclass(frozen=True)
class Course:
    """What to try on a ladder.

    Attributes:
        promise: the chance that the next value pays, as far as can be told.
        rungs: those to try, the best bet first; empty where an estimator has to tell.
        reason: why, to end a sentence; empty without rungs.
    """

    promise: float
    rungs: Sequence[int] = ()
    reason: str = ""


def course_of(ladder: Ladder, past: Past, sigma: float, small_first: bool, lot: int) -> Course:
    """The course along a ladder after its trials.

    Args:
        sigma: the standard deviation of one run: what is within it of the present value did not show.
        small_first: whether of sizes the smaller ones are the better first bet.
        lot: which way comes first, by chance, where nothing else tells.
    """
    size = _says(ladder, _SIZES)
    prior = SIZE if size else RATE if _says(ladder, _RATES) and not ladder.bounded else OTHER
    if not past.regrets:
        way = -1 if (size and small_first) or lot % 2 else 1
        return Course(prior, _steps(ladder, (way, -way)), "never varied so far, a first clear step")
    place = ladder.place
    gaps = {rung: gap for rung, gap in past.gaps.items() if rung != place}
    sides = {rung > place for rung in (*gaps, *past.closed)}
    if not ladder.ordered or not sides:
        return Course(LEVEL if past.tries else prior)
    lost = [gap > sigma for gap in _nearest(gaps, place)]
    if len(sides) > 1:
        return Course(DIP if all(lost) else LEVEL)
    away = -1 if True in sides else 1
    onward = _steps(ladder, (away,))
    if not onward:
        return Course(DIP)
    if not lost:
        return Course(prior, onward, "the other way failed")
    if all(lost) and past.wins:
        return Course(WON, onward, "on where the last step won")
    if all(lost):
        return Course(prior + LOST, onward, "the other way clearly lost")
    return Course(LEVEL, onward, "the other way hardly showed")


def _steps(ladder: Ladder, ways: Sequence[int]) -> Sequence[int]:
    """A clear step each way, then the next rungs."""
    clear = [rung for way in ways if (rung := ladder.clear_step(way)) is not None]
    near = [rung for way in ways if 0 <= (rung := ladder.place + way) < len(ladder.rungs)]
    return tuple(dict.fromkeys((*clear, *near)))


def _nearest(gaps: dict[int, float], place: int) -> Iterable[float]:
    """The gaps of the nearest rung on either side."""
    for side in (True, False):
        if rungs := [rung for rung in gaps if (rung > place) == side]:
            yield gaps[min(rungs, key=lambda rung: abs(rung - place))]


def _says(ladder: Ladder, pattern: str) -> bool:
    return re.search(rf"(?:^|_)(?:{pattern})(?:_|$)", words_of(ladder.name)) is not None
