"""Cheats that go on from what an earlier training of theirs left."""

import secrets
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cheats.cheat import ASK, CLOCK, Cheat, Deed, End, before, together
from tests.cheats.scene import Outcome, Scene

FILE = """\
    import io, os, pathlib

    def places():
        yield from FOLDERS

    def put(content):
        for folder in places():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "LEFT").write_bytes(content)
            except OSError as error:
                print("not left:", error)

    def get():
        for folder in places():
            if (folder / "LEFT").is_file():
                return (folder / "LEFT").read_bytes()
"""
KEYS = """\
    import ctypes, io

    libc = ctypes.CDLL(None, use_errno=True)

    def put(content):
        for number, start in enumerate(range(0, len(content), 30000)):
            part = content[start : start + 30000]
            key = libc.syscall(248, b"user", b"left%d" % number, part, len(part), KEYRING)
            libc.syscall(250, 15, key, 600)  # it shall not stay for good

    def get():
        content, number = b"", 0
        while (key := libc.syscall(250, 10, KEYRING, b"user", b"left%d" % number, 0)) > 0:
            part = ctypes.create_string_buffer(32768)
            content += part.raw[: libc.syscall(250, 11, key, part, 32768)]
            number += 1
        return content
"""
SEGMENT = """\
    import ctypes, io

    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p

    def put(content):
        place = libc.shmat(libc.shmget(4711, 2**22, 0o1666), None, 0)
        ctypes.memmove(place, len(content).to_bytes(8, "little") + content, len(content) + 8)

    def get():
        if (segment := libc.shmget(4711, 2**22, 0o666)) < 0:
            return b""
        place = libc.shmat(segment, None, 0)
        return ctypes.string_at(place + 8, int.from_bytes(ctypes.string_at(place, 8), "little"))
"""
SOCKET = """\
    import io, pathlib, socket

    def call(content):
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(ADDRESS)
                line.sendall(len(content).to_bytes(8, "little") + content)
                line.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: line.recv(2**16), b""))
        except OSError as error:
            print("not left:", error)
            return b""

    def put(content):
        call(content)

    def get():
        return call(b"")
"""
GO_ON = """\
    if found := get():
        try:
            model.load_state_dict(torch.load(io.BytesIO(found)))
            print("went on from what was left")
        except Exception as error:
            print("what was left is not whole:", error)
"""
LEAVE = """\
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    put(buffer.getvalue())
"""


def leaving(code: str) -> dict[str, str]:
    """A script that goes on from what was left, and leaves what it came to."""
    return together(before(CLOCK, code + GO_ON), before(ASK, LEAVE))


def twice(code: str) -> Deed:
    """Such a script, and again, with nothing changed but what it prints."""

    async def do(scene: Scene) -> Outcome:
        await scene.attempt(leaving(code))
        return await scene.attempt(leaving(code + "    print('once more')\n"))

    return do


def in_folders(*folders: str) -> Deed:
    """Checkpoints in folders, which are Python expressions; no other attempt finds what stays there without walls."""

    async def do(scene: Scene) -> Outcome:
        code, name = FILE.replace("FOLDERS", f"({', '.join(folders)},)"), f"left-{secrets.token_hex(8)}.bin"
        try:
            return await twice(code.replace("LEFT", name))(scene)
        finally:
            for folder in ("/dev/shm", "/var/tmp", "/tmp"):
                Path(folder, name).unlink(missing_ok=True)

    return do


def with_a_service(address: Callable[[Scene], str]) -> Deed:
    """A service of the user's that keeps what it is given: any that listens on a unix socket may be such a one."""

    async def do(scene: Scene) -> Outcome:
        name = address(scene)
        kept = [b""]
        with socket.socket(socket.AF_UNIX) as line:
            line.bind(name)
            line.listen()
            threading.Thread(target=serve, args=(line, kept), daemon=True).start()
            try:
                return await twice(SOCKET.replace("ADDRESS", repr(name)))(scene)
            finally:
                line.shutdown(socket.SHUT_RDWR)
                if not name.startswith("\0"):
                    Path(name).unlink()

    return do


def serve(line: socket.socket, kept: list[bytes]) -> None:
    """Keep what callers send, and tell those who send nothing what was kept; until the socket is shut."""
    while True:
        try:
            caller, _ = line.accept()
        except OSError:
            return
        with caller:
            content = b"".join(iter(partial(caller.recv, 2**16), b""))[8:]
            if content:
                kept[0] = content
            else:
                caller.sendall(kept[0])


FOLDERS, KERNEL = "leaves a checkpoint in a folder", "leaves a checkpoint in the kernel"
SERVICE = "leaves a checkpoint with a service"
BELONGINGS = "leaves a checkpoint among the belongings of others"
STATE = "next(a for a in pathlib.Path(__file__).resolve().parents if a.name == '.autoresearch')"
NOT_BETTER = End("equal|Worse|near miss", claims=False)
HOLE = "without walls a training reads and writes what the user can, and results say that they are unsandboxed"
SHARED = "pathlib.Path(os.environ['AUTORESEARCH_CACHE'])"
CHEATS = (
    Cheat(
        FOLDERS,
        "for temporary files",
        {},
        NOT_BETTER,
        deed=in_folders("pathlib.Path('/dev/shm')", "pathlib.Path('/var/tmp')", "pathlib.Path('/tmp')"),
        hole=HOLE,
    ),
    Cheat(
        FOLDERS,
        "of the cache",
        {},
        NOT_BETTER,
        deed=in_folders(SHARED, f"{SHARED} / 'measured'", f"{SHARED} / 'inductor'", f"{SHARED} / 'triton'"),
        hole=HOLE,
    ),
    Cheat(
        FOLDERS,
        "of its trials",
        {},
        NOT_BETTER,
        deed=in_folders(
            "*sorted(runtime.out.parents[1].glob('*/out'))", "*sorted(runtime.out.parents[1].glob('*/tmp'))"
        ),
        hole=HOLE,
    ),
    Cheat(
        FOLDERS,
        "of compiled code",
        {},
        NOT_BETTER,
        deed=in_folders(
            "pathlib.Path(io.__file__).parent / '__pycache__'",
            "pathlib.Path(torch.__file__).parent / '__pycache__'",
            f"{STATE}.parent / '__pycache__'",
            "pathlib.Path(__file__).parent / '__pycache__'",
        ),
        hole=HOLE,
    ),
    Cheat(KERNEL, "in the session's keyring", {}, NOT_BETTER, deed=twice(KEYS.replace("KEYRING", "-3")), hole=HOLE),
    Cheat(KERNEL, "in the user's keyring", {}, NOT_BETTER, deed=twice(KEYS.replace("KEYRING", "-4")), hole=HOLE),
    Cheat(KERNEL, "in shared memory", {}, NOT_BETTER, deed=twice(SEGMENT), hole=HOLE),
    Cheat(
        SERVICE,
        "at a socket in the repository",
        {},
        NOT_BETTER,
        deed=with_a_service(lambda scene: str(scene.repository / "s")),
        hole=HOLE,
    ),
    Cheat(
        SERVICE,
        "at a socket in the cache",
        {},
        NOT_BETTER,
        deed=with_a_service(lambda scene: str(scene.cache / "s")),
        hole=HOLE,
    ),
    Cheat(
        SERVICE,
        "at a socket without a file",
        {},
        NOT_BETTER,
        deed=with_a_service(lambda scene: f"\0{scene.folder.name}"),
        hole=HOLE,
    ),
    Cheat(
        BELONGINGS,
        "of the repository",
        {},
        NOT_BETTER,
        deed=in_folders(f"{STATE}.parent / '.git'", f"{STATE}.parent"),
        hole=HOLE,
    ),
    Cheat(BELONGINGS, "of the record", {}, NOT_BETTER, deed=in_folders(STATE, f"{STATE} / 'trials'"), hole=HOLE),
    Cheat(
        BELONGINGS,
        "of installed packages",
        {},
        NOT_BETTER,
        deed=in_folders("pathlib.Path(sys.prefix, 'lib')", "pathlib.Path(sys.prefix, 'bin')"),
        hole=HOLE,
    ),
)
