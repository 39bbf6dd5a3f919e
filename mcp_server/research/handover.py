"""The messages of the commits in which a run's findings are handed to a maintainer."""

from collections.abc import Sequence

from mcp_server.research.claims import Assessment, Claim
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.kept import kept_words
from mcp_server.research.restating import reason_now
from mcp_server.research.tables import standard_error, words
from mcp_server.research.verdict import show

SUBJECT = 72
"""Characters of a commit's first line, by git's custom."""


def idea_message(run: Run, keep: Experiment, sigma: float | None, assessment: Assessment | None = None) -> str:
    """The message of one kept idea.

    Args:
        sigma: the standard deviation of one run, in units of the metric; None where it is not known.
        assessment: what may be told of the run.
    """
    subject = _subject(keep.hypothesis)
    said = [text for text in (keep.hypothesis, keep.description) if text and text.strip() != subject]
    trailers = f"Experiment: {keep.id}\nCategory: {keep.category}\nMeasured-Commit: {keep.commit}"
    claim = assessment.steps.get(keep.id) if assessment else None
    now = "" if claim else _sentence(kept_words(keep, assessment))
    why = reason_now(keep.reason, claim)
    numbers = " ".join(filter(None, (f"{run.task.metric} {_measured(keep, sigma)}.", why, now)))
    return "\n\n".join([subject, *said, numbers, trailers]) + "\n"


def squash_message(
    run: Run,
    baseline: Experiment | None,
    ideas: Sequence[Experiment],
    best: Experiment,
    sigma: float | None,
    assessment: Assessment | None = None,
) -> str:
    """The message of one commit that holds all kept ideas, the oldest first.

    Where runs were repeated, its subject names no gain that is not claimed.
    """
    metric = run.task.metric
    total = assessment.total if assessment else None
    subject = f"Take in what may improve {metric}"
    if total is not None and total.claimed:
        subject = f"Improve {metric} by {show(total.gain)} ± {show(total.error)}"
    elif total is None and baseline is not None and baseline.value is not None and best.value is not None:
        subject = f"Improve {metric} by {show(run.task.improvement(best.value, baseline.value))}"
    start = f"{metric} {_measured(baseline, sigma)} at first, " if baseline else f"{metric} "
    changes = [f"- {words(idea)} ({idea.id}, {_told(idea, assessment)})" for idea in ideas]
    parts = [
        subject,
        f"{start}{_measured(best, sigma)} with these changes. {_sentence(_against(total))}".strip(),
        "\n".join(changes),
        f"Run: {run.tag}\nMeasured-Commit: {best.commit}",
    ]
    return "\n\n".join(parts) + "\n"


def _told(idea: Experiment, assessment: Assessment | None) -> str:
    """What may be told of an idea; without an assessment, by how much it was better when it was kept."""
    if assessment is None and idea.delta:
        return f"better by {show(idea.delta)}"
    return kept_words(idea, assessment) or "as reported"


def _against(total: Claim | None) -> str:
    said = total.words() if total else "provisional, for nothing can be claimed of how much better it is"
    return f"all of them against the baseline, {said}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


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
