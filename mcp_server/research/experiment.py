"""Runs, experiments and trials, their statuses, and the one table of legal transitions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
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
    "needs_confirmation": ("queued", "keep", "discard", "crash"),
    "keep": ("discard",),  # a best that its own later runs do not bear out is displaced
    "discard": ("needs_confirmation",),  # a near miss, looked at again after the best was measured again
    "crash": (),
}
"""From each status of an experiment, the statuses it may move to. The store enforces this table with a trigger."""

Scalar = float | int | str
KnobValue = float | int | str | bool | None | tuple["KnobValue", ...]
Origin = Literal["measured", "reported"]
"""Who measured a value: this server's worker, or the caller of an external run."""

Verification = Literal["verified", "verified (unsandboxed)", "reported"]
"""How far a value can be trusted: scored anew out of the training's reach, the same without walls around it, or as the
training (or the caller of an external run) said."""
VERIFICATIONS: tuple[Verification, ...] = get_args(Verification)

HIDDEN_TEXT = "hidden_text"
"""The metric that says why the text that audits a score could be read by the training; absent where it could not."""
Label = Literal["verified", "verified (hidden text readable)", "verified (unsandboxed)", "reported"]
"""A verification as people are told it."""


def label_of(verification: Verification, metrics: Mapping[str, "Scalar"]) -> Label:
    """How far a value can be trusted, with what its metrics say of the text that audits it."""
    readable = verification == "verified" and HIDDEN_TEXT in metrics
    return "verified (hidden text readable)" if readable else verification


CountedBy = Literal["", "cgroup", "sampled"]
"""How CPU time was counted: by the kernel for a control group, or by looking at all processes again and again."""

MAX_LOST = 2
"""How often a trial that was lost with its worker, or starved, is queued again by itself."""

FIRST_SEED = 42
UNVERIFIED = "unverified"
"""The `source` of an experiment whose commit is not in this repository."""
NO_CHANGE = "no change"
"""The `diff_summary` of an experiment whose commit has the files of its base."""


@dataclass(frozen=True)
class Numbers:
    """What a verdict under noise rests on; all but z and the counts in units of the metric.

    Attributes:
        d: how much better the candidate is than what it was made from, the mean over its runs.
        s: standard error of d, sigma * sqrt(1/n + 1/n_b); see `rows.counted_error` for what is added to it.
        z: d / s.
        n: runs of the candidate.
        n_b: runs behind the mean of its base.
        sigma: standard deviation of one run, estimated with `dof` degrees of freedom.
        base: id of the experiment that the candidate's last run was made from.
        incumbent: id of the present best.
        pairs: how many of the candidate's runs are compared with a run of the base beside them, see `pairing`; then d
            and s are those of all runs of both in blocks near in time, see `blocks`.
        validation_gain, validation_error: the gain on the validation text, and its standard error over rows; None where
            the scores by row are not known.
        hidden_gain, hidden_error: the same on the hidden text. The error is part of s where that gain counts.
        awaits_base: whether the base is to be run once more before these decide, see `contention.unsettled`.
    """

    d: float
    s: float
    z: float
    n: int
    n_b: int
    sigma: float
    dof: int
    base: str
    incumbent: str
    pairs: int = 0
    validation_gain: float | None = None
    validation_error: float | None = None
    hidden_gain: float | None = None
    hidden_error: float | None = None
    awaits_base: bool = False


@dataclass(frozen=True)
class Run:
    """A research effort under a tag.

    Attributes:
        base_commit: the committed state that the run started from.
        device_kind: `cuda`, `mps` or `cpu`; results of other kinds are never compared with this run's.
        manual_mode: the strategy mode set by hand, or None for `auto`; `manual_ratio` and `manual_temperature` replace
            the mode's own where they were given. `manual_at` is when it was set or given back.
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
    manual_ratio: float | None = None
    manual_temperature: float | None = None
    manual_at: float | None = None

    @property
    def device_type(self) -> str:
        """The type of device that its results come from, see `Device.type`."""
        return device_type(self.device_kind, self.platform.get("device_name", ""))


@dataclass(frozen=True)
class Experiment:
    """One hypothesis and its commit.

    Attributes:
        request: a digest of the arguments of `register`, by which a repeated call is known.
        changes: name -> (old, new) of the module-level constants that the commit changed.
        value: the run's metric, once there is a verdict with a finite value: the mean of the runs that count.
        delta: improvement over the best at the time of the verdict, under noise over its own base; positive is better.
        best_before: the best value at the time of the verdict.
        decided: 1 for the run's first verdict, 2 for the second, ...; below 1 where an earlier session gave it, whose
            table was imported.
        branch_commit: for a keep, the commit that the branch was moved to (its tree is the measured tree).
        numbers: what the last verdict rests on, where it was given under noise.
        accepted_loss: what a simplification may have cost, in units of the metric.
        runs: how many runs `value` is the mean of.
        squares, dof: what its replicates add to the estimate of the noise, see `noise.Noise`.
        promising_after: the last verdict of the run, as in `decided`, when it was last found to need confirmation.
        verification, sandboxed: of the last run that its value is of, see `Trial`.
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
    numbers: Numbers | None = None
    accepted_loss: float = 0.0
    runs: int = 0
    squares: float = 0.0
    dof: int = 0
    promising_after: int | None = None
    verification: Verification = "reported"
    sandboxed: bool = False

    @property
    def label(self) -> Label:
        """Its verification as people are told it."""
        return label_of(self.verification, self.metrics)

    @property
    def commit_known(self) -> bool:
        """Whether its commit is in this repository. An agent that runs git by itself may name one that is not."""
        return self.source != UNVERIFIED

    @property
    def imported(self) -> bool:
        """Whether it was taken from the table of an earlier session, as reported there."""
        return self.decided is not None and self.decided < 1

    @property
    def unchanged(self) -> bool:
        """Whether its commit is its base: the script measured as it is."""
        return not self.changes and self.diff_summary == NO_CHANGE


@dataclass(frozen=True)
class Trial:
    """One execution of an experiment; immutable once ended. Times are seconds since the epoch.

    Attributes:
        device_type: the type of device that may run it, see `Device.type`.
        commit: the code that runs: that of the experiment when it was queued.
        base_id: the kept experiment that this code was made from, where a verdict is at hand: it may be kept later
            than the trial began. None: the code that the run started from.
        came_from: what the experiment was when it was queued. A trial of one that is kept measures it again and leaves
            it kept.
        verification: how far its score can be trusted.
        sandboxed: whether it ran behind walls.
        wall_seconds, cpu_seconds: what the training took by the worker's clock, and all its processes together.
        effort_seconds: what of it counts against the budget, see `effort.Effort`.
        waited_seconds: CPU seconds that it was ready for and that others had.
        counted_by: how CPU time was counted.
        starved: whether it is `lost` because others had too much of its device for it to be a measurement.
    """

    id: str
    experiment_id: str
    attempt: int
    seed: int
    device_type: str
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
    commit: str = ""
    base_id: str | None = None
    came_from: Status = "registered"
    verification: Verification = "reported"
    sandboxed: bool = False
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    effort_seconds: float = 0.0
    waited_seconds: float = 0.0
    counted_by: CountedBy = ""
    starved: bool = False


def device_type(kind: str, name: str) -> str:
    """What makes two devices alike enough to compare results: the kind, and of GPUs the model."""
    return f"{kind} {name}" if kind == "cuda" else kind


def fresh_seed(used: Collection[int]) -> int:
    """The first seed, from 42 on, that was not used."""
    return next(seed for seed in count(FIRST_SEED) if seed not in used)


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as its worker writes it to `result.json` and then to the store.

    Attributes:
        out_of_memory: whether it failed for want of memory.
        cpu_users: who else used the device's cores most, where it had to wait for them.
        idle_seconds: of its effort, those in which a GPU did nothing.
        rows: what the judge said of each row, see `rows.parse`; empty where it did not.
    """

    status: TrialStatus
    ended_at: float
    exit_code: int | None = None
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    error: str = ""
    out_of_memory: bool = False
    verification: Verification = "reported"
    sandboxed: bool = False
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    effort_seconds: float = 0.0
    waited_seconds: float = 0.0
    counted_by: CountedBy = ""
    starved: bool = False
    cpu_users: tuple[str, ...] = ()
    idle_seconds: float = 0.0
    rows: str = ""
