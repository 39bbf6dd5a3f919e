"""Runs, experiments and trials, their statuses, and the one table of legal transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mcp_server.research.task import Category, Task

Status = Literal["registered", "queued", "training", "trained", "needs_confirmation", "keep", "discard", "crash"]
STATUSES: tuple[Status, ...] = get_args(Status)
FINISHED: tuple[Status, ...] = ("keep", "discard", "crash")

TrialStatus = Literal["queued", "training", "finished", "failed", "timed_out", "stopped", "lost"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "registered": ("queued", "keep", "discard", "crash"),  # straight to a verdict only in external runs
    "queued": ("training", "registered", "needs_confirmation", "trained"),  # stop gives back what it was before
    "training": ("trained", "queued", "crash"),
    "trained": (
        "keep",
        "discard",
        "needs_confirmation",
        "crash",
        "queued",
    ),  # queued: the last trial was stopped or lost
    "needs_confirmation": ("queued", "crash"),
    "keep": (),
    "discard": (),
    "crash": (),
}
"""From each status of an experiment, the statuses it may move to. The store enforces this table with a trigger."""

Scalar = float | int | str
KnobValue = float | int | str | bool | None | tuple["KnobValue", ...]
Origin = Literal["measured", "reported"]
"""Who measured a value: this server's worker, or the caller of an external run."""

MAX_LOST = 2
"""How often a trial that was lost with its worker is queued again by itself."""

FIRST_SEED = 42
NO_CHANGE = "no change"
"""The `diff_summary` of an experiment whose commit has the files of its base."""


@dataclass(frozen=True)
class Run:
    """A research effort under a tag.

    Attributes:
        base_commit: the committed state that the run started from.
        device_kind: `cuda`, `mps` or `cpu`; results of other kinds are never compared with this run's.
        manual_mode: the strategy mode set by hand, or None for `auto`.
        created_at: seconds since the epoch.
    """

    tag: str
    branch: str
    base_commit: str
    task: Task
    device_kind: str
    platform: Mapping[str, str]
    created_at: float
    manual_mode: str | None = None
    manual_reason: str = ""


@dataclass(frozen=True)
class Experiment:
    """One hypothesis and its commit.

    Attributes:
        request: a digest of the arguments of `register`, by which a repeated call is known.
        changes: name -> (old, new) of the module-level constants that the commit changed.
        value: the run's metric, once there is a verdict with a finite value.
        delta: improvement over the best at the time of the verdict; positive is better.
        best_before: the best value at the time of the verdict.
        decided: 1 for the run's first verdict, 2 for the second, ...
        branch_commit: for a keep, the commit that the branch was moved to (its tree is the measured tree).
    """

    id: str
    tag: str
    number: int
    agent: str
    commit: str
    base_commit: str
    hypothesis: str
    category: Category
    request: str
    registered_at: float
    status: Status = "registered"
    parent_id: str | None = None
    description: str = ""
    source: str = "workspace"
    diff_summary: str = ""
    lines_added: int = 0
    lines_removed: int = 0
    changes: Mapping[str, tuple[KnobValue, KnobValue]] = field(default_factory=dict)
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    origin: Origin = "measured"
    value: float | None = None
    delta: float | None = None
    best_before: float | None = None
    near_miss: bool = False
    reason: str = ""
    lesson: str = ""
    decided: int | None = None
    decided_at: float | None = None
    branch_commit: str | None = None

    @property
    def unchanged(self) -> bool:
        """Whether its commit is its base: the script measured as it is."""
        return not self.changes and self.diff_summary == NO_CHANGE


@dataclass(frozen=True)
class Trial:
    """One execution of an experiment; immutable once ended. Times are seconds since the epoch."""

    id: str
    experiment_id: str
    attempt: int
    seed: int
    device_kind: str
    status: TrialStatus
    queued_at: float
    device: str | None = None
    worker_pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    error: str = ""
    stop_requested: bool = False


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as its worker writes it to `result.json` and then to the store."""

    status: TrialStatus
    ended_at: float
    exit_code: int | None = None
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    error: str = ""
