"""Become another program. Run by path with `python -I -S`, so it knows nothing of the package and starts in 10 ms.

    launch.py attached PARENT COMMAND...    on Linux, the program is killed when its parent process dies
    launch.py counted FILE PARENT COMMAND...    the same, in the control group whose `cgroup.procs` this is
    launch.py detached COMMAND...           the program is nobody's child, in a session of its own

A `preexec_fn` could do both, but may deadlock in a process that has threads.
"""

import os
import signal
import sys


def main(how: str, *words: str) -> None:
    """Do what the module says with the arguments of the command line."""
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


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
