"""Whether an experiment is kept."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mcp_server.errors import InvalidInput
from mcp_server.research.experiment import Numbers, Scalar
from mcp_server.research.task import Policy, Task

Decision = Literal["keep", "discard", "needs_confirmation", "crash"]
Action = Literal["keep_commit", "git_reset", "confirm"]
State = Literal["keep", "needs_confirmation", "near_miss", "discard", "crash"]

ABORT_AFTER_CRASHES = 3
"""Crashes in a row from which an agent is advised to stop and look."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of an experiment, and why.

    Attributes:
        delta: improvement over the best before, in units of the metric; positive is better; None without one of both.
            Under noise, the improvement over the candidate's own base, the mean over its runs.
        near_miss: not improved, but by less than the task's `near_miss_threshold` or, under noise, by little.
        reason: one sentence with the numbers.
        numbers: the numbers of a verdict under noise; None under the greedy policy, and where nothing was compared.
        next_action: what to do now, as an imperative sentence; empty where the loop just goes on.
        rebase: the change holds on its own base and not against the present best: it goes on top of that, to be run.
        displaced: ids of keeps which this keep does not contain; worth re-applying.
        simplification: kept for having fewer lines.
        accepted_loss: what a simplification may have cost, in units of the metric; 0 for every other verdict.
    """

    decision: Decision
    delta: float | None
    near_miss: bool
    improved: bool
    reason: str
    action: Action
    numbers: Numbers | None = None
    next_action: str = ""
    rebase: bool = False
    displaced: tuple[str, ...] = ()
    simplification: bool = False
    accepted_loss: float = 0.0

    @property
    def state(self) -> State:
        """The decision, with near misses told from other discards."""
        return "near_miss" if self.near_miss else self.decision


def judge(task: Task, value: Scalar | None, best: float | None, hidden_gain: float | None = None) -> Verdict:
    """Judge an experiment's `value` of the task's metric against the `best` so far (None: there is none yet).

    Args:
        hidden_gain: by how much it is better than that best on the hidden text, where both are known; then the smaller
            of both gains counts.

    Raises:
        InvalidInput: the task's policy is not one of this version's.
    """
    number = finite(value)
    if number is None:
        return crashed(task, value)
    policy = _POLICIES.get(task.policy)
    if policy is None:
        raise InvalidInput(f"policy {task.policy!r} is not available", f"Use one of {', '.join(_POLICIES)}")
    return policy(task, number, best, hidden_gain)


def finite(value: object) -> float | None:
    """`value` as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def should_abort(streak: int) -> bool:
    """Whether so many crashes in a row say that something other than the ideas is broken."""
    return streak >= ABORT_AFTER_CRASHES


def show(number: float) -> str:
    """A metric's value for a person: six decimals where they say something, else six significant digits."""
    return f"{number:.6f}" if number == 0 or 1e-3 <= abs(number) < 1e6 else f"{number:.6g}"


def _greedy(task: Task, value: float, best: float | None, hidden_gain: float | None) -> Verdict:
    """Keep whatever came out strictly better than the best: the classic rule."""
    if best is None:
        reason = f"{task.metric} {show(value)} is the first result of this run, the baseline of all that follows."
        return Verdict("keep", None, False, True, reason, "keep_commit")
    # The difference of two huge numbers overflows; a verdict must stay a number that JSON can carry.
    gain = task.improvement(value, best)
    delta = max(-sys.float_info.max, min(sys.float_info.max, gain if hidden_gain is None else min(gain, hidden_gain)))
    numbers = f"{task.metric} {show(value)} against the best, {show(best)}"
    if delta > 0:
        return Verdict("keep", delta, False, True, f"Better by {show(delta)}: {numbers}.", "keep_commit")
    loss = abs(delta)
    if loss < task.near_miss_threshold:
        short = f"short by {show(loss)}" if loss else "equal"
        reason = f"A near miss, {short}: {numbers} (near is less than {task.near_miss_threshold:g})."
        return Verdict("discard", -loss, True, False, reason, "git_reset")
    return Verdict("discard", -loss, False, False, f"Worse by {show(loss)}: {numbers}.", "git_reset")


def crashed(task: Task, value: Scalar | None) -> Verdict:
    """The verdict on a training whose `value` of the metric is no finite number."""
    if value is None:
        reason = f"The training printed no {task.metric}."
    else:
        reason = f"{task.metric} came out as {str(value)[:40]!r}, which is not a finite number."
    return Verdict("crash", None, False, False, reason, "git_reset")


_POLICIES: Mapping[Policy, Callable[[Task, float, float | None, float | None], Verdict]] = {"greedy": _greedy}
