"""A run's history for people and other programs: results.tsv, JSON lines, a Markdown summary, the points of a chart.

Everything is made in one pass over an iterator of experiments in order of `number`, so an export can stream.
"""

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mcp_server.research.experiment import FINISHED, Experiment, Run, Status
from mcp_server.research.task import Task
from mcp_server.research.verdict import finite, show

SHOWN_KEEPS, SHOWN_LAST, SHOWN_LESSONS = 50, 5, 10


@dataclass(frozen=True)
class Point:
    """One experiment of a chart.

    Attributes:
        value: the metric; None for a crash.
        best: the best value up to and including this experiment; None before there is one.
        label: what a kept experiment did, in a few words; empty for the others.
    """

    number: int
    id: str
    status: Status
    value: float | None
    best: float | None
    label: str


def results_line(experiment: Experiment, task: Task) -> str:
    """One line of results.tsv, without its end: commit, value, memory in GiB, status, description."""
    crashed = experiment.status == "crash"
    value = 0.0 if crashed or experiment.value is None else experiment.value
    memory = None if crashed else finite(experiment.metrics.get("peak_vram_mb"))
    words = " ".join((experiment.description or experiment.hypothesis).split())
    return f"{experiment.commit[:7]}\t{value:.6f}\t{(memory or 0.0) / 1024:.1f}\t{experiment.status}\t{words}"


def to_tsv(experiments: Iterable[Experiment], task: Task) -> Iterator[str]:
    """The lines of results.tsv, each with its end: the header, then every finished experiment."""
    yield f"commit\t{task.metric}\tmemory_gb\tstatus\tdescription\n"
    for experiment in experiments:
        if experiment.status in FINISHED:
            yield results_line(experiment, task) + "\n"


def to_jsonl(experiments: Iterable[Experiment]) -> Iterator[str]:
    """One line of strict JSON for each experiment, with its end; NaN and infinity are written as text."""
    for experiment in experiments:
        row = {name: value for name, value in vars(experiment).items() if name != "request"}
        yield json.dumps(_strict(row), ensure_ascii=False) + "\n"


def chart(experiments: Iterable[Experiment], task: Task) -> Iterator[Point]:
    """The finished experiments as points with the best so far."""
    best: float | None = None
    for e in experiments:
        if e.status not in FINISHED:
            continue
        value = None if e.status == "crash" else e.value
        kept = e.status == "keep" and value is not None
        if kept and value is not None and (best is None or task.improvement(value, best) > 0):
            best = value
        yield Point(e.number, e.id, e.status, value, best, _words(e) if kept else "")


def to_markdown(run: Run, experiments: Iterable[Experiment]) -> str:
    """A page on the run: best against baseline, counts, categories, progression, the last five, lessons."""
    tally = _Tally(run.task)
    for experiment in experiments:
        tally.add(experiment)
    task = run.task
    goal = "lower" if task.direction == "minimize" else "higher"
    sections = [
        f"# Run {_safe(run.tag)}\n\n`{task.metric}`, {goal} is better; {task.time_budget_seconds:g} s a training.",
        _headline(tally),
        _categories(tally),
        _table("Progression", tally.keeps, task),
        _table("Last experiments", tally.last, task),
        _lessons(tally),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


@dataclass
class _Tally:
    """What one pass over a history collects, in bounded memory."""

    task: Task
    best: Experiment | None = None
    baseline: Experiment | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    keeps: deque[Experiment] = field(default_factory=lambda: deque(maxlen=SHOWN_KEEPS))
    last: deque[Experiment] = field(default_factory=lambda: deque(maxlen=SHOWN_LAST))
    lessons: deque[Experiment] = field(default_factory=lambda: deque(maxlen=SHOWN_LESSONS))

    def add(self, e: Experiment) -> None:
        self.statuses[e.status] += 1
        if e.status not in FINISHED:
            return
        self.tries[e.category] += 1
        self.last.append(e)
        if e.lesson:
            self.lessons.append(e)
        if e.status == "keep" and e.value is not None:
            self.kept[e.category] += 1
            self.keeps.append(e)
            self.baseline = self.baseline or e
            best = self.best.value if self.best else None
            if best is None or self.task.improvement(e.value, best) > 0:
                self.best = e


def _headline(tally: _Tally) -> str:
    finished = sum(tally.statuses[status] for status in FINISHED)
    counts = ", ".join(f"{number} {status}" for status, number in sorted(tally.statuses.items())) or "no experiments"
    lines = [f"- Experiments: {counts}"]
    if finished:
        lines.append(f"- Kept: {tally.statuses['keep']} of {finished} ({tally.statuses['keep'] / finished:.0%})")
    best, baseline = tally.best, tally.baseline
    if best is None or baseline is None or best.value is None or baseline.value is None:
        return "\n".join([*lines, "- Best: none yet"])
    gain = tally.task.improvement(best.value, baseline.value)
    percent = f", {gain / abs(baseline.value):.2%}" if baseline.value else ""
    lines.insert(0, f"- Best: **{show(best.value)}** by {_safe(best.id)} ({best.commit[:7]}), {_safe(_words(best))}")
    lines.insert(1, f"- Baseline: {show(baseline.value)}; better by {show(gain)}{percent}")
    return "\n".join(lines)


def _categories(tally: _Tally) -> str:
    if not tally.tries:
        return ""
    rows = [f"| {category} | {tries} | {tally.kept[category]} |" for category, tries in tally.tries.most_common()]
    return "\n".join(["## Categories", "", "| category | tried | kept |", "|---|---:|---:|", *rows])


def _table(title: str, experiments: Iterable[Experiment], task: Task) -> str:
    rows = []
    for e in experiments:
        value = "" if e.value is None or e.status == "crash" else show(e.value)
        delta = "" if e.delta is None else f"{e.delta:+.6g}"
        rows.append(f"| {_safe(e.id)} | {e.status} | {value} | {delta} | {e.category} | {_safe(_words(e))} |")
    if not rows:
        return ""
    head = [f"| experiment | status | {task.metric} | better by | category | what |", "|---|---|---:|---:|---|---|"]
    return "\n".join([f"## {title}", "", *head, *rows])


def _lessons(tally: _Tally) -> str:
    if not tally.lessons:
        return ""
    return "\n".join(["## Lessons", "", *(f"- {_safe(e.id)} ({e.status}): {_safe(e.lesson)}" for e in tally.lessons)])


def _words(e: Experiment) -> str:
    words = " ".join((e.description or e.hypothesis).split())
    return words if len(words) <= 100 else words[:99] + "…"


def _safe(text: str) -> str:
    """Text from an agent inside a Markdown table or list: one line, no markup of its own."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{character}" if character in "\\|`*_[]" else character for character in text)


def _strict(value: Any) -> Any:
    """The value as JSON can carry it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict) or hasattr(value, "items"):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value
