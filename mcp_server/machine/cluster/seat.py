"""One device of a machine in the cluster, at work for a driver on another machine: a worker that is told what to train.

It runs inside a Ray actor and knows nothing of Ray. The device's lock, the walls, the environment and the deadline are
those of a local worker; code and data come from the driver, and the ending goes back to it.
"""

import asyncio
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_server import __version__
from mcp_server.errors import NotReady, ResearchError
from mcp_server.machine import processes
from mcp_server.machine.child import EndedBy
from mcp_server.machine.cluster.mirror import Piece, piece_of, whole
from mcp_server.machine.cluster.parcels import CHUNK, Parcel, Shelf
from mcp_server.machine.devices import Device, Reading, find_devices, reading
from mcp_server.machine.folders import Folders
from mcp_server.machine.foreign import LINGERING, occupants
from mcp_server.machine.git import Repository, has_commit, locked, open_copy, take_bundle
from mcp_server.machine.holding import clear, run_trial, stuck
from mcp_server.machine.locks import DeviceLock, Holder
from mcp_server.machine.removing import discard
from mcp_server.machine.rig import Order, Rig
from mcp_server.machine.watch import record_inputs
from mcp_server.research.case import Case
from mcp_server.research.experiment import Ending, Run, Trial
from mcp_server.research.task import Task
from mcp_server.settings import Settings

PATIENCE = 10.0
"""Seconds for which the device's lock is tried: an actor that Ray ended may still be on its way out."""

BETWEEN = 0.1
"""Seconds between two looks at a training that prints all the time."""

SILENCE = 60.0
"""Seconds without a word from the driver after which a training is ended: nobody would record its result."""

STALE_SECONDS = 7 * 24 * 3600.0
"""Age at which what a killed actor left of a trial is deleted."""


@dataclass(frozen=True)
class SeatSpec:
    """What a driver says to a seat when it is made.

    Attributes:
        version: that of the driver's program.
        repository: a name of the user's repository that no other has.
        root: where that is on the driver's machine, for display.
        object_format: git's name of the repository's hash.
        devices: `cuda`, where Ray chose the GPU, or `cpu:N`.
        slot: which of the `cpu:N` it is.
        sandbox, keep_environment: see Settings.
    """

    version: str
    repository: str
    root: str
    object_format: str
    devices: str
    slot: int
    sandbox: str
    keep_environment: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What a seat is: its device, and the version and process of its program."""

    device: Device
    host: str
    pid: int


@dataclass(frozen=True)
class Glance:
    """A look at a training.

    Attributes:
        piece: what is new in its log.
        ending: how it ended, once it has.
        log: the size and checksum of the whole log, at the end.
        left: the files of its folder that are worth fetching, with their sizes, at the end.
        asks: whether it waits for the trial's case, to know whether to score it anew; see `Seat.tell`.
    """

    piece: Piece | None
    reading: Reading
    ending: Ending | None = None
    log: tuple[int, int] = (0, 0)
    left: tuple[tuple[str, int], ...] = ()
    asks: bool = False


class Seat:
    """A device and its lock. Its methods block; `look` and `end` may be called while another waits."""

    def __init__(self, spec: SeatSpec) -> None:
        settings = Settings.load(devices=spec.devices)  # of the environment in which this machine joined the cluster
        home = settings.cache / "cluster" / spec.repository
        self._spec = spec
        self._settings = replace(
            settings,
            repo=home / "code",
            state=home,
            sandbox=spec.sandbox if spec.sandbox != "auto" else settings.sandbox,
            keep_environment=(*settings.keep_environment, *spec.keep_environment),
        )
        self._folders = Folders(home)
        self._shelf = Shelf(settings.cache)
        self._device: Device | None = None
        self._lock: DeviceLock | None = None
        self._training: _Training | None = None
        self._heard = time.monotonic()

    def open(self) -> Facts:
        """Take the device, and free it of all that earlier trainings left.

        Raises:
            NotReady: this machine has another version, the device is not there, in use, or cannot be freed.
        """
        if self._spec.version != __version__:
            raise NotReady(
                f"autoresearch-mcp is {__version__} on this node and {self._spec.version} at the driver",
                "Install the same version on every node",
            )
        processes.adopt_orphans()
        self._device = self._find()
        lock = DeviceLock(self._settings.locks, self._device.key)
        if not lock.take(PATIENCE):
            holder = lock.holder()
            whose = f"process {holder.pid} for {holder.repo or 'another repository'}" if holder else "another worker"
            raise NotReady(f"{self._device.label} is held by {whose}", "Let that end, or take the device out of Ray")
        self._lock = lock
        if not asyncio.run(clear(lock)):
            lock.release()
            raise NotReady(stuck(self._device.label, lock), "Restart that machine, or end the processes")
        if others := self.others():
            lock.release()
            raise NotReady(f"{self._device.label} is used by {others}", "Wait for that, or take the device out of Ray")
        self._note()
        self._sweep()
        return Facts(self._device, os.uname().nodename, os.getpid())

    def others(self) -> str:
        """Whoever else computes on the device, for display; what was just killed may be told of a moment longer."""
        assert self._device
        assert self._lock
        deadline = time.monotonic() + LINGERING
        while others := occupants(self._device, self._lock.mark):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return ", ".join(map(str, others))

    def has_commit(self, commit: str) -> bool:
        """Whether this machine has the code of a commit, which may have come with a later one."""
        return has_commit(self._copy(), commit)

    def take_bundle(self, commit: str, bundle: bytes, shallow: bytes) -> None:
        """Receive the code of a commit."""
        take_bundle(self._copy(), commit, bundle, shallow)

    def lacks(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """The parcels that this machine has not, or has no more as they were; there is then room for them."""
        missing = [parcel for parcel in parcels if self._shelf.find(parcel) is None]
        for parcel in missing:
            self._shelf.clear(parcel)
        return missing

    def receive(self, parcel: Parcel, number: int, offset: int, data: bytes) -> None:
        """Receive a part of a file of a parcel."""
        self._shelf.receive(parcel, number, offset, data)

    def settle(self, parcel: Parcel) -> None:
        """Check a parcel that was received whole."""
        self._shelf.settle(parcel)

    def begin(self, task: Task, trial: Trial, base_commit: str, parcels: Sequence[Parcel]) -> str:
        """Start a trial whose code and data are here; returns the folder of its checkout."""
        assert self._device
        assert self._lock
        self._heard = time.monotonic()
        root = self._with_inputs(trial, parcels)
        data = [str(self._shelf.find(parcel)) for parcel in parcels if parcel.kind == "data"]
        environment = (*task.environment, *(("AUTORESEARCH_DATA", folder) for folder in data))
        task = replace(task, interpreter=_interpreter(task), environment=environment)
        folder = self._folders.trial(trial.id)
        inputs = folder.with_name(f"{folder.name}.inputs")
        record_inputs(inputs, root.root, task.inputs)
        busy = self._lock.mark_busy()
        if busy is None:
            raise NotReady(stuck(self._device.label, self._lock), "Restart that machine, or end the processes")
        self._note(trial.id)
        rig = Rig(self._settings, root, self._device, self._lock)
        self._training = _Training(rig, Order(task, trial, folder, inputs, base_commit), busy, self._wanted)
        return str(folder / "checkout")

    def look(self, offset: int, token: int, patience: float) -> Glance:
        """What is new of the training, as soon as there is something, or after `patience` seconds."""
        assert self._training
        assert self._device
        self._heard = time.monotonic()
        training, deadline = self._training, time.monotonic() + patience
        log = training.folder / "log.txt"
        piece = piece_of(log, offset, token)
        while piece is None and not training.ended.wait(0.05) and time.monotonic() < deadline and not training.asks:
            piece = piece_of(log, offset, token)
        if piece is not None and piece.last:
            training.ended.wait(BETWEEN)  # here and not at the driver, so that an end is told at once
        now = reading(self._device)
        if piece is not None or not training.ended.is_set():
            return Glance(piece, now, asks=training.asks)
        if training.ending is None:
            raise NotReady(f"The training ended in an error of its worker: {training.error}", "Look at the node's log")
        if piece := piece_of(log, offset, token):  # written between the look and the end
            return Glance(piece, now)
        return Glance(None, now, training.ending, whole(log), tuple(_left(training.folder)))

    def tell(self, run: Run, case: Case) -> None:
        """Answer a training that asks."""
        if self._training:
            self._training.told = (run, case)
            self._training.asks = False

    def end(self, by: EndedBy) -> None:
        """Have the training end."""
        if self._training:
            self._training.by = by

    def part(self, path: str, offset: int) -> bytes:
        """A part of a file that the training left; empty at its end."""
        assert self._training
        with (self._training.folder / path).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)

    def forget(self) -> None:
        """Delete what the training left here."""
        if self._training:
            self._training.thread.join()
            folder, self._training = self._training.folder, None
            discard(folder)
            folder.with_name(f"{folder.name}.inputs").unlink(missing_ok=True)
            self._note()

    def close(self) -> None:
        """End what is training, and give the device back."""
        if self._training:
            self._training.by = "shutdown"
            self.forget()
        if self._lock:
            self._lock.release()

    def _find(self) -> Device:
        spec = self._spec
        found = find_devices(spec.devices)
        device = found[spec.slot if spec.devices.startswith("cpu") else 0]
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
        return replace(device, index=int(chosen)) if device.kind == "cuda" and chosen.isdigit() else device

    def _copy(self) -> Repository:
        name = f"code-{self._spec.repository}.git.lock"
        with locked(self._settings.locks / name, 60.0):
            return open_copy(self._folders.state / "code", self._spec.object_format)

    def _with_inputs(self, trial: Trial, parcels: Sequence[Parcel]) -> Repository:
        """The repository as a trial needs it: with the inputs where the user's repository has them."""
        copy = self._copy()
        inputs = {parcel.name: parcel for parcel in parcels if parcel.kind == "inputs"}
        if not inputs:
            return copy
        names = "\0".join(f"{name}\0{parcel.fingerprint}" for name, parcel in sorted(inputs.items()))
        root = self._folders.state / "roots" / f"{hash_of(names)}"
        for name, parcel in inputs.items():
            source, place = self._shelf.find(parcel), root / name
            assert source
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink() or place.readlink() != source:
                place.unlink(missing_ok=True)
                place.symlink_to(source)
        return replace(copy, root=root)

    def _wanted(self) -> EndedBy | None:
        """Why the training is to end."""
        if time.monotonic() - self._heard > SILENCE:
            return "shutdown"
        return self._training.by if self._training else None

    def _note(self, trial: str = "") -> None:
        if self._lock:
            self._lock.note(Holder(os.getpid(), f"{self._spec.root} (by Ray)", trial))

    def _sweep(self) -> None:
        """Delete what actors that were killed long ago left behind."""
        trials = self._folders.state / "trials"
        for folder in trials.iterdir() if trials.is_dir() else []:
            if time.time() - folder.lstat().st_mtime > STALE_SECONDS:
                discard(folder) if folder.is_dir() else folder.unlink(missing_ok=True)


class _Training:
    """A training under way, in a thread with an event loop of its own."""

    def __init__(self, rig: Rig, order: Order, busy: int, wanted: Any) -> None:
        self.folder = order.folder
        self.by: EndedBy | None = None
        self.ending: Ending | None = None
        self.error = ""
        self.ended = threading.Event()
        self.asks = False
        self.told: tuple[Run, Case] | None = None
        self._wanted = wanted
        self.thread = threading.Thread(target=self._run, args=(rig, order, busy), daemon=True)
        self.thread.start()

    def _run(self, rig: Rig, order: Order, busy: int) -> None:
        if rig.device.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, rig.device.cores)  # of this thread, and of what it starts
        try:
            # Ray may have made uvloop the default, whose processes belong to the main thread.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                self.ending = runner.run(run_trial(rig, order, busy, self._ask, self._look))
        except Exception as error:  # told to the driver, which has the trial run again
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()

    async def _look(self) -> tuple[Run, Case]:
        """Ask the driver for the trial's case."""
        self.asks = True
        while self.told is None:
            if by := self._wanted():
                raise NotReady(f"It was ended ({by}) while its driver was asked", "Train again")
            await asyncio.sleep(0.02)
        return self.told

    async def _ask(self) -> EndedBy | None:
        wanted: EndedBy | None = self._wanted()
        return wanted


def hash_of(text: str) -> str:
    """A short name for a text, the same on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def answer(seat: Seat, name: str, arguments: Sequence[Any]) -> tuple[str, Any]:
    """Call a method of a seat: `("done", value)`, or `("refused", (what, todo))`, which survives any serializer."""
    try:
        return "done", getattr(seat, name)(*arguments)
    except ResearchError as error:
        return "refused", (error.what, error.todo)
    except OSError as error:
        return "refused", (f"{name} fails: {error}", "Look at the disk and the permissions of that node")


def _interpreter(task: Task) -> str:
    """The Python of the task where this machine has it at the same path, else the one that runs this."""
    return task.interpreter if shutil.which(task.interpreter) else sys.executable


def _left(folder: Path) -> list[tuple[str, int]]:
    """What a trial left below AUTORESEARCH_OUT, and what checks and scorers said, with sizes; links are left out."""
    said = [path for path in sorted(folder.glob("*.txt")) if path.name != "log.txt"]
    files = [path for path in (*said, *sorted((folder / "out").rglob("*"))) if path.is_file() and not path.is_symlink()]
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in files]
