"""The walls around a training: with bubblewrap on Linux it reads everything but the record, and writes only its own."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shutil import which

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.environment import confined

PROGRAM = "bwrap"
WANTED = ("auto", "off", "require")
TODO = "Install bubblewrap and let users make namespaces, or set AUTORESEARCH_SANDBOX=auto to train without walls"

SYSTEM = ("sys", "irq", "bus", "fs", "acpi", "scsi", "driver", "tty", "sysrq-trigger", "mtrr")
"""What lies below /proc and belongs to all processes. Root writes there without any privilege, as the owner."""

WALLS = (
    # A process space of its own, which dies with its worker; no privileges.
    *(
        "--unshare-user-try",
        "--unshare-pid",
        "--unshare-ipc",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *(word for name in SYSTEM for word in ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")),
)
NO_NETWORK = ("--unshare-net",)
DEVICES = ("nvidia*", "dxg", "kfd", "dri")
"""Device files below /dev that trainings on a GPU need; none of a network."""

TEMPORARY = "/tmp"  # noqa: S108 - inside, it is a folder of the trial's own
SOCKETS = "/run"
SEEN_OF_SOCKETS = ("/run/nvidia-persistenced", "/run/opengl-driver", "/run/current-system")
"""Where other programs listen, and what alone is seen of it."""
NAMES = "/run/systemd/resolve"
"""Where systems with systemd keep what the names of other machines are looked up by."""


@dataclass(frozen=True)
class View:
    """What a command sees beside the machine's programs. All else is read-only.

    Attributes:
        temporary: the folder that it sees as /tmp.
        readable: what it sees although it lies below a hidden folder or /tmp.
        writable: folders that it may write; they exist.
        hidden: folders that it sees as empty, and files that it cannot read.
        network: whether it has the machine's network; else it has a loopback of its own and nothing more.
    """

    temporary: Path
    readable: Sequence[Path] = ()
    writable: Sequence[Path] = ()
    hidden: Sequence[Path] = ()
    network: bool = False


def find_sandbox(wanted: str) -> str | None:
    """The path of bubblewrap where it works; None where it is not wanted, or does not work and is not required.

    Raises:
        InvalidInput: what is wanted is none of `WANTED`.
        NotReady: it is required and does not work.
    """
    if wanted not in WANTED:
        raise InvalidInput(f"AUTORESEARCH_SANDBOX is {wanted!r}", f"Set it to one of {', '.join(WANTED)}")
    if wanted == "off":
        return None
    program, fault = probe()
    if fault and wanted == "require":
        raise NotReady(f"AUTORESEARCH_SANDBOX is 'require', and there is no sandbox: {fault}", TODO)
    return None if fault else program


@lru_cache(maxsize=1)
def probe() -> tuple[str, str]:
    """The path of bubblewrap, and why it does not work here; empty where it does. Takes 60 ms, once a process."""
    if sys.platform != "linux":
        return "", f"bubblewrap is for Linux, and this is {sys.platform}"
    program = which(PROGRAM)
    if program is None:
        return "", "bubblewrap (bwrap) is not installed"
    try:
        words = [program, *WALLS, *NO_NETWORK, *confined("true")]
        tried = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return program, str(error)
    if tried.returncode:
        lines = tried.stderr.strip().splitlines()
        return program, f"{program} fails here: {lines[-1] if lines else f'exit code {tried.returncode}'}"
    return program, ""


def walled(program: str, view: View, folder: Path, words: Sequence[str]) -> list[str]:
    """The words that run a command behind walls, in `folder`."""
    closed = () if view.network else NO_NETWORK
    return [program, *WALLS, *closed, *_mounts(view), "--chdir", str(folder), "--", *words]


def _mounts(view: View) -> Iterator[str]:
    """Mounts in the order in which they cover each other."""
    for node in (node for pattern in DEVICES for node in sorted(Path("/dev").glob(pattern))):
        yield from ("--dev-bind", str(node), str(node))
    yield from ("--tmpfs", SOCKETS)
    yield from ("--bind", str(view.temporary), TEMPORARY, "--setenv", "TMPDIR", TEMPORARY)
    sockets = (*SEEN_OF_SOCKETS, NAMES) if view.network else SEEN_OF_SOCKETS
    yield from _layers(view, [*map(Path, sockets), *view.readable])


def _layers(view: View, readable: Sequence[Path]) -> Iterator[str]:
    """What is hidden, seen and written, the outermost first: so the rule of the innermost folder around a file holds.

    Of one path the last kind holds. A place that is named by a link is the one that the link leads to, since nothing
    can be mounted on a link.
    """
    hidden = list(dict.fromkeys(path.resolve() for path in view.hidden))
    shown, written = list(map(_placed, readable)), list(map(_placed, view.writable))
    covers = [Path(SOCKETS), Path(TEMPORARY), *(path for path in hidden if path.is_dir())]
    left = [path for path in hidden if not _is_gone(path, covers, [*shown, *written])]
    folders = [path for path in left if path.is_dir()]
    layers = [
        *((folder, ("--tmpfs", str(folder))) for folder in folders),
        *((file, ("--ro-bind", "/dev/null", str(file))) for file in left if file.is_file()),
        *((path, ("--ro-bind-try", str(path), str(path))) for path in shown if _below(path, covers)),
        *((path, ("--bind", str(path), str(path))) for path in written),
    ]
    for _, words in sorted(layers, key=lambda layer: len(layer[0].parts)):
        yield from words
    for folder in folders:  # what lies below stays as it is mounted
        yield from ("--remount-ro", str(folder))


def _placed(path: Path) -> Path:
    """A path whose folders are no links; it may be one itself."""
    return path.parent.resolve() / path.name


def _is_gone(path: Path, covers: Sequence[Path], shown: Sequence[Path]) -> bool:
    """Whether a path lies in something hidden and nothing brings it back: even its name is not seen then."""
    if any(each.is_relative_to(path) for each in shown):
        return False
    around = [folder for folder in (*covers, *shown) if folder != path and path.is_relative_to(folder)]
    return bool(around) and max(around, key=lambda folder: len(folder.parts)) not in shown


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def exit_code(code: int | None) -> int | None:
    """The exit code of a command behind walls as it would be without: a signal's number comes out as 128 more."""
    return 128 - code if code is not None and code > 128 else code
