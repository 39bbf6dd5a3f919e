"""Which results are scored anew before they count, and whether what then comes out bears the training's word out."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mcp_server.research.case import Case, Record, compared_with, noise_of, stand
from mcp_server.research.decision import decide
from mcp_server.research.experiment import Ending, Run, Scalar, Trial
from mcp_server.research.hidden_text import AUDIT
from mcp_server.research.pairing import asked_near
from mcp_server.research.verdict import finite, show

PRINTED = "printed"
"""What stands behind the metric's name for the value that the training printed."""

LEAST = 1e-3
"""What two scores of one model may differ by, as a share of the score where that is more than 1."""
PARTIAL = 0.02
"""The same where only some of the data were scored anew."""


@dataclass(frozen=True)
class Rescored:
    """What the judge said.

    Attributes:
        value: the score on the data that the training is scored on.
        audit: the score on the hidden text, which no training sees; None where there is none.
        fingerprint: of data and judge; empty where the judge has none.
        loader: how the model was loaded; empty where the judge does not say.
        partial: whether only some of the data were scored.
        rows: scores by row, as `rows.parse` reads them; empty where the judge has none.
    """

    value: float
    audit: float | None = None
    fingerprint: str = ""
    loader: str = ""
    partial: bool = False
    rows: str = ""

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
        ended_at=ending.ended_at,
        metrics=ending.metrics,
        error=ending.error,
        verification=ending.verification,
        sandboxed=ending.sandboxed,
        wall_seconds=ending.wall_seconds,
        cpu_seconds=ending.cpu_seconds,
        effort_seconds=ending.effort_seconds,
        waited_seconds=ending.waited_seconds,
    )
    trials = tuple(ended if each.id == trial.id else each for each in case.subject.trials)
    return replace(case, subject=replace(case.subject, trials=trials))


def to_be_rescored(run: Run, case: Case, trial: Trial, ending: Ending) -> bool:
    """Whether the score of a trial is made anew: it is of a baseline or of the best, beside one of these, or might be
    kept.
    """
    value = finite(ending.metrics.get(run.task.metric))
    if not run.task.rescore_command or ending.status != "finished" or ending.error or value is None:
        return False
    if case.subject.experiment.unchanged or case.incumbent is None or trial.came_from == "keep":
        return True
    base = case.bases.get(trial.base_id or case.first_keep)
    for record in filter(None, (case.incumbent, base)):
        again = [other for other in record.trials if other.came_from == "keep" and other.seed == trial.seed]
        if any(asked_near(run.task, other, trial) for other in again):
            return True  # what the machine adds to both is not in the difference, which may be a gain
        known = (stand(run, record).mean, record.experiment.value)
        if any(run.task.improvement(value, level) > 0 for level in known if level is not None):
            return True
    return decide(run, with_ending(case, trial, ending)).decision in ("keep", "needs_confirmation")


def fault(run: Run, case: Case, printed: float, rescored: Rescored) -> str:
    """Why a score does not count after all; empty where it does. One that claims no gain counts as it is: as worse."""
    task, value = run.task, rescored.value
    sigma = noise_of(run, case.squares, case.dof).sigma or 0.0
    size = max(1.0, abs(value))
    if case.baseline and (once := _fingerprint(case.baseline)) and once != rescored.fingerprint:
        return (
            f"the prepared data or the judge is not what {case.baseline.experiment.id} was scored with (fingerprint "
            f"{rescored.fingerprint[:12]}, then {once[:12]}): delete the data and prepare them again, if it was not you"
        )
    allowed = max(3 * sigma, (PARTIAL if rescored.partial else LEAST) * size)
    if abs(printed - value) > allowed and _gain_claimed(run, case, (printed, value)):
        return (
            f"the training printed {task.metric} {show(printed)}, and the model that it handed in scores {show(value)}"
        )
    return ""


def _gain_claimed(run: Run, case: Case, values: Iterable[float]) -> bool:
    """Whether any of these values of the metric is better than the best or than what the subject was made from.

    What is measured for itself, as baselines and the best are, claims to be what it is.
    """
    subject = case.subject.experiment
    if subject.unchanged or case.incumbent is None or case.incumbent.experiment.id == subject.id:
        return True
    records = [case.incumbent, *case.bases.values()]
    levels = [
        level for each in records for level in (stand(run, each).mean, each.experiment.value) if level is not None
    ]
    levels += [base.mean for base in compared_with(run, case).values()]
    return any(run.task.improvement(value, level) > 0 for value in values for level in levels)


def _fingerprint(record: Record) -> str:
    """That of the data and the judge with which an experiment was scored anew; empty where there is none."""
    anew = [trial for trial in record.finished if trial.verification != "reported"]
    return str(anew[-1].metrics.get("fingerprint", "")) if anew else ""
