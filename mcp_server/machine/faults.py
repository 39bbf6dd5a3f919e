"""Faults of the machine: what says nothing about an idea, and is tried again instead of judged."""

import asyncio
import contextlib
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from mcp_server.errors import NotReady
from mcp_server.machine.child import Exit
from mcp_server.machine.devices import Device, reading
from mcp_server.machine.git.command import GitFailed
from mcp_server.machine.memory import used_share
from mcp_server.machine.removing import below

Answer = TypeVar("Answer")

PAUSES = (0.5, 2.0)
"""Seconds before the second try and before the third, which is the last."""
SENT = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that somebody sends; others come from what a program does itself."""
LEAST_ROOM = 256_000_000
"""Bytes: with less than this or a twentieth of the disk, whatever is less, a disk is full."""
MOST_MEMORY = 0.5
"""The share of the memory of which others may have so much before a lack of it is theirs."""
LOOKED_AT = 64 * 1024

_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|\[Errno 28\]|\[Errno 122\]|ENOSPC|EDQUOT")
_NO_MEMORY = re.compile(r"^MemoryError|Cannot allocate memory", re.IGNORECASE | re.MULTILINE)
_OF_THE_MACHINE = re.compile(
    r"No space left|quota exceeded|Cannot allocate memory|Input/output error|Read-only file system|Too many open files|"
    r"Resource temporarily unavailable|unable to (?:create|write)|fork",
    re.IGNORECASE,
)
"""What git says of faults that no commit can have caused."""


class MachineFault(NotReady):
    """Something other than the idea ended what was under way; the message names it."""


def is_machines(error: Exception) -> bool:
    """Whether an error on the way to a training says nothing about what was to be trained."""
    if isinstance(error, GitFailed):
        return error.status < 0 or error.status > 128 + 1 or bool(_OF_THE_MACHINE.search(error.stderr))
    return isinstance(error, OSError | NotReady)


def check_started(end: Exit, name: str, walled: bool, text: str) -> None:
    """Raise MachineFault where a command never began, or what is around it was killed.

    Args:
        end: how it ended, with its exit code as the system gave it.
        text: what it printed.
    """
    if end.by != "itself":
        return
    if not end.launched:
        said = " / ".join(text.strip().splitlines()[-3:])[-400:] or "nothing"
        raise MachineFault(f"{name} could not be started ({_how(end.code)}; it said: {said})", "Run doctor")
    if walled and end.code is not None and end.code < 0:  # from within, nobody reaches it
        raise MachineFault(f"The walls around {name} were killed from outside ({_how(end.code)})", "Train it again")


def check_not_killed(end: Exit, name: str) -> None:
    """Raise MachineFault where a command that measures was ended by a signal that somebody sent."""
    if end.by == "itself" and end.code is not None and -end.code in SENT:
        why = ", while the system was short of memory" if end.starved else ""
        raise MachineFault(f"{name} was killed ({_how(end.code)}{why})", "See what ends processes on this machine")


def check_trusted(end: Exit, name: str, text: str, folder: Path) -> None:
    """Raise MachineFault where a command whose code is not the experiment's found no room or memory, or crashed."""
    check_not_killed(end, name)
    if end.by != "itself" or end.code in (0, None):
        return
    if end.code is not None and end.code < 0:
        raise MachineFault(f"{name} crashed ({_how(end.code)})", "Run doctor")
    if _NO_MEMORY.search(text[-LOOKED_AT:]):
        raise MachineFault(f"{name} ran out of memory", "Free some memory")
    if _NO_ROOM.search(text[-LOOKED_AT:]) and disk_is_full(folder):
        raise MachineFault(f"{name} found no room on the disk of {str(folder)!r}", "Free some space")


def cause_of_failure(end: Exit, text: str, starved: bool, folder: Path, device: Device) -> str:
    """What of the machine made a training fail; empty where nothing shows that it was not its own doing.

    Its word is not enough: the disk must be full without what it wrote there, the memory in use without what it had.

    Args:
        end: how it ended, when nothing of it runs any more.
        starved: whether it failed for want of memory.
        folder: all that it wrote to the disk.
    """
    if end.by != "itself" or end.code in (0, None):
        return ""
    if _NO_ROOM.search(text[-LOOKED_AT:]) and disk_is_full(folder):
        return f"the disk of {str(folder)!r} is full, and not with what the training wrote: free some space"
    if starved:
        share, whose = _share_of_others(text, device)
        if share > MOST_MEMORY:
            return f"it had no memory, and others use {share:.0%} of {whose}: end what needs so much"
    return ""


def disk_is_full(folder: Path) -> bool:
    """Whether the disk would be full without what lies in a folder."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return True
    return disk.free + _bytes_in(folder) < min(LEAST_ROOM, disk.total / 20)


async def tried(attempt: Callable[[], Awaitable[Answer]], note: Callable[[str], None]) -> Answer:
    """Await `attempt()`, again where the machine was at fault, and at last raise its error; `note` is told of each."""
    for pause in PAUSES:
        try:
            return await attempt()
        except (NotReady, OSError) as error:
            if not is_machines(error):
                raise
            note(f"trying again in {pause:g} s: {error}")
        await asyncio.sleep(pause)
    return await attempt()


def _share_of_others(text: str, device: Device) -> tuple[float, str]:
    """How much of the memory that was wanting is in use now, and whose memory it is."""
    if device.kind == "cuda" and re.search("CUDA|HIP", text[-LOOKED_AT:]):
        used = reading(device).memory_used_mb
        return (used / device.memory_total_mb if used and device.memory_total_mb else 0.0), f"that of {device.label}"
    return used_share(), "the machine's"


def _bytes_in(folder: Path) -> int:
    total = 0
    for entry in below(folder):
        with contextlib.suppress(OSError):
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
