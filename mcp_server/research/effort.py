"""What a training may take, and when it had too little for its result to be a measurement.

All is in seconds of effort, which the worker counts from outside, whatever a script says of itself: see `effort.Meter`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev, variance
from typing import Literal

from mcp_server.research.case import Case
from mcp_server.research.contention import SAID, SHARED, load
from mcp_server.research.experiment import Ending, Run, Trial
from mcp_server.research.verdict import finite, show

ENOUGH = 0.95
"""A training that had less than this share of what it was to have is no measurement."""
LEAST_MISSING, LEAST_UNKNOWN = 0.25, 1.0
"""CPU seconds that must be missing, and the same where no baseline tells how much was due: a script of a
moment is over before its time can be told so exactly."""
SHARE, MOST = 0.02, 1.0
"""What our harness may take beyond what the baseline did, since clocks are read between steps: a share of the budget,
and seconds at most."""
BESIDE_TOLD, BESIDE_SHARED, BESIDE = 0.05, 0.15, 1 / 3
"""The same in shares of what the baseline took beside its budget: where the clock knew the limit, and ended a training
earlier whose start took longer; where that took others' part of the machine as well, so that a second did less; and
where the clock knew nothing, and a larger model takes longer to warm up and to hand in."""
WALL_SHARE, LEAST_WALL_SLACK = 0.1, 1.0
"""What any other script may take beyond it: a share of the budget, and seconds at least. What goes on beside a training
stretches its wall time."""
DOUBT = 0.25
"""The share of what others had of a training's wall time by which that may be wrong: not all waiting is counted."""
DEVIATIONS = 3.0
"""The same in standard deviations of what the baseline's runs took, where there are several."""
READY = 0.8
"""The share of its time for which a thread of a training with our harness runs, or is ready to."""
BY_WALL = (0.9, 1.5)
"""A training that reads its budget and lasted so many times that, its start apart, is taken to go by the clock on the
wall."""
ClockRead = Literal["", "wall", "cpu"]
"""The clock that a script goes by, as far as its source tells: it asks for CPU time, or at least reads its budget."""


@dataclass(frozen=True)
class Limit:
    """What the clock of our harness is told of the baseline, in seconds of effort.

    Attributes:
        limit: for all until the model is handed in.
        hand_in: CPU seconds of them that handing in took.
        modules: how many its model has.
    """

    limit: float
    hand_in: float
    modules: float


def over_budget(run: Run, case: Case, ending: Ending, told: bool = False) -> str:
    """Why a training took more than it may; empty if it did not.

    It may take its budget, and beside it what the unchanged script takes there: that is measured with the baseline, as
    what its runs took in all less what their own clock says of the training. A script without such a clock may take
    what the baseline took in all, if that is more than the budget. Where there is no baseline yet, our harness may take
    the task's allowance for the start, and any other script what its deadline leaves it.

    Args:
        told: whether its clock knew the limit.
    """
    task = run.task
    used, budget = ending.effort_seconds, task.time_budget_seconds
    known = _baselines(case)
    if known and case.baseline and case.baseline.experiment.id != case.subject.experiment.id:
        beside = [_beside(trial, budget) for trial in known]
        allowed, shown = budget + fmean(beside) + _slack(run, beside, ending, told), f"{known[0].experiment_id} shows"
    elif task.builtin:
        allowed, shown = budget + task.startup_seconds, "the task's startup_seconds say"
    else:
        return ""
    allowed += _compiling(run, case, ending)
    if used <= allowed or (used <= allowed + _doubt(run, ending) and _as_before(ending, known)):
        return ""
    said = ending.metrics.get("training_seconds", "nothing")
    return (
        f"more effort: {used:.2f} s of {allowed:.2f} s ({_unit(run)}; its own clock says {said}): its budget is "
        f"{budget:g} s, with {allowed - budget:.2f} s for all else, as {shown}"
    )


def drawn_out(run: Run, case: Case, ending: Ending) -> str:
    """Why a training with our harness took more than it may by what others do to any start; empty if it was not that.

    Where others have a good part of a CPU, a second of it does less, by a fifth on a crowded machine. What then took no
    more than a clock that knows nothing is allowed proves neither effort nor the score.
    """
    if not run.task.builtin or run.device_kind != "cpu" or load(ending) < SHARED or not (known := _baselines(case)):
        return ""
    budget, others = run.task.time_budget_seconds, load(ending)
    beside = fmean(_beside(trial, budget) for trial in known)
    if ending.effort_seconds > budget + beside + _free(budget, beside, BESIDE):
        return ""
    users = f" Others on its cores: {', '.join(ending.cpu_users)}." if ending.cpu_users else ""
    return (
        f"starved: others had {others:.0%} of the time that it was ready for, so that a CPU second did less, and it "
        f"took {ending.effort_seconds:.2f} s where {known[0].experiment_id} took {budget + beside:.2f} s.{users}"
    )


def limit(run: Run, case: Case) -> Limit | None:
    """What the clock of our harness is told of a training on a CPU; None where no baseline tells.

    All has the budget, and what the unchanged script took beside it, with half of what is free: the clock charges the
    budget for what starting and handing in take beyond that, and `over_budget` rejects what took more all the same. The
    unchanged script is held to it when repeated.
    """
    if not run.task.builtin or run.device_kind != "cpu" or not (known := _baselines(case)):
        return None
    budget = run.task.time_budget_seconds
    beside = fmean(_beside(trial, budget) for trial in known)
    hand_in = [finite(trial.metrics.get("hand_in_seconds")) or 0.0 for trial in known]
    modules = [finite(trial.metrics.get("num_modules")) or math.inf for trial in known]
    return Limit(budget + beside + _free(budget, beside, BESIDE_TOLD) / 2, fmean(hand_in), min(*modules, 1e9))


def _unit(run: Run) -> str:
    """What seconds of effort are."""
    if run.device_kind != "cpu":
        return "wall time"
    return "CPU time of all its processes by cores" if run.task.builtin else "wall time, less what others had of it"


def _free(budget: float, beside: float, share: float) -> float:
    """Seconds that a training with our harness may take beyond budget and baseline."""
    return min(SHARE * budget, MOST) + share * beside


def _slack(run: Run, beside: Sequence[float], ending: Ending, told: bool) -> float:
    """Seconds that a training may take beyond what the baseline shows."""
    budget = run.task.time_budget_seconds
    if run.task.builtin:
        share = BESIDE_TOLD if told and load(ending) < SHARED else BESIDE_SHARED if told else BESIDE
        least = _free(budget, fmean(beside), share)
    else:
        least = max(LEAST_WALL_SLACK, WALL_SHARE * (budget + fmean(beside)))
    spread = DEVIATIONS * stdev(beside) if len(beside) > 1 else 0.0
    return max(least, min(spread, 2 * least))


def _doubt(run: Run, ending: Ending) -> float:
    """Seconds by which the wall time that a script had to itself may be less than was counted."""
    if run.device_kind != "cpu" or run.task.builtin:
        return 0.0
    return DOUBT * max(0.0, ending.wall_seconds - ending.effort_seconds)


def _as_before(ending: Ending, known: Sequence[Trial]) -> bool:
    """Whether a training used no more CPU time than the baseline's runs."""
    before = [trial.cpu_seconds for trial in known]
    return bool(before) and ending.cpu_seconds <= (1 + WALL_SHARE) * fmean(before) + LEAST_MISSING


def _compiling(run: Run, case: Case, ending: Ending) -> float:
    """What a training says that compiling took beyond what it took the baseline.

    Only on a GPU, where each change of the model is compiled anew and the baseline may have found it done. Compiling
    leaves a GPU idle, so that no more is believed than the seconds in which it was, nor than the allowance for the
    start.
    """
    if run.device_kind == "cpu":
        return 0.0
    before = [finite(trial.metrics.get("compile_seconds")) or 0.0 for trial in _baselines(case)]
    claimed = (finite(ending.metrics.get("compile_seconds")) or 0.0) - (fmean(before) if before else 0.0)
    return max(0.0, min(claimed, run.task.startup_seconds, ending.idle_seconds))


def _baselines(case: Case) -> list[Trial]:
    """The runs of the unchanged script whose effort was counted."""
    known = case.baseline.finished if case.baseline else ()
    return [trial for trial in known if trial.effort_seconds > 0 and not trial.error]


def _beside(trial: Trial, budget: float) -> float:
    """What a training took beside what its own clock says of its budget.

    That is what is gone of it: on many cores threads wait for each other, and less of it is CPU time.
    """
    gone = finite(trial.metrics.get("budget_seconds", trial.metrics.get("training_seconds")))
    return max(0.0, trial.effort_seconds - (budget if gone is None else min(gone, budget)))


def starved(run: Run, case: Case, ending: Ending, cores: int, clock: ClockRead = "") -> str:
    """Why a training is no measurement, since others had too much of its device; empty if it is one.

    Three kinds are known from outside:

    - it was ended at the server's deadline, or its clock's own widest limit, and others had what was missing;
    - it goes by the clock on the wall, and had less CPU time than the baseline's runs (for want of those: than it was
      ready for) by what others had.

    A script that does a fixed amount of work, or goes by CPU time, only takes longer, and is none of these. Nor is one
    that did not want to run.

    Args:
        cores: how many the training was given.
        clock: the one that it goes by, as far as its source tells.
    """
    if run.device_kind != "cpu" or ending.status not in ("finished", "timed_out") or not ending.counted_by:
        return ""
    task, had, waited = run.task, ending.cpu_seconds / cores, ending.waited_seconds / cores
    budget, least = task.time_budget_seconds, LEAST_MISSING
    if ending.status == "timed_out":
        wanted, least = budget, LEAST_UNKNOWN
    elif _goes_by_wall(run, case, ending, clock):
        known = [trial.cpu_seconds / cores for trial in _baselines(case) if trial.cpu_seconds]
        wanted = min(fmean(known), had + waited) if known else had + waited
        least = LEAST_MISSING if known else LEAST_UNKNOWN
    else:
        trained = finite(ending.metrics.get("training_seconds"))
        if not task.builtin or trained is None or ending.wall_seconds < CLOCK_WIDEST * budget:
            return ""
        if _had_its_share(run, case, ending, cores):
            return ""
        gone = finite(ending.metrics.get("budget_seconds"))
        had, wanted = min(had, trained), budget if gone is None else min(budget, gone)
    missing = wanted - had
    if had >= ENOUGH * wanted or missing * cores < least or waited < missing / 2 or _idle(run, ending):
        return ""
    users = f" Others on its cores: {', '.join(ending.cpu_users)}." if ending.cpu_users else ""
    return (
        f"starved: it had {had:.1f} s of CPU time on each core where {wanted:.1f} s were due, in "
        f"{ending.wall_seconds:.0f} s on the clock; others had {waited:.1f} s of its cores.{users}"
    )


def _idle(run: Run, ending: Ending) -> bool:
    """Whether a training with our harness neither ran nor was ready to for a good part of its time.

    Our harness always is. Else one that does not like what it drew could sit idle until it is taken for starved, and is
    run again.
    """
    return run.task.builtin and ending.cpu_seconds + ending.waited_seconds < READY * ending.wall_seconds


def _had_its_share(run: Run, case: Case, ending: Ending, cores: int) -> bool:
    """Whether a training used all of its budget and what the baseline takes beside it, whatever it says of itself."""
    budget = run.task.time_budget_seconds
    known = [trial for trial in _baselines(case) if trial.cpu_seconds]
    beside = [_beside(replace(trial, effort_seconds=trial.cpu_seconds / cores), budget) for trial in known]
    return bool(known) and ending.cpu_seconds / cores > budget + fmean(beside) + _slack(run, beside, ending, True)


TOLD = 0.05
"""The share of its time that others had, from which on it is told."""
FAR, MORE_LOAD = 9.0, 0.1
"""So many times the usual variance, which is three times the usual deviation, and so much more of their time that
others had, make noise that of the machine's load."""
CLOCK_WIDEST = 20.0
"""Times its budget after which the harness's clock ends a training on a CPU, however little CPU time it had."""


def _goes_by_wall(run: Run, case: Case, ending: Ending, clock: ClockRead) -> bool:
    """Whether a training seems to end when its budget is over on the wall clock, however little it did by then."""
    task, budget = run.task, run.task.time_budget_seconds
    if task.end_at_budget:
        return True
    if task.builtin or clock == "cpu":
        return False
    if (trained := finite(ending.metrics.get("training_seconds"))) is not None:
        return SAID[0] * budget <= trained <= SAID[1] * budget
    known = [trial.wall_seconds for trial in _baselines(case)]
    start = max(0.0, fmean(known) - budget) if known else min(budget, task.startup_seconds)
    return clock == "wall" and BY_WALL[0] * budget <= ending.wall_seconds <= BY_WALL[1] * budget + start


def starved_text(count: int, latest: Trial | None) -> str:
    """How many trainings of a run were starved, and what the latest one lacked; empty where none was."""
    if latest is None:
        return ""
    were = f"{count} trainings were" if count > 1 else "1 training was"
    return f"{were} starved and did not count; {'the last, ' if count > 1 else ''}{latest.id}, {latest.error}"


def effort_text(trial: Trial) -> str | None:
    """What a training took, in a few words; None where nobody counted."""
    if not trial.counted_by:
        return None
    waited = f"; others had {trial.waited_seconds:.1f} CPU s that it was ready for" if load(trial) >= TOLD else ""
    counted = f"{trial.cpu_seconds:.1f} CPU s ({trial.counted_by}) in {trial.wall_seconds:.1f} s"
    return f"{trial.effort_seconds:.1f} s: {counted}{waited}"


def noise_by_load(run: Run, trials: Sequence[Trial]) -> str:
    """That the repeats of one experiment differ with what else the machine did, and not with the seed; empty if not.

    Told of the experiment whose repeats spread most, where their variance is `FAR` times that of all others' together
    and others had a share of the time that they were ready for that is larger by `MORE_LOAD`.

    Args:
        trials: finished ones of the run, the oldest first.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        if (value := finite(trial.metrics.get(run.task.metric))) is not None:
            groups.setdefault(trial.experiment_id, []).append((value, load(trial)))
    several = {name: runs for name, runs in groups.items() if len(runs) > 1}
    if len(several) < 2:
        return ""
    name = max(several, key=lambda each: variance(value for value, _ in several[each]))
    own, others = several.pop(name), list(several.values())
    spread = variance(value for value, _ in own)
    squares = sum(variance(value for value, _ in runs) * (len(runs) - 1) for runs in others)
    usual = squares / sum(len(runs) - 1 for runs in others)
    met, met_before = fmean(share for _, share in own), fmean(share for runs in others for _, share in runs)
    if spread <= FAR * usual or met < met_before + MORE_LOAD:
        return ""
    return (
        f"The repeats of {name} differ by {show(spread**0.5)}, those of others by {show(usual**0.5)}, and others had "
        f"{met:.0%} of the time that its trainings were ready for (else {met_before:.0%}): that noise is the machine's "
        "load and not the seed's. Leave the machine to the trainings."
    )
