"""The devices of this server and the workers that drain the queue."""

import asyncio

from mcp_server.errors import NotReady
from mcp_server.lab.bench import Bench
from mcp_server.lab.results import DeviceView
from mcp_server.machine.devices import Device
from mcp_server.machine.executors import executor_of
from mcp_server.machine.stopping import end_by_force
from mcp_server.research.experiment import Trial


class Pool:
    """Finds devices, has somebody at work where trials wait, and shows what each device does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._executor = executor_of(bench.settings, bench.folders.state)
        self._waking = asyncio.Lock()

    async def devices(self, anew: bool = False) -> list[Device]:
        """The devices that this server may use, as last found or `anew`; NotReady or InvalidInput if none."""
        return await self._bench.run(self._executor.devices, anew)

    async def of_type(self, wanted: str) -> list[Device]:
        """The devices of a type; raises NotReady if this server has none."""
        devices = [device for device in await self.devices() if device.type == wanted]
        if not devices:
            devices = [device for device in await self.devices(anew=True) if device.type == wanted]
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
        """Have somebody at work wherever there are trials of a type to take or to heal; how many were called."""
        async with self._waking:
            training = await self._bench.store.trials.in_training()
            waiting = await self._bench.store.trials.waiting(device_type)
            if not waiting and not training:
                return 0
            return await self._bench.run(self._executor.wake, device_type, waiting, set(training)) or 0

    async def end_by_force(self, trial: Trial) -> None:
        """End a trial in training on this machine that its worker does not end."""
        bench = self._bench
        if bench.settings.executor == "local" and trial.device:
            await end_by_force(bench.settings, bench.store, bench.repository, trial)

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

    def _view(self, device: Device, trial: Trial | None) -> DeviceView:
        now = self._executor.occupancy(device)
        ours = trial if now.held else None
        detail = ""
        if now.held and not ours:
            detail = now.holder
        elif now.stuck:
            detail = "something of an earlier training is still alive on it"
        elif now.foreign:
            detail = f"used by {now.foreign}"
        busy = now.held or now.foreign
        status = "training" if ours else "stuck" if now.stuck else "busy" if busy else "idle"
        return DeviceView(
            key=device.label,
            kind=device.kind,
            name=device.name,
            uuid=device.uuid,
            status=status,  # type: ignore[arg-type] # one of the four words above
            memory_total_mb=device.memory_total_mb,
            memory_used_mb=now.reading.memory_used_mb,
            temperature_c=now.reading.temperature_c,
            utilisation_percent=now.reading.utilisation_percent,
            experiment_id=ours.experiment_id if ours else None,
            detail=detail,
        )
