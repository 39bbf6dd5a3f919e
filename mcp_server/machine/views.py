"""Who sees what behind the walls: the training, and those who score what it leaves."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mcp_server.machine.hidden import caches, chosen_folder, sources
from mcp_server.machine.rig import Order, Rig, handed_in
from mcp_server.machine.sandbox import View
from mcp_server.research.task import Task
from mcp_server.settings import Settings

CREDENTIALS = (
    ".ssh",
    ".gnupg",
    ".netrc",
    ".git-credentials",
    ".password-store",
    ".local/share/keyrings",
    ".bash_history",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".kube",
    ".docker",
    ".config/autoresearch",
    ".config/gh",
    ".config/git/credentials",
    ".config/rclone",
    ".pypirc",
    ".npmrc",
    ".cargo/credentials.toml",
    ".huggingface",
    ".cache/huggingface/token",
    ".config/wandb",
    ".kaggle",
    ".claude",
    ".claude.json",
    ".codex",
    ".gemini",
    ".mozilla",
    ".config/google-chrome",
    ".config/chromium",
)
"""Where programs keep what is the user's alone, below the home folder."""
SECRETS = ".env*"
"""What files with keys are called, at the top of a repository."""
SCRIPT = "script"
"""The folder of a trial for its commit's files, from which our scorer imports what a pickle needs."""
MEASURED = "measured"
"""The folder of the cache for what was measured of the machine."""


def training_view(rig: Rig, order: Order) -> View:
    """A training sees neither the record and what other trials left, nor the text that audits it, nor credentials."""
    cache, inputs = rig.settings.cache, _inputs(rig, order)
    return View(
        temporary=_made([order.folder / "tmp"])[0],
        readable=[
            rig.repository.root,
            cache,
            *shown_data(rig.settings, order.task),
            *programs(order.task),
            *inputs,
        ],
        writable=[order.folder / "checkout", order.folder / "out"],
        hidden=[
            *_record(rig),
            *hidden_text(rig.settings, order.task, inputs),
            *(path for path in _private(rig) if path not in inputs),
        ],
    )


def scorer_view(rig: Rig, order: Order, checkout: Path) -> View:
    """The scorer sees what the training left and no data at all, and writes nothing that stays.

    That of our harness sees the model alone, and the script as it was committed: all else, down to the time at which a
    folder changed, may be what a training learnt after it had handed the model in.
    """
    cache, task = rig.settings.cache, order.task
    model = handed_in(order)
    left = [*model, order.folder / SCRIPT] if model else [order.folder / "checkout", order.folder / "out"]
    data = [*(place / "data" for place in caches(rig.settings)), *_chosen(rig.settings, task)]
    return View(
        temporary=_made([order.folder / "tmp-scorer"])[0],
        readable=[rig.repository.root, cache, *programs(task), checkout, *left],
        hidden=[
            *_record(rig),
            *data,
            *_apart_from(_inputs(rig, order), sources(rig.settings, task)),
            *_private(rig),
        ],
    )


def judge_view(rig: Rig, order: Order, checkout: Path) -> View:
    """The judge sees the data, and nothing of the record. It alone may note what it measures of the machine."""
    cache = rig.settings.cache
    return View(
        temporary=_made([order.folder / "tmp-judge"])[0],
        readable=[rig.repository.root, cache, *_chosen(rig.settings, order.task), *programs(order.task), checkout],
        writable=_made([cache / MEASURED]),
        hidden=_record(rig),
    )


def hidden_text(settings: Settings, task: Task, inputs: Sequence[Path] = ()) -> list[Path]:
    """What holds the text that no training may see: all prepared data, audit files, and what they were drawn from.

    Of prepared data `shown_data` is seen again: so what is prepared while a training runs stays out of its sight.

    Args:
        inputs: what the user declared as inputs is seen, whatever else it is.
    """
    data = [place / part for place in caches(settings) for part in ("data", "downloads")]
    audit = [folder / "audit.bin" for folder in shown_data(settings, task)]
    return _apart_from(inputs, [*data, *audit, *sources(settings, task)])


def _apart_from(inputs: Sequence[Path], hidden: Sequence[Path]) -> list[Path]:
    """What is hidden, without what lies in an input."""
    return [path for path in hidden if not any(path.resolve().is_relative_to(each) for each in inputs)]


def shown_data(settings: Settings, task: Task) -> list[Path]:
    """The prepared data that trainings see, but for `audit.bin` in each."""
    found = [path for path in sorted(settings.cache.glob("data/*")) if not path.name.startswith(".")]
    return [*found, *_chosen(settings, task)]


def _chosen(settings: Settings, task: Task) -> list[Path]:
    """The prepared data that a training loads, wherever it lies."""
    chosen = chosen_folder(settings, task)
    return [chosen] if chosen else []


def _record(rig: Rig) -> list[Path]:
    return [rig.state, rig.settings.locks, *(cache / "downloads" for cache in caches(rig.settings))]


def _private(rig: Rig) -> list[Path]:
    """The user's credentials, as far as they lie where they usually do."""
    home = Path(os.environ.get("HOME", "/"))
    usual = [*(home / name for name in CREDENTIALS), *filter(Path.is_file, rig.repository.root.glob(SECRETS))]
    return [path.resolve() for path in usual if os.access(path, os.R_OK)]


def _inputs(rig: Rig, order: Order) -> list[Path]:
    """The inputs, wherever the user's own links lead."""
    return [(rig.repository.root / path).resolve() for path in order.task.inputs]


def programs(task: Task) -> list[Path]:
    """What the Python that trains needs, and what starts a command behind the walls.

    A link to an environment is seen where it lies, in the repository; nothing can be mounted on it.
    """
    interpreter = Path(task.interpreter)
    environments = [interpreter.parents[1].resolve(), interpreter.resolve().parents[1]]
    return [Path(sys.prefix), *environments, Path(__file__).parent]


def _made(folders: Iterable[Path]) -> list[Path]:
    """The folders, which now exist."""
    found = list(folders)
    for folder in found:
        folder.mkdir(parents=True, exist_ok=True)
    return found
