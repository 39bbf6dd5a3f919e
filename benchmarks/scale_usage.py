"""How devices were used and agents served, from the trials that a store remembers."""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """A trial as the store remembers it. Times are seconds since the epoch."""

    device: str
    agent: str
    queued_at: float
    started_at: float
    ended_at: float
    script_seconds: float


@dataclass(frozen=True)
class Usage:
    """How devices were used, from when each had had work until the last trial was taken.

    Attributes:
        idle: while a trial waited, the share of the devices' time in which no trial had them.
        unused: the same at any time: here agents that queue too little count as well.
        script: share in which the training script itself ran; the rest went into checkouts, starts and ends.
        fairness: Jain's index of the trials that agents had: 1 where all had equally many, 1/agents where one had all.
        longest_wait: of a trial in the queue, in units of the mean wait.
    """

    idle: float
    unused: float
    script: float
    fairness: float
    longest_wait: float


def used(trials: Sequence[Trial]) -> Usage:
    """How the devices were used by these trials."""
    devices = {trial.device for trial in trials}
    begin = max(min(t.started_at for t in trials if t.device == device) for device in devices)
    end = max(trial.started_at for trial in trials)
    times = sorted({begin, end, *(t for each in trials for t in (each.queued_at, each.started_at, each.ended_at))})
    changes = Counter[tuple[float, str]]()
    for each in trials:
        changes.update({(each.queued_at, "waits"): 1, (each.started_at, "has"): 1})
        changes.subtract({(each.started_at, "waits"): 1, (each.ended_at, "has"): 1})
    waiting = having = 0
    total = crowded = unused = idle = 0.0
    for now, after in itertools.pairwise(times):
        waiting, having = waiting + changes[now, "waits"], having + changes[now, "has"]
        if begin <= now < end:
            total += after - now
            unused += (len(devices) - having) * (after - now)
            crowded += (after - now) * (waiting > 0)
            idle += (len(devices) - having) * (after - now) * (waiting > 0)
    inside = [trial for trial in trials if trial.started_at >= begin]
    counts = Counter(trial.agent for trial in inside)
    shares = [counts[agent] for agent in {trial.agent for trial in trials}]
    waits = [trial.started_at - trial.queued_at for trial in inside]
    whole = [trial for trial in inside if trial.ended_at <= end]
    return Usage(
        idle=idle / max(crowded * len(devices), 1e-9),
        unused=unused / max(total * len(devices), 1e-9),
        script=sum(t.script_seconds for t in whole)
        / max(sum(t.ended_at - t.started_at for t in whole), 1e-9)
        * (1 - unused / max(total * len(devices), 1e-9)),
        fairness=sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)),
        longest_wait=max(waits) / max(statistics.fmean(waits), 1e-9),
    )
