"""Walking over and deleting what a training left, which may be read-only and nested without end.

The standard library calls itself for each level of nesting, and raises RecursionError where that is too deep.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def levels(top: Path) -> Iterator[tuple[str, list[os.DirEntry[str]] | None]]:
    """`top` and each folder below it, with what lies there; None where that cannot be read, as where its path is longer
    than the system takes. Links are not followed.
    """
    waiting = [os.fspath(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            continue
        except OSError:
            yield folder, None
            continue
        yield folder, entries
        waiting += [entry.path for entry in entries if is_folder(entry)]


def below(top: Path) -> Iterator[os.DirEntry[str]]:
    """All that lies below a folder, as far as it can be read."""
    return itertools.chain.from_iterable(entries or () for _, entries in levels(top))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder itself, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def discard(folder: Path) -> None:
    """Delete a folder as far as that is possible, whatever a training made of it."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _flatten(folder)
        with contextlib.suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)


def _flatten(top: Path) -> None:
    """Bring every folder below `top` directly below it, where it can be deleted, and make all of it writable."""
    names = (top / f"deep-{number}" for number in itertools.count())
    waiting = [top]
    while waiting:
        place = waiting.pop()
        with contextlib.suppress(OSError):
            _open(place)
            for entry in list(os.scandir(place)):
                if entry.is_symlink():  # perhaps to an input, whose mode is the user's
                    continue
                _open(Path(entry.path))
                if is_folder(entry):
                    waiting.append(_moved(entry, names) if place != top else Path(entry.path))


def _moved(entry: os.DirEntry[str], names: Iterator[Path]) -> Path:
    """Where a folder lies now that it was moved to the next of `names` that is free."""
    new = next(name for name in names if not os.path.lexists(name))
    return Path(entry.path).rename(new)


def _open(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.chmod(0o700)
