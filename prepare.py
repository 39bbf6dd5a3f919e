"""The fixed half of every experiment: the data, the budget clock and the judge. Agents edit train.py, never this file.

    python prepare.py                     pick the profile that suits this machine, and prepare its data
    python prepare.py --check             is there valid data? one line of JSON; exit code 0 or 1

Prepared data lies under AUTORESEARCH_CACHE (default ~/.cache/autoresearch):

    data/current.json                     {"folder": name}: the configuration that train.py loads
    data/<configuration>/                 manifest.json (the SHA-256 of all others), *.bin, tokenizer.json
    downloads/<dataset>/                  the shards as they were received, with their checksums
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import ctypes
import fcntl
import hashlib
import itertools
import json
import math
import os
import random
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HARNESS = "autoresearch-mcp"  # by this line the server knows that a repository holds this harness
PROCESS_START = time.perf_counter()


def cache_folder() -> Path:
    """Where data and compiled kernels are kept for all checkouts."""
    return Path(os.environ.get("AUTORESEARCH_CACHE") or "~/.cache/autoresearch").expanduser()


os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads cost two thirds of the speed on shared cores
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
if __name__ != "__main__":  # preparing does without torch, which reads the two lines above when it is loaded
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    import portable

Tokens = npt.NDArray[np.uint16]
Batch = tuple["Tensor", "Tensor"]  # inputs, targets
Step = Callable[[Iterator[Batch]], object]
Clock = Callable[[], float]  # seconds
Report = Callable[[int, int], None]  # bytes so far, bytes in all


class HarnessError(Exception):
    """What failed, the value seen and what to do, in one line."""


# ---- Profiles: which text, and how much of it is evaluated -----------------------------------------------------------
@dataclass(frozen=True)
class Profile:
    """A source of text and its sizes; the command line may replace them."""

    name: str
    about: str
    vocab_size: int
    seq_len: int  # tokens
    eval_tokens: int  # validation tokens, all evaluated; the audit split has as many
    url: str = ""  # of the folder that holds the shards
    train_shards: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()  # the shards for val and audit
    num_shards: int = 1  # training shards to fetch
    path: Path | None = None
    text_column: str = "text"  # of parquet files


HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/") + "/datasets"
TINY: tuple[str, ...] = ("0-of-00004-2d5a1467fff1081b", "1-of-00004-5852b56a2bd28fd9", "2-of-00004-a26307300439e943")
TINY += ("3-of-00004-d243063613e5a057", "0-of-00001-869c898b519ad725")
PROFILES = {
    "stdlib": Profile("stdlib", "the sources of Python's standard library; no network", 2048, 256, 2**17),
    "path": Profile("path", "your own text or parquet files, named with --path; no network", 2048, 256, 2**17),
    "tinystories": Profile(
        *("tinystories", "short stories for small models; 1.0 GB to download", 4096, 512, 2**20),
        url=f"{HUB}/roneneldan/TinyStories/resolve/main/data",
        train_shards=tuple(f"train-0000{shard}.parquet" for shard in TINY[:3]),
        held_out=(f"validation-0000{TINY[4]}.parquet", f"train-0000{TINY[3]}.parquet"),
        num_shards=3,
    ),
    "climbmix": Profile(
        *("climbmix", "web text for a GPU; about 100 MB to download for each shard", 8192, 2048, 40 * 2**19),
        url=f"{HUB}/karpathy/climbmix-400b-shuffle/resolve/main",
        train_shards=tuple(f"shard_{i:05d}.parquet" for i in range(6541)),
        held_out=("shard_06542.parquet", "shard_06541.parquet"),
        num_shards=10,
    ),
}


def default_profile() -> str:
    """climbmix where there is an NVIDIA GPU, stdlib elsewhere; looks for its device file, to do without torch."""
    on_gpu = os.environ.get("AUTORESEARCH_DEVICE", "cuda") == "cuda" and any(Path("/dev").glob("nvidia[0-9]*"))
    return "climbmix" if on_gpu else "stdlib"


# ---- Files: locks, atomic writes, checksums, downloads ---------------------------------------------------------------
DOWNLOAD_ATTEMPTS = 4


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes; the kernel frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as handle:
        handle.write(text)
        handle.flush()
        os.fchmod(handle.fileno(), 0o644)  # temporary files are private, but a cache may be shared
        os.fsync(handle.fileno())
    Path(handle.name).replace(path)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetch(url: str, part: Path, report: Report) -> None:
    """Receives url into part, going on where an earlier attempt stopped. Raises OSError when anything is amiss."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as response:
        if response.status_code == 416:
            part.unlink()
            raise OSError("the part received earlier does not fit the file; starting again")
        response.raise_for_status()
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        total = (have := have if resumed else 0) + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if resumed else "wb") as handle:
            for chunk in response.iter_content(1 << 18):
                have += handle.write(chunk)
                report(have, total)
        if "Content-Length" in response.headers and have != total:
            raise OSError(f"received {have} of {total} bytes")


def download(url: str, target: Path, report: Report = lambda done, total: None, pause: float = 1.0) -> str:
    """Fetches url to target unless it is there with the checksum it was received with; returns its SHA-256.

    Attempts are `pause` seconds apart, doubling. Raises HarnessError after the last one."""
    checksum, part = target.with_name(target.name + ".sha256"), target.with_name(target.name + ".part")
    with locked(target.with_name(target.name + ".lock")):
        if target.exists() and checksum.exists() and sha256_file(target) == checksum.read_text():
            return checksum.read_text()
        for attempt in range(DOWNLOAD_ATTEMPTS):
            try:
                fetch(url, part, report)
            except OSError as error:  # requests derives its errors from OSError
                problem, response = str(error), getattr(error, "response", None)
                if response is not None and 400 <= response.status_code < 500 and response.status_code != 429:
                    break
                if attempt + 1 < DOWNLOAD_ATTEMPTS:
                    time.sleep(pause * 2**attempt)
            else:
                part.replace(target)
                write_atomically(checksum, sha256_file(target))
                return checksum.read_text()
    raise HarnessError(
        f"could not download {url} ({problem}): check the network and run this again (it resumes), "
        "or use --profile stdlib or --profile path, which need no network"
    )


def download_shards(names: list[str], profile: Profile, folder: Path) -> list[str]:
    """Fetches shards four at a time with a progress bar each, and returns their SHA-256."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(4) as pool:

        def one(name: str) -> str:
            bar = progress.add_task(name, total=None)
            url, show = f"{profile.url}/{name}", progress.update
            return download(url, folder / name, lambda done, total: show(bar, completed=done, total=total or None))

        waiting = [pool.submit(one, name) for name in names]
        try:
            return [future.result() for future in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after a failure, what has not begun need not


# ---- Text: where documents come from, and which split each belongs to ------------------------------------------------
STDLIB_SKIPPED: tuple[str, ...] = ("site-packages", "dist-packages", "_sysconfigdata")  # beginnings of parts of paths
STDLIB_APART = ("test", "tests", "idlelib", "turtledemo")  # no training imports these, and so walls can hide them
PIECES = re.compile(r"(?s).{16384}[^\n]*\n?|.+")  # a text file of more than 2**20 characters is cut into these


@dataclass(frozen=True)
class Source:
    """A file of text. Without a fixed split, each of its documents is assigned by the SHA-1 of its name."""

    name: str
    path: Path
    sha256: str
    split: str = ""
    column: str = "text"  # of a parquet file


def split_of(name: str, share: int = 20) -> str:
    """Assigns a document by name alone: one in `share` to val, one in `share` to audit, whatever else there is."""
    number = int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest())
    return {0: "val", 1: "audit"}.get(number % share, "train")


def apart(name: str) -> str:
    """The first folder on the way to a file of the library that no training imports; empty where there is none."""
    parts = name.split("/")[:-1][:2]
    return next(("/".join(parts[: i + 1]) for i, part in enumerate(parts) if part in STDLIB_APART), "")


def divided(sources: list[Source], eval_tokens: int) -> list[Source]:
    """Draws val and audit from what no training imports; where that is too little, from all the rest of the library."""
    share = sum(source.path.stat().st_size for source in sources if apart(source.name)) // (4 * eval_tokens)
    if share < 3:
        return [source for source in sources if not apart(source.name)]
    return [replace(s, split=split_of(s.name, min(20, share)) if apart(s.name) else "train") for s in sources]


def hidden_places(profile: Profile, sources: list[Source]) -> list[str]:
    """Where the hidden text can be read again, and what walls hide; empty where trainings import the very files."""
    if profile.name == "stdlib":
        folders = {Path(sysconfig.get_path("stdlib"), part) for source in sources if (part := apart(source.name))}
        return sorted(str(folder.resolve()) for folder in folders)
    root = (cache_folder() / "downloads" / profile.name if profile.url else profile.path or Path()).resolve()
    files = {source.path.resolve() for source in sources}  # links may lead elsewhere
    return [str(root), *sorted(str(file) for file in files if not file.is_relative_to(root))]


def collect(profile: Profile) -> list[Source]:
    """Finds (and downloads, where the profile says so) the files of a configuration, in a fixed order."""
    if profile.url:
        shards = dict.fromkeys(profile.train_shards[: profile.num_shards], "train")
        shards |= dict(zip(profile.held_out, ("val", "audit"), strict=True))
        folder = cache_folder() / "downloads" / profile.name
        digests = download_shards(list(shards), profile, folder)
        return [Source(name, folder / name, digests[i], split) for i, (name, split) in enumerate(shards.items())]
    if profile.name == "stdlib":
        root, skipped = Path(sysconfig.get_path("stdlib")), STDLIB_SKIPPED
        files = list(root.rglob("*.py"))
    elif profile.path is None or not profile.path.exists():
        raise HarnessError(f"--path {profile.path} does not exist: name a file or folder of text or parquet files")
    else:
        root, skipped = (profile.path if profile.path.is_dir() else profile.path.parent), (".",)
        files = list(root.rglob("*")) if profile.path.is_dir() else [profile.path]
    named = {file.relative_to(root): file for file in sorted(files) if file.is_file()}
    sources = [
        Source(name.as_posix(), file, sha256_file(file), column=profile.text_column)
        for name, file in named.items()
        if not any(part.startswith(skipped) for part in name.parts)
    ]
    return divided(sources, profile.eval_tokens) if profile.name == "stdlib" else sources


def documents(source: Source) -> Iterator[tuple[str, str]]:
    """Yields (name, text): a row of a parquet file, a whole text file, or a piece of a very long one."""
    if source.path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(source.path) as table:
            if source.column not in table.schema_arrow.names:
                raise HarnessError(f"{source.path} has no column {source.column!r}: name one with --text-column")
            batches = table.iter_batches(columns=[source.column])
            rows = (text for batch in batches for text in batch.column(0).to_pylist())
            yield from ((f"{source.name}#{row}", text or "") for row, text in enumerate(rows))
        return
    if b"\0" in (content := source.path.read_bytes())[:8192]:
        return  # not text
    text = content.decode(errors="replace")
    pieces = PIECES.findall(text) if len(text) > 2**20 else [text]
    yield from ((f"{source.name}#{i}" if i else source.name, piece) for i, piece in enumerate(pieces))


def read_split(sources: list[Source], split: str, seen: set[bytes], room: int = sys.maxsize) -> Iterator[str]:
    """Yields texts of one split until they have `room` characters; none is empty, or in `seen`, which it adds to."""
    for source in (each for each in sources if each.split in ("", split)):
        for name, text in documents(source):
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if text and (source.split or split_of(name)) == split and digest not in seen:
                seen.add(digest)
                yield text
                if (room := room - len(text)) <= 0:
                    return


# ---- Tokenizer: byte pairs; id 255, a byte that UTF-8 never uses, begins every document ------------------------------
BOS = 255
TOKENIZER_CHARS = 500_000_000  # of training text that the merges are learnt from
# How GPT-4's tokenizer splits text, but with numbers cut into pairs of digits.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> list[bytes]:
    """Learns merges; returns the bytes of each token id. The first 256 are the single bytes."""
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(texts, vocab_size, pattern=SPLIT_PATTERN)
    tokens = [bytes(token) for token, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda pair: pair[1])]
    if len(tokens) != vocab_size:
        raise HarnessError(f"the text yields only {len(tokens)} tokens, not {vocab_size}: lower --vocab-size")
    return tokens


def encode(texts: Iterable[str], tokens: list[bytes]) -> Iterator[Tokens]:
    """Yields the token ids of many documents at a time, each document behind a BOS."""
    import tiktoken

    ranks = {token: rank for rank, token in enumerate(tokens)}
    encoding = tiktoken.Encoding("autoresearch", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
    texts = iter(texts)
    while batch := list(itertools.islice(texts, 512)):
        rows = encoding.encode_ordinary_batch(batch, num_threads=os.cpu_count() or 1)
        yield np.concatenate([np.array([BOS, *row], dtype=np.uint16) for row in rows])


# ---- Preparing: token files and their manifest -----------------------------------------------------------------------
FORMAT = 2  # of the prepared folder; raised when its content changes meaning


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 over corpus, tokenizer, evaluation sizes and the harness: scores compare only where it is equal."""
    parts = {key: manifest[key] for key in ("format", "corpus", "vocab_size", "seq_len", "eval_tokens", "files")}
    parts["harness"] = [*map(sha256_file, map(Path(__file__).with_name, ("prepare.py", "portable.py", "scoring.py")))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_split(path: Path, texts: Iterable[str], vocabulary: list[bytes], profile: Profile) -> int:
    """Writes whole rows of tokens and one last target, of held-out splits only eval_tokens; returns their number."""
    limit, written = sys.maxsize if path.stem == "train" else profile.eval_tokens, 0
    with path.open("wb") as handle:
        for tokens in encode(texts, vocabulary):
            written += handle.write(tokens.tobytes()) // 2
            if written > limit:
                break
        kept = min(written - 1, limit) // profile.seq_len * profile.seq_len
        if kept <= 0:
            raise HarnessError(f"too little text: {path.stem} has {written} tokens, --seq-len is {profile.seq_len}")
        handle.truncate((kept + 1) * 2)
    return kept


def build(profile: Profile, sources: list[Source], corpus: str, folder: Path) -> None:
    """Fills folder with tokenizer, token files and manifest."""
    seen: set[bytes] = set()
    room = 16 * profile.eval_tokens  # characters: tokens are shorter on average
    held = {split: list(read_split(sources, split, seen, room)) for split in ("audit", "val")}
    print(f"learning a tokenizer of {profile.vocab_size} entries", flush=True)
    tokens = train_tokenizer(read_split(sources, "train", seen.copy(), TOKENIZER_CHARS), profile.vocab_size)
    encoded = [base64.b64encode(token).decode() for token in tokens]
    write_atomically(folder / "tokenizer.json", json.dumps({"pattern": SPLIT_PATTERN, "tokens": encoded}))
    counts = {split: write_split(folder / f"{split}.bin", held[split], tokens, profile) for split in held}
    counts["train"] = write_split(folder / "train.bin", read_split(sources, "train", seen), tokens, profile)
    manifest: dict[str, Any] = {"format": FORMAT, "profile": profile.name, "corpus": corpus, "tokens": counts}
    manifest |= {"vocab_size": profile.vocab_size, "seq_len": profile.seq_len, "eval_tokens": counts["val"]}
    files = {p.name: {"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir())}
    manifest |= {"files": files, "hidden": hidden_places(profile, sources)}
    write_atomically(folder / "manifest.json", json.dumps(manifest | {"fingerprint": fingerprint(manifest)}) + "\n")


def prepare(profile: Profile) -> Path:
    """Prepares a configuration unless it is there unharmed, makes it the current one, and returns its folder.

    Raises HarnessError when there is too little text, a download fails, or an option is out of range.
    """
    if not 256 <= profile.vocab_size <= 65536:
        raise HarnessError(f"--vocab-size {profile.vocab_size} is out of range: from 256 (single bytes) to 65536")
    if not 8 <= profile.seq_len <= profile.eval_tokens:
        raise HarnessError(f"--seq-len {profile.seq_len} must be at least 8, and at most --eval-tokens")
    if not 1 <= profile.num_shards <= max(1, len(profile.train_shards)):
        raise HarnessError(f"--num-shards {profile.num_shards} is out of range: from 1 to {len(profile.train_shards)}")
    sources = collect(profile)
    corpus = hashlib.sha256(json.dumps([FORMAT, *((s.name, s.split, s.sha256) for s in sources)]).encode()).hexdigest()
    root = cache_folder() / "data"
    folder = root / f"{profile.name}-v{profile.vocab_size}-t{profile.seq_len}-e{profile.eval_tokens}-{corpus[:8]}"
    with locked(root / ".lock"):
        try:
            read_manifest(folder, deep=True)
            print(f"already prepared: {folder}")
        except HarnessError:
            with tempfile.TemporaryDirectory(dir=root, prefix=".building-", ignore_cleanup_errors=True) as building:
                build(profile, sources, corpus, Path(building))
                Path(building).chmod(0o755)  # temporary folders are private, but a cache may be shared
                shutil.rmtree(folder, ignore_errors=True)
                Path(building).rename(folder)
        write_atomically(root / "current.json", json.dumps({"folder": folder.name}) + "\n")
    return folder


# ---- Data: what train.py loads, pinned by checksum -------------------------------------------------------------------
@dataclass(frozen=True)
class Data:
    """A prepared configuration. `train` is a memory-mapped array of token ids; the other splits are the judge's."""

    folder: Path
    profile: str
    vocab_size: int
    seq_len: int
    fingerprint: str
    files: dict[str, dict[str, Any]]
    train: Tokens

    def pinned(self, name: str) -> bytes:
        """The bytes of a file, refused unless they are the ones that were prepared."""
        content = (self.folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.files[name]["sha256"]:
            raise HarnessError(f"{self.folder / name} was changed since it was prepared: run `python prepare.py` again")
        return content

    def held_out(self, split: str) -> Tensor:
        """The token ids of `val` or `audit`: int64, one more than whole rows."""
        return torch.from_numpy(np.frombuffer(self.pinned(f"{split}.bin"), dtype=np.uint16).astype(np.int64))


def current_folder() -> Path:
    """The folder that AUTORESEARCH_DATA names (a path, or a name under data/), else the one last prepared."""
    root = cache_folder() / "data"
    if chosen := os.environ.get("AUTORESEARCH_DATA"):
        return root / chosen  # an absolute path replaces root
    try:
        return root / str(json.loads((root / "current.json").read_text())["folder"])
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(f"no prepared data under {root}: run `python prepare.py` first") from error


def read_manifest(folder: Path, deep: bool = False) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises HarnessError unless its files have their sizes (deep: checksums)."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        if (made := manifest["format"]) != FORMAT:
            raise HarnessError(f"{folder} is of format {made}, not {FORMAT}: run `python prepare.py` again")
        for name, file in manifest["files"].items():
            path = folder / name
            unlike = name != "audit.bin" and path.stat().st_size != file["bytes"]  # trainings cannot read that one
            if unlike or (deep and sha256_file(path) != file["sha256"]):
                raise HarnessError(f"{path} was changed since it was prepared: run `python prepare.py` again")
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(f"no prepared data in {folder}: run `python prepare.py` first") from error
    return manifest


def open_data() -> Data:
    """Opens the current configuration; the folder may be read-only. Raises HarnessError if there is none."""
    manifest = read_manifest(folder := current_folder())
    train = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")
    sizes = {key: manifest[key] for key in ("profile", "vocab_size", "seq_len", "files")}
    return Data(folder=folder, fingerprint=fingerprint(manifest), train=train, **sizes)


# ---- Runtime: the device, its threads and precision, seeds -----------------------------------------------------------
@dataclass
class Runtime:
    """What one training runs on."""

    device: str  # cuda, mps or cpu
    seed: int
    budget: float  # seconds
    threads: int
    bf16: bool  # whether autocast to bfloat16 pays here
    memory_gib: float  # of the GPU; 0 elsewhere
    out: Path | None  # a folder for what the run leaves
    baseline: dict[str, float] = field(default_factory=dict)  # what it took; see BudgetClock
    hand_in: float = math.nan  # CPU seconds that handing the model in takes, as soon as that is known

    def synchronize(self) -> None:
        """Waits until the device has done all it was told to."""
        if self.device != "cpu":
            getattr(torch, self.device).synchronize()


def setting(name: str, default: float, least: float) -> float:
    """A number from the environment. Raises HarnessError with the value seen."""
    text = os.environ.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if least <= float(text) < math.inf:
            return float(text)
    raise HarnessError(f"{name} is {text!r}: it must be a number of at least {least:g}")


def start() -> Runtime:
    """Reads the AUTORESEARCH_ environment, chooses the device, fixes the threads and sets every seed."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(name for name, there in available.items() if there)
    device = os.environ.get("AUTORESEARCH_DEVICE") or best
    if not available.get(device, False):
        raise HarnessError(f"AUTORESEARCH_DEVICE is {device!r}, which this machine has not: try {best}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(setting("AUTORESEARCH_THREADS", cores, 1))
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    if device == "cpu" and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: keep the large buffers of a step on the heap, 9 % faster
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: and do not give the heap back between steps
    seed = int(setting("AUTORESEARCH_SEED", 42, 0))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return Runtime(
        device=device,
        seed=seed,
        budget=setting("AUTORESEARCH_TIME_BUDGET", 300, 0.1),
        threads=threads,
        bf16=cpu_bf16_pays(threads) if device == "cpu" else device == "cuda" and torch.cuda.is_bf16_supported(),
        memory_gib=torch.cuda.mem_get_info()[1] / 2**30 if device == "cuda" else 0.0,
        out=Path(os.environ["AUTORESEARCH_OUT"]) if os.environ.get("AUTORESEARCH_OUT") else None,
        baseline=json.loads(os.environ.get("AUTORESEARCH_BASELINE") or "{}"),
    )


def cpu_bf16_pays(threads: int) -> bool:
    """Whether products in bfloat16, casts included, are faster here: measured once a machine and kept in the cache."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "amx_bf16" in cpuinfo:
        return True
    model = next((line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line), "CPU")
    key, cached = f"{model} / torch {torch.__version__} / {threads} threads", cache_folder() / "measured" / "bf16.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return bool(json.loads(cached.read_text())[key])
    a, b = torch.ones(2048, 128), torch.ones(128, 512)  # not random: no seed may depend on whether this ran
    least = {torch.bfloat16: math.inf, torch.float32: math.inf}
    for dtype in [*least] * 6:  # the first round builds the kernels
        begin = time.process_time()
        for _ in range(10):
            (a.to(dtype) @ b.to(dtype)).float()
        least[dtype] = min(least[dtype], time.process_time() - begin)
    pays = least[torch.bfloat16] < 0.8 * least[torch.float32]
    with contextlib.suppress(OSError):  # the cache may be read-only
        write_atomically(cached, json.dumps({key: pays}) + "\n")
    return pays


# ---- Training: the budget clock, warm-up off the clock, batches ------------------------------------------------------


def waited_for_cores() -> float:
    """Seconds that this process's threads were ready while others ran; all of the time where the system is silent."""
    waits = []
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that ended just now
            waits.append(int(task.read_text().split()[1]))
    return sum(waits) / 1e9 if waits else time.perf_counter()


class BudgetClock:
    """Says when the budget is spent. It starts with the first `running()`, which belongs right before the first step.

    On a GPU it measures wall time; on a CPU the process's CPU time by the number of threads, so that a busy machine
    trains as much as an idle one, with wall time's ends: twice the budget, waits for a core apart, and 20 times. Where
    the baseline is known, all until the model is handed in has a limit, and training has what is left of it at most.
    """

    def __init__(self, runtime: Runtime, wall_time: Clock = time.perf_counter, cpu_time: Clock = time.process_time):
        self.runtime, self.wall_time, self.cpu_time, self.budget = runtime, wall_time, cpu_time, runtime.budget
        self.started = self.ended = self.cpu_started = self.waited = math.nan
        self.elapsed = self.progress = 0.0  # seconds of budget used, and its share, 0 to 1: what schedules follow

    def running(self) -> bool:
        """Waits for the device, reads the time, and says whether another step may begin."""
        self.runtime.synchronize()
        self.ended, cpu = self.wall_time(), self.cpu_time()
        if math.isnan(self.started):
            self.started, self.cpu_started, self.waited = self.ended, cpu, waited_for_cores()
            if limit := self.runtime.baseline.get("limit"):  # and more where others made it wait: seconds do less then
                limit += (limit - self.budget) / 8 * (0.18 * cpu < self.waited < 100 * cpu)
                self.budget = max(0.01, min(self.budget, limit - (cpu + self.runtime.hand_in) / self.runtime.threads))
        wall = self.elapsed = limit = self.ended - self.started
        if self.runtime.device == "cpu":
            self.elapsed = (cpu - self.cpu_started) / self.runtime.threads
            alone = wall - waited_for_cores() + self.waited if wall / 2 > self.elapsed else 0.0
            limit = max(alone / 2, wall / 20)
        self.progress = min(1.0, max(self.elapsed, limit) / self.budget)
        return self.progress < 1.0


def warm_up(step: Step, model: Module, optimizers: list[Optimizer], data: Data, runtime: Runtime, rows: int) -> float:
    """Lets compilers and caches settle before the clock starts, and leaves nothing learnt behind; the seconds it took.

    `step(batches)` is run on random tokens, and the model in the shape of the evaluation; then all is put back. For
    handing in a model of more modules than the baseline's more is kept.
    """
    begin, weights = time.perf_counter(), {name: value.detach().clone() for name, value in model.state_dict().items()}
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    with torch.random.fork_rng():
        tokens = torch.randint(data.vocab_size, (2, rows, data.seq_len), device=runtime.device)
        for _ in range(2 if runtime.device == "cuda" else 1):
            step(itertools.repeat((tokens[0], tokens[1])))
        if runtime.device == "cuda":
            with torch.no_grad():
                model.eval()(tokens.new_zeros(eval_rows(data, runtime), data.seq_len))
        elif known := runtime.baseline:
            larger = max(1.0, len(list(model.modules())) / known["modules"])
            runtime.hand_in = known["hand_in"] * (1 + larger) / 2  # half of it is to load what exports
    model.train().zero_grad(set_to_none=True)
    model.load_state_dict(weights)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    runtime.synchronize()
    return time.perf_counter() - begin


class TwoBuffers:
    """Hands batches to a GPU through two page-locked buffers: one is filled while the other may still be copied."""

    def __init__(self, buffers: list[Tensor], events: list[Any], copy_out: Callable[[Tensor], Tensor]) -> None:
        self.buffers, self.events, self.copy_out, self.sent = buffers, events, copy_out, 0

    def send(self, rows: Tensor) -> Tensor:
        """Starts the copy of a batch to the device and returns what will hold it."""
        turn, self.sent = self.sent % 2, self.sent + 1
        if self.sent > 2:
            self.events[turn].synchronize()
        on_device = self.copy_out(self.buffers[turn].copy_(rows))
        self.events[turn].record()
        return on_device


def batches(data: Data, rows: int, runtime: Runtime) -> Iterator[Batch]:
    """Endless (inputs, targets), int64 of (rows, seq_len), on the device; each pass deals all rows as the seed says."""
    length, order = data.seq_len, np.random.default_rng(runtime.seed)
    waiting, two_buffers = np.empty(0, dtype=np.int64), None
    if runtime.device == "cuda":
        buffers = [torch.empty(rows, length + 1, dtype=torch.long, pin_memory=True) for _ in range(2)]
        events = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        two_buffers = TwoBuffers(buffers, events, lambda buffer: buffer.to("cuda", non_blocking=True))
    while True:
        while len(waiting) < rows:
            waiting = np.append(waiting, order.permutation((len(data.train) - 1) // length))
        dealt, waiting = waiting[:rows] * length, waiting[rows:]
        chunks = torch.from_numpy(np.stack([data.train[i : i + length + 1] for i in dealt]).astype(np.int64))
        sent = two_buffers.send(chunks) if two_buffers else chunks.to(runtime.device)
        yield sent[:, :-1].contiguous(), sent[:, 1:].contiguous()


# ---- Judging: bits per byte on the frozen validation tokens ----------------------------------------------------------

EVAL_BATCH_TOKENS = {"cuda": 2**15, "mps": 2**13, "cpu": 2**13}  # tokens in one forward pass
CAUSAL_TOLERANCE = 2**-7  # of 1 + |logit|: one step of bfloat16, whose sums may differ in order from run to run


def eval_rows(data: Data, runtime: Runtime) -> int:
    """Rows in one evaluation batch."""
    return max(2, EVAL_BATCH_TOKENS[runtime.device] // data.seq_len)


def logits_of(model: Module, inputs: Tensor, vocab_size: int) -> Tensor:
    """Runs the model on (rows, seq_len) token ids; float32 logits of (rows, seq_len, vocab_size) or HarnessError."""
    logits = model(inputs)
    shape, wanted = getattr(logits, "shape", type(logits)), (*inputs.shape, vocab_size)
    if shape != wanted:
        raise HarnessError(f"model(x) returned {shape}, not logits of shape {wanted}")
    return logits.float()  # type: ignore[no-any-return]


def token_bytes(data: Data, device: str) -> Tensor:
    """(vocabulary,) the bytes of each token; none of the mark that begins a document, which is not counted."""
    vocabulary = [base64.b64decode(token) for token in json.loads(data.pinned("tokenizer.json"))["tokens"]]
    return torch.tensor([0 if i == BOS else len(token) for i, token in enumerate(vocabulary)], device=device)


def bits_per_byte(model: Module, data: Data, runtime: Runtime, split: str = "val") -> float:
    """Mean bits the model needs for a byte of the split: nats of all targets / ln 2 / bytes of all targets.

    The target behind a row's last token begins the next row, which the model may have seen: it is not counted. Raises
    HarnessError when a logit is not finite.
    """
    device, rows, sizes = runtime.device, eval_rows(data, runtime), token_bytes(data, runtime.device)
    tokens = data.held_out(split)
    inputs, targets = (ids.view(-1, data.seq_len) for ids in (tokens[:-1], tokens[1:]))
    nats = torch.zeros((), dtype=torch.float32 if device == "mps" else torch.float64, device=device)
    count, finite = torch.zeros_like(nats), torch.ones((), dtype=torch.bool, device=device)
    for x, y in zip(torch.split(inputs, rows), torch.split(targets, rows), strict=True):
        padded = F.pad(x, (0, 0, 0, rows - len(x)))  # one shape for all batches, so that nothing is compiled twice
        logits = logits_of(model, padded.to(device), data.vocab_size)[: len(x)]
        answers = y[:, :-1].to(device).flatten()
        nats += (F.cross_entropy(logits[:, :-1].flatten(0, 1), answers, reduction="none") * (sizes[answers] > 0)).sum()
        count += sizes[answers].sum()
        finite &= logits.sum().isfinite()  # a sum is finite only if every term is
    if not finite:
        raise HarnessError("the model's logits are not finite: the run is worth nothing")
    return float(nats) / math.log(2) / int(count)


def check_causality(model: Module, data: Data, runtime: Runtime) -> None:
    """Tells at once of logits that depend on later tokens, or on other rows of the batch.

    Each row of a random batch of validation rows is changed from a secret place on, some wholly, some not at all. The
    logits before that place must stand still. It tells of mistakes; what looking ahead gains, scoring.py takes off.
    """
    secret = np.random.default_rng(int.from_bytes(os.urandom(16)))
    rows, length, tokens = eval_rows(data, runtime), data.seq_len, data.held_out("val")
    original = tokens[:-1].view(-1, length)[secret.integers((len(tokens) - 1) // length, size=rows)]
    cuts = torch.from_numpy(secret.integers(1, length, size=rows))
    cuts[: rows // 4], cuts[rows // 4 : rows // 2] = length, 0
    kept = torch.arange(length) < cuts[:, None]
    changed = torch.where(kept, original, torch.from_numpy(secret.integers(data.vocab_size, size=(rows, length))))
    before, after = (logits_of(model, ids.to(runtime.device), data.vocab_size) for ids in (original, changed))
    moved = (after - before).abs() > CAUSAL_TOLERANCE * (1 + before.abs())
    if (moved.any(-1).cpu() & kept).any():
        raise HarnessError("the model looks ahead: its logits change when later tokens do, so its score means nothing")


def evaluate(model: Module, data: Data, runtime: Runtime, split: str = "val") -> float:
    """The score of `model(x) -> logits`, bits per byte; also hands the model in. HarnessError if it looks ahead."""
    model.eval()
    with torch.no_grad():
        runtime.hand_in = portable.hand_in(model, (eval_rows(data, runtime), data.seq_len), runtime.device, runtime.out)
        check_causality(model, data, runtime)  # not charged to the budget, as what came before is
        score = bits_per_byte(model, data, runtime, split)
    model.train()
    return score


# ---- Errors as one line, and the command line ------------------------------------------------------------------------
def run(main: Callable[[], object]) -> None:
    """Calls main and turns an expected failure into one line on stderr and exit code 1."""
    try:
        main()
    except HarnessError as error:
        sys.exit(f"error: {error}")
    except (RuntimeError, MemoryError) as error:
        if not re.search("out of memory|can't allocate memory", str(error)) and not isinstance(error, MemoryError):
            raise
        sys.exit(f"error: out of memory: {error}")


def check() -> int:
    """Prints one line of JSON about the current configuration; 1 when there is none, or it is damaged, else 0."""
    try:
        manifest = read_manifest(folder := current_folder(), deep=True)
    except HarnessError as error:
        print(json.dumps({"prepared": False, "problem": str(error)}))
        return 1
    facts = {"prepared": True, "folder": str(folder), **manifest, "fingerprint": fingerprint(manifest)}
    print(json.dumps({key: value for key, value in facts.items() if key not in ("format", "files")}))
    return 0


def main() -> None:
    """The command line's work: choose a configuration, prepare it, say what there is."""
    parser = argparse.ArgumentParser(description="Prepare the data that train.py learns from and is judged on.")
    about = "; ".join(f"{profile.name}: {profile.about}" for profile in PROFILES.values())
    parser.add_argument("--profile", choices=PROFILES, dest="name", help=about)
    parser.add_argument("--vocab-size", type=int, metavar="N", help="tokens; 256 means single bytes")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens the model sees at once")
    parser.add_argument("--eval-tokens", type=int, metavar="N", help="validation tokens, all of which are evaluated")
    parser.add_argument("--num-shards", type=int, metavar="N", help="training shards to download")
    parser.add_argument("--path", type=Path, help="file or folder for --profile path (which it implies)")
    parser.add_argument("--text-column", metavar="NAME", help="column of parquet files that holds the text")
    parser.add_argument("--check", action="store_true", help="say in one line of JSON whether there is valid data")
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    if given.pop("check"):
        sys.exit(check())
    name = given.get("name", "path" if "path" in given else default_profile())
    if not given.keys() & {"name", "path"}:
        print(f"profile {name}, which suits this machine ({PROFILES[name].about}); --profile chooses another")
    manifest = read_manifest(folder := prepare(replace(PROFILES[name], **given)))
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest["tokens"].items())
    print(f"ready: {counts} tokens, vocabulary {manifest['vocab_size']:,}, context {manifest['seq_len']:,}")
    print("folder:", folder, "\nfingerprint:", fingerprint(manifest), "\nnext: python train.py")


if __name__ == "__main__":
    run(main)
