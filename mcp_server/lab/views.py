"""How the record is shown: experiments and times as the doors give them out."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from mcp_server.lab.results import ExperimentView
from mcp_server.research.claims import Assessment
from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.kept import kept_words
from mcp_server.research.marking import Words
from mcp_server.research.restating import reason_now

Detail = Literal["concise", "full"]


def when(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def view(experiment: Experiment, detail: Detail = "concise", assessment: Assessment | None = None) -> ExperimentView:
    """An experiment as history shows it.

    Args:
        assessment: what may be told of its run now.
    """
    claim = assessment.steps.get(experiment.id) if assessment else None
    concise: dict[str, Any] = {
        "experiment_id": experiment.id,
        "status": experiment.status,
        "category": experiment.category,
        "hypothesis": Words(experiment.hypothesis),
        "value": experiment.value,
        "delta": experiment.delta,
        "near_miss": experiment.near_miss,
        "commit": experiment.commit[:7],
        "verification": experiment.label,
        "sandboxed": experiment.sandboxed,
        "told": kept_words(experiment, assessment) or None,
        "gain": claim.gain if claim else None,
    }
    if detail == "concise":
        return ExperimentView(**concise, origin="reported" if experiment.origin == "reported" else None)
    return ExperimentView(
        **concise | {"commit": experiment.commit},
        parent_id=experiment.parent_id,
        agent=experiment.agent,
        description=Words(experiment.description),
        diff_summary=Words(experiment.diff_summary),
        lines_added=experiment.lines_added,
        lines_removed=experiment.lines_removed,
        changes={name: [_value(each) for each in pair] for name, pair in experiment.changes.items()},
        metrics=dict(experiment.metrics),
        origin=experiment.origin,
        reason=reason_now(reason_of(experiment), claim),
        lesson=Words(experiment.lesson),
        registered_at=when(experiment.registered_at),
        decided_at=when(experiment.decided_at),
        runs=experiment.runs,
        numbers=asdict(experiment.numbers) if experiment.numbers else None,
    )


def unjudged(run: Run) -> list[str]:
    """Why results of a run are not verified although its task said how, for the notes of a verdict."""
    return [f"Reported and not verified: {run.task.unjudged}."] if run.task.unjudged else []


def reason_of(experiment: Experiment) -> str:
    """Why an experiment got its verdict. An agent may have said why it crashed."""
    return Words(experiment.reason) if experiment.status == "crash" else experiment.reason


def _value(value: Any) -> Any:
    """The value of a knob; text in a script is what an agent put there."""
    return Words(value) if isinstance(value, str) else value


def told(assessment: Assessment | None) -> dict[str, Any] | None:
    """What may be told of the best against the baseline; None where there is nothing to tell."""
    return asdict(assessment.total) if assessment and assessment.total else None


def told_steps(assessment: Assessment | None) -> dict[str, dict[str, Any]]:
    """By its id, what may be told of each kept change in the best against what it was built on."""
    return {name: asdict(claim) for name, claim in assessment.steps.items()} if assessment else {}


def plain(counts: Mapping[Any, int]) -> dict[str, int]:
    """Counts by status with plain keys, and their total."""
    return {**{str(key): count for key, count in counts.items()}, "total": sum(counts.values())}
