"""Nothing that one training leaves is found by another: keys, sockets of other programs, what was compiled."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_server.machine.environment import launched

KEYS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
ADD, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
RINGS = {"session": -3, "user": -4, "user session": -5, "thread": -1}
def result(number):
    return number if number >= 0 else os.strerror(ctypes.get_errno())
def leave(ring):
    return result(libc.syscall(ADD, b"user", b"weights", b"secret", 6, ctypes.c_int(RINGS[ring])))
def find(ring):
    return result(libc.syscall(KEYCTL, 10, ctypes.c_int(RINGS[ring]), b"user", b"weights", 0))
"""
REACH = """
import os, socket
def reach(name):
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(5)
        try:
            end.connect(name)
            end.sendall(b"weights")
        except OSError as error:
            return error.strerror
        return "reached"
def send(name, kind):
    try:
        with socket.socket(socket.AF_UNIX, kind) as end:
            end.sendto(b"weights", name)
    except OSError as error:
        return error.strerror
    return "reached"
"""


def seen(yard: Any, before: str, expression: str) -> Any:
    """What an expression comes to in a training."""
    note = f"import json, os; open(os.environ['AUTORESEARCH_OUT'] + '/seen', 'w').write(json.dumps({expression}))"
    end = yard.ending(f"{before}\n{note}\nprint('loss: 1')")
    assert end.status == "finished", end.error
    return json.loads((yard.folders.out("mar8-7.1") / "seen").read_text())


@contextmanager
def listening(place: Path, kind: int = socket.SOCK_STREAM, name: str = "") -> Iterator[list[bytes]]:
    """What arrives at a socket of another program of the same user, such as an agent that keeps keys."""
    arrived: list[bytes] = []
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(name or str(place))
        if kind == socket.SOCK_STREAM:
            server.listen()

        def listen() -> None:
            while True:
                try:
                    end = server.accept()[0] if kind == socket.SOCK_STREAM else server
                    data = end.recv(100)
                except OSError:
                    return
                if not data and end is server:  # it was shut down
                    return
                arrived.append(data)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield arrived
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize("ring", ["session", "user", "user session", "thread"])
def test_a_key_cannot_be_left_behind_walls(walled_yard: Any, ring: str) -> None:
    assert seen(walled_yard, KEYS, f"[leave({ring!r}), find({ring!r})]") == ["Function not implemented"] * 2


def test_a_key_in_the_session_is_gone_with_its_program_without_walls_too() -> None:
    """Two programs that are started by this one one after the other, as a worker starts trainings."""
    linux = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
    if (
        not linux
        or subprocess.run([sys.executable, "-c", f"{KEYS}\nexit(leave('session') != find('session'))"]).returncode
    ):
        pytest.skip("there are no keyrings here")

    def run(what: str) -> str:
        words = launched("attached", str(os.getpid()), sys.executable, "-c", f"{KEYS}\nprint({what})")
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert run("leave('session') == find('session')") == "True"
    assert run("find('session')") == "Required key not available"


@pytest.mark.parametrize("where", ["repo", "home", "cache", "linked", "relative"])
def test_no_socket_of_another_program_can_be_reached(
    walled_yard: Any, where: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    yard = walled_yard
    yard.settings.cache.mkdir(exist_ok=True)
    homes = Path.home() / ".cache"
    homes.mkdir(exist_ok=True)
    folder = {"home": homes, "cache": yard.settings.cache}.get(where, yard.repo)
    place, seen_as = folder / "agent.sock", folder / "agent.sock"
    before = REACH
    if where == "linked":
        seen_as = yard.repo / "link"
        seen_as.symlink_to(place)
    if where == "relative":
        before += f"\nos.chdir({str(folder)!r})"
        seen_as = Path("agent.sock")
    try:
        with listening(place) as arrived:
            expressions = f"[reach({str(seen_as)!r}), send({str(place)!r}, socket.SOCK_SEQPACKET)]"
            found = seen(yard, before, expressions)
        assert found[0] == "Permission denied"
        assert found[1] != "reached"
        assert arrived == []
    finally:
        place.unlink()


def test_a_socket_that_is_made_while_it_trains_cannot_be_reached_either(walled_yard: Any) -> None:
    yard = walled_yard
    wait = f"""{REACH}
import time
open(os.environ['AUTORESEARCH_OUT'] + '/begun', 'w')
while not os.path.exists({str(yard.repo / "late.sock")!r}):
    time.sleep(0.01)
"""
    found: list[Any] = []
    training = threading.Thread(
        target=lambda: found.append(seen(yard, wait, f"reach({str(yard.repo / 'late.sock')!r})"))
    )
    training.start()
    yard.until(lambda: (yard.folders.out("mar8-7.1") / "begun").exists())
    with listening(yard.repo / "late.sock") as arrived:
        training.join(60)
    assert (found, arrived) == (["Permission denied"], [])


def test_datagrams_reach_no_other_program(walled_yard: Any) -> None:
    place = walled_yard.repo / "log.sock"
    pair = f"""{REACH}
def through_a_pair(name):
    try:
        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"weights", name)
    except OSError as error:
        return error.strerror
    return "reached"
"""
    with listening(place, socket.SOCK_DGRAM) as arrived:
        tries = f"[send({str(place)!r}, socket.SOCK_DGRAM), send({str(place)!r}, socket.SOCK_RAW),"
        tries += f" through_a_pair({str(place)!r})]"
        assert seen(walled_yard, pair, tries) == ["Address family not supported by protocol"] * 3
    assert arrived == []


def test_names_in_the_network_and_other_families_are_out_of_reach(walled_yard: Any) -> None:
    others = """
def made(family):
    try:
        socket.socket(family).close()
    except OSError as error:
        return error.strerror
    return "made"
"""
    with listening(Path(), name="\0agent") as arrived:
        assert seen(walled_yard, REACH, "reach(chr(0) + 'agent')") == "Connection refused"
    assert arrived == []
    families = "[made(socket.AF_VSOCK), made(socket.AF_PACKET), made(socket.AF_INET), made(socket.AF_INET6)]"
    unsupported = "Address family not supported by protocol"
    assert seen(walled_yard, REACH + others, families)[:3] == [unsupported, unsupported, "made"]


PROCESSES = """
import asyncio, multiprocessing, os, socket, tempfile, threading

def double(x):
    return 2 * x

class Doubled:
    def __len__(self):
        return 6
    def __getitem__(self, index):
        import torch
        return torch.full((3,), float(index))

async def over_a_socket(folder):
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_unix_server(answer, folder + "/s")
    reader, writer = await asyncio.open_unix_connection(folder + "/s")
    writer.write(b"hello\\n")
    heard = await reader.read()
    server.close()
    return heard.decode()

def nested(folder):
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("here")
        server.listen()
        with socket.socket(socket.AF_UNIX) as end:
            end.connect("here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
        socket.create_connection(name, 5).close()
    try:
        socket.create_connection(name, 5)
    except OSError as error:
        return error.strerror

def main():
    import json
    import torch
    torch.multiprocessing.set_sharing_strategy("file_descriptor")
    found = {}
    with multiprocessing.Manager() as keeper:
        shared = keeper.dict(a=1)
        shared["a"] += 1
        found["manager"] = dict(shared)
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        found["forkserver"] = pool.map(double, [1, 2])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found["spawn"] = pool.map(double, [3])
    loader = torch.utils.data.DataLoader(Doubled(), batch_size=2, num_workers=2)
    found["loader"] = [batch.sum().item() for batch in loader]
    found["asyncio"] = asyncio.run(over_a_socket(tempfile.mkdtemp()))
    found["refused"] = nested(tempfile.mkdtemp())
    with open(os.environ["AUTORESEARCH_OUT"] + "/seen", "w") as file:
        json.dump(found, file)
    print("loss: 1")

if __name__ == "__main__":
    main()
"""


def test_what_trainings_do_with_sockets_of_their_own_works(walled_yard: Any) -> None:
    end = walled_yard.ending(PROCESSES, walled_yard.task(budget=60))
    assert end.status == "finished", end.error
    assert json.loads((walled_yard.folders.out("mar8-7.1") / "seen").read_text()) == {
        "manager": {"a": 2},
        "forkserver": [2, 4],
        "spawn": [6],
        "loader": [3.0, 15.0, 27.0],
        "asyncio": "HELLO\n",
        "refused": "Connection refused",
    }


def test_messages_and_shared_memory_are_gone_with_their_training(walled_yard: Any) -> None:
    kept = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def leave():
    libc.mq_open.restype = ctypes.c_int
    return [
        libc.shmget(4242, 4096, 0o1666), libc.msgget(4242, 0o1666), libc.semget(4242, 1, 0o1666),
        libc.mq_open(b"/weights", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0,
        open("/dev/shm/weights", "w").write("x"),
    ]
def find():
    return [
        libc.shmget(4242, 4096, 0), libc.msgget(4242, 0), libc.semget(4242, 1, 0),
        libc.mq_open(b"/weights", os.O_RDWR), os.path.exists("/dev/shm/weights"),
    ]
"""
    left = seen(walled_yard, kept, "leave()")
    assert min(left[:3]) >= 0
    assert left[3:] == [True, 1]
    assert seen(walled_yard, kept, "find()") == [-1, -1, -1, -1, False]


def test_what_the_system_keeps_for_all_cannot_be_written(walled_yard: Any) -> None:
    """Whoever the server runs as: root too opens nothing for writing that outlives the training."""
    walk = """
import os
def writable(top, left_out=()):
    for place, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not name.isdigit() and name not in left_out]
        for name in names:
            path = os.path.join(place, name)
            try:
                if not os.path.islink(path):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    yield path
            except OSError:
                pass
"""
    found = seen(walled_yard, walk, "[*writable('/proc', ('self', 'thread-self', 'pressure')), *writable('/sys')]")
    assert found == []
    places = ["/var/tmp", "/var/lock", "/run", "/run/user", "/dev/hugepages", "/sys/fs/cgroup", "/mnt", "/srv", "/home"]
    assert seen(walled_yard, "import os", f"[place for place in {places} if os.access(place, os.W_OK)]") == ["/run"]


def test_a_training_holds_no_file_that_others_get_too(walled_yard: Any) -> None:
    """The lock that says that a device is busy is open in what stands around it, and not in the training."""
    find = "import os\nheld = [name for name in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{name}')]"
    assert sorted(seen(walled_yard, find, "held")) == ["0", "1", "2"]
    yard = walled_yard
    wait = "import os, time, pathlib\npathlib.Path(os.environ['AUTORESEARCH_OUT'], 'on').touch()\n"
    wait += f"while not os.path.exists({str(yard.repo / 'go')!r}): time.sleep(0.01)\nprint('loss: 1')"
    trial = yard.queue(wait)
    worker = yard.start()
    yard.until(lambda: (yard.folders.out(trial.id) / "on").exists())
    assert yard.lock().is_busy()
    (yard.repo / "go").touch()
    assert worker.wait(60) == 0
    assert not yard.lock().is_busy()


def test_the_kernels_log_is_out_of_reach(walled_yard: Any) -> None:
    read = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)"
    expression = "[libc.klogctl(3, ctypes.create_string_buffer(4096), 4096), os.strerror(ctypes.get_errno())]"
    assert seen(walled_yard, read, expression) == [-1, "Function not implemented"]


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("raise SystemExit(7)", "failed", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "failed", -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", -11),
        ("import os; os.fork() or os.execv('/bin/sleep', ['sleep', '600']); print('loss: 1')", "finished", 0),
    ],
)
def test_a_training_ends_as_it_would_without_the_filter(walled_yard: Any, script: str, status: str, code: int) -> None:
    end = walled_yard.ending(script)
    assert (end.status, end.exit_code) == (status, code)


def test_the_one_who_makes_connections_cannot_be_made_to_make_others(walled_yard: Any) -> None:
    """Its parent process is not filtered; to trace it, to write its memory or to take its descriptors is refused."""
    tries = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def result(number):
    return number if number >= 0 else os.strerror(ctypes.get_errno())
def opened(name):
    try:
        return open(name, "rb+").fileno()
    except OSError as error:
        return error.strerror
above = os.getppid()
"""
    attempts = "[result(libc.ptrace(16, above, 0, 0)), opened(f'/proc/{above}/mem'),"
    attempts += " result(libc.syscall(438, os.pidfd_open(above), 3, 0))]"
    found = seen(walled_yard, tries, attempts)
    assert [each in ("Operation not permitted", "Permission denied") for each in found] == [True] * 3, found
