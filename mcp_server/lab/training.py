"""Trainings: queueing them, watching them, ending them."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from annotated_types import Ge, Le

from mcp_server.lab.results import DeviceList, LogExcerpt, Stopped, Trained

Watcher = Callable[[float, float | None, str], Awaitable[None]]
"""Called while an operation waits, with seconds done, seconds in all (if known), and a message."""


class Training:
    async def train(
        self,
        experiment_id: str,
        wait_seconds: Annotated[float, "Return after this long at the latest; call again to re-attach", Ge(0), Le(3600)] = 45,
        seed: Annotated[int | None, "Random seed; default: chosen for you"] = None,
        *,
        progress: Watcher | None = None,
    ) -> Trained:
        """Train an experiment on the next free device, and wait for a while. Still queued or training: call again.

        A second call never starts a second training. Next, when trained: complete.
        """
        raise NotImplementedError

    async def devices(self) -> DeviceList:
        """List the devices: memory in MB, temperature, utilisation, and the experiment on each."""
        raise NotImplementedError

    async def logs(
        self,
        experiment_id: str,
        lines: Annotated[int, "How many of the last lines", Ge(1), Le(500)] = 50,
        grep: Annotated[str | None, "Only lines that contain this text"] = None,
    ) -> LogExcerpt:
        """Read the end of an experiment's training log."""
        raise NotImplementedError

    async def stop(self, experiment_id: str) -> Stopped:
        """End an experiment's training. It is recorded as stopped, and the experiment may be trained again."""
        raise NotImplementedError
