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
from mcp_server.research.noise import PRIOR_WEIGHT, Noise, clamp, mean
from mcp_server.research.task import Task
from mcp_server.research.verdict import show

NEAR, LEAST_NEAR = 3.0, 300.0
"""Two runs are near in time where one began within so many trainings' time of the other, and so many seconds at least:
a machine does not drift within minutes."""
SURE = 1.959963984540054
"""The quantile of the normal distribution at 0.975: a steady machine is taken to drift once in forty tests."""
LARGE = 2.0
"""So many times what is assumed of it beforehand, noise is large."""
FREEDOM = 3
"""Degrees of freedom of runs near in time from which these alone tell a drift."""
TRIED = 1
"""Degrees of freedom of runs of one code at different times from which on it was looked whether the machine drifts."""
UNSEEN = "its base was run long before, and no code was run at two times yet, to see whether the machine drifts"
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


def _exceeds(between: float, dof: int, within: float, dof_within: int) -> bool:
    """Whether one variance is larger than another beyond luck (F-test; approximated as by Paulson 1942)."""
    if not within > 0:
        return between > 0
    root, own, other = math.cbrt(between / within), 2 / (9 * dof), 2 / (9 * dof_within)
    return root * (1 - other) - (1 - own) > SURE * math.sqrt(other * root * root + own)


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

    def noise(self, noise: Noise) -> Noise:
        """The noise of the difference of a pair.

        A pair varies no more than two runs near in time with different seeds, so that these count as well. Before
        anything is seen it is that of two runs at any time, sqrt(2) sigma, with the weight of a prior; where the
        machine drifts, which sigma is full of, it is what is assumed of two runs beforehand.

        Args:
            noise: of single runs.
        """
        one = self._assumed(noise)
        prior = None if one is None else clamp(math.sqrt(2) * one)
        return Noise(clamp(2 * self.near + self.pairs), self.near_dof + self.pairs_dof, prior)

    def near_noise(self, noise: Noise) -> Noise:
        """The noise of single runs that are near in time, with different seeds.

        Args:
            noise: of single runs at any time.
        """
        return Noise(self.near, self.near_dof, self._assumed(noise))

    def _assumed(self, noise: Noise) -> float | None:
        return noise.prior if self.drift(noise.prior) else noise.sigma

    def drift(self, prior: float | None = None) -> str:
        """By how much a code scores differently at other times, in words; empty where no drift is seen (an F-test).

        Args:
            prior: what is assumed of the standard deviation of a run, see `noise.prior`; counts while little is known.
        """
        squares, dof = self.near + self.pairs / 2, self.near_dof + self.pairs_dof
        if prior is not None and dof < FREEDOM:
            squares, dof = squares + PRIOR_WEIGHT * prior * prior, dof + PRIOR_WEIGHT
        if not dof or not self.far_dof:
            return ""
        within, between = squares / dof, self.far / self.far_dof
        if not _exceeds(between, self.far_dof, within, dof):
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
    return one.device_type == other.device_type and apart <= near_seconds(task, lasted)


def asked_near(task: Task, one: Trial, other: Trial) -> bool:
    """Whether two runs were asked for near in time."""
    return abs(one.queued_at - other.queued_at) <= near_seconds(task, 0.0)


def near_seconds(task: Task, lasted: float, trainings: float = NEAR) -> float:
    """The time of so many trainings, each of which takes its budget at least."""
    return max(LEAST_NEAR, trainings * max(task.time_budget_seconds, lasted))


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
    by_seed: dict[int, list[tuple[tuple[str, str, bool], Trial]]] = {}
    for code, runs in codes.items():
        for trial, _ in runs:
            by_seed.setdefault(trial.seed, []).append((code, trial))
    couples: dict[tuple[object, object], list[Pair]] = {}
    for several in by_seed.values():
        for (one, a), (other, b) in combinations(several, 2):
            if one != other and is_near(task, a, b):
                couples.setdefault((one, other), []).append(Pair(a, b))
    taken: set[str] = set()
    squares, dof = 0.0, 0
    for pairs in sorted(couples.values(), key=len, reverse=True):
        gains = []
        for pair in pairs:
            if not {pair.own.id, pair.beside.id} & taken:
                taken |= {pair.own.id, pair.beside.id}
                gains.append(values[pair.own.id] - values[pair.beside.id])
        if gains:
            middle = mean(gains)
            squares += sum((gain - middle) ** 2 for gain in gains)
            dof += len(gains) - 1
    return squares, dof


def exact(noise: Noise, pairs: Noise) -> bool:
    """Whether the difference of a pair varies less than a single run does: most of the noise is shared by both."""
    return noise.sigma is not None and pairs.sigma is not None and pairs.sigma < noise.sigma


def equal_runs(numbers: Numbers) -> tuple[float, float]:
    """Runs of a change and of its base that would tell their difference as exactly as its s, were none of them paired
    and no text a sample.
    """
    plain = not numbers.pairs and numbers.hidden_error is None
    if plain or not numbers.s or not numbers.sigma:
        return numbers.n, numbers.n_b
    times = (1 / numbers.n + 1 / numbers.n_b) * (numbers.sigma / numbers.s) ** 2
    return numbers.n * times, numbers.n_b * times


def in_words(numbers: Numbers) -> str:
    """How many runs of a verdict were paired, to go on in a bracket; empty where none counts as that."""
    if not numbers.pairs:
        return ""
    return f", {numbers.pairs} of its {numbers.n} in pairs with runs of the base: same seed, near in time"


def doubt(task: Task, spread: Spread, noise: Noise, own: Sequence[Trial], base: Sequence[Trial]) -> str:
    """Why a change is not kept for one run that is in no pair: the machine drifts, or may, for all that is known.

    Args:
        noise: of single runs.
        own, base: finished runs of the change and of its base.

    Returns:
        the reason, to go on in a sentence; empty where it may be kept.
    """
    if drift := spread.drift(noise.prior):
        return f"the machine drifts: {drift}"
    if _quiet(noise) or spread.far_dof >= TRIED or any(trial.started_at is None for trial in (*own, *base)):
        return ""
    return "" if any(is_near(task, one, other) for one in own for other in base) else UNSEEN


def worthwhile(
    run: Run, noise: Noise, spread: Spread, load: str, compared: Iterable[Numbers], best: Sequence[Trial], now: float
) -> str:
    """Why a change is to be confirmed side by side with the best; empty where repeats at any time do as well.

    It is where the machine drifts, where noise follows its load, and where noise is large and runs side by side have
    most of it in common. Where it is large, or nothing is known of it beforehand, one is to see whether that is so,
    once the best was last run long ago.

    Args:
        load: that noise follows the machine's load, see `effort.noise_by_load`; empty where it does not.
        compared: the numbers of the changes so far.
        best: its trials.
        now: seconds since the epoch.
    """
    if run.task.policy == "greedy" or noise.sigma is None:
        return ""
    if drift := spread.drift(noise.prior):
        return f"the machine drifts: {drift}"
    if load:
        return "noise follows the machine's load"
    if unseen(run.task, noise, spread, best, now):
        return UNSEEN
    return _large(noise, compared) if exact(noise, spread.noise(noise)) else ""


def unseen(task: Task, noise: Noise, spread: Spread, best: Sequence[Trial], now: float) -> bool:
    """Whether no code was run at different times so far, and the best, which was run long ago, is to be the first.

    It need not be where the noise is what is usual.
    """
    if _quiet(noise):
        return False
    timed = [trial for trial in best if trial.status == "finished" and trial.started_at is not None]
    return spread.far_dof < TRIED and bool(timed) and not any(_still_near(task, trial, now) for trial in best)


def _quiet(noise: Noise) -> bool:
    """Whether noise is no larger than what is assumed of it beforehand, by far."""
    return noise.prior is not None and noise.sigma is not None and noise.sigma < LARGE * noise.prior


def _large(noise: Noise, compared: Iterable[Numbers]) -> str:
    """That noise is large, in words; empty where it is not."""
    assert noise.sigma is not None
    if noise.prior is not None:
        return "" if _quiet(noise) else f"noise is large, {show(noise.sigma)} where {show(noise.prior)} is usual"
    sizes = [abs(numbers.z) for numbers in compared]
    if len(sizes) < COMPARED or not median(sizes) < UNTOLD:
        return ""
    return f"noise is large, most of {len(sizes)} changes cannot be told from it"


@dataclass(frozen=True)
class Beside:
    """How the next run of a change comes to be beside one of the best.

    Attributes:
        seed: of a run of the best that it is paired with if it has the same and begins now; None where there is none.
        first: the seed that the best is to be run with before; None where it is not to be run.
    """

    seed: int | None = None
    first: int | None = None


def beside(
    task: Task, own: Sequence[Trial], best: Sequence[Trial], now: float, since: float, selected: str = ""
) -> Beside:
    """What is to be run so that a change and the best are measured side by side.

    The best is not run again before something else was: whoever lets the moment pass goes on without a pair.

    Args:
        own: the trials of the change; none where it is still to be found.
        best: those of the best.
        now: seconds since the epoch.
        since: when the latest run was asked for that is to have one beside it.
        selected: the id of the run that the best was selected by, which says too much for it; empty for the baseline.
    """
    again = [trial for trial in best if trial.came_from == "keep"]
    if any(trial.status in ("failed", "timed_out") or (trial.status == "finished" and trial.error) for trial in again):
        return Beside()
    used = {trial.seed for trial in own}
    others = [trial for trial in best if trial.id != selected]
    fitting = [trial for trial in others if trial.seed not in used and _still_near(task, trial, now)]
    if fitting:
        return Beside(seed=fitting[-1].seed)
    if any(trial.queued_at > since for trial in others):
        return Beside()
    return Beside(first=fresh_seed({trial.seed for trial in (*own, *best)}))


def _still_near(task: Task, trial: Trial, now: float) -> bool:
    """Whether a run that is asked for now will be near this one in time, with a training's time to spare."""
    if trial.status in ("queued", "training"):
        return True
    if trial.status != "finished" or trial.error or trial.started_at is None or trial.ended_at is None:
        return False
    return now - trial.started_at <= near_seconds(task, trial.ended_at - trial.started_at, NEAR - 1)
