"""Changes that were measured again, or whose base was: their present numbers beside what their verdict said."""

from dataclasses import replace

from mcp_server.research.case import Case
from mcp_server.research.claims import Claim
from mcp_server.research.comparison import present_numbers
from mcp_server.research.experiment import Experiment, Numbers, Run
from mcp_server.research.noise_aware import CLEARLY_WORSE
from mcp_server.research.task import Task
from mcp_server.research.verdict import show

AT_VERDICT = "At its verdict: "
SINCE = " With all runs since: "


def restated_reason(task: Task, reason: str, numbers: Numbers) -> str:
    """The reason of a verdict, marked as such, and after it what all runs say that there are now."""
    return f"{marked(reason).partition(SINCE)[0]}{SINCE}{_said(task, numbers)}."


def marked(reason: str) -> str:
    """A reason with the words that it is of the moment of its verdict, once."""
    return reason if reason.startswith(AT_VERDICT) else f"{AT_VERDICT}{reason}"


def reason_now(reason: str, claim: Claim | None) -> str:
    """The reason of a verdict, and after it what may be told by now; as it is where that is nothing."""
    return f"{marked(reason)} By all runs now, {claim.words()}." if claim else reason


def restated(run: Run, case: Case) -> Experiment:
    """A judged experiment with the numbers that all runs give of it and of its base; as it is where none are known."""
    experiment, numbers = case.subject.experiment, present_numbers(run, case)
    if numbers is None or numbers == experiment.numbers:
        return experiment
    near = experiment.status == "discard" and is_near(numbers)
    loss = max(0.0, -numbers.d) if experiment.accepted_loss else 0.0
    reason = restated_reason(run.task, experiment.reason, numbers)
    return replace(experiment, delta=numbers.d, numbers=numbers, near_miss=near, accepted_loss=loss, reason=reason)


def taken_back(run: Run, case: Case, why: str) -> Experiment:
    """An experiment that is kept no more, with the numbers that all runs give; a near miss where these are near.

    Args:
        case: where the best is already another one.
        why: why it is discarded, as a sentence.
    """
    experiment, numbers = case.subject.experiment, present_numbers(run, case)
    if numbers is None:
        return replace(experiment, near_miss=False, delta=None, numbers=None, reason=why)
    near, said = is_near(numbers), _said(run.task, numbers)
    kind = "a near miss, not told from noise" if near else "clearly worse"
    reason = f"{why} {said[0].upper()}{said[1:]}: {kind}."
    return replace(experiment, near_miss=near, delta=numbers.d, numbers=numbers, reason=reason)


def is_near(numbers: Numbers | None) -> bool:
    """Whether what is discarded is a near miss: it was compared, and is not clearly worse."""
    return numbers is not None and numbers.z > CLEARLY_WORSE


def _said(task: Task, numbers: Numbers) -> str:
    word = "better" if numbers.d > 0 else "worse" if numbers.d < 0 else "different"
    runs = f"{numbers.n} run{'s' if numbers.n > 1 else ''} against {numbers.n_b} of {numbers.base}"
    return f"{word} by {show(abs(numbers.d))} +- {show(numbers.s)} {task.metric} ({runs})"
