"""The devices of this server and the workers that drain the queue."""

import asyncio
import time

from mcp_server.errors import NotReady
from mcp_server.lab.bench import Bench
from mcp_server.lab.results import DeviceView
from mcp_server.machine.devices import Device, find_devices, reading
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.worker import start_worker
from mcp_server.research.experiment import Trial

STUCK_SECONDS = 30.0
"""How long a device that could not be cleared is left alone."""


class Pool:
    """Finds devices, starts a worker where one is needed, and shows what each device does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._found: list[Device] | None = None
        self._waking = asyncio.Lock()
        self._tried: dict[str, float] = {}

    async def devices(self) -> list[Device]:
        """The devices that this server may use; raises NotReady or InvalidInput where there are none as asked."""
        if self._found is None:
            self._found = await self._bench.run(find_devices, self._bench.settings.devices)
        return self._found

    async def of_type(self, wanted: str) -> list[Device]:
        """The devices of a type; raises NotReady if this server has none."""
        devices = [device for device in await self.devices() if device.type == wanted]
        if not devices:
            have = ", ".join(sorted({device.type for device in await self.devices()})) or "none"
            raise NotReady(
                f"The run was begun on {wanted} and this server has {have}: such results are never compared",
                "Start the server with --devices naming the first, or begin another run",
            )
        return devices

    async def label(self, key: str | None) -> str | None:
        """The short name of a device, such as `cuda:0`; its key where it is not one of this server's."""
        labels = {device.key: device.label for device in await self.devices()}
        return labels.get(key, key) if key else None

    async def wake(self, device_type: str) -> int:
        """Start a worker on free devices of a type, as many as there are trials to take or to heal; how many."""
        started = 0
        async with self._waking:
            training = await self._bench.store.trials.in_training()
            wanted = await self._bench.store.trials.waiting(device_type)
            if not wanted and not training:
                return 0
            for device in [device for device in await self.devices() if device.type == device_type]:
                orphaned = device.key in training
                if (wanted or orphaned) and await self._bench.run(self._is_free, device):
                    await self._bench.run(start_worker, self._bench.settings, device)
                    wanted -= 0 if orphaned else 1
                    started += 1
        return started

    async def heal(self) -> int:
        """Start workers where trainings were left alone, or wait though a device is free; how many."""
        if not await self._bench.store.trials.any_live():
            return 0
        types = sorted({device.type for device in await self.devices()})
        return sum([await self.wake(device_type) for device_type in types])

    async def views(self) -> list[DeviceView]:
        """Every device as it is now."""
        training = await self._bench.store.trials.in_training()
        return [await self._bench.run(self._view, device, training.get(device.key)) for device in await self.devices()]

    def _is_free(self, device: Device) -> bool:
        """Whether a worker may be started on a device; one with something unkillable on it is tried now and then."""
        lock = self._lock(device)
        if lock.is_held():
            return False
        if lock.is_busy() and time.monotonic() - self._tried.get(device.key, float("-inf")) < STUCK_SECONDS:
            return False
        self._tried[device.key] = time.monotonic()
        return True

    def _lock(self, device: Device) -> DeviceLock:
        return DeviceLock(self._bench.settings.locks, device.key)

    def _view(self, device: Device, trial: Trial | None) -> DeviceView:
        lock = self._lock(device)
        holder = lock.holder()
        now = reading(device)
        ours = trial if holder else None
        detail = ""
        if holder and not ours:
            detail = f"held by process {holder.pid} for {holder.repo or 'another repository'}"
        elif not holder and lock.is_busy():
            detail = "something of an earlier training is still alive on it"
        status = "training" if ours else "busy" if holder else "stuck" if detail else "idle"
        return DeviceView(
            key=device.label,
            kind=device.kind,
            name=device.name,
            uuid=device.uuid,
            status=status,  # type: ignore[arg-type] # one of the four words above
            memory_total_mb=device.memory_total_mb,
            memory_used_mb=now.memory_used_mb,
            temperature_c=now.temperature_c,
            utilisation_percent=now.utilisation_percent,
            experiment_id=ours.experiment_id if ours else None,
            detail=detail,
        )
