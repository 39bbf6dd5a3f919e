"""The codes of a chain of kept changes as levels: their means, and what runs side by side say of the steps."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from mcp_server.research.chain import Level
from mcp_server.research.experiment import Trial
from mcp_server.research.noise import mean
from mcp_server.research.pairing import Pair, is_near, pairs_of
from mcp_server.research.task import Task


def levels_of(task: Task, codes: Sequence[tuple[str, Sequence[Trial]]], read: Callable[[Trial], float]) -> list[Level]:
    """The levels of a chain, the baseline first, without codes that have no run.

    Each code is paired with the one before as far as both keep a run that is in no pair, and each run is in one pair.
    What a paired run is ahead of is the mean of all runs of the code before that are near it in time: which of them it
    shares its seed with is the choice of whoever asks for it.

    Args:
        codes: the id of each experiment, and its runs that count.
        read: reads the value of a run; larger is better.
    """

    def middle(trials: Iterable[Trial]) -> float:
        return mean([read(trial) for trial in trials])

    run = [(name, tuple(trials)) for name, trials in codes if trials]
    alone = [list(trials) for _, trials in run]
    paired: list[tuple[Pair, ...]] = [()]
    for before, own in pairwise(alone):
        pairs = pairs_of(task, own, before)[: min(len(own), len(before)) - 1]
        for pair in pairs:
            own.remove(pair.own)
            before.remove(pair.beside)
        paired.append(pairs)
    earlier: list[Sequence[Trial]] = [(), *(trials for _, trials in run)]
    return [
        Level(
            name,
            middle(trials),
            len(trials),
            len(pairs),
            mean([read(pair.own) - middle(_near(task, pair, before)) for pair in pairs]) if pairs else 0.0,
            apart=(middle(left), len(left)),
        )
        for (name, trials), left, pairs, before in zip(run, alone, paired, earlier, strict=False)
    ]


def _near(task: Task, pair: Pair, before: Sequence[Trial]) -> list[Trial]:
    """The runs of the code before that are near in time to the one of this code."""
    return [trial for trial in before if is_near(task, pair.own, trial)]
