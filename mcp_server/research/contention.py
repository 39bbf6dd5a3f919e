"""Trainings that go by the clock on a machine that others use as well.

A CPU second does less work while others use the caches and the memory, by a tenth and more, so that the same code
scores differently at different times, with any seed. What was measured at another time is then no base to judge by.
"""

from collections.abc import Sequence

from mcp_server.research.experiment import Ending, Run, Trial
from mcp_server.research.pairing import near_seconds
from mcp_server.research.task import Task
from mcp_server.research.verdict import finite

SAID = (0.97, 1.1)
"""A training that says that it lasted so many times its budget is taken to go by the clock."""
FAR_BELOW = 0.5
"""One of the built-in task goes by the clock unless it says that it lasted less than so much of its budget: the harness
ends it, and earlier where its start was long."""
SHARED, LEAST_WAITED = 0.15, 1.0
"""From this share of its time on that others had of a training it matters, and from so many CPU seconds of waiting."""
APART = 8.0
"""So many trainings' time from a run of its base, a change is not judged by it: scoring, and a few changes more, lie
within."""
LIVE = ("queued", "training")


def load(trial: Trial | Ending) -> float:
    """The share of its time that a training spent waiting for others: 0 on a quiet machine, near 1 on a crowded one."""
    wanted = trial.cpu_seconds + trial.waited_seconds
    return trial.waited_seconds / wanted if wanted > 0 else 0.0


def disturbed(run: Run, trial: Trial) -> bool:
    """Whether others had so much of a training's device that its score depends on it: on a CPU, by the clock."""
    waited = trial.waited_seconds >= LEAST_WAITED and load(trial) >= SHARED
    return run.device_kind == "cpu" and waited and _by_the_clock(run.task, trial)


def _by_the_clock(task: Task, trial: Trial) -> bool:
    """Whether a training lasts as long as its budget, and not as long as so many steps take."""
    budget, trained = task.time_budget_seconds, finite(trial.metrics.get("training_seconds"))
    if task.builtin:  # the harness ends it, whatever it says
        return trained is None or trained >= FAR_BELOW * budget
    return trained is not None and SAID[0] * budget <= trained <= SAID[1] * budget


def unsettled(run: Run, own: Sequence[Trial], base: Sequence[Trial]) -> str:
    """Why there is no verdict before the base of a change was run again, near in time; empty where there may be one.

    One run of the base settles it, whenever it comes: one that began, and that nobody stopped. Whatever else becomes of
    it is waited for no longer.

    Args:
        own, base: the trials of the change and of its base, the oldest first.
    """
    counting = [trial for trial in base if trial.status == "finished" and not trial.error]
    last = next((trial for trial in reversed(own) if trial.status == "finished"), None)
    if last is None or not counting or not any(disturbed(run, trial) for trial in (last, *counting)):
        return ""
    if any(trial.queued_at > last.queued_at and _was_run(trial) for trial in base):
        return ""
    if any(_within_reach(run, last, trial) for trial in counting):
        return ""
    most = max((last, *counting), key=load)
    whose = "it" if most is last else "its base"
    return (
        f"others had {load(most):.0%} of the time that {whose} was ready for, and its base was run at another time, "
        "when a CPU second may have been worth more or less"
    )


def _was_run(trial: Trial) -> bool:
    """Whether a training began and came to an end that nobody asked for."""
    return trial.started_at is not None and trial.status not in (*LIVE, "stopped")


def _within_reach(run: Run, one: Trial, other: Trial) -> bool:
    """Whether two runs were made so near in time that others used the machine alike."""
    if one.started_at is None or other.started_at is None:
        return True  # a record without times tells of none apart
    lasted = max(one.wall_seconds, other.wall_seconds)
    return abs(one.started_at - other.started_at) <= near_seconds(run.task, lasted, APART)
