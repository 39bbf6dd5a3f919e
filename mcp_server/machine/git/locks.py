"""Advisory file locks; the system releases them when their process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mcp_server.errors import WrongState


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
