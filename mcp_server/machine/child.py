"""One command in a process of its own: its output in a bounded log, its deadline, its end with all that it started."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcp_server.machine import processes
from mcp_server.machine.effort import Meter
from mcp_server.machine.environment import LAUNCHED, MARK, launched
from mcp_server.machine.logfile import BoundedLog

EndedBy = Literal["itself", "deadline", "stop", "shutdown"]
"""Who ended a command: itself, its deadline, a user who asked for it, or the end of the worker."""

GRACE = 3.0
"""Seconds from SIGTERM to SIGKILL."""

POLL = 0.25
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Exit:
    """How a command ended.

    Attributes:
        code: its exit code; minus the number of the signal that ended it; None if it could not be killed.
        seconds: wall time that it ran.
        starved: whether the system killed something for want of memory meanwhile, as far as it tells.
        launched: whether the command itself began; else what was to start it ended, see `launch`.
    """

    by: EndedBy
    code: int | None
    seconds: float
    starved: bool = False
    launched: bool = True


async def run(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: BoundedLog,
    deadline: float,
    ask: Callable[[], Awaitable[EndedBy | None]],
    inherited: Sequence[int] = (),
    given: Path = Path(os.devnull),
    pipes: tuple[int, int] | None = None,
    meter: Meter | None = None,
) -> Exit:
    """Run a command until it ends, and then end whatever it left behind.

    Args:
        folder: its working directory.
        environment: all that it sees, with the mark by which its processes are known.
        deadline: seconds that it may run; with a meter, those that others had of its cores do not count.
        ask: called several times a second; another answer than None ends the command.
        inherited: descriptors that it inherits.
        given: a file that it reads as its input.
        pipes: descriptors of its input and its output, which are closed here; then only its errors go to the log.
        meter: counts what it takes.
    """
    started = time.monotonic()
    mark, kills = environment[MARK], _kills_for_memory()
    (source, sink), (heard, tell) = _pipe(), _pipe()
    loop = asyncio.get_running_loop()
    try:
        try:
            with given.open("rb") as source_of_input:
                process = await asyncio.create_subprocess_exec(
                    *launched(*_attached(meter), str(os.getpid()), *words),
                    cwd=folder,
                    env={**environment, LAUNCHED: str(tell)},
                    stdin=pipes[0] if pipes else source_of_input,
                    stdout=pipes[1] if pipes else sink,
                    stderr=sink,
                    pass_fds=[*inherited, tell],
                    start_new_session=True,
                )
        finally:
            for descriptor in (sink, tell, *(pipes or ())):
                os.close(descriptor)
        if meter:
            meter.begin()
        loop.add_reader(source, _pump, loop, source, log)
        ended = asyncio.ensure_future(process.wait())
        by = await _watch(ended, deadline, ask, log, meter)
        seconds = time.monotonic() - started
        await processes.end(mark, process.pid, GRACE if by != "itself" else 0.0)
        await asyncio.wait({ended}, timeout=processes.PATIENCE)
        loop.remove_reader(source)
        _drain(source, log)
        return Exit(by, _code(ended), seconds, _kills_for_memory() > kills, _was_told(heard))
    finally:
        loop.remove_reader(source)
        os.close(source)
        os.close(heard)


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe, the first of which never waits."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    return out, into


def _code(ended: "asyncio.Future[int]") -> int | None:
    return ended.result() if ended.done() else None


def _was_told(heard: int) -> bool:
    """Whether the launcher said that the command began."""
    try:
        return bool(os.read(heard, 1))
    except BlockingIOError:
        return False


def _attached(meter: Meter | None) -> list[str]:
    """How the command is started, see `launch`."""
    return ["counted", str(meter.entrance)] if meter and meter.entrance else ["attached"]


def _kills_for_memory() -> int:
    """How many processes Linux has killed for want of memory since it started; 0 elsewhere."""
    try:
        counts = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counts, re.MULTILINE)
    return int(found[1]) if found else 0


async def _watch(
    ended: "asyncio.Future[int]",
    deadline: float,
    ask: Callable[[], Awaitable[EndedBy | None]],
    log: BoundedLog,
    meter: Meter | None,
) -> EndedBy:
    """Wait for the command's end, or for a reason to end it."""
    started = time.monotonic()
    while True:
        remaining = deadline - (time.monotonic() - started)
        await asyncio.wait({ended}, timeout=min(POLL, remaining) if remaining > 0 else POLL)
        if meter:
            await asyncio.to_thread(meter.look)
        if ended.done():
            return "itself"
        if remaining <= 0 and (meter is None or meter.overdue(deadline)):
            return "deadline"
        log.flush()
        if by := await ask():
            return by


def _pump(loop: asyncio.AbstractEventLoop, source: int, log: BoundedLog) -> None:
    with contextlib.suppress(BlockingIOError):
        if data := os.read(source, CHUNK):
            log.write(data)
        else:
            loop.remove_reader(source)


def _drain(source: int, log: BoundedLog) -> None:
    """Read what is left in the pipe, and no more: something unkillable may still be writing."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(64):
            data = os.read(source, CHUNK)
            if not data:
                return
            log.write(data)
