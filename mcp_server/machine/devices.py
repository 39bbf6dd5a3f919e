"""Which devices this machine has: CUDA through NVML, MPS, and the CPU as one slot or several simulated ones.

Nothing here imports torch: it costs seconds, and would hold GPU memory in the server.
"""

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import psutil

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.research.experiment import device_type

DeviceKind = Literal["cuda", "mps", "cpu"]
MEGABYTE = 1024 * 1024
MOST_SLOTS = 64


@dataclass(frozen=True)
class Device:
    """A device that runs one training at a time.

    Attributes:
        key: what the device is known by for ever, on its machine: a GPU's UUID, else `cpu:0`, `cpu:1`, `mps:0`.
        index: its place among the devices of its kind that this process may use.
        uuid: the GPU's UUID; empty for the other kinds.
        cores: the CPU cores of a CPU slot; empty for the other kinds.
        node: the machine that it is on, where that is one of a cluster.
    """

    kind: DeviceKind
    key: str
    name: str
    index: int = 0
    uuid: str = ""
    memory_total_mb: float | None = None
    cores: tuple[int, ...] = ()
    node: str = ""

    @property
    def label(self) -> str:
        """The short name that `--devices` uses, such as `cuda:0`, after the name of its node if it has one."""
        place = f"{self.node}/" if self.node else ""
        return f"{place}{self.kind}:{self.index}"

    @property
    def type(self) -> str:
        """What other devices must be alike in for their results to be compared: the kind, and of GPUs the model."""
        return device_type(self.kind, self.name)


@dataclass(frozen=True)
class Reading:
    """A device as it is now; None where the machine does not tell."""

    temperature_c: float | None = None
    utilisation_percent: float | None = None
    memory_used_mb: float | None = None


class Nvml(Protocol):
    """What is used of the module `pynvml`."""

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Any: ...  # noqa: N802


def find_devices(spec: str = "auto", nvml: Nvml | None = None) -> list[Device]:
    """The devices that `spec` names, at least one.

    Args:
        spec: `auto` (every GPU, else MPS, else the CPU as one slot), `cuda`, `cuda:0,1`, `mps`, or `cpu:N` for N
            simulated slots that share the CPU's cores. GPU numbers count within CUDA_VISIBLE_DEVICES, as in CUDA.
        nvml: stands in for the module `pynvml`.

    Raises:
        InvalidInput: `spec` is malformed, or names a GPU number that is not there.
        NotReady: `spec` asks for a kind of device that this machine lacks.
    """
    kind, _, rest = spec.strip().partition(":")
    if spec.strip() == "auto":
        return _gpus(nvml) or _mps() or _cpu_slots(1)
    if kind == "cuda" and re.fullmatch(r"(\d{1,3}(,\d{1,3})*)?", rest):
        return _chosen_gpus(rest, nvml)
    if kind == "mps" and not rest:
        if found := _mps():
            return found
        raise NotReady("This machine has no MPS device", "Use --devices auto; MPS needs a Mac with Apple silicon")
    if kind == "cpu" and re.fullmatch(r"\d{0,3}", rest) and 1 <= int(rest or 1) <= MOST_SLOTS:
        return _cpu_slots(int(rest or 1))
    raise InvalidInput(
        f"devices {spec!r} cannot be read", f"Use auto, cuda, cuda:0,1, mps, or cpu:N with N from 1 to {MOST_SLOTS}"
    )


def find_device(key: str, spec: str = "auto", nvml: Nvml | None = None) -> Device:
    """The device with this key among those that `spec` names; raises NotReady when it is not there any more."""
    found = find_devices(spec, nvml)
    for device in found:
        if device.key == key:
            return device
    known = ", ".join(device.key for device in found)
    raise NotReady(f"Device {key!r} is not among those of {spec!r} ({known})", "Look at `nvidia-smi`, or use another")


def reading(device: Device, nvml: Nvml | None = None) -> Reading:
    """The device's temperature, utilisation and memory in use now; never raises."""
    if device.kind == "cuda":
        return _gpu_reading(device, nvml)
    used = psutil.virtual_memory().used / MEGABYTE
    if device.kind == "mps":
        return Reading(memory_used_mb=used)
    percents = psutil.cpu_percent(percpu=True)  # since the previous call
    ours = [percents[core] for core in device.cores if core < len(percents)]
    return Reading(_cpu_temperature(), round(sum(ours) / len(ours), 1) if ours else None, used)


def compute_capability(device: Device, nvml: Nvml | None = None) -> tuple[int, int] | None:
    """A GPU's compute capability, such as (9, 0); None for other devices, and where the driver does not tell."""
    driver = load_driver(nvml) if device.kind == "cuda" else None
    try:
        handle = driver.nvmlDeviceGetHandleByUUID(device.uuid) if driver else None
        major, minor = driver.nvmlDeviceGetCudaComputeCapability(handle) if driver else (0, 0)
    except Exception:
        return None
    return (int(major), int(minor)) if major else None


def load_driver(nvml: Nvml | None) -> Nvml | None:
    """NVML, initialised, or None on a machine without an NVIDIA driver."""
    try:
        if nvml is None:
            import pynvml

            nvml = cast(Nvml, pynvml)
        nvml.nvmlInit()  # harmless when repeated
    except Exception:  # NVML has an exception class of its own for every failure
        return None
    return nvml


def _gpus(nvml: Nvml | None) -> list[Device]:
    """Every GPU that this process may use, in the order of CUDA_VISIBLE_DEVICES."""
    driver = load_driver(nvml)
    if driver is None:
        return []
    handles = [driver.nvmlDeviceGetHandleByIndex(index) for index in range(driver.nvmlDeviceGetCount())]
    return [_gpu(driver, index, handle) for index, handle in enumerate(_visible(driver, handles))]


def _visible(driver: Nvml, handles: list[Any]) -> list[Any]:
    """The handles that CUDA_VISIBLE_DEVICES leaves: as in CUDA, the first entry that names nothing ends the list."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return handles
    by_uuid = {driver.nvmlDeviceGetUUID(handle): handle for handle in handles}
    visible: list[Any] = []
    for entry in (word.strip() for word in wanted.split(",")):
        if entry.isdigit() and int(entry) < len(handles):
            visible.append(handles[int(entry)])
        elif entry.startswith("GPU-") and (named := [by_uuid[uuid] for uuid in by_uuid if uuid.startswith(entry)]):
            visible.append(named[0])
        elif entry.startswith("MIG-"):
            try:
                visible.append(driver.nvmlDeviceGetHandleByUUID(entry))
            except Exception:
                break
        else:
            break
    return visible


def _gpu(driver: Nvml, index: int, handle: Any) -> Device:
    uuid = driver.nvmlDeviceGetUUID(handle)
    try:
        total = round(driver.nvmlDeviceGetMemoryInfo(handle).total / MEGABYTE)
    except Exception:  # GPUs that share the machine's memory have none of their own
        total = None
    return Device("cuda", uuid, driver.nvmlDeviceGetName(handle), index, uuid, total)


def _chosen_gpus(numbers: str, nvml: Nvml | None) -> list[Device]:
    found = _gpus(nvml)
    if not found:
        raise NotReady(
            "No NVIDIA GPU can be used here (no driver answers, or CUDA_VISIBLE_DEVICES hides all)",
            "Run `nvidia-smi` to see what the driver says, or use --devices cpu:1",
        )
    chosen = sorted({int(number) for number in numbers.split(",")}) if numbers else range(len(found))
    for index in chosen:
        if index >= len(found):
            raise InvalidInput(f"devices names cuda:{index}, and there are {len(found)} GPUs", "Count from 0")
    return [found[index] for index in chosen]


def _gpu_reading(device: Device, nvml: Nvml | None) -> Reading:
    driver = load_driver(nvml)
    if driver is None:
        return Reading()

    def value(read: Callable[[Any], float]) -> float | None:
        try:
            return float(read(driver.nvmlDeviceGetHandleByUUID(device.uuid)))
        except Exception:  # each of the three is missing on some GPU
            return None

    return Reading(
        value(lambda gpu: driver.nvmlDeviceGetTemperature(gpu, 0)),
        value(lambda gpu: driver.nvmlDeviceGetUtilizationRates(gpu).gpu),
        value(lambda gpu: driver.nvmlDeviceGetMemoryInfo(gpu).used / MEGABYTE),
    )


def _mps() -> list[Device]:
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return []
    return [Device("mps", "mps:0", "Apple silicon GPU", memory_total_mb=_memory_total())]


def _cpu_slots(count: int) -> list[Device]:
    """The CPU as `count` slots with equal shares of its cores; slots beyond the cores share them."""
    cores = _cores()
    name = _cpu_name()
    slots = []
    for index in range(count):
        share = cores[index * len(cores) // count : (index + 1) * len(cores) // count]
        share = share or (cores[index % len(cores)],)
        slots.append(Device("cpu", f"cpu:{index}", name, index, memory_total_mb=_memory_total() // count, cores=share))
    return slots


def _cores() -> tuple[int, ...]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine() or "CPU"


def _memory_total() -> int:
    return psutil.virtual_memory().total // MEGABYTE


def _cpu_temperature() -> float | None:
    """The hottest CPU sensor, in degrees Celsius."""
    # psutil has no such function on macOS.
    sensors: Mapping[str, Sequence[Any]] = getattr(psutil, "sensors_temperatures", dict)()
    names = [name for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz") if name in sensors]
    return max((float(sensor.current) for sensor in sensors[names[0]]), default=None) if names else None
