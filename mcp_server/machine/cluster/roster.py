"""`devices.json`: what the driver of a cluster tells the servers of its repository."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mcp_server.machine.devices import Device, Reading

NAME = "devices.json"


@dataclass(frozen=True)
class Seen:
    """A device of the cluster.

    Attributes:
        held: whether it trains for this repository, or cannot be used.
        detail: why it cannot be used; empty where it can.
    """

    device: Device
    reading: Reading = field(default_factory=Reading)
    held: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Roster:
    """All devices, as they were at a time.

    Attributes:
        at: seconds since the epoch.
        cluster: which cluster and which of its devices the driver was asked for.
        problem: why there are no devices.
    """

    at: float
    cluster: str
    devices: Sequence[Seen] = ()
    problem: str = ""


def write(folder: Path, roster: Roster) -> None:
    """Write the roster, all of it or nothing."""
    part = folder / f"{NAME}.part"
    part.write_text(json.dumps(asdict(roster)), encoding="utf-8")
    part.replace(folder / NAME)


def read(folder: Path) -> Roster | None:
    """The roster; None if there is none that can be read."""
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
        seen = [
            Seen(
                Device(**{**each["device"], "cores": tuple(each["device"]["cores"])}),
                Reading(**each["reading"]),
                each["held"],
                each["detail"],
            )
            for each in told["devices"]
        ]
        return Roster(told["at"], told["cluster"], seen, told["problem"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
