"""Whether the record is what it was when a training began: trainings without walls can reach it."""

from dataclasses import replace

from mcp_server.research.case import Case, Record
from mcp_server.research.experiment import Run, Trial


def run_meddled(before: Run, after: Run) -> str:
    """What was written into the record of a run while one of its trials was trained; empty where nothing was. All but
    the mode that a user sets by hand stays as it was when the run began.
    """
    by_hand = {name: getattr(before, name) for name in vars(before) if name.startswith("manual_")}
    return "" if replace(after, **by_hand) == before else f"the record of the run {before.tag}"


def meddled(trial: Trial, before: Case, after: Case) -> str:
    """What was written into the record while a trial was trained, and not by its worker; empty where nothing was.

    Only what a verdict on it rests on is looked at: its own rows, and those of the best and of the baseline.

    Args:
        trial: as its worker claimed it.
        before, after: the case of its experiment at its start and at its end.
    """
    own = next((each for each in after.subject.trials if each.id == trial.id), None)
    experiment = after.subject.experiment
    meant = "keep" if trial.came_from == "keep" else "training"
    same = own is not None and replace(own, stop_requested=False, base_id=trial.base_id) == replace(
        trial, stop_requested=False
    )
    if not same or experiment.status != meant:
        return f"the record of {trial.id} (it says {own.status if own else 'nothing'}, {experiment.status})"
    for earlier, later in ((before.incumbent, after.incumbent), (before.baseline, after.baseline)):
        if earlier and (later is None or _rewritten(earlier, later)):
            return f"the record of {earlier.experiment.id}"
    return ""


def _rewritten(earlier: Record, later: Record) -> bool:
    """Whether an experiment reads otherwise without having been measured again; another best is no wonder."""
    if earlier.experiment.id != later.experiment.id:
        return False
    was, now = earlier.experiment, later.experiment
    told = (was.status, was.value, was.commit, was.metrics) != (now.status, now.value, now.commit, now.metrics)
    return (told and now.runs <= was.runs) or earlier.finished != later.finished[: len(earlier.finished)]
