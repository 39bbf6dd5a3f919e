"""Inputs: the data that a training needs and that the repository ignores or does not track."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mcp_server.errors import InvalidInput
from mcp_server.machine.git.repository import Repository
from mcp_server.research.guard import check_path

WALKED = 100_000
"""Files that are looked at in one input; what lies beyond is not counted and not watched."""

_DATA_FOLDER = re.compile(
    r"(assets?|checkpoints?|corpora|corpus|csv|embeddings|features|images|inputs|labels|models|parquet|splits|tokenizers?)"
    r"|(audio|merges|names|photos|pictures|recordings|speech|videos?|vocab(ulary)?|words)([-_.\d].*)?"
    r"|(celeba|cifar|cola|coco|enwik[89]|(fashion[-_]?|k?e?)mnist|glue|imagenet|imdb|librispeech|ml-\d+|movielens|omniglot"
    r"|openwebtext|ptb|shakespeare|squad|stl10|svhn|text8|tiny[-_]?(imagenet|shakespeare|stories)|wikitext|wmt\d*)"
    r"([-_.\d].*)?"
    r"|.*(data|datasets?|corpus|pretrained|shards|tokens|weights)([-_.\d].*)?"
)
_DATA_FILE = re.compile(
    r".*\.(arrow|avro|bin|bz2|ckpt|csv|dat|data|db|dcm|duckdb|fasta|feather|flac|gguf|gz|h5|hdf5|idx|jsonl|lmdb|mat|mdb"
    r"|memmap|mmap|model|mp3|ndjson|nii|npy|npz|onnx|orc|parquet|pdb|pickle|pkl|pth?|rec|root|safetensors|sdf|smi"
    r"|sqlite3?|tar|tfrecords?|tgz|tiktoken|tsv|wav|xlsx|xz|zip|zst)"
    r"|.*[-_.](idx\d[-_.])?ubyte|(data_|test_)?batch(_\d+)?"
    r"|(.*[-_.])?(dev|te?st|train(ing)?|val(id(ation)?)?)([-_.]\w+)?\.txt"
)
_MEDIA_FILE = re.compile(r".*\.(bmp|jpe?g|mp4|ogg|pgm|png|ppm|tiff?|webp)")
"""Data where a folder is full of them; figures and illustrations otherwise."""
_TEXT_FILE = re.compile(r".*\.(txt|json|xml)")
"""Data when large or so named; notes and settings otherwise."""

_TEXT_BYTES = 50_000

_SKIPPED_FOLDER = re.compile(
    r"\..*|.*\.egg-info|__pycache__|artifacts|bin|build|dist|env|fig(ure)?s|generated|htmlcov|include|lib(64)?"
    r"|lightning_logs|logs?|mlruns|node_modules|out(puts?)?|plots|predictions|results|runs|samples|screenshots|secrets"
    r"|site-packages|target|tb_logs|te?mp|tensorboard|v(irtual)?env|visuali[sz]ations?|wandb"
)
_SKIPPED_FILE = re.compile(
    r"^\.|^(results?|history|leaderboard|logs?|run|nohup|notes?|todo|readme|licen[cs]e|changelog|requirements|coverage)"
    r"([-_.\d].*)?$|credential|secret|passw|service[-_]?account|api[-_]?key|^token$|^token\.|^id_[a-z0-9]+$"
    r"|\.(pem|key|p12|pfx|kdbx|log)$"
)


@dataclass(frozen=True)
class Input:
    """An untracked file or folder, relative to the top of the repository, with its total size."""

    path: str
    bytes: int
    files: int


def find_inputs(repository: Repository) -> tuple[list[Input], list[str]]:
    """The untracked or ignored files and folders that look like data, by path; and the other folders, which may be.

    Virtual environments, caches, build outputs, hidden files, tables of experiments and whatever may hold credentials
    are left out of both.
    """
    root = repository.root
    listing = repository.main.git("ls-files", "--others", "--directory", "--no-empty-directory", "-z")
    paths = [path.rstrip("/") for path in listing.split("\0")[:-1]]
    measured = [_measure(root, path) for path in sorted(paths) if _usable(path) and not _is_record(root / path)]
    data = [found for found, data_bytes in measured if found.files and _like_data(root, found, data_bytes)]
    others = [found.path for found, _ in measured if found not in data and found.files and (root / found.path).is_dir()]
    return data, [path for path in others if not (root / path / "pyvenv.cfg").exists()]


def expand_inputs(repository: Repository, patterns: Sequence[str]) -> list[Input]:
    """The existing paths that the user's globs name (`**` crosses folders), those inside of others left out.

    Raises:
        InvalidInput: a pattern leads out of the repository, or nothing matches it.
    """
    tracked = set(repository.main.git("ls-files", "-z").split("\0"))
    found: set[str] = set()
    for number, pattern in enumerate(patterns):
        at = ("inputs", number)
        clean = check_path(pattern.removeprefix("./").rstrip("/"), *at)
        matched = (path.relative_to(repository.root) for path in repository.root.glob(clean))
        usable = {str(path) for path in matched if path.parts and not {".git", ".autoresearch"} & set(path.parts)}
        if outside := next((path for path in sorted(usable) if not _lies_within(repository.root, path)), None):
            raise InvalidInput(
                f"inputs pattern {pattern!r} leads through a symbolic link out of the repository, to {outside!r}",
                "Name the link itself, if all that it leads to is data for the trainings",
                at,
            )
        if usable and usable <= tracked:
            raise InvalidInput(
                f"inputs pattern {pattern!r} matches only committed files",
                "Leave them out: every checkout has them",
                at,
            )
        usable -= tracked
        if not usable:
            raise InvalidInput(
                f"inputs pattern {pattern!r} matches nothing in {str(repository.root)!r}",
                "Give paths of existing data, relative to the top of the repository",
                at,
            )
        found |= usable
    outermost = [path for path in found if not found.intersection(map(str, PurePosixPath(path).parents))]
    return [_measure(repository.root, path)[0] for path in sorted(outermost)]


def _lies_within(root: Path, path: str) -> bool:
    """Whether the entry itself, which may be the user's own link to data elsewhere, is in the repository."""
    return (root / path).parent.resolve().is_relative_to(root.resolve())


def state_of(root: Path, inputs: Iterable[str]) -> dict[str, str]:
    """A digest for each input, of the names, sizes and times of its files; `gone` for one that does not exist.

    Only the first 100,000 files of an input count.
    """
    states = {}
    for path in inputs:
        digest = hashlib.sha256()
        for file, status in _walk(root / path):
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        states[path] = digest.hexdigest() if (root / path).exists() else "gone"
    return states


def missing_hint(root: Path, checkout: Path, log_tail: str, script: str = "") -> str | None:
    """What to do, when a log complains of a file that the user's repository holds and the checkout lacks.

    Args:
        script: the training script, from the top of the repository.
    """
    home = PurePosixPath(script).parent
    complaints = [line for line in reversed(log_tail.splitlines()) if _COMPLAINT.search(line)]
    for line in complaints:
        for path in _paths_in(line, checkout, home):
            if missing := _first_missing(root, checkout, path):
                return (
                    f"The training looked for {path!r}, which exists in {str(root)!r} but is not committed, so that "
                    f"the trial's checkout lacks it. If it is data, declare it: setup_run(inputs=[{missing!r}, ...]); "
                    f"if it is code, commit it."
                )
            if home.parts and not _exists(checkout / path) and _exists(root / home / path):
                return (
                    f"It looked for {path!r}, and that lies in {str(home)!r}: the script counts its paths from {home}. "
                    f"Begin a run that starts it there: setup_run(folder={str(home)!r}, ...)."
                )
    if complaints and (empty := [path for path in _submodules(checkout) if not _filled(root / path)]):
        return f"The submodule {empty[0]!r} is empty here: git submodule update --init {empty[0]}"
    return None


def _submodules(checkout: Path) -> list[str]:
    """The paths of the submodules that a checkout's .gitmodules names."""
    try:
        return re.findall(r"^\s*path\s*=\s*(\S+)\s*$", (checkout / ".gitmodules").read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return []


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # not a path: too long
        return False


_COMPLAINT = re.compile(
    r"no such file|not found|does ?n[o']t exist|unable to (find|open|load)|can(not|'t| not) (find|open|read|load)"
    r"|could ?n[o']t (find|open|read|load)|failed to (find|open|read|load)|missing|no module named|errno 2\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"'([^'\n]{1,500})'|\"([^\"\n]{1,500})\"|`([^`\n]{1,500})`")
_BARE = re.compile(r"[\w.+@%=~-]*(?:/[\w.+@%=~-]+)+|[\w+@-]+\.[A-Za-z]\w{0,11}")


def _paths_in(line: str, checkout: Path, home: PurePosixPath) -> Iterator[str]:
    """What may be paths below the checkout in a line of a log, relative to it, or to `home` if they begin with `..`."""
    quoted = ["".join(groups) for groups in _QUOTED.findall(line)]
    module = re.search(r"No module named '([\w.]+)'", line)
    modules = [module[1].replace(".", "/"), module[1].replace(".", "/") + ".py"] if module else []
    for text in (*quoted, *_BARE.findall(line), *modules):
        name = text
        for folder in (str(checkout), str(checkout.resolve())):
            name = name.removeprefix(f"{folder}/")
        path = PurePosixPath(os.path.normpath(name))
        within = ".." not in PurePosixPath(os.path.normpath(home / path)).parts
        if not path.is_absolute() and within and path.parts:
            yield str(path)


def _first_missing(root: Path, checkout: Path, path: str) -> str | None:
    """The outermost part of `path` that the checkout lacks, if the repository has the whole of it."""
    if path.startswith("../"):  # it counts from the script
        return None
    try:
        if (checkout / path).exists() or not (root / path).exists():
            return None
    except OSError:  # not a path: too long
        return None
    outward = [path, *map(str, PurePosixPath(path).parents)][:-1]
    return next(part for part in reversed(outward) if not (checkout / part).exists())


def is_data_file(path: str) -> bool:
    """Whether the name is that of a file in a format of data or of weights."""
    return bool(_DATA_FILE.fullmatch(path.casefold().rpartition("/")[2]))


def _usable(path: str) -> bool:
    *folders, name = path.casefold().split("/")
    return not any(map(_SKIPPED_FOLDER.fullmatch, (*folders, name))) and not _SKIPPED_FILE.search(name)


def _is_record(path: Path) -> bool:
    """Whether it is a table of experiments, such as results.tsv under another name."""
    if path.suffix.casefold() not in (".tsv", ".csv") or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline(4096)
    return {"status", "description"} <= set(re.split(r"[\t,]", header.strip().casefold()))


def _like_data(root: Path, found: Input, data_bytes: int) -> bool:
    parts = found.path.casefold().split("/")
    if (root / found.path).is_dir():
        if (root / found.path / "pyvenv.cfg").exists():
            return False
        return any(map(_DATA_FOLDER.fullmatch, parts)) or (data_bytes > 0 and 2 * data_bytes >= found.bytes)
    if _TEXT_FILE.fullmatch(parts[-1]):
        named = any(_DATA_FOLDER.fullmatch(part.rpartition(".")[0] or part) for part in parts)
        return named or "input" in parts[-1] or found.bytes >= _TEXT_BYTES
    return bool(_DATA_FILE.fullmatch(parts[-1]))


def _measure(root: Path, path: str) -> tuple[Input, int]:
    """The input, and how many of its bytes lie in files with the ending of a data format."""
    total = data = files = 0
    for file, status in _walk(root / path):
        total, files = total + status.st_size, files + 1
        name = file.casefold().rpartition("/")[2]
        data += status.st_size if _DATA_FILE.fullmatch(name) or _MEDIA_FILE.fullmatch(name) else 0
    return Input(path, total, files), data


def _walk(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files below `top`, or itself, in a fixed order with their status; links in it are not followed."""
    if top.is_file():
        yield top.name, top.stat()
        return
    seen = 0
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(files):
            file = Path(folder, name)
            try:
                status = file.stat()
            except OSError:  # a dangling link, or deleted just now
                continue
            yield str(file.relative_to(top)), status
            seen += 1
            if seen == WALKED:
                return
