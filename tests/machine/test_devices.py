"""Which devices are found, and who holds them."""

import os
import platform
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.devices import Device, Reading, find_device, find_devices, reading
from mcp_server.machine.locks import DeviceLock, Holder
from mcp_server.machine.logfile import BoundedLog


@dataclass
class TwoGpus:
    """An NVML with two GPUs, of which the second has no sensors; or with no driver."""

    driver: bool = True

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise RuntimeError("no driver")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return {"GPU-aaa": 0, "GPU-bbb": 1, "MIG-ccc": 2}[uuid]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return ("GPU-aaa", "GPU-bbb", "MIG-ccc")[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"H100 number {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * 2**30, used=2**30)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return 55

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        if handle == 1:
            raise RuntimeError("not supported")
        return 9, 0

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if handle == 1:
            raise RuntimeError("not supported")
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return []


def test_auto_takes_every_gpu() -> None:
    found = find_devices("auto", TwoGpus())
    assert found[0] == Device("cuda", "GPU-aaa", "H100 number 0", 0, "GPU-aaa", 81920)
    assert [device.label for device in found] == ["cuda:0", "cuda:1"]
    assert reading(found[0], TwoGpus()) == Reading(55, 97, 1024)
    assert reading(found[1], TwoGpus()) == Reading(55, None, 1024)
    assert reading(found[1], TwoGpus(driver=False)) == Reading()


@pytest.mark.parametrize(
    ("visible", "spec", "keys"),
    [
        ("1,0", "cuda", ["GPU-bbb", "GPU-aaa"]),
        ("1", "cuda:0", ["GPU-bbb"]),
        ("GPU-b", "auto", ["GPU-bbb"]),
        ("MIG-ccc", "auto", ["MIG-ccc"]),
        ("0,7,1", "auto", ["GPU-aaa"]),
        ("", "auto", ["cpu:0"]),
        ("-1", "auto", ["cpu:0"]),
    ],
)
def test_gpus_count_within_those_that_are_visible(
    visible: str, spec: str, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [device.key for device in find_devices(spec, TwoGpus())] == keys


def test_a_machine_without_gpus_is_one_slot_with_all_cores() -> None:
    (slot,) = find_devices("auto", TwoGpus(driver=False))
    assert slot == find_device("cpu:0", "cpu:1")
    assert slot.kind == "cpu"
    assert len(slot.cores) == len(find_devices("cpu")[0].cores) >= 1
    assert reading(slot).memory_used_mb


def test_a_mac_with_apple_silicon_has_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    (gpu,) = find_devices("auto", TwoGpus(driver=False))
    assert (gpu.kind, gpu.key, gpu.type, find_devices("mps")) == ("mps", "mps:0", "mps", [gpu])
    assert reading(gpu).memory_used_mb
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(NotReady, match="MPS"):
        find_devices("mps")


def test_slots_share_the_cores() -> None:
    (whole,) = find_devices("cpu:1")
    halves = find_devices("cpu:2")
    assert [slot.key for slot in halves] == ["cpu:0", "cpu:1"]
    if len(whole.cores) > 1:
        assert halves[0].cores + halves[1].cores == whole.cores
    assert all(slot.cores for slot in find_devices("cpu:64"))


@pytest.mark.parametrize("spec", ["", "gpu", "cuda:x", "cuda:0,", "cpu:0", "cpu:65", "cpu:-1", "tpu:1", "cuda:5"])
def test_what_cannot_be_read_is_refused_with_its_value(spec: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(spec or "''")):
        find_devices(spec, TwoGpus())


def test_gpus_without_a_driver_are_not_ready() -> None:
    with pytest.raises(NotReady, match="nvidia-smi"):
        find_devices("cuda:0", TwoGpus(driver=False))
    with pytest.raises(NotReady, match="GPU-zzz"):
        find_device("GPU-zzz", "auto", TwoGpus())


def test_a_lock_is_held_by_one_and_seen_by_others(tmp_path: Path) -> None:
    with DeviceLock(tmp_path / "locks", "cpu:0") as lock:
        assert not lock.is_held()
        assert lock.take()
        lock.note(Holder(os.getpid(), "/repo", "mar8-1.1"))
        other = DeviceLock(tmp_path / "locks", "cpu:0")
        assert other.is_held()
        assert other.holder() == Holder(os.getpid(), "/repo", "mar8-1.1")
        assert not other.take(patience=0.05)
        assert DeviceLock(tmp_path / "locks", "cpu:1").take()
    assert other.holder() is None
    assert other.take()
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o700


def test_a_device_is_busy_while_a_process_that_inherited_the_lock_lives(tmp_path: Path) -> None:
    lock = DeviceLock(tmp_path, "GPU-aaa")
    descriptor = lock.mark_busy()
    assert descriptor is not None
    words = [sys.executable, "-c", "input()"]
    with subprocess.Popen(words, pass_fds=[descriptor], stdin=subprocess.PIPE) as child:
        os.close(descriptor)
        assert lock.is_busy()
        assert lock.mark_busy() is None
        child.kill()
    assert not lock.is_busy()


def test_locks_that_others_could_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("open", "link", "file"):
        with pytest.raises(NotReady, match=f"{name}.*AUTORESEARCH_LOCKS"):
            DeviceLock(tmp_path / name, "cpu:0")


def test_a_log_keeps_its_head_and_its_tail(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log.txt", head=10, tail=20)
    log.write(b"0123456")
    assert (tmp_path / "log.txt").read_bytes() == b"0123456"
    for number in range(100):
        log.write(b"line %d\n" % number)
    log.flush()
    # 7 + 10 x 7 + 90 x 8 bytes, without the 10 of the head and the 16 of the last two lines
    kept = "0123456lin\n[... 771 bytes left out ...]\nline 98\nline 99\n"
    assert (tmp_path / "log.txt").read_text() == log.text() == kept
    log.write(b"the end")
    log.close()
    assert (tmp_path / "log.txt").read_text().endswith("line 99\nthe end")


def test_a_full_disk_loses_the_head_of_a_log_and_not_its_tail() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    log = BoundedLog(full)
    log.write(b"step 1\nloss: 2\n")
    log.flush()
    assert log.text().endswith("step 1\nloss: 2\n")
    log.close()
