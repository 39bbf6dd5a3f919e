"""What the holder of a device's lock does with the device, on whatever machine: clear it, and train on it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from mcp_server.machine import processes
from mcp_server.machine.clocks import clock_read
from mcp_server.machine.locks import DeviceLock
from mcp_server.machine.rescoring import Question, rejected, settle
from mcp_server.machine.rig import BASELINE, Order, Rig
from mcp_server.machine.training import Ask, train
from mcp_server.research.case import Case
from mcp_server.research.effort import ClockRead, drawn_out, over_budget, starved
from mcp_server.research.experiment import Ending, Run

Look = Callable[[], Awaitable[tuple[Run, Case]]]


async def clear(lock: DeviceLock) -> bool:
    """End all that is left of earlier trainings on a device, and wait for it a while; False if something remains."""
    await processes.end(lock.mark)
    deadline = time.monotonic() + processes.PATIENCE
    while lock.is_busy() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        await processes.end(lock.mark)
    return not lock.is_busy()


async def run_trial(rig: Rig, order: Order, busy: int, ask: Ask, look: Look) -> Ending:
    """Train what is ordered, score it anew where it might be kept, and free the device of all that it left.

    Args:
        busy: the descriptor of the device's busy lock, which is closed here.
        ask: see `child.run`.
        look: gives the run and the trial's case once it is trained, where what it took or its score is in question.
    """
    try:
        ending = await train(rig, order, busy, ask)
        if ending.status in ("finished", "timed_out") and not order.task.external:
            await _free(rig)
            run, case = await look()
            clock = clock_read(rig.repository, order.trial.commit, order.task)
            told = BASELINE in dict(order.task.environment)
            ending = weighed(run, case, ending, len(rig.device.cores) or os.cpu_count() or 1, clock, told)
            if order.task.rescore_command and ending.status == "finished" and not ending.error:
                ending = await settle(rig, order, Question(run, case, ending), busy, ask)
    finally:
        os.close(busy)
    await _free(rig)
    return ending


def weighed(run: Run, case: Case, ending: Ending, cores: int, clock: ClockRead = "", told: bool = False) -> Ending:
    """The ending of a training by what it took: rejected where it was too much, `lost` and run again where that was too
    little, or little more than it may be, by no fault of its own. What took too much elsewhere may have had too little
    by its own clock.

    Args:
        cores, clock: see `effort.starved`.
        told: see `effort.over_budget`.
    """
    if ending.status == "finished" and not ending.error and (why := over_budget(run, case, ending, told)):
        if not (crowded := drawn_out(run, case, ending)):
            return rejected(run, ending, why)
        return replace(ending, status="lost", starved=True, metrics={}, error=crowded)
    if why := starved(run, case, ending, cores, clock):
        return replace(ending, status="lost", starved=True, metrics={}, error=why)
    return ending


async def _free(rig: Rig) -> None:
    await processes.end(rig.lock.mark, below=os.getpid())
    processes.reap()


def stuck(device: str, lock: DeviceLock) -> str:
    """That a device cannot be freed, with the processes that have it."""
    pids = [process.pid for process in processes.marked(lock.mark)]
    return f"{device} is stuck: cannot kill {pids or 'whatever has its busy lock'}"
