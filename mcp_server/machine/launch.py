"""Become another program. Run by path with `python -I -S`, so it knows nothing of the package and starts in 10 ms.

    launch.py attached PARENT COMMAND...    on Linux, the program is killed when its parent process dies
    launch.py counted FILE PARENT COMMAND...    the same, in the control group whose `cgroup.procs` this is
    launch.py detached COMMAND...           the program is nobody's child, in a session of its own

In both cases it gets a session keyring of its own, so that it finds no key that another left. A `preexec_fn` could do
all that, but may deadlock in a process that has threads.

The last launcher before a command (this one, or one behind the walls that this one becomes) writes a byte to the
descriptor that AUTORESEARCH_LAUNCHED names, and closes it: whoever started it knows then that the command began.
On Linux none of the command's processes may have more bytes of memory than AUTORESEARCH_MEMORY says, if it says so.
"""

import os
import signal
import sys

KEYCTL = {"x86_64": 250, "aarch64": 219}
"""The number of the system call, by machine."""
LAUNCHED, MEMORY, WALLS = "AUTORESEARCH_LAUNCHED", "AUTORESEARCH_MEMORY", "bwrap"


def main(how: str, *words: str) -> None:
    """Do what the module says with the arguments of the command line."""
    _join_new_keyring()
    _limit_memory()
    if how == "detached":
        if os.fork():
            os._exit(0)
        os.setsid()
    else:
        if how == "counted":
            file, *words = words  # type: ignore[assignment]
            _join(file)
        parent, *words = words  # type: ignore[assignment]
        _die_with(int(parent))
    if os.path.basename(words[0]) != WALLS:  # noqa: PTH119 - pathlib takes long to import
        _tell()
    try:
        os.execvp(words[0], words)  # noqa: S606 - it is what this file is for
    except OSError as error:
        print(f"cannot run {words[0]!r}: {error.strerror}", file=sys.stderr)  # noqa: T201 - it goes to the log
        os._exit(127)


def _join(file: str) -> None:
    """Enter a control group; where that fails, whoever counts has the other way."""
    try:
        group = os.open(file, os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(group, b"0")
    except OSError:
        pass
    finally:
        os.close(group)


def _tell() -> None:
    descriptor = os.environ.pop(LAUNCHED, "")
    if descriptor:
        os.write(int(descriptor), b"!")
        os.close(int(descriptor))


def _limit_memory() -> None:
    most = os.environ.pop(MEMORY, "")
    if most and sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        least = int(most) if hard == resource.RLIM_INFINITY else min(int(most), hard)
        resource.setrlimit(resource.RLIMIT_DATA, (least, least))


def _join_new_keyring() -> None:
    if sys.platform == "linux" and os.uname().machine in KEYCTL:
        import ctypes

        join_session_keyring = 1  # without a name: a new one
        ctypes.CDLL(None).syscall(KEYCTL[os.uname().machine], join_session_keyring, None)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
