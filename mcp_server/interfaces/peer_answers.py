"""What the multi-GPU tracker answers, field by field: the shapes that `peer_shapes` makes and OpenAPI describes."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

Mode = Literal["explore", "exploit", "combine", "ablation"]


class Numbers(TypedDict):
    """The numbers of a training; 0 for what was not reported."""

    val_bpb: float
    peak_vram_mb: float
    training_seconds: float
    total_tokens_m: float
    mfu_percent: float
    num_steps: float
    num_params_m: float
    depth: float


class Experiment(Numbers):
    """An experiment; one without a verdict is `running`."""

    id: str
    tag: str
    parent_id: str | None
    commit_sha: str
    commit_verified: bool
    description: str
    hypothesis: str
    category: str
    status: Literal["running", "keep", "discard", "crash"]
    gpu_id: str
    started_at: str
    finished_at: str | None
    diff_summary: str
    error: str | None


class Tag(TypedDict):
    """A run; `best_val_bpb` is null until there is one."""

    name: str
    branch: str
    created_at: str
    best_val_bpb: float | None
    total_experiments: int
    kept_experiments: int


class Begun(TypedDict):
    """A run that was set up."""

    tag: Tag
    branch: str


class Registered(TypedDict):
    """An experiment that was registered, and what became of its commit and category."""

    experiment_id: str
    status: Literal["registered"]
    commit_sha: str
    commit_verified: bool
    category: str


class Completed(TypedDict):
    """The verdict on an experiment; `delta` is positive where it is better than the best before."""

    experiment_id: str
    status: Literal["keep", "discard", "crash"]
    val_bpb: float | None
    improved: bool
    delta: float
    best_val_bpb: float | None
    action: Literal["keep_commit", "git_reset"]
    reason: str


class Crashed(TypedDict):
    """A training that failed, and whether to stop and rethink."""

    experiment_id: str
    status: Literal["crash"]
    consecutive_crashes: int
    should_abort: bool
    action: Literal["git_reset"]


class History(TypedDict):
    """Experiments in order of start."""

    experiments: list[Experiment]
    total: int


class BestInShort(TypedDict):
    """The best experiment in short."""

    experiment_id: str
    val_bpb: float | None
    commit_sha: str
    updated_at: str | None


class Best(TypedDict):
    """The best experiment."""

    best: BestInShort
    experiment: Experiment


class NearMiss(TypedDict):
    """A near miss; `delta` is what it lacked."""

    experiment_id: str
    tag: str
    val_bpb: float | None
    delta: float
    hypothesis: str
    category: str
    diff_summary: str


class NearMisses(TypedDict):
    """Near misses, the nearest first."""

    near_misses: list[NearMiss]
    total: int


class Strategy(TypedDict):
    """How to choose the next experiment."""

    mode: Mode
    explore_ratio: float
    temperature: float
    updated_at: str
    reason: str


class CategoryCount(TypedDict):
    """How many experiments of a category are finished, and how many of these were kept."""

    total: int
    kept: int


class Suggestion(TypedDict):
    """What to try next."""

    strategy: Mode
    total_experiments: int
    category_stats: dict[str, CategoryCount]
    underexplored_categories: list[str]
    high_yield_categories: list[str]
    near_misses_available: int
    near_miss_categories: list[str]
    recent_bpb_trend: list[float]
    suggestions: list[str]


class Worker(TypedDict):
    """A registered device."""

    id: str
    name: str
    host: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    status: Literal["idle", "training", "offline"]
    current_experiment_id: str | None
    registered_at: str
    last_heartbeat: str


class Enlisted(TypedDict):
    """A device that was registered; `worker.id` is its name from now on."""

    registered: Literal[True]
    worker: Worker


class Alive(TypedDict):
    """A heartbeat that was heard."""

    ok: Literal[True]


class Pool(TypedDict):
    """Registered devices, and how many have each status."""

    workers: list[Worker]
    total: int
    idle: int
    training: int
    offline: int


class Acquired(TypedDict):
    """A device that is lent, or why there is none."""

    acquired: bool
    gpu_id: str | None
    gpu_index: NotRequired[int]
    host: NotRequired[str]
    reason: NotRequired[str]


class Released(TypedDict):
    """A device that was given back."""

    released: Literal[True]


class Discharged(TypedDict):
    """A device that is no longer registered."""

    deregistered: Literal[True]


class Leader(TypedDict):
    """The best of a run."""

    val_bpb: float | None
    commit: str
    experiment_id: str


class Stats(TypedDict):
    """How many experiments have each status; `total` and `keep_rate` are of those with a verdict."""

    total: int
    kept: int
    discarded: int
    crashed: int
    running: int
    keep_rate: float


class Step(TypedDict):
    """A kept experiment."""

    id: str
    val_bpb: float | None
    description: str
    category: str
    at: str | None


class GpuPool(TypedDict):
    """How many registered devices have each status."""

    total: int
    idle: int
    training: int


class Summary(TypedDict):
    """A run at a glance."""

    tag: str
    branch: str
    best: Leader | None
    stats: Stats
    categories: dict[str, int]
    bpb_progression: list[Step]
    total_training_minutes: float
    strategy: Mode
    gpu_pool: GpuPool


class Table(TypedDict):
    """The table of results: seven characters of the commit, six decimals, GiB with one."""

    tsv: str
    count: int


class Side(TypedDict):
    """One of two experiments."""

    id: str
    val_bpb: float
    description: str
    category: str
    num_params_m: float
    peak_vram_mb: float


class Difference(TypedDict):
    """Two experiments side by side; differences are b minus a."""

    a: Side
    b: Side
    delta_bpb: float
    delta_params_m: float
    delta_vram_mb: float


class Tags(TypedDict):
    """Runs, newest first."""

    tags: list[Tag]


class Trained(Numbers):
    """The numbers of a training on this machine."""

    status: Literal["success"]
    experiment_id: str
    gpu_id: str
    device: str | None


class Untrained(TypedDict):
    """A training on this machine that failed: its error, and the end of its log."""

    status: Literal["crash", "timeout"]
    experiment_id: str
    gpu_id: str
    device: str | None
    error: str


class Health(TypedDict):
    """A device of this machine as it now is; null for what it does not tell."""

    gpu_id: str
    temperature_c: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    utilization_percent: float | None


class Fault(TypedDict):
    """What went wrong, in a sentence, and what to do."""

    error: str
