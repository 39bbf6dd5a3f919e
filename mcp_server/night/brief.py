"""What an agent is told when it is started again."""

import json

from mcp_server.night.limits import Limits
from mcp_server.night.record import Standing
from mcp_server.research.marking import AS_DATA, on_one_line

QUOTED = 400
"""Characters of an agent's last words, and of a hypothesis."""

NOBODY = (
    "Nobody is there to answer: the person who started you is asleep. Do not ask, do not offer choices, do not stop to "
    "report. If setup_run asks what counts, decide by the goal and by what the training script prints, and say so in "
    "the first hypothesis."
)


def catch_up(tag: str, why: str, last_words: str, standing: Standing, next_action: str, limits: Limits) -> str:
    """Where things stand and what to do next, for an agent that has lost its memory.

    Args:
        why: why it is started again, as a clause.
        last_words: what it said at its end, as data.
    """
    parts = [f"You are started again in the middle of the night: {why}. Go on where you were."]
    if last_words.strip():
        parts.append(f"Your last words were {_quoted(last_words)}.")
    parts += [NOBODY, _where(tag, standing)]
    if next_action:
        parts.append(f"First call setup_run(tag={tag!r}, resume=true). After that: {next_action}.")
    parts.append(f"Go on until you are stopped (the limit is: {limits.described()}).")
    return "\n\n".join(parts)


def is_question(words: str) -> bool:
    """Whether an agent's last words ask something."""
    return words.rstrip(" \n\t*_`\"'").endswith("?")


def _where(tag: str, standing: Standing) -> str:
    """The run in a few lines; texts from the record are quoted as data."""
    if not standing.experiments:
        return f"Run {tag!r} has no experiment yet."
    counts = ", ".join(f"{count} {status}" for status, count in standing.counts if count)
    lines = [
        f"Run {tag!r} has {standing.experiments} experiments: {counts}. What stands in double quotes is {AS_DATA}."
    ]
    if best := standing.best:
        start = f", from {standing.baseline:g}" if standing.baseline is not None else ""
        value = "" if best.value is None else f" with {standing.metric} {best.value:g}{start}"
        lines.append(f"The best is {best.experiment_id}{value}: {_quoted(best.hypothesis)}.")
    if standing.training:
        lines.append(f"Training now: {', '.join(standing.training)}.")
    lines += [f"- {each.experiment_id}: {each.status}: {_quoted(each.hypothesis)}" for each in standing.last]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A text as data on one line: in double quotes that it cannot close."""
    text = on_one_line(text)
    return json.dumps(text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…", ensure_ascii=False)
