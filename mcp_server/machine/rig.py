"""What a trial is run with and on."""

from dataclasses import dataclass
from pathlib import Path

from mcp_server.machine.devices import Device
from mcp_server.machine.folders import Folders
from mcp_server.machine.git import Repository
from mcp_server.machine.hidden import HARNESS
from mcp_server.machine.locks import DeviceLock
from mcp_server.research.experiment import Trial
from mcp_server.research.task import Task, split_command
from mcp_server.settings import Settings

HANDED_IN = ("program.json", "program.bin", "model.pickle")
"""What our harness leaves to be scored. It goes once that is done, so that no other training can hand it in again."""

BASELINE = "AUTORESEARCH_BASELINE"
"""By which the clock of our harness knows `effort.limit`."""


@dataclass(frozen=True)
class Rig:
    """Where trials run: a device with its lock, for a repository and its state folder."""

    settings: Settings
    repository: Repository
    device: Device
    lock: DeviceLock

    @property
    def state(self) -> Path:
        """The folder with the record and all trials."""
        return Folders.of(self.settings, self.repository.root).state


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes:
        folder: the trial's folder; what it holds is deleted.
        base_commit: what the run started from.
        inputs: the run's record of its inputs, see `check_inputs`.
    """

    task: Task
    trial: Trial
    folder: Path
    inputs: Path
    base_commit: str = ""

    @property
    def left(self) -> Path:
        """The run's record of what was installed while it trained, beside that of its inputs; see `check_left`."""
        return self.inputs.with_suffix(".installed")


def handed_in(order: Order) -> list[Path]:
    """All that the scorer of our harness finds of what a training left; empty for other scorers, which find all of it.

    What a training takes counts until these are as they are scored, and nothing that it leaves later is seen.
    """
    words = split_command(order.task.rescore_command) if order.task.rescore_command else []
    ours = order.task.builtin and any(Path(word).name == HARNESS for word in words)
    return [order.folder / "out" / name for name in HANDED_IN] if ours else []
