"""Which results are scored anew before they count, and whether what then comes out bears the training's word out."""

from dataclasses import dataclass, replace

from mcp_server.research.case import Case, Record, decide, noise_of, stand, value_of
from mcp_server.research.experiment import Ending, Run, Scalar, Trial
from mcp_server.research.noise import mean
from mcp_server.research.verdict import finite, show

PRINTED, AUDIT = "printed", "audit"
"""What stands behind the metric's name for the value that the training printed, and for that on the audit data."""

LEAST = 1e-3
"""What two scores of one model may differ by, as a share of the score where that is more than 1."""
PARTIAL = 0.02
"""The same where only some of the data were scored anew."""
SHARE = 0.5
"""How much of a gain must be seen on the audit data too."""


@dataclass(frozen=True)
class Rescored:
    """What the judge said.

    Attributes:
        value: the score on the data that the training is scored on.
        audit: the score on data that no training sees; None where there are none.
        fingerprint: of data and judge; empty where the judge has none.
        loader: how the model was loaded; empty where the judge does not say.
        partial: whether only some of the data were scored.
    """

    value: float
    audit: float | None = None
    fingerprint: str = ""
    loader: str = ""
    partial: bool = False

    def metrics(self, run: Run, printed: Scalar | None) -> dict[str, Scalar]:
        """The metrics that this replaces and adds."""
        name = run.task.metric
        found: dict[str, Scalar | None] = {
            name: self.value,
            f"{name}_{PRINTED}": printed,
            f"{name}_{AUDIT}": self.audit,
            "fingerprint": self.fingerprint or None,
            "loader": self.loader or None,
        }
        return {key: value for key, value in found.items() if value is not None}


def with_ending(case: Case, trial: Trial, ending: Ending) -> Case:
    """The case of a trial that is still in training, as if it had ended so."""
    ended = replace(
        trial,
        status=ending.status,
        metrics=ending.metrics,
        error=ending.error,
        verification=ending.verification,
        wall_seconds=ending.wall_seconds,
        cpu_seconds=ending.cpu_seconds,
        effort_seconds=ending.effort_seconds,
        waited_seconds=ending.waited_seconds,
    )
    trials = tuple(ended if each.id == trial.id else each for each in case.subject.trials)
    return replace(case, subject=replace(case.subject, trials=trials))


def to_be_rescored(run: Run, case: Case, trial: Trial, ending: Ending) -> bool:
    """Whether the score of a trial is made anew: it is of a baseline or of the best, or might be kept."""
    value = finite(ending.metrics.get(run.task.metric))
    if not run.task.rescore_command or ending.status != "finished" or ending.error or value is None:
        return False
    if case.subject.experiment.unchanged or case.incumbent is None or trial.came_from == "keep":
        return True
    base = case.bases.get(trial.base_id or case.first_keep)
    for record in filter(None, (case.incumbent, base)):
        known = (stand(run, record).mean, record.experiment.value)
        if any(run.task.improvement(value, level) > 0 for level in known if level is not None):
            return True
    return decide(run, with_ending(case, trial, ending)).decision in ("keep", "needs_confirmation")


def fault(run: Run, case: Case, printed: float, rescored: Rescored) -> str:
    """Why a score does not count after all; empty where it does."""
    task, value = run.task, rescored.value
    sigma = noise_of(run, case.squares, case.dof).sigma or 0.0
    size = max(1.0, abs(value))
    if case.baseline and (once := _fingerprint(case.baseline)) and once != rescored.fingerprint:
        return (
            f"the prepared data or the judge is not what {case.baseline.experiment.id} was scored with (fingerprint "
            f"{rescored.fingerprint[:12]}, then {once[:12]}): delete the data and prepare them again, if it was not you"
        )
    allowed = max(3 * sigma, (PARTIAL if rescored.partial else LEAST) * size)
    if abs(printed - value) > allowed:
        return (
            f"the training printed {task.metric} {show(printed)}, and the model that it handed in scores {show(value)}"
        )
    if rescored.audit is None:
        return ""
    for record in filter(None, (case.incumbent, case.baseline)):
        before = mean_of(run, record, task.metric), mean_of(run, record, f"{task.metric}_{AUDIT}")
        if before[0] is None or before[1] is None or record.experiment.id == case.subject.experiment.id:
            continue
        gain, seen = task.improvement(value, before[0]), task.improvement(rescored.audit, before[1])
        if too_little(gain, seen, sigma, size):
            return (
                f"{task.metric} {show(value)} is better than that of {record.experiment.id} by {show(gain)}, and "
                f"{show(rescored.audit)} on the audit data, which no training sees, by {show(seen)} only"
            )
    return ""


def too_little(gain: float, seen: float, sigma: float, size: float) -> bool:
    """Whether too little of a gain is seen on the audit data for it to be more than learnt by heart.

    Args:
        gain, seen: over one earlier experiment, in units of the metric: on the data that scores, and on the audit data.
        sigma: the standard deviation of one run; 0 where it is not known.
        size: of the score, at least 1.
    """
    return seen < SHARE * gain - max(sigma, LEAST * size)


def _fingerprint(record: Record) -> str:
    """That of the data and the judge with which an experiment was scored anew; empty where there is none."""
    anew = [trial for trial in record.finished if trial.verification != "reported"]
    return str(anew[-1].metrics.get("fingerprint", "")) if anew else ""


def mean_of(run: Run, record: Record, name: str) -> float | None:
    """The mean of a metric over the runs of a record that were scored anew; None where there is none."""
    values = [
        finite(trial.metrics.get(name))
        for trial in record.finished
        if trial.verification != "reported" and value_of(run, trial) is not None
    ]
    numbers = [value for value in values if value is not None]
    return mean(numbers) if numbers else None
