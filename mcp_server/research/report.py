"""The report on a run as Markdown: what was found, how sure it is, what did not work, and what to try next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mcp_server.research.claims import Assessment, Claim
from mcp_server.research.evidence import Count, Evidence
from mcp_server.research.experiment import FINISHED, HIDDEN_TEXT, Experiment, Label, Run, Status
from mcp_server.research.guidance import noise_text
from mcp_server.research.marking import cited
from mcp_server.research.suggestions import suggest
from mcp_server.research.tables import words
from mcp_server.research.task import Category
from mcp_server.research.verdict import show

IMPROVEMENTS, FAILURES, LESSONS, DISPLACED = 20, 3, 10, 10
"""The most that a report names: improvements, failures of each category, lessons, keeps to apply again."""
STEPS = 5
"""The most next steps that it recommends; `suggest` gives at least three where the script has something to try."""
NAMES: Mapping[Status, str] = {"keep": "kept", "discard": "discarded", "crash": "crashed"}


@dataclass(frozen=True)
class Account:
    """All that a report is made from; "the period" is the whole run, or what came after `since`.

    Attributes:
        evidence: of the run as it now is.
        counts: experiments of the period by status.
        categories: tries and keeps of the period.
        improvements: what was kept in the period, the largest gain first, without the baseline.
        failures: for each category the latest of the period that were not kept, near misses included.
        lessons: of the period, the newest first.
        displaced: keeps that the present best does not contain, the newest first.
        training_seconds: wall seconds that trials took on their devices, over the whole run.
        now: seconds since the epoch.
        since: the period's begin in seconds since the epoch; None for the whole run.
        before: the best when the period began.
        error: the standard error of the best's value; None where it is not known.
        ended: why the run is over; empty while it goes on.
        imported: how many experiments were taken from a table of an earlier session.
        starved: of trainings that were starved; empty without any.
        load: that noise follows the machine's load; empty where it does not.
    """

    run: Run
    evidence: Evidence
    counts: Mapping[Status, int]
    now: float
    categories: Mapping[Category, Count] = field(default_factory=dict)
    improvements: Sequence[Experiment] = ()
    failures: Mapping[Category, Sequence[Experiment]] = field(default_factory=dict)
    lessons: Sequence[Experiment] = ()
    displaced: Sequence[Experiment] = ()
    training_seconds: float = 0.0
    since: float | None = None
    before: Experiment | None = None
    error: float | None = None
    ended: str = ""
    imported: int = 0
    starved: str = ""
    load: str = ""


def to_markdown(account: Account) -> str:
    """The report, as a page that stands by itself."""
    title = "Summary" if account.ended else "Progress"
    sections = [
        f"# {title} of run {safe(account.run.tag)}\n\n{_opening(account)}",
        _result(account),
        _improvements(account),
        _failures(account),
        _list("Worth applying again", _displaced(account)),
        _list("Lessons", [f"{safe(e.id)} ({e.status}): {safe(e.lesson)}" for e in account.lessons[:LESSONS]]),
        _list("Recommended next steps", [safe(step) for step in next_steps(account)], "1."),
        _conditions(account),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def next_steps(account: Account) -> list[str]:
    """What to do next, by the record: at most five steps, what is owed first."""
    again = [
        f"{e.id} was kept and is not in the best: apply its change ({cited(words(e))}) once more."
        for e in account.displaced[:1]
    ]
    return [*again, *suggest(account.run, account.evidence).suggestions][:STEPS]


def safe(text: str) -> str:
    """Text from an agent inside a Markdown table or list: one line, no markup of its own."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{character}" if character in "\\|`*_[]" else character for character in text)


def _opening(account: Account) -> str:
    task = account.run.task
    goal = "lower" if task.direction == "minimize" else "higher"
    period = f" This is what happened since {_moment(account.since)}." if account.since is not None else ""
    state = f"The run is over: {account.ended}." if account.ended else f"As of {_moment(account.now)}."
    return f"`{task.metric}`, {goal} is better. {state}{period}"


def _result(account: Account) -> str:
    rows = [*_scores(account), ("Experiments", _counts(account))]
    if account.imported:
        rows.append(("Imported", f"{account.imported} of an earlier session, as they were reported; not measured here"))
    task = account.run.task
    if task.policy == "greedy":
        noise = "not measured: policy greedy keeps whatever came out better once"
    else:
        noise = noise_text(account.evidence, task.metric)
    rows.append(("Noise", f"{noise} {safe(account.load)}".strip()))
    if account.starved:
        rows.append(("Starved", safe(account.starved)))
    return "\n".join(["## Result", "", *_grid(rows)])


def _scores(account: Account) -> Iterator[tuple[str, str]]:
    """Baseline, best and gain, as far as there are any."""
    baseline, best, task = account.evidence.baseline, account.evidence.best, account.run.task
    if baseline is None or best is None or baseline.value is None or best.value is None:
        yield "Best", "none yet"
        return
    start, name = (account.before, "Best before") if account.since is not None else (baseline, "Baseline")
    if start is not None and start.value is not None:
        yield name, f"{show(start.value)} by {safe(start.id)}"
    error = f" ± {show(account.error)}" if account.error is not None else ""
    yield "Best", f"**{show(best.value)}{error}** by {safe(best.id)} ({best.commit[:7]}): {safe(words(best))}"
    yield "Confirmed", _confirmed(account, best)
    assessment = account.evidence.assessment
    if assessment is not None and assessment.total is not None:
        yield "Against the baseline", assessment.total.words()
    yield "Scored", _scored(best)
    if start is not None and start.value is not None:
        gain = task.improvement(best.value, start.value)
        yield "Better by", show(gain) + (f" ({gain / abs(start.value):.2%})" if start.value else "")


VERIFIED: Mapping[Label, str] = {
    "verified": "verified: anew, out of the training's reach",
    "verified (hidden text readable)": "verified (hidden text readable): anew, and audited on text in its reach",
    "verified (unsandboxed)": "verified (unsandboxed): anew, with no walls around the training",
    "reported": "reported: by the training's own word",
}
"""How the best was scored."""


def _scored(best: Experiment) -> str:
    why = best.metrics.get(HIDDEN_TEXT)
    return VERIFIED[best.label] + (f" (hidden text {safe(str(why))})" if why else "")


def _confirmed(account: Account, best: Experiment) -> str:
    if best.origin == "reported":
        return "no: as it was reported"
    standing = account.evidence.standing
    if standing is None:
        return "no: policy greedy measures once"
    runs = f"{standing.runs} run{'s' if standing.runs > 1 else ''}"
    return f"yes, the mean of {runs}" if standing.confirmed else f"no, {runs}: likely optimistic"


def _counts(account: Account) -> str:
    """The experiments by what became of them; the baseline is the start, and no change that was kept."""
    total = sum(account.counts.values())
    start = int(account.since is None and account.evidence.baseline is not None and account.counts.get("keep", 0) > 0)
    kept = account.counts.get("keep", 0) - start
    counts = {status: kept if status == "keep" else number for status, number in account.counts.items()}
    changes = sum(counts.get(status, 0) for status in FINISHED)
    most = account.run.task.max_experiments
    named = [f"{number} {NAMES.get(status, status)}" for status, number in sorted(counts.items()) if number]
    parts = ["1 baseline", *named] if start else named
    rate = f"; {kept / changes:.0%} kept" if changes else ""
    of_most = f" of {most}" if most is not None and account.since is None else ""
    return f"{total}{of_most}: {', '.join(parts)}{rate}" if total else f"none{of_most}"


def _improvements(account: Account) -> str:
    if not account.improvements:
        return ""
    head = f"| | change | {account.run.task.metric} | better by | runs | told | category | experiment |"
    assessment = account.evidence.assessment
    claims = assessment.steps if assessment is not None else {}
    rows = [
        f"| {place} | {safe(words(e))} | {_value(e)} | {_better_by(e, claims.get(e.id))} | {e.runs or ''} | "
        f"{_told(claims.get(e.id))} | {e.category} | {safe(e.id)} ({e.commit[:7]}) |"
        for place, e in enumerate(account.improvements[:IMPROVEMENTS], 1)
    ]
    title = "Improvements, the largest first"
    return "\n".join([f"## {title}", "", head, "|---:|---|---:|---:|---:|---|---|---|", *rows])


def _better_by(e: Experiment, claim: Claim | None) -> str:
    """The gain over what the change was built on: what is believed now, or that of its verdict."""
    return show(e.delta or 0.0) if claim is None else f"{show(claim.gain)} ± {show(claim.error)}"


def _told(claim: Claim | None) -> str:
    """Whether a gain may be told as a fact."""
    if claim is None:
        return "provisional"
    return f"{'claimed' if claim.claimed else 'provisional'}, p {claim.probability:.2f}"


def _failures(account: Account) -> str:
    """What was not kept, by category, the most tried first."""
    lines = []
    for category, count in sorted(account.categories.items(), key=lambda each: (-each[1].tries, each[0])):
        failed = account.failures.get(category, ())
        if not failed:
            continue
        lines += [f"- **{category}**: {count.tries - count.keeps} of {count.tries} not kept"]
        lines += [f"  - {safe(e.id)}: {safe(words(e))} ({_outcome(e)})" for e in failed[:FAILURES]]
    return "\n".join(["## What did not work", "", *lines]) if lines else ""


def _displaced(account: Account) -> list[str]:
    assessment = account.evidence.assessment
    return [
        f"{safe(e.id)} ({e.commit[:7]}): {safe(words(e))}, {_value(e)}, better by {show(e.delta or 0.0)} than what it "
        f"was made from{_believed(e, assessment)}; the best was made without it"
        for e in account.displaced[:DISPLACED]
    ]


def _believed(e: Experiment, assessment: Assessment | None) -> str:
    """What may be told of a change that is not in the best, in brackets; empty where that is not known."""
    return "" if assessment is None or e.numbers is None else f" ({assessment.of(e.numbers).brief()})"


def _conditions(account: Account) -> str:
    run, task = account.run, account.run.task
    name = run.platform.get("device_name", "")
    device = run.device_kind if name.casefold() in ("", run.device_kind) else f"{run.device_kind}, {name}"
    last = max((e.decided_at or 0.0 for e in account.evidence.recent), default=None)
    rows = [
        ("Began", _moment(run.created_at)),
        ("Last verdict", _moment(last) if last else "none yet"),
        ("Platform", f"{safe(device)}, {run.platform.get('devices', '1')} device(s)"),
        ("Budget", f"{task.time_budget_seconds:g} s a training; {account.training_seconds / 60:.1f} minutes trained"),
        ("Command", safe(task.command)),
        ("Policy", task.policy + (", external" if task.external else "")),
        ("Branch", f"{safe(run.branch)}, from {run.base_commit[:12]}"),
    ]
    return "\n".join(["## Conditions", "", *_grid(rows)])


def _grid(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _list(title: str, lines: Sequence[str], mark: str = "-") -> str:
    return "\n".join([f"## {title}", "", *(f"{mark} {line}" for line in lines)]) if lines else ""


def _value(e: Experiment) -> str:
    return "" if e.value is None or e.status == "crash" else show(e.value)


def _outcome(e: Experiment) -> str:
    if e.status == "crash":
        reason = safe(e.reason)
        return f"crashed: {reason[:120]}" if reason else "crashed"
    if not e.near_miss:
        return f"worse by {show(abs(e.delta))}" if e.delta else "worse"
    kind = f"near miss by {'noise' if e.numbers else 'threshold'}"
    return f"{kind}, {'better' if e.delta > 0 else 'worse'} by {show(abs(e.delta))}" if e.delta else kind


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
