"""Scoring what a training left anew, out of its reach: by the task's scorer and judge, each other's output their input.

Both run from a checkout of the commit that the run began with. The scorer has what the training left, and neither the
targets nor the record; the judge has the data, and asks. A judge that prints `again: 1` is given another pass, with a
fresh scorer that finds nothing of the pass before; what the judge keeps for the next lies in a folder of its own.
"""

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_server.errors import ResearchError
from mcp_server.machine import child
from mcp_server.machine.effort import Meter
from mcp_server.machine.environment import MEMORY, command_words, confined
from mcp_server.machine.faults import (
    MOST_MEMORY,
    MachineFault,
    check_not_killed,
    check_started,
    check_trusted,
    is_machines,
    tried,
)
from mcp_server.machine.git import check_out, restore
from mcp_server.machine.harness import check_out_harness, harness_environment
from mcp_server.machine.hidden import in_reach, noted
from mcp_server.machine.logfile import BoundedLog
from mcp_server.machine.memory import total_bytes, used_share
from mcp_server.machine.outcome import last_words
from mcp_server.machine.rig import HANDED_IN, Order, Rig, handed_in
from mcp_server.machine.sandbox import exit_code, find_sandbox, walled
from mcp_server.machine.trees import remove
from mcp_server.machine.views import SCRIPT, judge_view, scorer_view
from mcp_server.research.case import Case
from mcp_server.research.experiment import Ending, Run, Scalar, TrialStatus, Verification
from mcp_server.research.hidden_text import AUDIT
from mcp_server.research.metrics import parse_metrics, quoted
from mcp_server.research.rescoring import PRINTED, Rescored, fault, to_be_rescored
from mcp_server.research.rows import LONGEST, bears_out
from mcp_server.research.verdict import finite, show

NOTHING_HELD = 3
"""The exit code of a judge that has no such data as it is asked to score."""
LONGEST_QUOTE = 400
MOST_PASSES = 8
"""So often a judge may ask again."""
AFTER_TOKENS = "before its last answer"
"""What our judge says of a scorer that failed after it was shown text. Its own words then may hold that text, and are
nobody's to read."""
PROGRAM, _, PICKLE = HANDED_IN
FOLDER, PRIVATE = "scoring", "judged"
ROWS = "rows.json"
"""What a judge may leave in its private folder: the scores by row."""
SCORERS_MEMORY = 0.75
"""The share of the machine's memory that a scorer on a CPU may have: it runs what a training handed in."""
OURS = {"loader", "verification", "not_verified", "hidden_text"}
"""Metrics that say how a score came about, and that no training gives itself."""
LEFT = (FOLDER, PRIVATE, SCRIPT, "tmp-scorer", "tmp-judge")
"""Folders of a trial that are deleted once it is scored."""

Ask = Callable[[], Awaitable[child.EndedBy | None]]


@dataclass(frozen=True)
class Room:
    """Where scorer and judge work on one trial.

    Attributes:
        checkout: of the commit that the run began with.
        busy: the descriptor of the device's busy lock, which both inherit.
        ask: see `child.run`.
    """

    rig: Rig
    order: Order
    checkout: Path
    sandbox: str | None
    busy: int
    ask: Ask

    @property
    def place(self) -> Path:
        """The working directory of both."""
        return self.checkout / self.order.task.folder

    @property
    def code(self) -> str:
        """The folder of the trial with the training script that the scorer finds."""
        return SCRIPT if handed_in(self.order) else "checkout"

    @property
    def private(self) -> Path:
        """The folder that the judge alone sees, for as long as a trial is scored."""
        return self.order.folder / PRIVATE

    def environment(self, role: str, split: str, number: int) -> dict[str, str]:
        """All that one of them sees in a pass; its mark is its own below that of the device."""
        order = self.order
        own = {"AUTORESEARCH_PASS": str(number), "AUTORESEARCH_PRIVATE": str(self.private)} if role == "judge" else {}
        return harness_environment(self.rig, order, self.checkout, role, bool(self.sandbox)) | {
            **own,
            "AUTORESEARCH_SPLIT": split,
            "AUTORESEARCH_SANDBOXED": "1" if self.sandbox else "0",
            "AUTORESEARCH_SCRIPT": str(order.folder / self.code / order.task.train_script),
        }


class Unscored(ResearchError):  # noqa: N818 - a finding
    """What the training left cannot be scored."""


class Ended(Exception):  # noqa: N818 - no error: somebody wished it
    """Scoring was ended from outside."""

    def __init__(self, by: child.EndedBy) -> None:
        super().__init__(by)
        self.by = by


class EndsItself(MachineFault):
    """What the training left ended its scorer, as far as can be told: tried again, and its own doing at last.

    Else a training that does not like its score could be lost by its scorer's end, and be run again.
    """


@dataclass(frozen=True)
class Question:
    """A trial that has just been trained: its run, its case before it, and how it ended."""

    run: Run
    case: Case
    ending: Ending


async def settle(rig: Rig, order: Order, question: Question, busy: int, ask: Ask) -> Ending:
    """How a trial ended once its score is made anew, where it has to be; else as it ended.

    Where the machine is at fault (scorer or judge were killed, the disk is full), it is tried again, and the trial is
    `lost` at last.

    Args:
        busy: the descriptor of the device's busy lock, for scorer and judge to inherit.
        ask: see `child.run`.
    """
    run, case, ending = question.run, question.case, question.ending
    if run.task.rescore_command:
        ending = replace(ending, metrics=_without_ours(run, ending.metrics))
    if not to_be_rescored(run, case, order.trial, ending):
        return ending
    printed = finite(ending.metrics.get(run.task.metric))
    assert printed is not None
    try:
        rescored, why = await tried(
            lambda: rescore(rig, order, busy, ask, lambda found: fault(run, case, printed, found)), _say
        )
    except Ended as ended:
        status: TrialStatus = "stopped" if ended.by == "stop" else "lost"
        return replace(ending, status=status, metrics={}, error="It was ended while its score was made anew.")
    except Unscored as unscored:
        return rejected(run, ending, unscored.what)
    except (ResearchError, OSError) as error:
        if isinstance(error, EndsItself):
            return rejected(run, ending, error.what)
        if is_machines(error):
            return replace(ending, status="lost", metrics={}, error=f"Its score could not be made anew: {error}")
        return replace(ending, metrics={**ending.metrics, "not_verified": str(error)[:LONGEST_QUOTE]})
    if why:
        return rejected(run, ending, why, rescored)
    walls = ending.sandboxed and find_sandbox(rig.settings.sandbox) is not None
    why = in_reach(rig.settings, order.task, rig.repository.root, walls) if rescored.audit is not None else ""
    return noted(earned(run, ending, rescored, walls), why)


async def rescore(
    rig: Rig, order: Order, busy: int, ask: Ask, doubt: Callable[[Rescored], str]
) -> tuple[Rescored, str]:
    """Score what a trial left in its folder, on the audit data too where the score on the validation data may count.

    Args:
        doubt: why what was found so far does not count; empty where it does.

    Returns:
        What was found, and why it does not count.

    Raises:
        Unscored: scorer or judge says that it cannot be scored.
        Ended: `ask` said so.
        MachineFault: scorer or judge were killed, or the judge found no room.
        ResearchError, OSError: the checkout cannot be made.
    """
    _check_handed_in(order.folder / "out")
    checkout = order.folder / FOLDER
    remove(checkout)  # of a try before
    check_out_harness(rig.repository, order.base_commit, checkout, order.task)
    _show_script(rig, order)
    room = Room(rig, order, checkout, find_sandbox(rig.settings.sandbox), busy, ask)
    values = await _passes(room, "val")
    if values is None:
        raise Unscored("the judge has no validation data", "Mend scorer.judge")
    said = _rows_left(room.private)  # before another split's passes
    found = Rescored(
        value=_score(values, "score"),
        audit=_score(values, "audit") if "audit" in values else None,
        fingerprint=str(values.get("fingerprint", "")),
        loader=str(values.get("loader", "")),
        partial=bool(values.get("partial", 0)),
    )
    why = doubt(found)
    if not why and found.audit is None and (audit := await _passes(room, "audit")) is not None:
        found = replace(found, audit=_score(audit, "score"))
    return (replace(found, rows=said) if bears_out(said, found.value, found.audit) else found), why


def _show_script(rig: Rig, order: Order) -> None:
    """Write the trial's commit to where the scorer finds it: for that of our harness, to a folder in which nothing of
    the training's is. Of the model's files, the times become the same for all, since reading one changes them too.
    """
    model = handed_in(order)
    if not model:
        restore(rig.repository, order.trial.commit, order.folder / "checkout")
        return
    remove(order.folder / SCRIPT)  # of a try before
    check_out(rig.repository, order.trial.commit, order.folder / SCRIPT, order.task.inputs)
    for path in filter(Path.exists, model):
        os.utime(path, (0, 0))


def _check_handed_in(out: Path) -> None:
    """Raise Unscored where what was handed in lies behind a link, or is a pipe or the like, on which one waits."""
    for name in HANDED_IN:
        if os.path.lexists(out / name) and not stat.S_ISREG((out / name).lstat().st_mode):
            raise Unscored(f"{name}, which was handed in, is no regular file", "Let the harness hand the model in")


def earned(run: Run, ending: Ending, rescored: Rescored, sandboxed: bool) -> Ending:
    """The ending of a trial whose score is now that of the judge."""
    kept = _without_ours(run, ending.metrics)
    metrics = kept | rescored.metrics(run, ending.metrics.get(run.task.metric))
    behind = sandboxed and ending.sandboxed
    verification: Verification = "verified" if behind else "verified (unsandboxed)"
    return replace(ending, metrics=metrics, verification=verification, rows=rescored.rows)


def rejected(run: Run, ending: Ending, why: str, rescored: Rescored | None = None) -> Ending:
    """The ending of a trial whose score does not count: the metric itself is gone, its values have other names."""
    name = run.task.metric
    printed = ending.metrics.get(name)
    metrics = _without_ours(run, ending.metrics) | {f"{name}_{PRINTED}": printed if printed is not None else "nothing"}
    metrics.pop(name, None)
    numbers = f"printed {name} {_shown(printed)}"
    if rescored is not None:
        again = rescored.metrics(run, printed)
        metrics |= {f"{name}_rescored": again.pop(name), **again}
        numbers += f", scored anew {_shown(rescored.value)}"
        numbers += "" if rescored.audit is None else f", on the hidden text {_shown(rescored.audit)}"
    return replace(ending, metrics=metrics, error=f"rejected ({numbers}): {why}.")


def _rows_left(folder: Path) -> str:
    """What the judge left of its rows, of which no more is read than is taken; empty where it left nothing."""
    try:
        with (folder / ROWS).open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST + 1)
    except OSError:
        return ""


def _without_ours(run: Run, metrics: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Metrics without those that only the judge gives, whatever a training printed under their names."""
    ours = {f"{run.task.metric}_{part}" for part in (PRINTED, AUDIT, "rescored")} | OURS
    return {name: value for name, value in metrics.items() if name not in ours}


def _shown(value: Scalar | None) -> str:
    number = finite(value)
    return str(value) if number is None else show(number)


def _quote(log: str) -> str:
    return quoted(last_words(log), LONGEST_QUOTE)


async def _passes(room: Room, split: str) -> dict[str, Scalar] | None:
    """As many passes over a split as the judge asks for: what it printed last; None where it has no such data."""
    remove(room.private)
    room.private.mkdir(mode=0o700)
    for number in range(1, MOST_PASSES + 1):
        values = await _pass(room, split, number)
        if values is None or not finite(values.get("again")):
            return values
    raise Unscored(f"the judge of the {split} data asked for more than {MOST_PASSES} passes", "Mend scorer.judge")


async def _pass(room: Room, split: str, number: int) -> dict[str, Scalar] | None:
    """One pass, in processes of its own: what the judge printed; None where it has no such data."""
    remove(room.order.folder / "tmp-scorer")  # where the scorer before could leave word
    questions, answers = os.pipe(), os.pipe()
    task, rig = room.order.task, room.rig
    # What others have of their time does not count; either waits for the other, so that each meter sees both.
    meters = [Meter(rig.device, rig.lock.mark, groups=False) for _ in ("scorer", "judge")]
    results = await asyncio.gather(
        _run(room, "scorer", task.rescore_command, (split, number), (questions[0], answers[1]), meters[0]),
        _run(room, "judge", task.judge_command, (split, number), (answers[0], questions[1]), meters[1]),
        return_exceptions=True,  # if one could not be started, the other ends by itself
    )
    scored, judged = results
    if isinstance(scored, BaseException) or isinstance(judged, BaseException):
        raise next(each for each in results if isinstance(each, BaseException))
    (scorer, scorers_words), (judge, judges_words) = scored, judged
    for end in (scorer, judge):
        if end.by in ("stop", "shutdown"):
            raise Ended(end.by)
    check_scorer(room.order, scorer)
    check_trusted(judge, "The judge", judges_words, room.order.folder)
    if judge.code == NOTHING_HELD:
        return None
    if judge.code == 0 and judge.by == "itself":
        return parse_metrics(judges_words)
    told = f"the judge of the {split} data failed: {_quote(judges_words)}"
    if "deadline" in (judge.by, scorer.by):
        told = f"scoring it anew took more than {task.deadline_seconds:g} s; {told}"
    if scorer.code not in (0, None) and "BrokenPipe" not in scorers_words:
        shown = AFTER_TOKENS in judges_words
        words = "it was shown text, so that its words are not repeated" if shown else _quote(scorers_words)
        told += f"; the scorer failed: {words}"
    raise Unscored(told, "Let the harness evaluate the model that was trained")


def check_scorer(order: Order, end: child.Exit) -> None:
    """Raise EndsItself where a scorer was killed that runs code of the training's, or for want of memory that nobody
    else has; MachineFault where it was killed otherwise.
    """
    try:
        check_not_killed(end, "The scorer")
    except MachineFault as fault:
        out = order.folder / "out"
        code = (out / PICKLE).exists() and not (out / PROGRAM).exists()
        if used_share() <= MOST_MEMORY if end.starved else code:
            why = "wants more memory than there is" if end.starved else "is imported, and may have ended it"
            raise EndsItself(f"{fault.what}; the model that was handed in {why}", fault.todo) from fault
        raise


async def _run(
    room: Room, role: str, command: str, which: tuple[str, int], pipes: tuple[int, int], meter: Meter
) -> tuple[child.Exit, str]:
    """Run one of the two in a pass over a split, with its errors in a log of its own."""
    order, environment = room.order, room.environment(role, *which)
    words = command_words(order.task, command)
    if room.sandbox:
        if role == "scorer":
            view = scorer_view(room.rig, order, room.checkout)
        else:
            view = judge_view(room.rig, order, room.checkout)
            view = replace(view, writable=[*view.writable, room.private])
        words = walled(room.sandbox, view, room.place, confined(*words))
    if role == "scorer" and room.rig.device.kind == "cpu":
        environment[MEMORY] = f"{int(SCORERS_MEMORY * total_bytes())}"
    split, number = which
    log = BoundedLog(order.folder / (f"{role}-{split}.txt" if number == 1 else f"{role}-{split}-{number}.txt"))
    deadline = order.task.deadline_seconds
    try:
        end = await child.run(
            words, room.place, environment, log, deadline, room.ask, [room.busy], pipes=pipes, meter=meter
        )
        check_started(end, f"the {role}", bool(room.sandbox), log.text())
        return (replace(end, code=exit_code(end.code)) if room.sandbox else end), log.text()
    finally:
        log.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - to the worker's log


def _score(said: Mapping[str, Scalar], name: str) -> float:
    value = finite(said.get(name))
    if value is None:
        raise Unscored(f"the judge gives the {name} {said.get(name)!r}", "Mend the model")
    return value
