"""The pair of lock files that every device has on this machine, whatever repository wants it.

`<device>.lock` is held by the one worker that may touch the device; `<device>.busy` is inherited by each training, so
that it stays locked while anything of that training lives. The system releases both when their holders end.
"""

import fcntl
import json
import os
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from mcp_server.errors import NotReady

PATIENCE = 0.5
"""Seconds for which a lock is tried: those who only look hold it for an instant."""


@dataclass(frozen=True)
class Holder:
    """Who holds a device, for display only: a pid may lie."""

    pid: int
    repo: str
    trial: str = ""


class DeviceLock:
    """The locks of one device. Making one takes nothing; `take` does.

    Attributes:
        log: the file for what the device's workers have to say.
    """

    def __init__(self, locks: Path, key: str) -> None:
        """Raises NotReady if the folder of the locks cannot be made, or is not private to this user."""
        _make_private(locks)
        locks = locks.resolve()  # every worker must know the device by the same mark
        name = key.replace(":", "-").replace("/", "-")
        self._lock = locks / f"{name}.lock"
        self._busy = locks / f"{name}.busy"
        self._coming = locks / f"{name}.coming"
        self.log = locks / f"{name}.log"
        self._descriptor: int | None = None

    @property
    def mark(self) -> str:
        """What marks, in its environment, a process that belongs to a training on this device."""
        return str(self._lock)

    def take(self, patience: float = PATIENCE) -> bool:
        """Take the device; False if another holds it, after up to `patience` seconds."""
        deadline = time.monotonic() + patience
        while (descriptor := _locked(self._lock, fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the device back; harmless when it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def note(self, holder: Holder) -> None:
        """Write down, for display, who holds the device and what for. The lock must be held."""
        assert self._descriptor is not None
        # Writing also keeps the file young: cleaners of /tmp delete old ones, locked or not.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)

    def holder(self) -> Holder | None:
        """Who holds the device, as far as it was noted; None if it is free."""
        if not self.is_held():
            return None
        try:
            return Holder(**json.loads(self._lock.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # being written
            return Holder(0, "")

    def is_held(self) -> bool:
        """Whether a worker, of any repository, has the device."""
        return _is_locked(self._lock)

    def is_busy(self) -> bool:
        """Whether something of a training on the device lives. Not held and busy means `stuck`."""
        return _is_locked(self._busy)

    def is_awaited(self) -> bool:
        """Whether a worker was started for the device and has neither taken it nor ended yet."""
        return _is_locked(self._coming)

    def await_worker(self) -> int | None:
        """A descriptor for a new worker to inherit, and to close once it has the device; None if one is coming."""
        return _locked(self._coming, fcntl.LOCK_EX)

    def mark_busy(self) -> int | None:
        """A descriptor of the busy lock for a training to inherit; None while something of another training lives."""
        return _locked(self._busy, fcntl.LOCK_EX)

    def __enter__(self) -> "DeviceLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    descriptor = _locked(file, fcntl.LOCK_SH)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _locked(file: Path, how: int) -> int | None:
    """A descriptor of the locked file, or None if another has it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):  # else it was deleted meanwhile, and locks nothing
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _make_private(folder: Path) -> None:
    todo = "Delete it, or name another folder of this machine in AUTORESEARCH_LOCKS"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise NotReady(f"The folder of device locks {str(folder)!r} cannot be made: {error.strerror}", todo) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise NotReady(f"The folder of device locks {str(folder)!r} can be written by other users", todo)
