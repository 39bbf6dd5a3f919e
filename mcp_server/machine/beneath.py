"""Files below a folder, reached without following any symbolic link on the way."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mcp_server.errors import NotReady


def open_beneath(root: Path, relative: str, flags: int) -> int:
    """Open a regular file below `root`, whose folders are made where they are missing; the descriptor.

    Each part is opened in the folder before it and must be no link, so that nothing can be put in between.

    Args:
        relative: of parts between slashes, without `..`.
        flags: of os.open.

    Raises:
        NotReady: a part of it is a symbolic link, or it is no regular file.
        OSError: as os.open; FileExistsError where `flags` want a new file.
    """
    *folders, name = relative.split("/")
    with _folder(root, folders) as place:
        try:
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=place)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotReady(f"{relative} is a symbolic link", "Name a file of its own") from None
            raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotReady(f"{relative} is no regular file", "Name a file of its own")
    return file


def replace_beneath(root: Path, relative: str, text: str) -> None:
    """Write a file below `root`, reached in the same way, so that it is there whole or not at all.

    It is drafted beside its place under a name of its own, one writer at a time: a draft that a killed process left is
    taken away by the next.

    Raises:
        NotReady: it leads through a symbolic link or a file.
        OSError: it cannot be written.
    """
    *folders, name = relative.split("/")
    draft = f".{name}.new"
    with _folder(root, folders) as place:
        fcntl.flock(place, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(draft, flags, 0o666, dir_fd=place), "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(draft, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=place)
            raise


@contextmanager
def _folder(root: Path, folders: Sequence[str]) -> Iterator[int]:
    """A descriptor of a folder below `root`."""
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, folder in enumerate(folders):
            inner = _enter(place, folder, "/".join(folders[: number + 1]))
            os.close(place)
            place = inner
        yield place
    finally:
        os.close(place)


def _enter(place: int, folder: str, path: str) -> int:
    """Open a folder in another, made where it is missing."""
    with suppress(FileExistsError):
        os.mkdir(folder, 0o777, dir_fd=place)
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotReady(f"{path} is a symbolic link or a file", "Name a folder of its own") from None
        raise
