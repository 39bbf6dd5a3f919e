"""Where things lie in the state folder."""

from dataclasses import dataclass
from pathlib import Path

from mcp_server.settings import Settings


@dataclass(frozen=True)
class Folders:
    """The layout below the state folder of one repository."""

    state: Path

    @classmethod
    def of(cls, settings: Settings, root: Path) -> "Folders":
        """The folders for the repository whose top is `root`."""
        return cls(settings.state or root / ".autoresearch")

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.state / "research.db"

    def workspaces(self, tag: str) -> Path:
        """Where the agents of a run edit."""
        return self.state / "workspaces" / tag

    def workspace(self, tag: str, agent: str) -> Path:
        """Where an agent of a run edits."""
        return self.workspaces(tag) / agent

    def night(self, tag: str) -> Path:
        """What nights on a run have and leave: `agent.log`, `prompt.md`, `mcp.json` and reports."""
        return self.state / "nights" / tag

    def trial(self, trial_id: str) -> Path:
        """All that one trial has and leaves: `log.txt`, `out/`, `result.json` and, while it runs, `checkout/`."""
        return self.state / "trials" / trial_id

    def log(self, trial_id: str) -> Path:
        """The output of one trial."""
        return self.trial(trial_id) / "log.txt"

    def reports(self, tag: str) -> Path:
        """The progress reports of a run."""
        return self.state / "reports" / tag

    def inputs(self, tag: str) -> Path:
        """What the inputs of a run were in its first training."""
        return self.state / "inputs" / f"{tag}.json"

    def out(self, trial_id: str) -> Path:
        """What one trial leaves."""
        return self.trial(trial_id) / "out"

    @property
    def cluster(self) -> Path:
        """What the driver of a cluster has: its lock, its log, the devices that it saw, bundles of code."""
        return self.state / "cluster"
