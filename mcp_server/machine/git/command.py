"""How git is run: shielded from the user's hooks, signing, prompts and environment, with a deadline, and bounded."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from mcp_server.errors import InvalidInput, NotReady

OLDEST = (2, 30)
TIMEOUT = 60.0
LONG_TIMEOUT = 900.0
"""Seconds for commands that read or write every file."""

_SHIELD = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",
    "core.splitIndex": "false",
    "core.filesRefLockTimeout": "5000",  # milliseconds; git's 100 is too short for many agents
    "core.packedRefsTimeout": "5000",
    "checkout.workers": "4",  # from 100 files on; three times as fast while trainings keep the cores busy
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "i18n.commitEncoding": "UTF-8",
    "submodule.recurse": "false",
    "core.useReplaceRefs": "false",  # what is measured and judged is what was committed
    "advice.addEmbeddedRepo": "false",
}
_OPTIONS = [word for key, value in _SHIELD.items() for word in ("-c", f"{key}={value}")]

IDENTITY = "autoresearch@localhost"
"""The address by which the commits of this server are known."""

_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null/none",  # no file, so that git does not warn of it either
    "GIT_OPTIONAL_LOCKS": "0",  # so that `git status` never writes the user's index
    "GIT_AUTHOR_NAME": "autoresearch",
    "GIT_AUTHOR_EMAIL": IDENTITY,
    "GIT_COMMITTER_NAME": "autoresearch",
    "GIT_COMMITTER_EMAIL": IDENTITY,
}

_ADVICE = (
    ("No space left|Disk quota", "Free disk space, then repeat the call"),
    ("dubious ownership", "Run the `git config` command that git names, then repeat the call"),
    (
        r"\.lock'|cannot lock ref",
        "Wait for other git commands to end; if none runs, delete the lock file that git names",
    ),
    ("Permission denied|Read-only file system", "Make the repository writable for this user, then repeat the call"),
    ("did not complete in", "Look for a slow disk or a filter that hangs, then repeat the call"),
    (
        "bad object|missing blob|unable to read|corrupt",
        "Run `git fsck` in the repository; objects are missing or damaged",
    ),
    ("filter .*failed|smudge|clean filter", "Mend the filter that .gitattributes names (for LFS: run `git lfs pull`)"),
)


class GitFailed(NotReady):
    """A git command failed; `stderr` is its own explanation."""

    def __init__(self, arguments: tuple[str, ...], status: int, stderr: str) -> None:
        self.status, self.stderr = status, stderr
        todo = next((todo for pattern, todo in _ADVICE if re.search(pattern, stderr)), "Mend what git complains about")
        said = re.sub(r"[\x00-\x1f\x7f]+", " ", stderr).strip()
        said = said if len(said) <= 600 else f"{said[:300]} ... {said[-300:]}"
        super().__init__(f"`git {' '.join(arguments[:2])}` failed with status {status}: {said or 'no message'}", todo)


def git(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float = TIMEOUT,
) -> str:
    """Run git in `folder` and return what it printed; bytes that are not UTF-8 become lone surrogates.

    Args:
        timeout: seconds, after which it is killed.

    Raises:
        GitFailed: it exited with another status than 0, or was killed.
        InvalidInput: an argument cannot be given to any program.
    """
    from git.cmd import Git

    if any("\0" in argument for argument in arguments):
        raise InvalidInput("an argument contains a NUL character", "Leave it out")
    if not folder.is_dir():  # GitPython would silently run in the folder of this process
        raise NotReady(f"folder {str(folder)!r} is gone", "Restore it, or repeat the call that makes it")
    inherited = [word for name in os.environ if name.startswith("GIT_") for word in ("-u", name)]
    if inherited:  # GitPython can add to the environment of a command but not take from it
        ours = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **(environment or {})}.items()]
        inherited = ["env", *inherited, *ours]
    with _as_file(stdin) as stream:
        status, out, error = Git(str(folder)).execute(
            [*inherited, "git", *_OPTIONS, *arguments],
            istream=stream,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            kill_after_timeout=timeout,
            env={**_ENVIRONMENT, **(environment or {})},
        )
    if status != 0:
        raise GitFailed(arguments, status, error)
    return bytes(out).decode("utf-8", "surrogateescape")


@contextmanager
def _as_file(content: bytes | None) -> Iterator[BinaryIO | None]:
    if content is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield cast(BinaryIO, file)


@contextmanager
def temporary_index() -> Iterator[Path]:
    """The path of an index file of one's own, which may be made there and is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-index-") as folder:
        yield Path(folder) / "index"


@cache
def check_installed() -> None:
    """Raise NotReady unless a git that is new enough can be run."""
    todo = f"Install git {OLDEST[0]}.{OLDEST[1]} or newer"
    if shutil.which("git") is None:
        raise NotReady("git is not installed, or not on PATH", todo)
    said = git(Path("/"), "version").strip()
    version = re.search(r"(\d+)\.(\d+)", said)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        raise NotReady(f"{said!r} is too old", todo)


@dataclass(frozen=True)
class WorkTree:
    """A folder of files and the git directory that it belongs to, both pinned.

    Were git left to find the repository by itself, a workspace whose `.git` was deleted would fall through to the
    user's own repository around it.
    """

    folder: Path
    git_dir: Path

    def git(
        self,
        *arguments: str,
        index: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float = TIMEOUT,
    ) -> str:
        """Run git on this work tree, on another index file if `index` is given; otherwise as the function `git`."""
        pinned = {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.folder), **(environment or {})}
        if index is not None:
            pinned["GIT_INDEX_FILE"] = str(index)
        return git(self.folder, *arguments, environment=pinned, stdin=stdin, timeout=timeout)

    def refresh(self, index: Path | None = None) -> None:
        """Let git note in the index which files are as it says."""
        try:
            self.git("update-index", "--refresh", index=index, timeout=LONG_TIMEOUT)
        except GitFailed as error:
            if error.status != 1:  # 1: some files are changed, which is fine
                raise
