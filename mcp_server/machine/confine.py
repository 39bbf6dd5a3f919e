"""Become another program behind walls, with the system calls filtered that walls of files and networks leave open.

    confine.py PARENT COMMAND...

Run by path with `python -I -S` as the first program behind the walls. It stays the command's parent, for this reason: a
socket of the file system can be connected to wherever it can be seen, on a read-only mount too, and a filter does not
see what a call's pointers lead to. So the system asks this process about each `connect` (seccomp's user notification,
Linux 5.6), which makes the connection itself, to a copy of the address, and to no socket on a read-only mount.

    add_key, request_key, keyctl    ENOSYS: keyrings outlive a training
    syslog                          ENOSYS: the kernel's log does, and a crash writes an address into it
    io_uring_setup                  ENOSYS: its calls pass by every filter
    socket, socketpair              unix (but for datagrams, which name a receiver without `connect`), inet, netlink
    calls of another architecture   ENOSYS: their numbers are others
"""

import ctypes
import errno
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Iterator

LAUNCHED = "AUTORESEARCH_LAUNCHED"
UNSUPPORTED = 125
"""The exit code where the system cannot filter."""

CALLS = {
    "x86_64": (0xC000003E, (248, 249, 250, 103), 42, (41, 53), 317),
    "aarch64": (0xC00000B7, (217, 218, 219, 116), 203, (198, 199), 277),
}
"""By machine: what the kernel calls the architecture, and the numbers of calls that reach what outlives a training,
of `connect`, of `socket` and `socketpair`, and of `seccomp`."""
IO_URING_SETUP, PIDFD_GETFD = 425, 438
"""The same on every machine."""
FIRST_OF_X32 = 0x40000000

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
DATAGRAM, RAW = 2, 3

NO_NEW_PRIVILEGES, NOT_DUMPABLE, SUBREAPER, DEATH_SIGNAL = 38, 4, 36, 1
ALLOW, ASK, REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000
LOAD, EQUAL, AT_LEAST, MASK, ANSWER = 0x20, 0x15, 0x35, 0x54, 0x06
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24
"""Where in `struct seccomp_data` these stand, of the arguments the lower half."""
NEW_LISTENER, WAIT_KILLABLE = 8, 32

QUESTION = struct.Struct("=QIIiIQ6Q")
REPLY = struct.Struct("=QqiI")
RECEIVE, SEND, STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
LONGEST_ADDRESS = 128

libc = ctypes.CDLL(None, use_errno=True)


def main(parent: str, *words: str) -> None:
    """Do what the module says with the arguments of the command line."""
    libc.prctl(DEATH_SIGNAL, signal.SIGKILL)
    libc.prctl(SUBREAPER, 1)  # where tracing is restricted to descendants, orphans stay such
    if os.getppid() != int(parent):
        os._exit(1)
    told, tell = os.pipe()
    going, go = os.pipe()
    child = os.fork()
    if not child:
        _become(words, tell, going)
    os.close(tell)
    number = os.read(told, 16)
    if not number:  # it said why
        os.waitpid(child, 0)
        os._exit(UNSUPPORTED)
    listener = libc.syscall(PIDFD_GETFD, os.pidfd_open(child), int(number), 0)
    if listener < 0:
        print(f"cannot filter system calls: {os.strerror(ctypes.get_errno())}", file=sys.stderr)  # noqa: T201
        os._exit(UNSUPPORTED)
    libc.prctl(NOT_DUMPABLE, 0)  # from here on the command cannot trace this process
    for number_of in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number_of, signal.SIG_IGN)
    if LAUNCHED in os.environ:
        os.close(int(os.environ[LAUNCHED]))
    os.write(go, b"!")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # whoever reads from the command's pipes waits for the command alone
        os.dup2(nothing, descriptor)
    _serve(listener, child)


def _become(words: tuple[str, ...], tell: int, going: int) -> None:
    """Filter the calls of this process, tell the parent the number of the listener, and become the command."""
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = _filter()
    if listener < 0:
        print(f"cannot filter system calls: {os.strerror(-listener)}", file=sys.stderr)  # noqa: T201
        os._exit(UNSUPPORTED)
    os.write(tell, str(listener).encode())
    os.read(going, 1)
    os.close(listener)
    if descriptor := os.environ.pop(LAUNCHED, ""):  # see launch.py
        os.write(int(descriptor), b"!")
    # A file that is open can be opened anew for writing, whatever the walls say: this process alone keeps the locks.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        os.execvp(words[0], words)  # noqa: S606 - it is what this file is for
    except OSError as error:
        print(f"cannot run {words[0]!r}: {error.strerror}", file=sys.stderr)  # noqa: T201 - it goes to the log
        os._exit(127)


def _filter() -> int:
    """Install the filter for this thread and its descendants; the listener, or minus an error number."""
    calls = CALLS.get(os.uname().machine)
    if calls is None:
        return -errno.ENOSYS
    code = b"".join(_program(*calls[:4]))
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):
        listener: int = libc.syscall(calls[4], 1, flags, program)
        if listener >= 0 or ctypes.get_errno() != errno.EINVAL:
            break
    return listener if listener >= 0 else -ctypes.get_errno()


def _program(architecture: int, lasting: tuple[int, ...], connect: int, makers: tuple[int, ...]) -> Iterator[bytes]:
    """The filter in the kernel's own assembly: each step an operation, two jumps, and a number."""

    def step(operation: int, number: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", operation, then, otherwise, number)

    refused, unsupported = REFUSE | errno.ENOSYS, REFUSE | errno.EAFNOSUPPORT
    yield from (step(LOAD, ARCHITECTURE), step(EQUAL, architecture, 1), step(ANSWER, refused))
    yield from (step(LOAD, NUMBER), step(AT_LEAST, FIRST_OF_X32, 0, 1), step(ANSWER, refused))
    for number in (*lasting, IO_URING_SETUP):
        yield from (step(EQUAL, number, 0, 1), step(ANSWER, refused))
    yield from (step(EQUAL, connect, 0, 1), step(ANSWER, ASK))
    yield from (step(EQUAL, makers[0], 2), step(EQUAL, makers[1], 1), step(ANSWER, ALLOW))
    yield step(LOAD, FIRST)
    for family in (INET, INET6, NETLINK):
        yield from (step(EQUAL, family, 0, 1), step(ANSWER, ALLOW))
    yield from (step(EQUAL, UNIX, 1), step(ANSWER, unsupported))
    yield from (step(LOAD, SECOND), step(MASK, 0xF))
    for kind in (DATAGRAM, RAW):
        yield from (step(EQUAL, kind, 0, 1), step(ANSWER, unsupported))
    yield step(ANSWER, ALLOW)


def _serve(listener: int, child: int) -> None:
    """Answer questions until the command ends, and end as it did."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    while True:
        _reap(child)
        for ready, event in waiting.poll(1000):
            if ready == woken:
                os.read(woken, 4096)
            elif event & select.POLLIN:
                question = ctypes.create_string_buffer(QUESTION.size)
                if libc.ioctl(listener, ctypes.c_ulong(RECEIVE), question) == 0:
                    asked = (listener, QUESTION.unpack(question.raw))
                    threading.Thread(target=_answer, args=asked, daemon=True).start()  # a connect may wait
            else:
                waiting.unregister(listener)


def _reap(child: int) -> None:
    """Forget the orphans that ended, and end if the command did: a signal's number comes out as 128 more."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                os._exit(code if code >= 0 else 128 - code)
    except ChildProcessError:
        os._exit(1)


def _answer(listener: int, question: tuple[int, ...]) -> None:
    """Make the connection that was asked for, and say what came of it."""
    mark, thread, _, _, _, _, descriptor, address, length, *_ = question
    held: list[int] = []
    try:
        error = _connect(listener, mark, thread, (descriptor, address, length), held)
    except OSError as failed:
        error = failed.errno or errno.EACCES
    finally:
        for each in held:
            os.close(each)
    reply = ctypes.create_string_buffer(REPLY.pack(mark, 0, -error, 0), REPLY.size)
    libc.ioctl(listener, ctypes.c_ulong(SEND), reply)


def _connect(listener: int, mark: int, thread: int, asked: tuple[int, int, int], held: list[int]) -> int:
    """Connect a copy of the thread's socket to a copy of its address; 0 or an error number. Raises OSError too.

    Args:
        asked: the socket, and where the address is and how long.
        held: gets the descriptors that are to be closed.
    """
    descriptor, place, length = asked
    if length > LONGEST_ADDRESS:
        return errno.EINVAL
    with open(f"/proc/{thread}/status", encoding="utf-8") as status:  # noqa: PTH123 - pathlib takes long to import
        process = next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))
    held.append(os.pidfd_open(process))
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    held.append(memory)
    address = os.pread(memory, length, place)
    if libc.ioctl(listener, ctypes.c_ulong(STILL_VALID), ctypes.byref(ctypes.c_uint64(mark))):
        return errno.EINTR  # the thread is gone, and its number may be another's
    socket: int = libc.syscall(PIDFD_GETFD, held[0], ctypes.c_int(descriptor & 0xFFFFFFFF), 0)
    if socket < 0:
        return ctypes.get_errno()
    held.append(socket)
    named = len(address) > 2 and struct.unpack_from("=H", address)[0] == UNIX
    if named and address[2:3] != b"\0":  # else it is a name in the network, which is the command's own
        name = os.fsdecode(address[2:].split(b"\0")[0])
        start = f"/proc/{thread}/{'root' if name.startswith('/') else 'cwd'}/"
        target = os.open(start + name, os.O_PATH)
        held.append(target)
        if os.fstatvfs(target).f_flag & os.ST_RDONLY:
            return errno.EACCES
        address = struct.pack("=H", UNIX) + f"/proc/self/fd/{target}".encode() + b"\0"
    return _made(socket, address)


def _made(socket: int, address: bytes) -> int:
    """Connect a socket to an address; 0 or an error number."""
    return ctypes.get_errno() if libc.connect(socket, address, len(address)) else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
