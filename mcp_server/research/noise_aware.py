"""Whether an experiment is kept when its score is known to be noisy: the policies noise_aware and strict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from mcp_server.errors import InvalidInput
from mcp_server.research.blocks import Pairing
from mcp_server.research.claims import smallest_gain
from mcp_server.research.effects import CLAIM
from mcp_server.research.experiment import FIRST_SEED, Numbers, Scalar
from mcp_server.research.noise import Noise, clamp, mean
from mcp_server.research.pairing import in_words
from mcp_server.research.rows import RowGains, counted_error, with_rows
from mcp_server.research.task import Policy, Task
from mcp_server.research.verdict import Verdict, crashed, finite, show

T = TypeVar("T")

SIMPLIFICATION = -0.3
"""A change with fewer lines is kept from this z on, once it was confirmed."""
CLEARLY_WORSE = -2.0
"""At or below this z a discard is not a near miss."""
LARGEST_Z = 1e6
"""Where there is no noise at all, every difference is this clear."""


@dataclass(frozen=True)
class Rule:
    """The thresholds of a policy, in z.

    Attributes:
        keep: a candidate with i + 1 runs is kept from keep[i] on, with more runs from the last.
        confirm: below that, a candidate with i + 1 runs is run again from confirm[i] on; with more runs it is not.
    """

    keep: tuple[float, ...]
    confirm: tuple[float, ...]

    def keep_from(self, n: int) -> float:
        """The z from which a candidate of n runs is kept."""
        return self.keep[min(n, len(self.keep)) - 1]

    def confirm_from(self, n: int, shorter: bool) -> float:
        """The z from which a candidate of n runs is run again; one with fewer lines has a chance from less."""
        if n > len(self.confirm):
            return math.inf
        return SIMPLIFICATION if shorter and n == 1 else self.confirm[n - 1]


RULES: Mapping[Policy, Rule] = {
    "noise_aware": Rule(keep=(2.0, 1.3, 1.0, 0.8, 0.7), confirm=(0.3, 0.5, 0.5, 0.5)),
    "strict": Rule(keep=(2.0, 1.5, 0.5), confirm=(0.3, 0.0)),
}
LOUD: Mapping[Policy, Rule] = {
    **RULES,
    "noise_aware": Rule(keep=(2.5, 1.8, 1.4, 1.2, 1.0), confirm=(0.5, 0.5, 0.5, 0.5)),
}
"""The rules where effects are small against the noise: what looks like a gain there is luck more often."""
THRESHOLDS = frozenset(
    {SIMPLIFICATION, *(z for rules in (RULES, LOUD) for rule in rules.values() for z in (*rule.keep, *rule.confirm))}
)


@dataclass(frozen=True)
class Incumbent:
    """An experiment that was kept, as the base of others.

    Attributes:
        name: the experiment's id.
        mean: of the runs that `counted` picks, in units of the metric.
        runs: how many these are.
        confirmed: whether that is more than the one run which was selected for its value; if not, the mean is likely
            optimistic.
        hidden: the mean of the same runs on the hidden text; None where there is none.
    """

    name: str
    mean: float
    runs: int
    confirmed: bool
    hidden: float | None = None

    def error(self, noise: Noise) -> float | None:
        """Standard error of the mean, sigma / sqrt(n_b); None while the noise is unknown."""
        return None if noise.sigma is None else noise.sigma / math.sqrt(self.runs)


@dataclass(frozen=True)
class Replicate:
    """One finished run of a candidate.

    Attributes:
        value: the trial's metric as it was printed; what is no finite number makes the candidate a crash.
        base: id of the kept experiment that the code of this run was made from.
        base_mean, base_runs: Incumbent.mean and Incumbent.runs of that experiment as they are now.
        hidden, base_hidden: its value on the hidden text, and Incumbent.hidden of that experiment; None where there is
            none.
    """

    value: Scalar | None
    base: str
    base_mean: float
    base_runs: int
    hidden: float | None = None
    base_hidden: float | None = None

    def gain(self, task: Task) -> float:
        """How much better it is than its base, in units of the metric: the smaller of the gains on both texts."""
        hidden = self.hidden_gain(task)
        return self.validation_gain(task) if hidden is None else min(self.validation_gain(task), hidden)

    def validation_gain(self, task: Task) -> float:
        """How much better it is on the validation text; its value must be finite."""
        return clamp(task.improvement(_number(self), self.base_mean))

    def hidden_gain(self, task: Task) -> float | None:
        """How much better it is on the hidden text; None where either value is not known."""
        if self.hidden is None or self.base_hidden is None:
            return None
        return clamp(task.improvement(self.hidden, self.base_hidden))


@dataclass(frozen=True)
class Candidate:
    """An experiment that was run at least once.

    Attributes:
        name: the experiment's id.
        runs: its finished runs, the oldest first. Runs before a rebase have another base and count as well.
        lines: lines added minus lines removed; a negative number makes it a simplification.
        pairing: its runs and those of its base that were made side by side; None where none was.
        by_row: its gain by row over what it was made from; None where that is not known.
        by_row_now: the same of its code as it is now, over the present best.
    """

    name: str
    runs: tuple[Replicate, ...]
    lines: int = 0
    pairing: Pairing | None = None
    by_row: RowGains | None = None
    by_row_now: RowGains | None = None

    @property
    def base(self) -> str:
        """What its code is made from now."""
        return self.runs[-1].base


def counted(first: T | None, confirmations: Sequence[T], remeasures: Sequence[T] = ()) -> tuple[T, ...]:
    """The runs of one code that say what it scores, and that are replicates of each other for the noise.

    Args:
        first: the run that the experiment was selected by, dropped where there are confirmations; None: a baseline.
        confirmations: further runs up to the verdict, on the code that the verdict was about (after a rebase only those
            since); of the baseline all runs.
        remeasures: runs after the verdict.
    """
    chosen = confirmations if confirmations or first is None else (first,)
    return (*chosen, *remeasures)


def standing(
    name: str, first: float | None, confirmations: Sequence[float] = (), remeasures: Sequence[float] = ()
) -> Incumbent:
    """The incumbent that a kept experiment makes of its runs; the arguments are those of `counted`."""
    values = counted(first, confirmations, remeasures)
    return Incumbent(name, mean(values), len(values), len(values) > 1 or bool(confirmations))


def judge_baseline(task: Task, name: str, values: Sequence[Scalar | None], noise: Noise, seed: int) -> Verdict:
    """Judge the runs so far of the unchanged code: the first are repeated with other seeds until the noise is seen.

    Args:
        noise: of this task and device type; says how many baselines are wanted.
        seed: of the next run; none of the earlier ones.
    """
    numbers = [finite(value) for value in values]
    if None in numbers:
        return crashed(task, values[numbers.index(None)])
    level = mean([number for number in numbers if number is not None])
    done = f"{len(numbers)} of {noise.baselines} baseline runs"
    if len(numbers) < noise.baselines:
        reason = f"{done}, mean {task.metric} {show(level)}: the noise is not known well enough to compare with it."
        return Verdict("needs_confirmation", None, False, False, reason, "confirm", next_action=_again(name, seed))
    reason = f"{done}: {task.metric} {show(level)} is what all that follows is compared with{_showable(noise)}."
    return Verdict("keep", None, False, True, reason, "keep_commit")


def _showable(noise: Noise) -> str:
    """The smallest gain that the repeats of a change could show, to close a sentence; empty while nothing is known."""
    if noise.sigma is None:
        return ""
    base = noise.baselines
    sizes = [f"{show(clamp(smallest_gain(noise.sigma, n, base)))} with {n} runs" for n in (2, 8)]
    return (
        f"; one run has a standard deviation of {show(noise.sigma)}, and the smallest gain that can be told with "
        f"probability {CLAIM:g} is {' and '.join(sizes)}"
    )


def judge_candidate(
    task: Task,
    candidate: Candidate,
    incumbent: Incumbent | None,
    noise: Noise,
    *,
    seed: int = FIRST_SEED,
    displaced: Sequence[str] = (),
    doubt: str = "",
    loud: bool = False,
) -> Verdict:
    """Judge a candidate by the policy of the task.

    Args:
        incumbent: the present best; None before the baselines are done.
        noise: the estimate of this task on this run's device type.
        seed: of the next run of the candidate, if it gets one; none of its earlier ones.
        displaced: ids of the keeps between the candidate's base and the incumbent, when these are not the same.
        doubt: why nothing is kept for one run that was made at another time than its base, see `pairing.doubt`; empty
            where it may be.
        loud: whether effects are small against the noise, see `bases.is_loud`.

    Raises:
        InvalidInput: the task's policy knows no noise.
    """
    for run in candidate.runs:
        if finite(run.value) is None:
            return crashed(task, run.value)
    rule = rule_of(task.policy, loud)
    if incumbent is None or noise.sigma is None:
        return _baseline_first(noise)
    numbers = compare(task, candidate, incumbent, noise)
    shorter = candidate.lines < 0
    threshold = rule.keep_from(numbers.n)
    if numbers.z < threshold and shorter and numbers.n > 1:
        threshold = SIMPLIFICATION
    if numbers.z < threshold:
        if numbers.z >= rule.confirm_from(numbers.n, shorter):
            return _confirm(task, candidate, numbers, threshold, seed)
        return _discard(task, numbers)
    if doubt and numbers.n == 1 and not numbers.pairs:
        return _confirm(task, candidate, numbers, threshold, seed, f"promising, but {doubt}.")
    if candidate.base == incumbent.name:
        return _keep(task, numbers, rule, "")
    present = _against_present(task, candidate, incumbent, noise)
    if present < threshold:
        return _rebase(candidate, numbers, present, threshold, seed)
    aside = f", and z {_shown(present)} against the present best {incumbent.name}"
    return replace(_keep(task, numbers, rule, aside), displaced=tuple(displaced))


def compare(task: Task, candidate: Candidate, incumbent: Incumbent, noise: Noise) -> Numbers:
    """The numbers of a candidate against its own base, all of whose runs are finite; sigma must be known.

    d is the mean over the runs of the gain of each on the mean of its own base; s = sigma sqrt(1/n + 1/n_b),
    where n_b is that of the last run's base, with the error over rows where `rows.counted_error` adds it; z = d / s.
    Where runs side by side are more exact, d and s are those of blocks that are near in time, see `blocks`.
    """
    sigma = noise.sigma
    assert sigma is not None
    runs, last = candidate.runs, candidate.runs[-1]
    d = mean([run.gain(task) for run in runs])
    s = clamp(sigma * math.sqrt(1 / len(runs) + 1 / last.base_runs))
    pairs = 0
    if candidate.pairing is not None and candidate.pairing.counts(noise):
        (d, s), pairs = candidate.pairing.estimate(sigma), candidate.pairing.pairs
    s = counted_error(s, candidate.by_row)
    z = _ratio(d, s)
    numbers = Numbers(d, s, z, len(runs), last.base_runs, sigma, noise.dof, last.base, incumbent.name, pairs)
    return with_rows(numbers, candidate.by_row)


def rule_of(policy: Policy, loud: bool = False) -> Rule:
    """The thresholds of a policy; raises InvalidInput for one that knows no noise."""
    if policy not in RULES:
        raise InvalidInput(f"policy {policy!r} takes no account of noise", f"Use one of {', '.join(RULES)}")
    return (LOUD if loud else RULES)[policy]


def _against_present(task: Task, candidate: Candidate, incumbent: Incumbent, noise: Noise) -> float:
    """The z of the code as it is now, made from an older base, against the present best."""
    runs = [run for run in candidate.runs if run.base == candidate.base]
    assert noise.sigma is not None
    d = mean([replace(run, base_mean=incumbent.mean, base_hidden=incumbent.hidden).gain(task) for run in runs])
    return _ratio(d, counted_error(noise.sigma * math.sqrt(1 / len(runs) + 1 / incumbent.runs), candidate.by_row_now))


def _number(run: Replicate) -> float:
    number = finite(run.value)
    assert number is not None
    return number


def _ratio(d: float, s: float) -> float:
    """d / s, bounded; without any noise the sign of d alone decides."""
    if s == 0:
        return math.copysign(LARGEST_Z, d) if d else 0.0
    return max(-LARGEST_Z, min(LARGEST_Z, d / s))


def _keep(task: Task, numbers: Numbers, rule: Rule, aside: str) -> Verdict:
    if numbers.z >= rule.keep_from(numbers.n):
        flag = "" if numbers.n > 1 else "; one run only, so unconfirmed and likely optimistic"
        reason = f"{_said(task, numbers)}: kept, since z is at least {rule.keep_from(numbers.n):g}{aside}{flag}."
        return Verdict("keep", numbers.d, False, True, reason, "keep_commit", numbers)
    reason = f"{_said(task, numbers)}{aside}: kept as a simplification, for fewer lines at no clear loss."
    loss = max(0.0, -numbers.d)
    return Verdict(
        "keep", numbers.d, False, True, reason, "keep_commit", numbers, simplification=True, accepted_loss=loss
    )


def _confirm(task: Task, candidate: Candidate, numbers: Numbers, threshold: float, seed: int, why: str = "") -> Verdict:
    reason = f"{_said(task, numbers)}: {why or f'promising, but z below {threshold:g} may well be noise.'}"
    stale = numbers.base != numbers.incumbent
    action = _on_top(candidate.name, numbers.incumbent, seed) if stale else _again(candidate.name, seed)
    return Verdict(
        "needs_confirmation", numbers.d, False, False, reason, "confirm", numbers, next_action=action, rebase=stale
    )


def waiting(task: Task, numbers: Numbers, why: str) -> Verdict:
    """No verdict yet: the base is to be run once more.

    Args:
        why: see `contention.unsettled`.
    """
    reason = f"{_said(task, numbers)}: no verdict before {numbers.base} is run once more: {why}."
    action = f"Run {numbers.base} again, then complete this"
    return Verdict("needs_confirmation", numbers.d, False, False, reason, "confirm", numbers, next_action=action)


def _rebase(candidate: Candidate, numbers: Numbers, present: float, threshold: float, seed: int) -> Verdict:
    reason = (
        f"z {_shown(numbers.z)} against its own base {numbers.base} passes, but z {_shown(present)} against the "
        f"present best {numbers.incumbent} is below {threshold:g}: both together were never measured."
    )
    action = _on_top(candidate.name, numbers.incumbent, seed)
    return Verdict(
        "needs_confirmation", numbers.d, False, False, reason, "confirm", numbers, next_action=action, rebase=True
    )


def _discard(task: Task, numbers: Numbers) -> Verdict:
    near = numbers.z > CLEARLY_WORSE
    what = "a near miss, not told from noise" if near else "clearly worse"
    return Verdict("discard", numbers.d, near, False, f"{_said(task, numbers)}: {what}.", "git_reset", numbers)


def _baseline_first(noise: Noise) -> Verdict:
    reason = "There is no baseline yet to compare this with."
    action = f"Register with no change and run that {noise.baselines} times with different seeds, then complete this"
    return Verdict("needs_confirmation", None, False, False, reason, "confirm", next_action=action)


def _said(task: Task, numbers: Numbers) -> str:
    """The comparison in words, to open a sentence."""
    word = "Better" if numbers.d > 0 else "Worse" if numbers.d < 0 else "Different"
    runs = f"{numbers.n} run{'s' if numbers.n > 1 else ''} against {numbers.n_b} of {numbers.base}"
    runs += in_words(numbers)
    return f"{word} by {show(abs(numbers.d))} +- {show(numbers.s)} {task.metric} (z {_shown(numbers.z)}, {runs})"


def _shown(z: float) -> str:
    """z with two decimals, or as many more as it takes to fall on the same side of every threshold."""
    for digits in range(2, 10):
        text = f"{z:.{digits}f}"
        if (float(text) > CLEARLY_WORSE) == (z > CLEARLY_WORSE) and all(
            (float(text) >= threshold) == (z >= threshold) for threshold in THRESHOLDS
        ):
            return text
    return repr(z)


def _again(name: str, seed: int) -> str:
    return f"Run this commit again with seed {seed}: train({name!r}, seed={seed})"


def _on_top(name: str, incumbent: str, seed: int) -> str:
    return f"Put {name} on top of {incumbent} and run that with seed {seed}: train({name!r}, seed={seed})"
