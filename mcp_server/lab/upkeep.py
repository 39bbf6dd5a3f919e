"""What an open lab does unasked: copying the store, and starting workers where trainings were left alone."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp_server.errors import ResearchError
from mcp_server.lab.pool import Pool
from mcp_server.machine.store.backups import back_up, is_small, is_stale

COPY_SECONDS = 5.0
HEAL_SECONDS = 2.0
"""Seconds between two looks at whether there is something to do."""
LONGEST_PAUSE = 30.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def kept_up(store: Path, pool: Pool) -> AsyncIterator[None]:
    """Heal at once what was left alone, and go on healing and copying for the length of the block.

    The last copy is made at its end, where that takes no time.
    """
    ending = threading.Event()
    await _heal(pool)
    tasks = {asyncio.create_task(_heal_on(pool)), asyncio.create_task(_copy_on(store, ending))}
    try:
        yield
    finally:
        ending.set()  # gives up a copy that is being made
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if is_small(store):
            await asyncio.to_thread(_copy_if_stale, store, threading.Event())


async def _heal_on(pool: Pool) -> None:
    """Look again and again; ever more seldom while each look finds workers to start, which then die at once."""
    pause = HEAL_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE) if await _heal(pool) else HEAL_SECONDS


async def _heal(pool: Pool) -> int:
    try:
        return await pool.heal()
    except (ResearchError, OSError) as error:  # whoever calls `train` is told
        log.info("trainings that were left alone cannot be taken up: %s", error)
        return 0


async def _copy_on(store: Path, ending: threading.Event) -> None:
    while True:
        await asyncio.sleep(COPY_SECONDS)
        await asyncio.to_thread(_copy_if_stale, store, ending)


def _copy_if_stale(store: Path, ending: threading.Event) -> None:
    """Copy the store if its copy is old; what goes wrong is logged, for the next look to try again."""
    try:
        if is_stale(store):
            back_up(store, ending)
    except (OSError, sqlite3.Error) as error:
        if not ending.is_set():
            log.warning("the store cannot be backed up: %s", error)
