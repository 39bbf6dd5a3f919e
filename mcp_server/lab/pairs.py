"""What is to be run side by side with the best, read from the record of a run."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mcp_server.lab.bench import Bench
from mcp_server.research.case import Record, noise_of
from mcp_server.research.comparison import spread
from mcp_server.research.contention import LIVE, unsettled
from mcp_server.research.effort import noise_by_load
from mcp_server.research.evidence import RECENT
from mcp_server.research.experiment import Experiment, Numbers, Run, Trial, fresh_seed
from mcp_server.research.noise import Noise
from mcp_server.research.pairing import Beside, beside, unseen, worthwhile
from mcp_server.research.selection import ENDED, bound_seed


@dataclass(frozen=True)
class Neighbour:
    """The best as what others are run beside.

    Attributes:
        why: why changes are to be confirmed beside it; empty where they need not be.
        drifts: whether that is a drift of the machine: then nothing is compared with what was run at another time.
        unseen: whether it is to be run again to see if the machine drifts.
        trials: of the best.
        selected: the id of the one that it was selected by; empty for a baseline.
        asked: when the latest run of anything else was asked for, in seconds since the epoch.
    """

    run: Run
    why: str
    drifts: bool
    unseen: bool
    trials: Sequence[Trial]
    selected: str
    asked: float

    def beside(self, own: Sequence[Trial]) -> Beside:
        """How the next run of an experiment comes to be beside one of the best; without trials, a drift alone asks."""
        if not self.why or not (own or self.drifts):
            return Beside()
        since = own[-1].queued_at if own else self.asked
        found = beside(self.run.task, own, self.trials, time.time(), since, self.selected)
        bound = bound_seed(self.trials)
        if bound_seed(own) is not None or (found.first is not None and bound in {trial.seed for trial in own}):
            return Beside()  # what was ended runs again as it was
        return found if found.first is None or bound is None else Beside(first=bound)


async def neighbour(
    bench: Bench, run: Run, best: Experiment | None, noise: Noise, compared: Iterable[Numbers]
) -> Neighbour | None:
    """The best as what others are run beside; None where there is none, or its policy repeats nothing."""
    if best is None or run.task.external or run.task.policy == "greedy":
        return None
    trials = tuple(await bench.store.trials.of(best.id))
    repeats = await bench.store.efforts.repeats(run.tag)
    seen, now = spread(run, repeats), time.time()
    why = worthwhile(run, noise, seen, noise_by_load(run, repeats), compared, trials, now)
    selected = "" if Record(best, trials).is_baseline else next((trial.id for trial in trials), "")
    drifts = bool(why and seen.drift(noise.prior))
    asked = await bench.store.efforts.asked(run.tag, best.id)
    return Neighbour(run, why, drifts, unseen(run.task, noise, seen, trials, now), trials, selected, asked)


async def neighbour_of(bench: Bench, run: Run) -> Neighbour | None:
    """The same, of a run as it now is."""
    best = await bench.store.experiments.best(run.tag)
    if best is None or run.task.external or run.task.policy == "greedy":
        return None
    noise = noise_of(run, *await bench.store.history.noise(run.tag))
    recent = await bench.store.history.finished(run.tag, RECENT)
    return await neighbour(bench, run, best, noise, [e.numbers for e in recent if e.numbers])


def needs_base(
    run: Run, experiment: Experiment, trials: Sequence[Trial], best: Experiment, others: Sequence[Trial]
) -> str:
    """Why an experiment waits for one more run of the best, which it was made from; empty where it does not."""
    numbers = experiment.numbers
    return unsettled(run, trials, others) if numbers and numbers.base == best.id and not numbers.pairs else ""


async def waiting_for_base(
    bench: Bench, run: Run, pending: Sequence[Experiment], best: Experiment, others: Sequence[Trial]
) -> tuple[Mapping[str, str], frozenset[str]]:
    """What waits for one more run of the best, by id with the reason, and the ids of what has waited for it.

    The latter are those that `complete` judges anew: those whose verdict says that it waits for its base, which was run
    since, or is not the best any more.

    Args:
        pending: experiments that need confirmation.
        others: the trials of the best.
    """
    waiting: dict[str, str] = {}
    waited = set()
    for e in pending:
        if e.numbers is None:
            continue
        if why := needs_base(run, e, await bench.store.trials.of(e.id), best, others):
            waiting[e.id] = why
        elif e.numbers.awaits_base:
            waited.add(e.id)
    return waiting, frozenset(waited)


async def paired_seed(
    bench: Bench, run: Run, experiment: Experiment, trials: Sequence[Trial], seed: int | None
) -> int | None:
    """The seed of the next run of an experiment: the one that is asked for, or that of a run of the best beside it.

    None where there is neither, or where the last run was ended and its seed goes on.
    """
    ended = bool(trials) and trials[-1].status in ENDED
    if seed is not None or ended or experiment.unchanged:
        return seed
    if experiment.status not in ("registered", "needs_confirmation"):
        return None
    near = await neighbour_of(bench, run)
    return near.beside(trials).seed if near else None


async def next_run(
    bench: Bench, run: Run, experiment: Experiment, best: Experiment | None, trials: Sequence[Trial]
) -> str:
    """How an experiment is run again beside the best, as an imperative sentence; empty where that is not needed."""
    near = await neighbour_of(bench, run) if best and best.id != experiment.id else None
    if near and best and (why := needs_base(run, experiment, trials, best, near.trials)):
        live = next((trial.seed for trial in near.trials if trial.status in LIVE), bound_seed(near.trials))
        seed = fresh_seed({trial.seed for trial in near.trials}) if live is None else live
        return f"Call train({best.id!r}, seed={seed}): {why}. Then complete {best.id!r}, and {experiment.id!r} after it"
    found = near.beside(trials) if near else Beside()
    if near is None or best is None or found == Beside():
        return ""
    name = experiment.id
    if found.seed is not None:
        return f"Call train({name!r}, seed={found.seed}), side by side with {best.id} ({near.why}), then complete it"
    return (
        f"Call train({best.id!r}, seed={found.first}) and, beside it or right after, "
        f"train({name!r}, seed={found.first}) ({near.why}); then complete both"
    )
