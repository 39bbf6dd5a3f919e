"""Advisory file locks, which the system releases when their process ends, and git's, which a killed git leaves."""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from mcp_server.errors import WrongState
from mcp_server.machine.git.command import GitFailed

STALE_SECONDS = 10.0
"""No git command of ours holds a lock for so long."""
_NAMED = re.compile(r"Unable to create '([^']+\.lock)': File exists")

T = TypeVar("T")


class Hold:
    """A lock that is held until `close`, the end of the `with` block, or the end of this process."""

    def __init__(self, file: Path) -> None:
        """Take the lock at once; raises BlockingIOError when another handle holds it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock; harmless when it is released already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Hold":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def locked(file: Path, timeout: float) -> Iterator[None]:
    """Hold the lock for the block, waiting up to `timeout` seconds for it; raises WrongState after that."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            hold = Hold(file)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise WrongState(f"lock {str(file)!r} is still held after {timeout:g} s", "Repeat the call") from None
            time.sleep(0.02)
        else:
            break
    with hold:
        yield


def when_free(action: Callable[[], T], seconds: float, ours: Callable[[Path], bool], in_use: Callable[[], bool]) -> T:
    """Run git, waiting up to `seconds` for other git commands, and clearing the locks that killed ones left.

    Args:
        ours: whether a lock protects something that nobody but this program writes.
        in_use: whether some git command is at work there.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except GitFailed as error:
            named = _NAMED.search(error.stderr)
            if named is None or not ours(Path(named[1])):
                raise
            if not cleared(Path(named[1]), in_use) and time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def git_works_in(folder: Path) -> bool:
    """Whether a git command runs in a folder or below."""
    import psutil

    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "git" and Path(process.info["cwd"] or "/").is_relative_to(folder):
            return True
    return False


def cleared(lock: Path, in_use: Callable[[], bool]) -> bool:
    """Whether a lock is gone, having been deleted if it was stale. Asked first, it saves the time that git waits."""
    try:
        age = time.time() - lock.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):  # a branch can be named as the folder would be
        return True
    if age <= STALE_SECONDS or in_use():
        return False
    lock.unlink(missing_ok=True)
    return True
