"""The demo's own folder: a fresh git repository, the prepared data, and the environment that its server gets."""

import asyncio
import fcntl
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import NotReady, WrongState
from mcp_server.lab.doctor import install_command
from mcp_server.machine.git.command import git
from mcp_server.settings import Settings

MARK = ".autoresearch-demo"
"""A file in the git directory of the scratch repository: only what bears it is ever deleted."""

NEEDED = ("torch", "numpy", "tiktoken", "rustbpe")


@dataclass(frozen=True)
class Scratch:
    """The folder of a demo."""

    folder: Path

    @property
    def repository(self) -> Path:
        """The git repository that is researched in."""
        return self.folder / "repository"

    @property
    def results(self) -> Path:
        """The table of results."""
        return self.folder / "results.tsv"

    @property
    def chart(self) -> Path:
        """The picture of the progress."""
        return self.folder / "progress.png"

    @property
    def server_log(self) -> Path:
        """What the server writes to stderr."""
        return self.folder / "server.log"


def check_packages() -> None:
    """Raise NotReady unless the built-in training can run in this Python."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        python = Path(sys.executable)
        raise NotReady(
            f"The demo trains a real model, and {', '.join(missing)} is not installed in {python}",
            f"Run: {install_command(python)}",
        )


@contextmanager
def fresh(folder: Path, files: Mapping[str, Path]) -> Iterator[Scratch]:
    """Make the scratch repository with the given files anew, and keep other demos out of the folder meanwhile.

    Raises:
        WrongState: another demo runs in the folder, or what is in the way was not made by a demo.
    """
    scratch = Scratch(folder.expanduser().absolute())
    scratch.folder.mkdir(parents=True, exist_ok=True)
    (scratch.folder / ".gitignore").write_text("*\n")  # so that the repository around it shows nothing new
    with (scratch.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongState(f"Another demo runs in {scratch.folder}", "Wait for it, or choose another --dir") from None
        _clear(scratch.repository)
        _fill(scratch.repository, files)
        yield scratch


def _clear(repository: Path) -> None:
    if not repository.exists():
        return
    if not (repository / ".git" / MARK).is_file():
        raise WrongState(f"{repository} is in the way and was not made by a demo", "Choose another --dir")
    shutil.rmtree(repository)


def _fill(repository: Path, files: Mapping[str, Path]) -> None:
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch", "main")
    (repository / ".git" / MARK).touch()
    for name, source in files.items():
        shutil.copyfile(source, repository / name)
    (repository / ".gitignore").write_text("__pycache__/\n.autoresearch/\nresults.tsv\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "The training script as it comes")


async def prepare_data(scratch: Scratch, settings: Settings) -> tuple[Path, str]:
    """Prepare the stdlib data in the shared cache; returns its folder, and the last words of prepare.py.

    What the user prepared last stays the default of later trainings.
    """
    pointer = settings.cache / "data" / "current.json"
    before = pointer.read_text() if pointer.is_file() else None
    command = [sys.executable, "prepare.py", "--profile", "stdlib"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=scratch.repository,
        env=os.environ | {"AUTORESEARCH_CACHE": str(settings.cache)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    lines = output.decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise NotReady(f"prepare.py failed: {lines[-1] if lines else 'no message'}", "Run `autoresearch doctor`")
    prepared = pointer.parent / json.loads(pointer.read_text())["folder"]
    if before is not None:
        pointer.write_text(before)
    return prepared, next((line for line in lines if line.startswith("ready")), lines[-1])


def server_environment(data: Path, settings: Settings) -> dict[str, str]:
    """The user's environment without what would lead the demo's server or its trainings elsewhere."""
    ours = {"AUTORESEARCH_CACHE": str(settings.cache), "AUTORESEARCH_LOCKS": str(settings.locks)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUTORESEARCH_", "GIT_"))}
    return kept | ours | {"AUTORESEARCH_DATA": str(data)}
