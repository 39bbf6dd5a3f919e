"""The messages of the commits in which a run's findings are handed to a maintainer."""

from collections.abc import Sequence

from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.tables import standard_error, words
from mcp_server.research.verdict import show

SUBJECT = 72
"""Characters of a commit's first line, by git's custom."""


def idea_message(run: Run, keep: Experiment, sigma: float | None) -> str:
    """The message of one kept idea.

    Args:
        sigma: the standard deviation of one run, in units of the metric; None where it is not known.
    """
    subject = _subject(keep.hypothesis)
    said = [text for text in (keep.hypothesis, keep.description) if text and text.strip() != subject]
    trailers = f"Experiment: {keep.id}\nCategory: {keep.category}\nMeasured-Commit: {keep.commit}"
    numbers = f"{run.task.metric} {_measured(keep, sigma)}. {keep.reason}".strip()
    return "\n\n".join([subject, *said, numbers, trailers]) + "\n"


def squash_message(
    run: Run, baseline: Experiment | None, ideas: Sequence[Experiment], best: Experiment, sigma: float | None
) -> str:
    """The message of one commit that holds all kept ideas, the oldest first."""
    metric = run.task.metric
    gain = None
    if baseline is not None and baseline.value is not None and best.value is not None:
        gain = run.task.improvement(best.value, baseline.value)
    subject = f"Improve {metric} by {show(gain)}" if gain else f"Take in what improves {metric}"
    start = f"{metric} {_measured(baseline, sigma)} at first, " if baseline else f"{metric} "
    changes = [
        f"- {words(idea)} ({idea.id}" + (f", better by {show(idea.delta)})" if idea.delta else ")") for idea in ideas
    ]
    parts = [
        subject,
        f"{start}{_measured(best, sigma)} with these changes, each kept because it was measured to be better:",
        "\n".join(changes),
        f"Run: {run.tag}\nMeasured-Commit: {best.commit}",
    ]
    return "\n\n".join(parts) + "\n"


def _measured(e: Experiment, sigma: float | None) -> str:
    """A value with its error and the number of its runs."""
    if e.value is None:
        return "unknown"
    error = standard_error(e, sigma)
    over = f" over {e.runs} run{'s' if e.runs > 1 else ''}" if e.runs and error is not None else ""
    reported = ", as reported" if e.origin == "reported" else ""
    return f"{show(e.value)}{f' +- {show(error)}' if error is not None else ''}{over}{reported}"


def _subject(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SUBJECT else f"{line[: SUBJECT - 1].rstrip()}…"
