"""A place to train in: a repository, a store, a folder of locks, all below pytest's temporary folder."""

import asyncio
import importlib.util
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from mcp_server.machine.devices import find_devices
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.rig import Order, Rig
from mcp_server.machine.sandbox import probe
from mcp_server.machine.store import Store
from mcp_server.machine.training import train
from mcp_server.research.experiment import Ending, Experiment, Run, Trial
from mcp_server.research.task import Task
from mcp_server.settings import Settings
from tests.machine.ray_nodes import Nodes

Answer = TypeVar("Answer")
GOOD = "print('loss: 0.5')"


def until(condition: Callable[[], Answer], seconds: float = 30) -> Answer:
    """What `condition` answers as soon as that is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return answer


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Yard:
    """The place, with what a server would do to it."""

    good = GOOD
    until = staticmethod(until)
    alive = staticmethod(alive)

    def __init__(self, folder: Path, devices: str = "cpu:2", sandbox: str = "off") -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.repo.mkdir()
        self.git("init", "--quiet")
        (self.repo / ".gitignore").write_text("data/\n")
        self.settings = Settings(
            self.repo, folder / "state", folder / "cache", folder / "locks", devices, sandbox=sandbox
        )
        self.devices = find_devices(devices)
        self.folders = Folders.of(self.settings, self.repo)
        self._numbers = itertools.count(1)
        self._workers: list[subprocess.Popen[bytes]] = []

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(["git", *identity, *words], cwd=self.repo, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, script: str) -> str:
        """The id of a commit whose `train.py` is this script."""
        (self.repo / "train.py").write_text(script)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a script")
        return self.git("rev-parse", "HEAD")

    def task(self, budget: float = 1, startup: float = 30, inputs: tuple[str, ...] = (), command: str = "") -> Task:
        return Task(
            metric="loss",
            direction="minimize",
            time_budget_seconds=budget,
            train_script="train.py",
            command=command or "python train.py",
            interpreter=sys.executable,
            editable=("train.py",),
            inputs=inputs,
            startup_seconds=startup,
        )

    def stored(self, action: Callable[[Store], Awaitable[Answer]]) -> Answer:
        """What an action on the store answers."""

        async def act() -> Answer:
            async with Store.open(self.folders.store) as store:
                return await action(store)

        return asyncio.run(act())

    def queue(
        self, script: str = GOOD, commit: str = "", task: Task | None = None, base: str = "", gpu: str = ""
    ) -> Trial:
        """Queue a trial of a script, in a run of its own that began with the commit `base`, by default its own.

        It is for a model of GPU, or for the first device.
        """
        commit = commit or self.commit(script)
        kind = ("cuda", {"device_name": gpu}) if gpu else (self.devices[0].kind, {"device_name": self.devices[0].name})
        tag = f"t{next(self._numbers)}"
        run = Run(tag, f"autoresearch/{tag}", base or commit, task or self.task(), *kind, time.time())
        experiment = Experiment(f"{tag}-1", tag, 1, "ada", commit, commit, "it trains", "other", tag, time.time())

        async def add(store: Store) -> Trial:
            await store.runs.add(run)
            await store.experiments.add(experiment)
            return await store.trials.enqueue(experiment.id, None, run.device_type)

        return self.stored(add)

    def trials(self, trial: Trial) -> list[Trial]:
        """All trials, as they now are, of the experiment that a trial belongs to."""
        return self.stored(lambda store: store.trials.of(trial.experiment_id))

    def lock(self, device: str = "cpu:0") -> DeviceLock:
        return DeviceLock(self.settings.locks, device)

    def start(self, device: str = "cpu:0") -> subprocess.Popen[bytes]:
        """A worker, as a child of this process."""
        return self.run("mcp_server.machine.worker", "--repo", str(self.repo), "--device", device)

    def run(self, *words: str) -> subprocess.Popen[bytes]:
        """A program of ours, with the settings of this place."""
        settings = self.settings
        environment = os.environ | {
            "AUTORESEARCH_STATE": str(settings.state),
            "AUTORESEARCH_CACHE": str(settings.cache),
            "AUTORESEARCH_LOCKS": str(settings.locks),
            "AUTORESEARCH_DEVICES": settings.devices,
            "AUTORESEARCH_SANDBOX": settings.sandbox,
        }
        self._workers.append(subprocess.Popen([sys.executable, "-m", *words], env=environment))
        return self._workers[-1]

    def work(self, device: str = "cpu:0") -> None:
        """Let a worker do all there is to do."""
        assert self.start(device).wait(30) == 0

    def ending(self, script: str, task: Task | None = None, by: str | None = None) -> Ending:
        """Train a script on the first device, and say how it ended.

        Args:
            by: who asks the training to end as soon as it runs.
        """
        trial = Trial("mar8-7.1", "mar8-7", 1, 43, "cpu", "training", 0.0, started_at=1.0, commit=self.commit(script))
        with self.lock() as lock:
            assert lock.take()
            busy = lock.mark_busy()
            assert busy is not None

            async def ask() -> Any:
                return by

            rig = Rig(self.settings, Repository.discover(self.repo), self.devices[0], lock)
            try:
                order = Order(task or self.task(), trial, self.folders.trial(trial.id), self.folders.inputs("mar8"))
                return asyncio.run(train(rig, order, busy, ask))
            finally:
                os.close(busy)
                assert not lock.is_busy()

    def noted(self, name: str = "pid") -> int:
        """The number that a script wrote to a file of this name in the place; waits for it."""
        file = self.folder / name
        return int(until(lambda: file.exists() and file.read_text()) or 0)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()


class ClusterYard(Yard):
    """The place, with a Ray cluster in the stead of the devices of this machine."""

    def __init__(self, folder: Path, nodes: Nodes, devices: str = "cpu:1", sandbox: str = "off") -> None:
        super().__init__(folder, sandbox=sandbox)
        self.settings = replace(self.settings, devices=devices, executor="ray", ray_address=nodes.address)

    def lock(self, device: str = "driver") -> DeviceLock:
        return DeviceLock(self.folders.cluster, device)

    def start(self, device: str = "", linger: float = 0) -> subprocess.Popen[bytes]:
        """A driver, as a child of this process, that ends as soon as nothing is queued."""
        settings = self.settings
        where = ["--address", settings.ray_address, "--devices", settings.devices, "--linger", str(linger)]
        return self.run("mcp_server.machine.cluster.driver", "--repo", str(self.repo), *where)

    def work(self, device: str = "") -> None:
        assert self.start(device).wait(60) == 0


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A Ray cluster with one machine of one CPU, for all tests that only need somewhere to train."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'autoresearch-mcp[cluster]'")
    cluster = Nodes(tmp_path_factory.mktemp("cluster"))
    cluster.add("one")
    yield cluster
    cluster.close()


@pytest.fixture
def yard(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A place to train in, with two simulated devices."""
    place = Yard(tmp_path)
    yield place
    place.close()


@pytest.fixture
def walled_yard(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A place to train in whose trainings run behind walls."""
    if fault := probe()[1]:
        pytest.skip(f"there is no sandbox: {fault}")
    place = Yard(tmp_path, sandbox="require")
    yield place
    place.close()
