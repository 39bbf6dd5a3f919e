"""How much a score moves when nothing but the seed changes."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mcp_server.research.task import Task

PRIOR_WEIGHT = 2
"""A prior counts as much as so many degrees of freedom."""
BASELINES_WITH_PRIOR, BASELINES_WITHOUT = 2, 4
CONTRADICTED = 4.0
"""A prior that the repeats exceed by this factor is taken for wrong."""
GPT_ON_GPU, GPT_ON_CPU = 0.0005, 0.01
"""Standard deviation of val_bpb across seeds: five minutes on a GPU, the small profile on a CPU."""
GPT_GPU_SECONDS = 300.0

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Noise:
    """The pooled estimate of one task on one device type. Never mix device types or harnesses in one.

    Attributes:
        sum_of_squares: sum over sets of replicates of the squared deviations from the mean of the set, in squared
            units of the metric. A set is runs of identical code with different seeds: of each experiment, those that
            `noise_aware.counted` picks, if they are two or more (baseline repeats, re-measures of an incumbent, sets of
            confirmations). Consecutive keeps are different code and never a set.
        dof: sum over the same sets of (runs - 1).
        prior: what is known of the standard deviation beforehand, in units of the metric; None where nothing is.
    """

    sum_of_squares: float = 0.0
    dof: int = 0
    prior: float | None = None

    @cached_property
    def sigma(self) -> float | None:
        """The standard deviation of one run: sqrt((2 s0^2 + SS) / (2 + dof)), without a prior sqrt(SS / dof).

        None where there is neither a prior nor a replicate.
        """
        if self.prior is not None:
            total, weight = PRIOR_WEIGHT * self.prior * self.prior + self.sum_of_squares, PRIOR_WEIGHT + self.dof
        elif self.dof > 0:
            total, weight = self.sum_of_squares, self.dof
        else:
            return None
        return clamp(math.sqrt(total / weight))

    @property
    def baselines(self) -> int:
        """How often the baseline is run before anything is compared with it: more often where the prior is none, or is
        contradicted by what was seen.
        """
        return BASELINES_WITHOUT if self.prior is None or self._contradicts(self.prior) else BASELINES_WITH_PRIOR

    def _contradicts(self, prior: float) -> bool:
        """Whether the repeats alone say several times as much as the prior."""
        return self.dof > 0 and math.sqrt(self.sum_of_squares / self.dof) > CONTRADICTED * prior > 0


def prior(task: Task, device_kind: str) -> float | None:
    """The standard deviation known beforehand for a task on `cuda`, `mps` or `cpu`, in units of its metric.

    Something is known of val_bpb of the built-in task alone: on a CPU whatever the budget, for that is always the small
    profile; elsewhere from five minutes on. None for everything else.
    """
    if not task.builtin or task.metric != "val_bpb":
        return None
    if device_kind == "cpu":
        return GPT_ON_CPU
    return GPT_ON_GPU if task.time_budget_seconds >= GPT_GPU_SECONDS else None


def pool(sets: Iterable[Sequence[float]], prior: float | None = None) -> Noise:
    """The noise seen in sets of replicates (see Noise for which runs make a set); smaller sets than two say nothing."""
    squares, dof = 0.0, 0
    for values in sets:
        if len(values) > 1:
            middle = mean(values)
            squares += sum((value - middle) * (value - middle) for value in values)
            dof += len(values) - 1
    return Noise(clamp(squares), dof, prior)


def mean(values: Sequence[float]) -> float:
    """The mean of finite numbers: exact where all are equal, finite where they are huge."""
    first, n = values[0], len(values)
    return clamp(first + sum(value / n - first / n for value in values))


def clamp(number: float) -> float:
    """The nearest finite number, for the difference or square of huge numbers overflows."""
    return max(-_LARGEST, min(_LARGEST, number))
