"""Where trainings run: what the lab asks of it, whether that is this machine or a cluster.

Trials wait in the store, and who runs them takes them from there and records there how they ended. So little is left to
ask: which devices there are, what is on each, and that somebody be at work where trials wait.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from mcp_server.machine.devices import Device, Reading


@dataclass(frozen=True)
class Occupancy:
    """What is on a device.

    Attributes:
        held: whether somebody has it.
        stuck: whether nobody has it, and something of an earlier training lives on it.
        holder: who has it where that is not this repository, for display.
        foreign: the processes on it that are nobody's training and keep it from being free, for display.
    """

    held: bool
    stuck: bool
    holder: str
    reading: Reading
    foreign: str = ""


class Executor(Protocol):
    """Runs the trials that wait in the store of one repository. Its methods block."""

    def devices(self, anew: bool = False) -> list[Device]:
        """The devices that trials can run on, found `anew` or as they were last.

        Raises:
            InvalidInput, NotReady: there are none as the settings ask for them.
        """

    def wake(self, device_type: str, waiting: int, training: Collection[str]) -> int | None:
        """Return at once, and have somebody at work on devices of a type; how many were called, where that is known.

        Args:
            waiting: how many trials are queued for the type.
            training: keys of the devices on which trials are recorded as training; those whose keeper died are healed.
        """

    def occupancy(self, device: Device) -> Occupancy:
        """What is on a device now."""
