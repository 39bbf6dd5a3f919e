"""Finding and ending every process of a training, wherever it hides."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from mcp_server.machine.environment import MARK
from mcp_server.machine.sandbox import PROGRAM

PATIENCE = 5.0
"""Seconds for which processes are killed before those that remain are given up as unkillable."""


def marked(mark: str) -> list[psutil.Process]:
    """The processes whose environment carries the mark: those of a training, however far they moved from it."""
    found = []
    for process in _linux_processes(mark) if sys.platform == "linux" else psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # ended just now, or another user's
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _linux_processes(mark: str) -> Iterator[psutil.Process]:
    """Those that may carry the mark. This is looked for after every training, and psutil takes ten times as long."""
    wanted = f"{MARK}={mark}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(psutil.Error, OSError):
            if wanted in (place / "environ").read_bytes():
                yield psutil.Process(int(place.name))


async def end(mark: str, below: int | None = None, grace: float = 0.0) -> list[int]:
    """End all processes that carry the mark, and the process `below` with its descendants; but never this process.

    Args:
        grace: seconds between SIGTERM and SIGKILL; with 0 there is no SIGTERM.

    Returns:
        The pids that could not be killed within `PATIENCE` seconds.
    """
    family = _family(mark, below)
    if grace:
        for process in family:
            with contextlib.suppress(psutil.Error):
                if process.name() != PROGRAM:  # with the walls all that is behind them would be killed at once
                    process.terminate()
        await _gone(family, grace)
    deadline = time.monotonic() + PATIENCE
    while family and time.monotonic() < deadline:
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        await _gone(family, 0.1)
        family = {process for process in family if _lives(process)} | _family(mark, below)
    return sorted(process.pid for process in family)


def adopt_orphans() -> None:
    """On Linux, become the parent of every descendant whose own parent dies, so that none can hide by forking twice."""
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def reap() -> None:
    """Forget adopted children that ended. Only while this process waits for no child of its own."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _family(mark: str, below: int | None) -> set[psutil.Process]:
    family = set(marked(mark))
    if below is not None:
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(below)
            family.update([top, *top.children(recursive=True)])
    return {process for process in family if process.pid != os.getpid() and _lives(process)}


async def _gone(processes: set[psutil.Process], timeout: float) -> None:
    """Wait until all have ended, for at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and any(_lives(process) for process in processes):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # other processes' children give no event


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
