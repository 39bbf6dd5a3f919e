"""What a training sees of the user's environment: a documented list, and what the contract adds."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from mcp_server.machine.devices import Device
from mcp_server.machine.platforms import facts_of
from mcp_server.research.experiment import Trial
from mcp_server.research.platform import variables
from mcp_server.research.task import Task, split_command
from mcp_server.settings import Settings

KEPT = (
    # the system and the user
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_DATA_HOME",
    ),
    # trust
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    # compilers and libraries
    *("CC", "CXX", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CONDA_PREFIX", "UV_CACHE_DIR"),
    # torch
    *("TORCH_HOME", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK"),
    # data on this machine
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
    "AUTORESEARCH_DATA",
)
"""Variables that trainings see as the user set them; AUTORESEARCH_KEEP_ENV adds others."""

KEPT_BEGINNINGS = ("LC_", "CUDA_", "CUDNN_", "NCCL_", "NVIDIA_")
"""Variables whose names begin so are kept too, unless the name or the value looks like that of a secret."""

MARK = "AUTORESEARCH_DEVICE_KEY"
"""The variable by which the processes of a training are known."""
LAUNCHED = "AUTORESEARCH_LAUNCHED"
"""The variable that tells a launcher where to say that the command began; the command does not see it."""

MEMORY = "AUTORESEARCH_MEMORY"
"""The variable that tells a launcher how many bytes of memory the command may have; the command does not see it."""

_SECRET = re.compile(
    r"token|key|secret|credential|passw|pwd|auth(?!or)|cookie|session|signature|license|(?:^|_)(?:pass|pat|pin|dsn)(?:_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"://[^/\s@]*:[^/\s@]+@"  # a password in an address
    r"|-----BEGIN "
    r"|\b(?:gh[opsur]_|github_pat_|glpat-|hf_|nvapi-|npm_|pypi-|sk-|sk_live_|xox[a-z]-|AKIA|ASIA|AIza|eyJ)[\w-]{12,}"
)
"""What the tokens of well-known services and keys in a file begin with."""


def scrubbed(source: Mapping[str, str], keep: Iterable[str] = ()) -> dict[str, str]:
    """The variables of `source` that trainings may see; `keep` names further ones, which are taken as they are."""
    named = set(keep)
    return {name: value for name, value in source.items() if name in named or _harmless(name, value)}


def _harmless(name: str, value: str) -> bool:
    known = name in KEPT or (name.startswith(KEPT_BEGINNINGS) and not _SECRET.search(name))
    return known and not _SECRET_VALUE.search(value)


def worker_environment(settings: Settings) -> dict[str, str]:
    """What a worker sees: no more than its trainings will, and the settings."""
    environment = scrubbed(os.environ, settings.keep_environment)
    environment |= {
        "AUTORESEARCH_CACHE": str(settings.cache),
        "AUTORESEARCH_LOCKS": str(settings.locks),
        "AUTORESEARCH_DEVICES": settings.devices,
        "AUTORESEARCH_KEEP_ENV": " ".join(settings.keep_environment),
        "AUTORESEARCH_SANDBOX": settings.sandbox,
        "AUTORESEARCH_CGROUPS": "auto" if settings.groups else "off",
    }
    if settings.state:
        environment["AUTORESEARCH_STATE"] = str(settings.state)
    if settings.executor != "local":
        environment |= {"AUTORESEARCH_EXECUTOR": settings.executor, "RAY_ADDRESS": settings.ray_address}
    return environment


def training_environment(
    settings: Settings, task: Task, trial: Trial, device: Device, mark: str, checkout: Path, out: Path
) -> dict[str, str]:
    """The whole environment of one trial.

    Args:
        mark: the mark of the device's lock, see `DeviceLock.mark`.
        out: the folder for what the training leaves.
    """
    kept = scrubbed(os.environ, settings.keep_environment)
    programs = str(Path(task.interpreter).parent)
    seed = str(trial.seed if task.fixed_seed is None else task.fixed_seed)
    place = checkout / task.folder
    threads = str(len(device.cores))
    own = dict(task.environment)
    paths = kept | own
    environment = kept | {
        **variables(facts_of(device)),
        "TORCHINDUCTOR_CACHE_DIR": str(settings.cache / "inductor"),
        "TRITON_CACHE_DIR": str(settings.cache / "triton"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # `uv run` would install torch anew in every checkout, or repoint an editable install at it.
        "UV_PROJECT_ENVIRONMENT": str(Path(programs).parent),
        "UV_NO_SYNC": "1",
        "UV_NO_CACHE": "1",  # its cache cannot be written from behind walls, and nothing is installed
        **({"OMP_NUM_THREADS": threads} if device.cores else {}),
        **own,
        **dict.fromkeys(task.seed_variables, seed),
        "AUTORESEARCH_TIME_BUDGET": f"{task.time_budget_seconds:g}",
        "AUTORESEARCH_SEED": seed,
        "AUTORESEARCH_DEVICE": device.kind,
        "AUTORESEARCH_OUT": str(out),
        "AUTORESEARCH_CACHE": str(settings.cache),
        MARK: mark,
        "CUDA_VISIBLE_DEVICES": device.uuid,
        # An editable install of the user's repository would be imported in place of the checkout's own packages.
        "PYTHONPATH": os.pathsep.join([str(place), str(place / "src"), *filter(None, [paths.get("PYTHONPATH")])]),
        # So that `torchrun` and scripts find the task's interpreter too.
        "PATH": os.pathsep.join([programs, paths.get("PATH", os.defpath)]),
    }
    if device.cores:
        environment["AUTORESEARCH_THREADS"] = threads
    return environment


def training_words(task: Task) -> list[str]:
    """The words of the task's command, with the task's interpreter where it says `python`."""
    return command_words(task, task.command)


def command_words(task: Task, command: str) -> list[str]:
    """The words of a command, with the task's interpreter where it says `python`."""
    first, *rest = split_command(command)
    return [task.interpreter if first in ("python", "python3") else first, *rest]


def launched(*words: str) -> list[str]:
    """The words that run `launch.py` with the given arguments."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), *words]


def confined(*words: str) -> list[str]:
    """The words that run a command as the first one behind walls, with `confine.py`, which filters its calls."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("confine.py")), "1", *words]
