"""What the holder of a device's lock does with the device, on whatever machine: clear it, and train on it."""

import asyncio
import os
import time

from mcp_server.machine import processes
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.training import Ask, Order, Rig, train
from mcp_server.research.experiment import Ending


async def clear(lock: DeviceLock) -> bool:
    """End all that is left of earlier trainings on a device, and wait for it a while; False if something remains."""
    await processes.end(lock.mark)
    deadline = time.monotonic() + processes.PATIENCE
    while lock.is_busy() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        await processes.end(lock.mark)
    return not lock.is_busy()


async def run_trial(rig: Rig, order: Order, busy: int, ask: Ask) -> Ending:
    """Train what is ordered, and free the device of all that it left; for the arguments see `train`."""
    try:
        ending = await train(rig, order, busy, ask)
    finally:
        os.close(busy)
    await processes.end(rig.lock.mark, below=os.getpid())
    processes.reap()
    return ending


def stuck(device: str, lock: DeviceLock) -> str:
    """That a device cannot be freed, with the processes that have it."""
    pids = [process.pid for process in processes.marked(lock.mark)]
    return f"{device} is stuck: cannot kill {pids or 'whatever has its busy lock'}"
