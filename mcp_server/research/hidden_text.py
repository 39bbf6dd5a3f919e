"""What a result is worth on text that no training sees, which tells a gain from what was learnt by heart."""

from dataclasses import replace

from mcp_server.research.experiment import Run, Trial
from mcp_server.research.rows import RowGains
from mcp_server.research.verdict import Verdict, finite, show

AUDIT = "audit"
"""What stands behind the metric's name for its value on the hidden text."""


def hidden_value(run: Run, trial: Trial) -> float | None:
    """The metric of a trial on the hidden text; None where there is none, or only by the training's own word."""
    if trial.verification == "reported":
        return None
    return finite(trial.metrics.get(f"{run.task.metric}_{AUDIT}"))


def limited(verdict: Verdict, validation: float, hidden: float | None, rows: RowGains | None = None) -> Verdict:
    """A verdict whose reason says where the gain on hidden text is the smaller, which counts; else as it is.

    Args:
        validation, hidden: gains, in units of the metric; positive is better.
        rows: the same by row, where that is known.
    """
    if hidden is None or validation <= 0 or hidden >= validation:
        return verdict
    aside = f"It is better on validation text by {show(validation)}, and on hidden text by {show(hidden)} only."
    if rows is not None and rows.hidden is not None:
        aside = (
            f"It is better on validation text by {rows.validation.words()}, and on hidden text by "
            f"{rows.hidden.words()} only (by row)."
        )
    return replace(verdict, reason=f"{verdict.reason} {aside}")
