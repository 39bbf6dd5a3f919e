"""Choosing among runs: what of it the record shows, so that a verdict says it.

Whoever looks at scores may end a training that looks bad and draw again, or try seeds until one is lucky. So what was
ended runs again with its seed, and what was chosen by hand is told. A script may draw its luck elsewhere than from its
seed, so that what came of running again is not measured for itself: see `undecided`.
"""

from collections.abc import Iterator, Sequence

from mcp_server.research.experiment import Trial, fresh_seed
from mcp_server.research.pairing import asked_near, is_near, pairs_of
from mcp_server.research.task import Task

ENDED = ("stopped", "lost")
FAILED = ("failed", "timed_out")


def bound_seed(trials: Sequence[Trial]) -> int | None:
    """The seed that an experiment's next trial must have; None where it may have another.

    It is that of the last one where this was ended from outside after it had begun, or failed in measuring a kept
    experiment once more after it had shown a score: with a second failure it is plain that the seed is at fault.
    """
    last = trials[-1] if trials else None
    if last is None or last.started_at is None:
        return None
    if last.status in ENDED:
        return last.seed
    same = [trial for trial in trials if trial.seed == last.seed and trial.came_from == "keep"]
    failed = last.came_from == "keep" and last.status in FAILED and bool(last.metrics)
    return last.seed if failed and len(same) == 1 else None


def redraws(trials: Sequence[Trial]) -> list[int]:
    """The places among an experiment's trials, before it was kept, of those that came of another draw.

    Each is the first with an outcome after one or several that were ended: on request, or lost, for without walls a
    training may have ended its own worker, or have used up the disk. One that was starved had no choice.
    """
    found, stopped, lost = [], False, False
    for place, trial in enumerate(trials):
        if trial.came_from == "keep" or trial.started_at is None or trial.status == "training":
            continue
        if trial.status in ENDED:
            stopped |= trial.status == "stopped"
            lost |= trial.status == "lost" and not trial.starved
            continue
        if stopped or (lost and not trial.sandboxed):
            found.append(place)
        stopped = lost = False
    return found


def undecided(trials: Sequence[Trial]) -> set[str]:
    """The ids of the trials that no keep may rest on: one that came of another draw, and all before it.

    What was ended may have been ended for its score. With runs of after it, of which none was ended, an experiment is
    measured as if it had been registered anew.
    """
    drawn = redraws(trials)
    return {trial.id for trial in trials[: drawn[-1] + 1]} if drawn else set()


def seeds_by_hand(task: Task, trials: Sequence[Trial], others: Sequence[Trial] = ()) -> list[int]:
    """The seeds among those of an experiment's trials that are not the ones that it would have had by itself.

    Args:
        others: trials of other experiments; a run beside one of these has the next seed that neither had.
    """
    found: list[int] = []
    for number, trial in enumerate(trials):
        earlier = trials[:number]
        used = {each.seed for each in earlier}
        follows = bool(earlier) and (
            earlier[-1].status in (*ENDED, *FAILED) and trial.seed == earlier[-1].seed  # the same once more
        )
        if follows or trial.seed == fresh_seed(used) or _next_of_both(task, trial, used, others):
            continue
        if trial.seed not in found:
            found.append(trial.seed)
    return found


def _next_of_both(task: Task, trial: Trial, used: set[int], others: Sequence[Trial]) -> bool:
    """Whether a run has the next seed that it and an experiment beside it had not; one of both was kept by then."""
    partners = {
        other.experiment_id
        for other in others
        if other.experiment_id != trial.experiment_id
        and other.seed == trial.seed
        and "keep" in (other.came_from, trial.came_from)
        and asked_near(task, trial, other)
    }
    earlier = [
        {other.seed for other in others if other.experiment_id == name and other.queued_at <= trial.queued_at}
        for name in partners
    ]
    return any(trial.seed == fresh_seed(used | (seeds - {trial.seed})) for seeds in earlier)


def told(task: Task, trials: Sequence[Trial], others: Sequence[Trial] = ()) -> str:
    """What a verdict says of how the runs came to be the ones that they are; empty where nothing was chosen.

    Args:
        others: see `seeds_by_hand`.
    """
    return " ".join(_told(task, trials, others))


def told_of_base(task: Task, trials: Sequence[Trial], base: Sequence[Trial], others: Sequence[Trial] = ()) -> str:
    """What a verdict says of how the runs of its base since that was kept came to be the ones that they are.

    Args:
        trials: of the experiment that the verdict is on.
        base: those of what it was made from.
        others: see `seeds_by_hand`.
    """
    return " ".join(_told_of_base(task, trials, base, others))


def _told_of_base(task: Task, trials: Sequence[Trial], base: Sequence[Trial], others: Sequence[Trial]) -> Iterator[str]:
    again = [trial for trial in base if trial.came_from == "keep"]
    chosen = set(seeds_by_hand(task, base, (*trials, *others))) if task.fixed_seed is None else set()
    if seeds := [trial.seed for trial in again if trial.seed in chosen]:
        yield _by_hand(seeds, f" of {again[0].experiment_id}")
    own, finished = ([each for each in runs if each.status == "finished"] for runs in (trials, again))
    beside = {pair.beside.id for pair in pairs_of(task, own, finished)}
    more = [each for each in finished if each.id not in beside and any(is_near(task, each, other) for other in own)]
    if beside and more:
        named = ", ".join(str(trial.seed) for trial in more)
        how = f"once more (seed {named})" if len(more) == 1 else f"{len(more)} times more (seeds {named})"
        which = "that run counts" if len(more) == 1 else "all of these count"
        yield f"Near in time {more[0].experiment_id} was run {how}, in no pair with this: {which}."


def _by_hand(seeds: Sequence[int], of: str = "") -> str:
    named = ", ".join(map(str, seeds))
    return f"Seed {named}{of} was given by hand." if len(seeds) == 1 else f"Seeds {named}{of} were given by hand."


def _told(task: Task, trials: Sequence[Trial], others: Sequence[Trial]) -> Iterator[str]:
    if task.fixed_seed is None and (seeds := seeds_by_hand(task, trials, others)):
        yield _by_hand(seeds)
    for status, how in (("stopped", "stopped on request"), ("lost", "ended by the machine or with its worker")):
        began = [trial for trial in trials if trial.status == status and trial.started_at is not None]
        ended = [trial for trial in began if not trial.starved]  # which is told by itself, with who starved it
        if ended:
            count = "One training was" if len(ended) == 1 else f"{len(ended)} trainings were"
            yield f"{count} {how}{_shown(task, ended)}, and run again with the same seed."
    failed = [trial for trial in trials if trial.status in FAILED and trial.came_from == "keep" and trial.metrics]
    if failed:
        count = "One repeat" if len(failed) == 1 else f"{len(failed)} repeats"
        yield f"{count} failed{_shown(task, failed)}, and no such run is in the mean."


def _shown(task: Task, trials: Sequence[Trial]) -> str:
    """The scores that trainings had shown before they ended."""
    values = [f"{trial.metrics[task.metric]}" for trial in trials if task.metric in trial.metrics]
    return f" after {task.metric} {', '.join(values[:5])} was shown" if values else ""
