"""The hidden text, which audits a score: where it can be read again on this machine, and whether that is out of sight.

What audits is drawn from a corpus that lies on the same machine. Walls hide that corpus: prepare.py writes down where
it is, and of a corpus that lies on many machines under known names, the copies that are usually found are hidden too.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_server.research.experiment import HIDDEN_TEXT, Ending
from mcp_server.research.task import Task, split_command
from mcp_server.settings import Settings

USUAL_CACHE = "~/.cache/autoresearch"
HARNESS = "scoring.py"
"""Our scorer and judge, by which a task is known that is scored on prepared data."""

STDLIB = "stdlib"
APART = ("test", "tests", "idlelib", "turtledemo", "*/test", "*/tests")
"""Folders of the standard library that no training imports; prepare.py draws from them what is scored."""
PACKAGES = ("site-packages", "dist-packages")

LIBRARIES = (
    *("/usr/lib/python*", "/usr/lib64/python*", "/usr/local/lib/python*", "/opt/*/lib/python*"),
    *("/opt/python/*/lib/python*", "/opt/hostedtoolcache/Python/*/*/lib/python*", "/opt/conda/envs/*/lib/python*"),
    *("/opt/conda/pkgs/python-*/lib/python*", "/usr/lib/*/platform/*/lib/python*", "/nix/store/*-python*/lib/python*"),
    *("/usr/src/*/Lib", "/usr/local/src/*/Lib", "/snap/*/current/usr/lib/python*"),
)
"""Where Pythons have their standard library, and where its sources are unpacked."""
LIBRARIES_AT_HOME = (
    *(".pyenv/versions/*/lib/python*", ".local/share/uv/python/*/lib/python*", ".asdf/installs/python/*/lib/python*"),
    *(".local/share/mise/installs/python/*/lib/python*", ".rye/py/*/lib/python*", ".rye/py/*/install/lib/python*"),
    *("*conda*/lib/python*", "*conda*/envs/*/lib/python*", "*conda*/pkgs/python-*/lib/python*"),
    *("*forge*/lib/python*", "*forge*/envs/*/lib/python*", "*forge*/pkgs/python-*/lib/python*"),
    *("micromamba/envs/*/lib/python*", ".local/share/mamba/envs/*/lib/python*", ".local/lib/python*"),
    *("*/Lib", "src/*/Lib", ".pyenv/sources/*/*/Lib"),
)
ROOTS = {
    "PYENV_ROOT": "versions/*/lib/python*",
    "UV_PYTHON_INSTALL_DIR": "*/lib/python*",
    "CONDA_PREFIX": "lib/python*",
}
"""Variables that name folders with Pythons in them."""

DOWNLOADED = {"tinystories": "*tiny*stories*", "climbmix": "*climbmix*"}
"""Profiles whose text others keep too, and how its folders are called in the caches of Hugging Face's libraries."""


@dataclass(frozen=True)
class Prepared:
    """A folder that prepare.py filled.

    Attributes:
        profile: where its text comes from; empty where the manifest cannot be read.
        places: what holds the text that its audit split was drawn from; None where the manifest does not say.
    """

    folder: Path
    profile: str
    places: tuple[Path, ...] | None


def prepared(folder: Path) -> Prepared:
    """What the manifest of a prepared folder says; nothing of it is relied on but to hide more."""
    try:
        manifest: Mapping[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        said = manifest.get("hidden")
        named = tuple(Path(place) for place in said if Path(place).is_absolute()) if isinstance(said, list) else None
        return Prepared(folder, str(manifest.get("profile", "")), named)
    except (OSError, ValueError, AttributeError, TypeError):
        return Prepared(folder, "", None)


def chosen_folder(settings: Settings, task: Task) -> Path | None:
    """The folder of prepared data that a training of the task loads, as prepare.py chooses it; None where none is."""
    root = settings.cache / "data"
    name = dict(task.environment).get("AUTORESEARCH_DATA") or os.environ.get("AUTORESEARCH_DATA")
    if name:
        return root / name
    try:
        return root / str(json.loads((root / "current.json").read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def caches(settings: Settings) -> list[Path]:
    """The caches with prepared data that trainings could find: that of the settings, and the usual one."""
    return list(dict.fromkeys([settings.cache, Path(USUAL_CACHE).expanduser()]))


def all_prepared(settings: Settings, task: Task) -> list[Prepared]:
    """Every folder of prepared data that is known here."""
    folders = [file.parent for cache in caches(settings) for file in sorted(cache.glob("data/*/manifest.json"))]
    chosen = chosen_folder(settings, task)
    return [prepared(folder) for folder in dict.fromkeys([*folders, *([chosen] if chosen else [])])]


def sources(settings: Settings, task: Task) -> list[Path]:
    """All that the hidden texts of this machine can be read from again, as far as it can be hidden."""
    known = all_prepared(settings, task)
    profiles = {each.profile for each in known}
    named = [place.resolve() for each in known for place in each.places or ()]
    found = [place for place in named if not _holds_programs(place)]
    if task.builtin or STDLIB in profiles:
        found += parts_apart(Path(task.interpreter))
    for profile in DOWNLOADED.keys() & profiles:
        found += _copies(DOWNLOADED[profile])
    return list(dict.fromkeys(found))


def parts_apart(interpreter: Path) -> list[Path]:
    """The folders of every standard library on this machine that no training imports."""
    prefixes = [Path(sys.base_prefix), interpreter.resolve().parents[1]]
    homes = dict.fromkeys([Path.home(), Path("/root"), *_glob(Path("/home"), "*")])
    globs = [
        *((prefix, f"{lib}/python*") for prefix in prefixes for lib in ("lib", "lib64")),
        *((prefix.parent, "*/lib/python*") for prefix in prefixes),  # what was installed beside it
        *((Path("/"), pattern.lstrip("/")) for pattern in LIBRARIES),
        *((home, pattern) for home in homes for pattern in LIBRARIES_AT_HOME),
        *((Path(os.environ[name]), pattern) for name, pattern in ROOTS.items() if os.environ.get(name)),
    ]
    libraries = {path.resolve() for root, pattern in globs for path in _glob(root, pattern)}
    return sorted(
        folder
        for library in libraries
        if os.access(library / "os.py", os.R_OK)
        for pattern in APART
        for folder in _glob(library, pattern)
        if os.access(folder, os.X_OK) and folder.is_dir() and folder.relative_to(library).parts[0] not in PACKAGES
    )


def in_reach(settings: Settings, task: Task, root: Path, walls: bool) -> str:
    """Why trainings of a task can read the hidden text that audits them; empty where they cannot, or have none of ours.

    Args:
        root: the top of the user's repository.
        walls: whether the trainings run behind walls.
    """
    folder = chosen_folder(settings, task)
    ours = task.judge_command and any(Path(word).name == HARNESS for word in split_command(task.judge_command))
    if folder is None or not ours:
        return ""
    return why_readable(folder, root) if walls else "there were no walls around the training"


def why_readable(folder: Path, root: Path) -> str:
    """Why trainings behind walls can read the text that audits them with the data of a folder; empty if they cannot."""
    data = prepared(folder)
    if data.places is None:
        return "the data were prepared by an older prepare.py, which did not note where the text came from"
    if not data.places:
        return (
            "this Python comes without its tests and the like, so that the text was drawn from files that trainings "
            "import"
        )
    for place in (place.resolve() for place in data.places):
        if place.is_relative_to(root.resolve()) or root.resolve().is_relative_to(place):
            return f"its source {str(place)!r} lies in the repository or around it"
        if _holds_programs(place):
            return f"its source {str(place)!r} holds programs that every training needs"
    return ""


def noted(ending: Ending, why: str) -> Ending:
    """An ending with why the text that audited its score was in reach of the training; empty where it was not."""
    metrics = {name: value for name, value in ending.metrics.items() if name != HIDDEN_TEXT}
    return replace(ending, metrics=metrics | ({HIDDEN_TEXT: f"readable: {why}"} if why else {}))


def _holds_programs(place: Path) -> bool:
    """Whether nothing would run any more with a place hidden."""
    needed = ("/usr/bin", "/usr/lib", "/etc", "/bin", "/lib", sys.base_prefix)
    return any(Path(path).resolve().is_relative_to(place) for path in needed)


def _copies(pattern: str) -> Iterator[Path]:
    """Folders of a data set in the caches of Hugging Face's libraries, and the shards that other programs keep."""
    home = Path.home()
    hubs = [os.environ.get("HF_HOME"), home / ".cache" / "huggingface"]
    named = [os.environ.get(name) for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE")]
    roots: Sequence[Path] = [
        *(Path(hub) / part for hub in hubs if hub for part in ("hub", "datasets")),
        *(Path(place) for place in named if place),
    ]
    for root in roots:
        for folder in _glob(root, "*"):
            if folder.match(pattern) or Path(folder.name.casefold()).match(pattern):
                yield folder.resolve()
    for pattern_of_shards in (".cache/autoresearch/data/*.parquet", ".cache/nanochat/*/*.parquet"):
        yield from (file.resolve() for file in _glob(home, pattern_of_shards))


def _glob(root: Path, pattern: str) -> Iterable[Path]:
    """What a pattern finds; nothing where that cannot be looked at."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []
