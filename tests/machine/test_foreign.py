"""A GPU on which somebody else computes is not free, and is taken as soon as it is."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.machine.devices import find_devices
from mcp_server.machine.environment import MARK
from mcp_server.machine.foreign import occupants
from mcp_server.machine.local_executor import LocalExecutor
from tests.machine.conftest import Yard


class Machine:
    """A machine with one GPU, and on it whatever processes a test says."""

    def __init__(self, yard: Yard, told: Path) -> None:
        self.yard, self._told = yard, told
        self.put()

    def put(self, *processes: tuple[int, int | None]) -> None:
        """Have exactly these processes on the GPU, with megabytes each."""
        lines = [f"{pid} {'' if memory is None else memory}" for pid, memory in processes]
        self._told.write_text("\n".join(lines))

    def status(self) -> tuple[str, str]:
        """What the tool `devices` says of the GPU."""

        async def ask() -> tuple[str, str]:
            async with Lab.open(self.yard.settings) as lab:
                (view,) = (await lab.training.devices()).devices
                return view.status, view.detail

        return asyncio.run(ask())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    gpus = Path(__file__).parent / "gpus"
    told = tmp_path / "processes"
    told.touch()
    monkeypatch.setenv("FOREIGN_PROCESSES", str(told))
    monkeypatch.setenv("PYTHONPATH", f"{gpus}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yard = Yard(tmp_path, devices="cuda:0")
    yield Machine(yard, told)
    yard.close()
    sys.modules.pop("pynvml", None)


def test_half_a_gigabyte_of_somebody_else_is_enough(machine: Machine) -> None:
    (gpu,) = machine.yard.devices
    mark = machine.yard.lock(gpu.key).mark
    for memory, seen in ((None, False), (500, False), (501, True), (40_000, True)):
        machine.put((os.getpid(), memory))
        found = occupants(gpu, mark)
        assert [(each.pid, each.memory_mb) for each in found] == ([(os.getpid(), memory)] if seen else [])
    machine.put((2**22 + 1, 9000))  # a process in another container, of which nothing is to be seen
    assert "process 4194305 (of somebody else) with 9000 MB" in str(occupants(gpu, mark)[0])
    assert occupants(find_devices("cpu:1")[0], "") == []


def test_what_a_training_of_ours_left_is_not_foreign(machine: Machine) -> None:
    (gpu,) = machine.yard.devices
    mark = machine.yard.lock(gpu.key).mark
    words = [sys.executable, "-c", "print(flush=True); input()"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, env=os.environ | {MARK: mark}, **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        machine.put((child.pid, 9000))
        assert occupants(gpu, mark) == []
        assert occupants(gpu, "/another/lock") != []
        child.kill()


def test_a_gpu_in_foreign_use_is_shown_and_waited_for(machine: Machine) -> None:
    yard = machine.yard
    (gpu,) = yard.devices
    assert machine.status() == ("idle", "")
    machine.put((os.getpid(), 20_000))
    status, detail = machine.status()
    assert (status, f"used by process {os.getpid()} (" in detail, "20000 MB" in detail) == ("busy", True, True)
    trial = yard.queue()
    executor = LocalExecutor(yard.settings)
    executor.wake(gpu.type, 1, set())
    assert not yard.lock(gpu.key).is_held()
    yard.work(gpu.key)  # a worker that was started all the same leaves the GPU and the queue alone
    assert [each.status for each in yard.trials(trial)] == ["queued"]
    machine.put()
    yard.work(gpu.key)
    assert [each.status for each in yard.trials(trial)] == ["finished"]


def test_between_two_trainings_the_gpu_may_go_to_somebody_else(machine: Machine) -> None:
    yard = machine.yard
    (gpu,) = yard.devices
    told = os.environ["FOREIGN_PROCESSES"]
    first = yard.queue(f"open({told!r}, 'w').write('1 30000')\nprint('loss: 1')")
    second = yard.queue()
    yard.work(gpu.key)
    assert yard.trials(first)[-1].status == "finished"
    assert yard.trials(second)[-1].status == "queued"


def test_a_process_that_just_ended_is_waited_for(machine: Machine) -> None:
    yard = machine.yard
    (gpu,) = yard.devices
    trial = yard.queue()
    machine.put((1, 30_000))
    worker = yard.start(gpu.key)
    yard.until(lambda: yard.lock(gpu.key).is_held())
    machine.put()
    assert worker.wait(30) == 0
    assert yard.trials(trial)[-1].status == "finished"
