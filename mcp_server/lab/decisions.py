"""What is written of a verdict, and of the best when it was measured again. Pure: it runs inside a transaction."""

from collections.abc import Mapping

from mcp_server.machine.store.verdicts import Decision, Restatement
from mcp_server.research.case import Case, noise_of, replicates, stand, weigh
from mcp_server.research.claims import QUANTILE
from mcp_server.research.comparison import candidate
from mcp_server.research.decision import decide, scored
from mcp_server.research.experiment import Numbers, Run, Scalar
from mcp_server.research.noise import clamp
from mcp_server.research.plateau import reconsidered
from mcp_server.research.selection import told, told_of_base
from mcp_server.research.verdict import finite, judge, show


def decision(run: Run, case: Case, reported: Mapping[str, Scalar] | None) -> Decision:
    """The verdict on a case.

    Args:
        reported: the metrics that the caller of an external run measured; None takes those of the trials.
    """
    if reported is not None:
        value = reported.get(run.task.metric)
        verdict = judge(run.task, value, case.incumbent.experiment.value if case.incumbent else None)
        return Decision(
            verdict.decision, verdict.reason, finite(value), verdict.delta, verdict.near_miss, reported, "reported"
        )
    verdict = decide(run, case)
    own = weigh(run, case.subject)
    trials = case.subject.finished
    counting = case.subject.counting
    return Decision(
        status=verdict.decision,
        reason=" ".join(filter(None, (verdict.reason, _shows(verdict.numbers), _chosen(run, case)))),
        value=scored(run, case.subject, verdict),
        delta=verdict.delta,
        near_miss=verdict.near_miss,
        metrics=trials[-1].metrics if trials else {},
        numbers=verdict.numbers,
        accepted_loss=verdict.accepted_loss,
        runs=len(replicates(run, case.subject)),
        squares=own.sum_of_squares,
        dof=own.dof,
        verification=counting[-1].verification if counting else "reported",
        sandboxed=bool(counting) and counting[-1].sandboxed,
    )


def _chosen(run: Run, case: Case) -> str:
    """How the runs of a verdict and of its bases were chosen, in words."""
    own, bases = case.subject.trials, [b for b in case.bases.values() if b.experiment.id != case.subject.experiment.id]
    others = [*([case.incumbent] if case.incumbent else []), *bases]
    said = [told(run.task, own, [trial for record in others for trial in record.trials])]
    if run.task.policy != "greedy":
        said += [told_of_base(run.task, own, base.trials, case.repeats) for base in bases]
    return " ".join(filter(None, said))


def _shows(numbers: Numbers | None) -> str:
    """The smallest gain that the runs of a verdict could show, in words; empty where there is no noise to hide one."""
    if numbers is None or not numbers.sigma:
        return ""
    return f"So many runs can show a gain of {show(clamp(QUANTILE * numbers.s))}."


def restatement(run: Run, case: Case, near_misses: list[Case]) -> Restatement | None:
    """What the best comes to with the runs since its verdict, and which near misses that puts in another light.

    None where nothing was measured since.
    """
    experiment = case.subject.experiment
    values = replicates(run, case.subject)
    if len(values) <= experiment.runs:
        return None
    best, own = stand(run, case.subject), weigh(run, case.subject)
    noise = noise_of(run, case.squares - experiment.squares + own.sum_of_squares, case.dof - experiment.dof + own.dof)
    again: Mapping[str, Numbers] = {}
    if case.incumbent is not None and case.incumbent.experiment.id == experiment.id:
        once = [near for near in near_misses if len(near.subject.finished) == 1]
        again = reconsidered(run.task, [candidate(run, near) for near in once], best, noise)
    return Restatement(best.mean, len(values), own.sum_of_squares, own.dof, again)
