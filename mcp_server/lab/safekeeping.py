"""Copying the store now and then while a lab is open, so that a damaged file costs minutes and not a night."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp_server.machine.store.backups import back_up, is_small, is_stale

LOOK_SECONDS = 5.0
log = logging.getLogger(__name__)


@asynccontextmanager
async def backed_up(store: Path) -> AsyncIterator[None]:
    """Keep fresh copies of the store for the length of the block; at its end too, where that takes no time."""
    ending = threading.Event()
    looking = asyncio.create_task(_look(store, ending))
    try:
        yield
    finally:
        ending.set()  # gives up a copy that is being made
        looking.cancel()
        await asyncio.wait({looking})
        if is_small(store):
            await asyncio.to_thread(_copy_if_stale, store, threading.Event())


async def _look(store: Path, ending: threading.Event) -> None:
    """Copy the store whenever its copy is old, until something forbids it."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(_copy_if_stale, store, ending)


def _copy_if_stale(store: Path, ending: threading.Event) -> None:
    """Copy the store if its copy is old; what goes wrong is logged, for the next look to try again."""
    try:
        if is_stale(store):
            back_up(store, ending)
    except (OSError, sqlite3.Error) as error:
        if not ending.is_set():
            log.warning("the store cannot be backed up: %s", error)
