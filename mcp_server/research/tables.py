"""A run's history as rows: results.tsv, CSV, JSON lines, a LaTeX table, the points of a chart.

Everything is made in one pass over an iterator of experiments in order of `number`, so an export can stream.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mcp_server.research.experiment import FINISHED, Experiment, Numbers, Run, Status
from mcp_server.research.task import Task
from mcp_server.research.verdict import finite, show

CSV_COLUMNS = (
    *("experiment", "commit", "status", "metric", "value", "standard_error", "runs", "better_by", "category"),
    *("what", "peak_memory_gb", "origin", "verification", "told"),
)
LONGEST_WORDS = 100

_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_LATER_FORMULA = re.compile(r"([,;\t]\s*)(?=[=@\uff1d\uff0b\uff0d\uff20]|[+-][^\d\s.])")
"""Where a program that parts columns by another character than we would begin a cell with a formula."""


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


def results_line(experiment: Experiment, task: Task, said: str = "") -> str:
    """One line of results.tsv, without its end: commit, value, memory in GiB, status, description.

    Args:
        said: what may be told of it, which follows its description in brackets.
    """
    crashed = experiment.status == "crash"
    value = 0.0 if crashed or experiment.value is None else experiment.value
    memory = None if crashed else finite(experiment.metrics.get("peak_vram_mb"))
    what = " ".join((experiment.description or experiment.hypothesis).split())
    what = harmless(f"{what} ({said})" if said else what)
    return f"{harmless(experiment.commit[:7])}\t{value:.6f}\t{(memory or 0.0) / 1024:.1f}\t{experiment.status}\t{what}"


def to_tsv(experiments: Iterable[Experiment], task: Task) -> Iterator[str]:
    """The lines of results.tsv, each with its end: the header, then every finished experiment."""
    yield f"commit\t{task.metric}\tmemory_gb\tstatus\tdescription\n"
    for experiment in experiments:
        if experiment.status in FINISHED:
            yield results_line(experiment, task) + "\n"


def harmless(cell: str) -> str:
    """The text of a cell so that no spreadsheet takes it, or what follows a comma or semicolon in it, for a formula.

    What begins as one gets an apostrophe before it, which spreadsheets take for the mark of a text; numbers stay as
    they are. The characters are those of OWASP's page on CSV injection, and their wide forms.
    """
    if _NUMBER.fullmatch(cell):
        return cell
    cell = _LATER_FORMULA.sub(r"\1'", cell)
    return f"'{cell}" if _FORMULA.match(cell) else cell


def to_jsonl(experiments: Iterable[Experiment]) -> Iterator[str]:
    """One line of strict JSON for each experiment, with its end; NaN and infinity are written as text."""
    for experiment in experiments:
        row = {name: value for name, value in vars(experiment).items() if name != "request"}
        yield json.dumps(_strict(row), ensure_ascii=False) + "\n"


def chart(experiments: Iterable[Experiment], task: Task) -> Iterator[Point]:
    """The finished experiments as points with the best so far; what was measured elsewhere is on no line with them."""
    best: float | None = None
    for e in experiments:
        if e.status not in FINISHED or e.imported:
            continue
        value = None if e.status == "crash" else e.value
        kept = e.status == "keep" and value is not None
        if kept and value is not None and (best is None or task.improvement(value, best) > 0):
            best = value
        yield Point(e.number, e.id, e.status, value, best, words(e) if kept else "")


@dataclass(frozen=True)
class Layout:
    """How a table is written: what comes first, a row for each experiment (empty to leave it out), what comes last."""

    head: str
    row: Callable[[Experiment], str]
    end: str = ""


def tsv_layout(task: Task, line: Callable[[Experiment, Task], str] = results_line) -> Layout:
    """The table of results.tsv, with the line of each finished experiment."""
    return Layout("".join(to_tsv([], task)), lambda e: f"{line(e, task)}\n" if e.status in FINISHED else "")


def jsonl_layout() -> Layout:
    """A line of JSON for each experiment, finished or not."""
    return Layout("", lambda e: "".join(to_jsonl([e])))


def csv_layout(task: Task, sigma: float | None, told: Callable[[Experiment], str] = lambda _: "") -> Layout:
    """A CSV table with a header.

    Args:
        sigma: the standard deviation of one run, from which the standard errors follow; None where it is not known.
        told: what may be told of an experiment, in few words.
    """

    def row(e: Experiment) -> str:
        if e.status not in FINISHED:
            return ""
        memory = finite(e.metrics.get("peak_vram_mb"))
        value = None if e.status == "crash" else e.value
        what = " ".join((e.description or e.hypothesis).split())
        error = standard_error(e, sigma)
        gigabytes = None if memory is None else round(memory / 1024, 3)
        first = (e.id, e.commit[:7], e.status, task.metric, value, error, e.runs, e.delta)
        return _csv_line((*first, e.category, what, gigabytes, e.origin, e.label, told(e)))

    return Layout(_csv_line(CSV_COLUMNS), row)


def latex_layout(run: Run, sigma: float | None, best: str | None) -> Layout:
    r"""A LaTeX table for a paper; it needs `\usepackage{booktabs}`.

    Args:
        sigma: the standard deviation of one run; None where it is not known.
        best: the id of the experiment whose value is set in bold.
    """
    task = run.task
    goal = "lower" if task.direction == "minimize" else "higher"
    metric = _tex(task.metric)

    def row(e: Experiment) -> str:
        if e.status not in FINISHED:
            return ""
        error = standard_error(e, sigma)
        value = "--" if e.value is None or e.status == "crash" else show(e.value)
        value = rf"\textbf{{{value}}}" if e.id == best else value
        value += "" if error is None else rf" $\pm$ {show(error)}"
        delta = "--" if e.delta is None else f"${e.delta:+.6g}$"
        return rf"    {e.number} & {_tex(words(e))} & {value} & {delta} & {e.runs or '--'} & {outcome(e)} \\" + "\n"

    head = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{metric} of every experiment; {goal} is better. $\pm$ is the standard error.}}",
        rf"  \label{{tab:{run.tag}}}",
        r"  \begin{tabular}{rlrrrl}",
        r"    \toprule",
        rf"    & Change & {metric} & Better by & Runs & Outcome \\",
        r"    \midrule",
    ]
    end = [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return Layout("\n".join(head) + "\n", row, "\n".join(end) + "\n")


def standard_error(experiment: Experiment, sigma: float | None) -> float | None:
    """The standard error of an experiment's value, in units of the metric; None where it cannot be known."""
    known = sigma is not None and experiment.runs and experiment.value is not None and experiment.origin == "measured"
    return sigma / math.sqrt(experiment.runs) if known and sigma is not None else None


def outcome(experiment: Experiment) -> str:
    """The verdict for a person: what the run started from is its baseline, and was not kept for being better."""
    return "baseline" if experiment.status == "keep" and experiment.unchanged else experiment.status


def words(experiment: Experiment) -> str:
    """What an experiment did, on one line of at most 100 characters."""
    text = " ".join((experiment.description or experiment.hypothesis).split())
    return text if len(text) <= LONGEST_WORDS else f"{text[: LONGEST_WORDS - 1]}…"


def _strict(value: Any) -> Any:
    """The value as JSON can carry it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Numbers):
        return _strict(vars(value))
    if isinstance(value, dict) or hasattr(value, "items"):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    cells = ("" if value is None else harmless(value) if isinstance(value, str) else value for value in values)
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


_TEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "…": "\\ldots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _tex(text: str) -> str:
    """Text as LaTeX sets it, whatever it holds."""
    return "".join(_TEX.get(character, character) for character in text)
