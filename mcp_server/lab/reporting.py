"""Reports: on demand, after every ten experiments, and at the end of a run beside its results file."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.lab.accounting import account_of, ended
from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.ledger import list_results
from mcp_server.lab.results import Reported
from mcp_server.machine.beneath import replace_beneath
from mcp_server.machine.git import locked
from mcp_server.research.experiment import Run
from mcp_server.research.marking import Document
from mcp_server.research.report import to_markdown

SUMMARY = "autoresearch-summary"
"""The name of the report at the end of a run, without its ending."""
EVERY = 10
"""After so many verdicts there is a progress report."""
MOST_NAMES = 100
LOCK_SECONDS = 10.0

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([mhd])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_MARK = re.compile(r"<!-- autoresearch: run (\S+), (\w+) -->\n")


@dataclass(frozen=True)
class Standing:
    """What is to be said of a run after a verdict.

    Attributes:
        ended: why it is over; empty while it goes on.
        summary: the report that was written because it is over.
        notes: what the user should know.
    """

    ended: str = ""
    summary: Path | None = None
    notes: tuple[str, ...] = ()


class Reporting:
    """Writes reports."""

    def __init__(self, bench: Bench, branch: Branch) -> None:
        self._bench = bench
        self._branch = branch

    async def report(
        self,
        tag: Annotated[str | None, "The run; default: the newest"] = None,
        since: Annotated[str | None, "Only what came after: 22:00, 8h, 2d or 2026-03-08T22:00"] = None,
        save: Annotated[bool, "True: write it as autoresearch-summary.md beside the results file"] = False,
    ) -> Reported:
        """Report on a run in Markdown: best against baseline, ranked improvements, what did not work, next steps."""
        run = await self._bench.store.runs.named(tag)
        begin = None if since is None else moment(since, datetime.now(UTC).astimezone())
        account = await account_of(self._bench, self._branch, run, begin)
        text = to_markdown(account)
        if save:  # of an agent that was ended in between, the last verdict may not be in the results file yet
            await list_results(self._bench, run)
        path = await self._save(run, text) if save else None
        return Reported(
            tag=run.tag,
            ended=bool(account.ended),
            experiments=sum(account.counts.values()),
            text=None if path else Document(text),
            path=str(path) if path else None,
            next_action=f"Show it to the user; finalize(tag={run.tag!r}) shows what to merge"
            if account.ended
            else f"Show it to the user, or go on: call suggest(tag={run.tag!r})",
        )

    async def after_verdict(self, run: Run) -> Standing:
        """Write the report that is due after a verdict, if one is: of every tenth, and of a run that is over."""
        over = await ended(self._bench, run)
        try:
            if over:
                text = to_markdown(await account_of(self._bench, self._branch, run))
                return Standing(over, await self._save(run, text))
            return Standing(notes=await self._progress(run))
        except (OSError, NotReady) as error:
            note = f"The report could not be written ({error}); `autoresearch report` gives its text."
            return Standing(over, notes=(note,))

    async def _progress(self, run: Run) -> tuple[str, ...]:
        due = await self._bench.store.periods.verdicts(run.tag) // EVERY * EVERY
        path = self._bench.folders.reports(run.tag) / f"progress-{due:04}.md"
        if not due or path.exists():
            return ()
        text = to_markdown(await account_of(self._bench, self._branch, run))
        await self._bench.run(_write, path, text)
        return (f"Progress report after {due} experiments: {path}",)

    async def _save(self, run: Run, text: str) -> Path:
        """Write a report beside the results file, in place of an earlier one of this run; never over anything else."""
        repository = self._bench.repository
        committed = set(await self._bench.run(repository.files, await self._bench.run(repository.resolve, "HEAD")))
        folder = PurePosixPath(run.task.results_file).parent
        with locked(self._bench.folders.state / "report.lock", LOCK_SECONDS):
            for name in _names(run.tag):
                path = repository.root / folder / name
                if str(folder / name) not in committed and _may_write(path, run.tag):
                    inside = str(folder / name)
                    await self._bench.run(replace_beneath, repository.root, inside, f"{_mark(run.tag, text)}{text}")
                    return path
        raise NotReady(f"{SUMMARY}.md and its other names are taken", "Move them away")


def moment(text: str, now: datetime) -> float:
    """When a report begins, in seconds since the epoch.

    Args:
        text: a time of day (the last such moment before `now`, in its time zone), a span such as `8h`, `30m` or `2d`
            before `now`, or a date with or without a time.

    Raises:
        InvalidInput: it is none of these.
    """
    text = text.strip()
    try:
        if span := _SPAN.fullmatch(text):
            return (now - timedelta(seconds=float(span[1]) * _SECONDS[span[2]])).timestamp()
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            hour, minute = map(int, text.split(":"))
            begin = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (begin if begin <= now else begin - timedelta(days=1)).timestamp()
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=now.tzinfo)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"since is {text[:60]!r}, which is no time", "Give one such as 22:00, 8h, 2d or 2026-03-08T22:00"
        ) from None


def _names(tag: str) -> list[str]:
    """The names that the report of a run may have, the first that is free or its own to be taken."""
    own = f"{SUMMARY}-{tag}"
    return [f"{SUMMARY}.md", f"{own}.md", *(f"{own}-{number}.md" for number in range(2, MOST_NAMES))]


def _mark(tag: str, text: str) -> str:
    """The line by which a report is known as written here, for this run, and untouched since."""
    return f"<!-- autoresearch: run {tag}, {hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def _may_write(path: Path, tag: str) -> bool:
    """Whether nothing is there, or an earlier report of this run that nobody has edited."""
    if path.is_symlink() or path.is_dir():
        return False
    if not path.exists():
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    mark = _MARK.match(text)
    return mark is not None and mark[0] == _mark(tag, text[mark.end() :])


def _write(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
