"""Whether this machine is fit for research, and what to do where it is not. Nothing here imports torch."""

import asyncio
import difflib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mcp_server import __version__
from mcp_server.errors import ResearchError
from mcp_server.lab.data import prepared_data
from mcp_server.lab.interpreters import interpreter_of
from mcp_server.lab.planning import HARNESS_MARK
from mcp_server.machine.devices import find_devices
from mcp_server.machine.executors import executor_of
from mcp_server.machine.filesystem import NETWORK, file_system
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.git.command import check_installed, git
from mcp_server.machine.hidden import why_readable
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.platforms import is_wsl2
from mcp_server.machine.sandbox import TODO as MEND
from mcp_server.machine.sandbox import find_sandbox, probe
from mcp_server.machine.store.backups import backups, check_not_emptied, restore_advice
from mcp_server.machine.store.probe import OLDEST, damage, journal_mode
from mcp_server.settings import Settings

VARIABLES: Mapping[str, str] = {
    "AUTORESEARCH_STATE": "folder of the store, workspaces and trials; default: .autoresearch in the repository",
    "AUTORESEARCH_CACHE": "folder of prepared data and compile caches; default: ~/.cache/autoresearch",
    "AUTORESEARCH_LOCKS": "folder of the device locks, on this machine; default: /tmp/autoresearch-<user id>",
    "AUTORESEARCH_DEVICES": "what --devices says where it is not given",
    "AUTORESEARCH_EXECUTOR": "what --executor says where it is not given: local or ray",
    "RAY_ADDRESS": "what --ray-address says where it is not given",
    "AUTORESEARCH_KEEP_ENV": "names of further environment variables that trainings may see, separated by commas",
    "AUTORESEARCH_SANDBOX": "trainings and scorers behind walls: auto (where bubblewrap works; default), off, require",
    "AUTORESEARCH_CGROUPS": "count trainings in control groups: auto (where they can be made; default), off",
    "AUTORESEARCH_TOKEN": "bearer token that HTTP callers must send",
    "AUTORESEARCH_TOKEN_FILE": "file that holds the bearer token, readable by its owner alone",
    "AUTORESEARCH_HOSTS": "further names of this machine, or of a proxy before it, under which HTTP callers reach it",
    "AUTORESEARCH_DATA": "prepared data to use: a folder, or its name under the cache; default: the one last prepared",
}
"""The environment variables that users may set."""

FOR_TRAININGS = tuple(
    f"AUTORESEARCH_{name}" for name in ("TIME_BUDGET", "SEED", "DEVICE", "OUT", "THREADS", "DEVICE_KEY")
) + tuple(f"AUTORESEARCH_{name}" for name in ("COMPILE", "ATTENTION", "PRECISION", "OPTIMIZER_STATE"))
"""What the server tells a training; a user sets some of them to run a training script by hand."""

CLUSTER_SECONDS = 60.0
GIGABYTE = 1e9
LEAST_FREE, SCARCE_FREE = 1 * GIGABYTE, 5 * GIGABYTE
MOST_COUNTED = 200_000
"""Files of the state folder whose sizes are added up."""

LONGEST_LOOK = 5.0
"""Seconds for which the record is looked through."""

PREPARE = (
    "Run `python prepare.py` again: with a Python that has its tests (those of uv, pyenv and conda have), or with a "
    "--path outside of the repository"
)

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        remedy: what to do about it; empty where nothing need be done.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Place:
    """What the checks are about: the settings, and the repository if there is one."""

    settings: Settings
    repository: Repository | None

    @property
    def state(self) -> Path:
        """The state folder, as it is or would be."""
        root = self.repository.root if self.repository else self.settings.repo
        return Folders.of(self.settings, root).state

    @property
    def builtin(self) -> bool:
        """Whether the repository holds our harness, and so needs its data and torch."""
        harness = self.repository and self.repository.root / "prepare.py"
        return bool(harness and harness.is_file() and HARNESS_MARK.search(harness.read_text(errors="replace")))

    @property
    def python(self) -> Path:
        """The Python that trains."""
        return interpreter_of(self.repository.root if self.repository else self.settings.repo)


async def check_machine(settings: Settings) -> list[Check]:
    """Look at everything that research depends on; changes nothing and never raises ResearchError."""
    return await asyncio.to_thread(lambda: list(_checks(settings)))


def _checks(settings: Settings) -> Iterator[Check]:
    yield Check("autoresearch", "ok", f"{__version__} on Python {sys.version.split()[0]} at {sys.executable}")
    yield _system(Place(settings, None))
    yield _guarded("git", _git)
    place = Place(settings, None)
    try:
        place = Place(settings, Repository.discover(settings.repo))
    except ResearchError as error:
        yield Check("repository", "warn", error.what, error.todo)
    else:
        yield _guarded("repository", partial(_repository, place))
    for name, look in CHECKS.items():
        yield _guarded(name, partial(look, place))


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """A check that says what stopped it."""
    try:
        return look()
    except ResearchError as error:
        return Check(name, "fail", error.what, error.todo)
    except OSError as error:
        return Check(name, "fail", f"{error.filename or name}: {error.strerror or error}", "Mend the permissions")


def _system(place: Place) -> Check:
    found = f"{platform.system()} {platform.release()}"
    if not is_wsl2():
        return Check("system", "ok", found)
    if re.match(r"/mnt/[a-z]/", f"{place.settings.repo}/"):
        todo = "Move the repository into the Linux file system, e.g. to ~/: files of Windows are slow from WSL2"
        return Check("system", "warn", f"{found} (WSL2), with the repository on a drive of Windows", todo)
    return Check("system", "ok", f"{found} (WSL2)")


def _git() -> Check:
    check_installed()
    return Check("git", "ok", git(Path("/"), "version").strip().removeprefix("git version "))


def _repository(place: Place) -> Check:
    assert place.repository is not None
    root = place.repository.root
    commit = place.repository.resolve("HEAD")
    changed = place.repository.uncommitted()
    note = f", {len(changed)} uncommitted paths, which runs leave out" if changed else ""
    return Check("repository", "ok", f"{root} at {commit[:7]}{note}")


def _sqlite(place: Place) -> Check:
    found = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < OLDEST:
        return Check("sqlite", "fail", found, f"Use a Python with SQLite {OLDEST[0]}.{OLDEST[1]} or newer")
    return Check("sqlite", "ok", found)


def _state(place: Place) -> Check:
    """The file system of the store."""
    remedy = "Set AUTORESEARCH_STATE to a folder on a disk of this machine"
    kind = file_system(place.state)
    if kind in NETWORK:
        return Check("state folder", "fail", f"{place.state} is on {kind}, a network file system", remedy)
    nearest = next(folder for folder in (place.state, *place.state.parents) if folder.exists())
    try:
        mode = journal_mode(nearest)
    except (OSError, sqlite3.Error) as error:
        return Check("state folder", "fail", f"no SQLite file can be written in {nearest}: {error}", remedy)
    if mode != "wal":
        return Check("state folder", "fail", f"SQLite refuses WAL in {nearest} ({kind or 'unknown'}): {mode}", remedy)
    return Check("state folder", "ok", f"{place.state} on {kind or 'an unknown file system'}, WAL works")


def _record(place: Place) -> Check:
    """The store itself, and its backups."""
    store = place.state / "research.db"
    copies = backups(store)
    check_not_emptied(store)
    if not store.exists():
        return Check("record", "ok", "none yet")
    if fault := damage(store, LONGEST_LOOK):
        return Check("record", "fail", f"{store} is damaged: {fault}", restore_advice(store))
    state = "is too large to look through here" if fault is None else "is sound"
    if not copies:
        return Check("record", "ok", f"{store} {state}; no backup yet: servers make one within a minute")
    minutes = (time.time() - copies[0].stat().st_mtime) / 60
    return Check("record", "ok", f"{store} {state}; {len(copies)} backups, the newest of {minutes:.0f} min ago")


def _locks(place: Place) -> Check:
    kind = file_system(place.settings.locks)
    if kind in NETWORK:
        todo = "Set AUTORESEARCH_LOCKS to a folder on a disk of this machine"
        return Check("device locks", "fail", f"{place.settings.locks} is on {kind}, a network file system", todo)
    DeviceLock(place.settings.locks, "doctor")
    return Check("device locks", "ok", str(place.settings.locks))


def _sandbox(place: Place) -> Check:
    wanted = place.settings.sandbox
    if program := find_sandbox(wanted):
        return Check(
            "sandbox", "ok", f"trainings and scorers run behind walls, by {program} (AUTORESEARCH_SANDBOX={wanted})"
        )
    if wanted == "off":
        return Check("sandbox", "warn", "none, by AUTORESEARCH_SANDBOX=off", "Set it to auto or require")
    return Check("sandbox", "warn", f"none: {probe()[1]}; trainings can reach all that you can", MEND)


def _devices(place: Place) -> Check:
    if place.settings.executor != "local":
        return _cluster(place.settings)
    found = find_devices(place.settings.devices)
    listed = "; ".join(
        f"{device.label} {device.name}"
        + (f", {device.memory_total_mb / 1024:.0f} GiB" if device.memory_total_mb else "")
        + (f", {len(device.cores)} cores" if device.cores else "")
        for device in found
    )
    return Check("devices", "ok", f"{listed} (--devices {place.settings.devices})")


def _cluster(settings: Settings) -> Check:
    """The machines of the cluster, listed by another process: Ray prints, and starts threads."""
    executor_of(settings, settings.repo)  # raises what speaks against it, and touches nothing
    words = [sys.executable, "-m", "mcp_server.machine.cluster.ray_cluster", settings.ray_address]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=CLUSTER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        found = f"the Ray cluster {settings.ray_address!r} does not answer in {CLUSTER_SECONDS:.0f} s"
        return Check("devices", "fail", found, "Run `ray status`; is a firewall between?")
    if asked.returncode:
        what, todo = json.loads(asked.stderr.strip().splitlines()[-1])
        return Check("devices", "fail", what, todo)
    nodes = json.loads(asked.stdout)
    listed = "; ".join(f"{node['name']}: {node['gpus']} GPUs, {node['cpus']:g} CPUs" for node in nodes)
    return Check("devices", "ok", f"Ray cluster {settings.ray_address}: {listed} (--devices {settings.devices})")


def _driver(place: Place) -> Check:
    try:
        import pynvml

        pynvml.nvmlInit()
        version, count = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlDeviceGetCount()
    except Exception as error:  # NVML has an exception class of its own for every failure
        if any(Path(sign).exists() for sign in ("/dev/nvidia0", "/proc/driver/nvidia")):
            return Check("NVIDIA driver", "warn", f"there is a GPU, but NVML says: {error}", "Run nvidia-smi; reboot?")
        return Check("NVIDIA driver", "ok", "none: trainings run on the CPU" + " or MPS" * (sys.platform == "darwin"))
    return Check("NVIDIA driver", "ok", f"{version}, {count} GPUs")


def _torch(place: Place) -> Check:
    code = "import importlib.metadata as m; print(m.version('torch'))"
    asked = subprocess.run([place.python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode == 0:
        return Check("torch", "ok", f"{asked.stdout.strip()} in {place.python}")
    if not place.builtin:
        return Check("torch", "ok", f"not in {place.python}, and not needed unless your script imports it")
    return Check("torch", "fail", f"not installed in {place.python}", install_command(place.python))


def _data(place: Place) -> Check:
    if not place.builtin:
        return Check("data", "ok", "not needed: the repository has a training script of its own")
    folder, manifest = prepared_data(place.settings)
    found = f"{manifest['profile']}, {manifest['tokens']['train']:,} training tokens, in {folder}"
    root = place.repository.root if place.repository else place.settings.repo
    why = why_readable(folder, root) if find_sandbox(place.settings.sandbox) else ""  # without walls, see there
    if why:
        return Check("data", "warn", f"{found}; trainings can read the text that audits them: {why}", PREPARE)
    return Check("data", "ok", found)


def _disk(name: str, folder: Path) -> Check:
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{_size(free)} free for {folder}"
    if free < LEAST_FREE:
        return Check(name, "fail", found, f"Free {_size(LEAST_FREE)} there, or move the folder")
    return Check(name, "warn" if free < SCARCE_FREE else "ok", found, "Free some" if free < SCARCE_FREE else "")


def _sizes(place: Place) -> Check:
    if not place.state.is_dir():
        return Check("state size", "ok", "nothing stored yet")
    parts, files = [], 0
    for part in sorted(place.state.iterdir()):
        total = 0
        for folder, _, names in os.walk(part) if part.is_dir() else [(str(place.state), [], [part.name])]:
            files += len(names)
            if files > MOST_COUNTED:
                return Check("state size", "ok", f"more than {MOST_COUNTED:,} files in {place.state}")
            total += sum((Path(folder) / name).lstat().st_size for name in names)
        parts.append((total, part.name))
    largest = ", ".join(f"{name} {_size(size)}" for size, name in sorted(parts, reverse=True)[:4])
    return Check("state size", "ok", f"{_size(sum(size for size, _ in parts))} in {files:,} files ({largest})")


def _configuration(place: Place) -> Check:
    ours = {name: value for name, value in os.environ.items() if name.startswith("AUTORESEARCH_")}
    unknown = sorted(ours.keys() - VARIABLES.keys() - set(FOR_TRAININGS))
    if unknown:
        close = difflib.get_close_matches(unknown[0], VARIABLES, n=1)
        todo = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(VARIABLES)}"
        return Check("configuration", "warn", f"{', '.join(unknown)} set, which nothing reads", todo)
    shown = ", ".join(f"{name}={'***' if 'TOKEN' in name else value}" for name, value in sorted(ours.items()))
    return Check("configuration", "ok", shown or "no AUTORESEARCH_ variables set; defaults everywhere")


CHECKS: Mapping[str, Callable[[Place], Check]] = {
    "sqlite": _sqlite,
    "state folder": _state,
    "state size": _sizes,
    "record": _record,
    "device locks": _locks,
    "sandbox": _sandbox,
    "devices": _devices,
    "NVIDIA driver": _driver,
    "torch": _torch,
    "data": _data,
    "disk, state": lambda place: _disk("disk, state", place.state),
    "disk, cache": lambda place: _disk("disk, cache", place.settings.cache),
    "configuration": _configuration,
}


def install_command(python: Path) -> str:
    """The command that gives a Python what the built-in training needs."""
    required = importlib.metadata.requires("autoresearch-mcp") or []
    words = [
        line.split(";")[0].strip() for line in required if "extra == 'train'" in line or 'extra == "train"' in line
    ]
    return f"{python} -m pip install {' '.join(repr(word) for word in words)}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
