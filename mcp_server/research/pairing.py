"""Runs of a change and of its base side by side: same seed, near in time, so that a drift of the machine cancels.

A machine that is slower in the evening moves every score that it measures then. The means of runs from different hours
differ by that, and no number of repeats within an hour shows it; the difference of two runs that were made beside each
other has none of it (paired comparison; Student 1908).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from mcp_server.research.experiment import Numbers, Run, Trial, fresh_seed
from mcp_server.research.noise import Noise, clamp, mean
from mcp_server.research.task import Task
from mcp_server.research.verdict import show

NEAR = 3.0
"""Two runs are near in time where one began within so many trainings' time of the other."""
DRIFTS = 9.0
"""A variance between times so many times that of runs near in time is a drift: three times the deviation."""
FREEDOM = 3
"""Degrees of freedom of runs near in time from which a drift is told."""
LARGE = 2.0
"""So many times what is assumed of it beforehand, noise is large."""
COMPARED, UNTOLD = 5, 1.0
"""Where nothing is assumed it is large when the median |z| of at least so many changes is below this: most of them
cannot be told from noise."""

Reading = Callable[[Trial], float | None]
"""Reads the metric of a trial; None where it has no finite one."""


@dataclass(frozen=True)
class Pair:
    """A run of one code and one of another, of the same seed and near in time."""

    own: Trial
    beside: Trial


@dataclass(frozen=True)
class Pairing:
    """The gains of a candidate, parted into those of pairs and the rest.

    Attributes:
        gains: of each pair, in units of the metric; positive is better.
        noise: of the difference of one pair.
        rest: the mean gain of the runs that are in no pair, over the runs of the base that are in none; None where one
            of the two has none.
        rest_runs, rest_base_runs: how many these are.
    """

    gains: tuple[float, ...]
    noise: Noise
    rest: float | None = None
    rest_runs: int = 0
    rest_base_runs: int = 0

    def counts(self, noise: Noise) -> bool:
        """Whether the pairs are judged by as pairs: where the difference of one varies less than a single run does.

        That is settled by the noise, never by what the pairs show.
        """
        return bool(self.gains) and exact(noise, self.noise)

    def estimate(self, sigma: float) -> tuple[float, float]:
        """The gain and its standard error: pairs and rest, each weighed with one over its variance.

        Args:
            sigma: the standard deviation of one run.
        """
        own = self.noise.sigma or 0.0
        paired = own * own / len(self.gains)
        if self.rest is None:
            return mean(self.gains), clamp(math.sqrt(paired))
        apart = sigma * sigma * (1 / self.rest_runs + 1 / self.rest_base_runs)
        both = paired + apart
        share = apart / both if both and math.isfinite(both) else 0.5
        d = clamp(share * mean(self.gains) + (1 - share) * self.rest)
        return d, clamp(math.sqrt(share * share * paired + (1 - share) * (1 - share) * apart))


@dataclass(frozen=True)
class Spread:
    """How far runs differ that should not, in sums of squares (squared units of the metric) with degrees of freedom.

    Attributes:
        near, near_dof: of runs of one code that are near in time, from their mean.
        far, far_dof: of the means of such sets from that of all runs of the code, each weighed with its runs.
        pairs, pairs_dof: of the differences of pairs from the mean of all pairs of the same two codes.
    """

    near: float = 0.0
    near_dof: int = 0
    far: float = 0.0
    far_dof: int = 0
    pairs: float = 0.0
    pairs_dof: int = 0

    def noise(self, sigma: float | None) -> Noise:
        """The noise of the difference of a pair.

        A pair varies no more than two runs near in time with different seeds, so that these count as well. Before
        anything is seen it is that of two runs at any time, sqrt(2) sigma, with the weight of a prior.
        """
        prior = None if sigma is None else clamp(math.sqrt(2) * sigma)
        return Noise(clamp(2 * self.near + self.pairs), self.near_dof + self.pairs_dof, prior)

    @property
    def drift(self) -> str:
        """By how much a code scores differently at other times, in words; empty where no drift is seen (an F-test)."""
        dof = self.near_dof + self.pairs_dof
        if dof < FREEDOM or not self.far_dof:
            return ""
        within, between = (self.near + self.pairs / 2) / dof, self.far / self.far_dof
        if not between > DRIFTS * within:
            return ""
        return (
            f"the same code differs by {show(math.sqrt(between))} between times, and by {show(math.sqrt(within))} near "
            "in time"
        )


def is_near(task: Task, one: Trial, other: Trial) -> bool:
    """Whether two runs are near in time and on devices of one type; of runs without times nothing is known."""
    if one.started_at is None or one.ended_at is None or other.started_at is None or other.ended_at is None:
        return False
    lasted = min(one.ended_at - one.started_at, other.ended_at - other.started_at)
    apart = abs(one.started_at - other.started_at)
    return one.device_type == other.device_type and apart <= NEAR * max(task.time_budget_seconds, lasted)


def pairs_of(task: Task, own: Sequence[Trial], base: Sequence[Trial]) -> tuple[Pair, ...]:
    """The runs of two codes in pairs, each run in one at most, the nearest in time first taken; in the order of `own`.

    Args:
        own, base: finished runs that count.
    """
    order = {trial.id: place for place, trial in enumerate(own)}
    found = [Pair(a, b) for a in own for b in base if a.seed == b.seed and a.id != b.id and is_near(task, a, b)]
    taken: set[str] = set()
    chosen = []
    for pair in sorted(found, key=lambda each: abs((each.own.started_at or 0.0) - (each.beside.started_at or 0.0))):
        if not {pair.own.id, pair.beside.id} & taken:
            taken |= {pair.own.id, pair.beside.id}
            chosen.append(pair)
    return tuple(sorted(chosen, key=lambda each: order[each.own.id]))


def spread_of(task: Task, trials: Iterable[Trial], read: Reading) -> Spread:
    """How far the runs of a run of research differ near in time, between times, and in pairs.

    Args:
        trials: finished runs of experiments that were run more than once.
    """
    codes: dict[tuple[str, str, bool], list[tuple[Trial, float]]] = {}
    for trial in trials:
        if trial.started_at is not None and (value := read(trial)) is not None:
            scored = trial.verification != "reported"
            codes.setdefault((trial.experiment_id, trial.commit, scored), []).append((trial, value))
    near = far = 0.0
    near_dof = far_dof = 0
    for runs in codes.values():
        runs.sort(key=lambda each: each[0].started_at or 0.0)
        sets = _near_sets(task, runs)
        level = mean([value for _, value in runs])
        for values in sets:
            middle = mean(values)
            near += sum((value - middle) ** 2 for value in values)
            near_dof += len(values) - 1
            far += len(values) * (middle - level) ** 2
        far_dof += len(sets) - 1
    squares, dof = _of_pairs(task, codes)
    return Spread(clamp(near), near_dof, clamp(far), far_dof, clamp(squares), dof)


def _near_sets(task: Task, runs: Sequence[tuple[Trial, float]]) -> list[list[float]]:
    """The values of a code's runs in sets that are near in time, for each its first run."""
    sets: list[list[float]] = []
    first: Trial | None = None
    for trial, value in runs:
        if first is not None and is_near(task, first, trial):
            sets[-1].append(value)
        else:
            first = trial
            sets.append([value])
    return sets


def _of_pairs(task: Task, codes: Mapping[tuple[str, str, bool], Sequence[tuple[Trial, float]]]) -> tuple[float, int]:
    """The squares of the differences of pairs, from the mean of their two codes, and the degrees of freedom.

    Each run counts once, with the code that it makes most pairs with.
    """
    values = {trial.id: value for runs in codes.values() for trial, value in runs}
    several = [[trial for trial, _ in runs] for runs in codes.values() if len(runs) > 1]
    found = [pairs for a, b in combinations(several, 2) if len(pairs := pairs_of(task, a, b)) > 1]
    taken: set[str] = set()
    squares, dof = 0.0, 0
    for pairs in sorted(found, key=len, reverse=True):
        free = [pair for pair in pairs if not {pair.own.id, pair.beside.id} & taken]
        if len(free) < 2:
            continue
        taken |= {trial.id for pair in free for trial in (pair.own, pair.beside)}
        gains = [values[pair.own.id] - values[pair.beside.id] for pair in free]
        middle = mean(gains)
        squares += sum((gain - middle) ** 2 for gain in gains)
        dof += len(free) - 1
    return squares, dof


def exact(noise: Noise, pairs: Noise) -> bool:
    """Whether the difference of a pair varies less than a single run does: most of the noise is shared by both."""
    return noise.sigma is not None and pairs.sigma is not None and pairs.sigma < noise.sigma


def equal_runs(numbers: Numbers) -> tuple[float, float]:
    """Runs of a change and of its base that would tell their difference as exactly, were none of them paired."""
    if not numbers.pairs or not numbers.s or not numbers.sigma:
        return numbers.n, numbers.n_b
    times = (1 / numbers.n + 1 / numbers.n_b) * (numbers.sigma / numbers.s) ** 2
    return numbers.n * times, numbers.n_b * times


def in_words(numbers: Numbers) -> str:
    """How many runs of a verdict were paired, to go on in a bracket; empty where none counts as that."""
    if not numbers.pairs:
        return ""
    return f", {numbers.pairs} of its {numbers.n} in pairs with runs of the base: same seed, near in time"


def worthwhile(run: Run, noise: Noise, spread: Spread, load: str, compared: Iterable[Numbers]) -> str:
    """Why a change is to be confirmed side by side with the best; empty where repeats at any time do.

    Args:
        load: that noise follows the machine's load, see `effort.noise_by_load`; empty where it does not.
        compared: the numbers of the changes so far.
    """
    if run.task.policy == "greedy" or noise.sigma is None:
        return ""
    if spread.drift:
        return f"the machine drifts: {spread.drift}"
    if load:
        return "noise follows the machine's load"
    if noise.prior is not None:
        large = noise.dof > 0 and noise.sigma >= LARGE * noise.prior > 0
        return f"noise is large: {show(noise.sigma)}, where {show(noise.prior)} is usual" if large else ""
    sizes = [abs(numbers.z) for numbers in compared]
    if len(sizes) < COMPARED or not median(sizes) < UNTOLD:
        return ""
    return f"noise is large: most of {len(sizes)} changes cannot be told from it"


def beside(own: Sequence[Trial], best: Sequence[Trial]) -> int | None:
    """The seed of a run of the best that a waiting change may be paired with by its next run; None where there is none.

    It is under way or finished, was asked for after the change's own last run, and has a seed that the change was not
    run with.
    """
    used, last = {trial.seed for trial in own}, max((trial.queued_at for trial in own), default=0.0)
    fitting = [
        trial
        for trial in best
        if trial.status in ("queued", "training", "finished") and trial.queued_at > last and trial.seed not in used
    ]
    return fitting[-1].seed if fitting else None


def common_seed(own: Iterable[Trial], best: Iterable[Trial]) -> int:
    """The next seed that neither a change nor the best was run with."""
    return fresh_seed({trial.seed for trial in (*own, *best)})
