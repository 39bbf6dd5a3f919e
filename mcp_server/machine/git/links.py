"""Links from a work tree to the inputs of a task, which lie, untracked, in the user's repository."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.research.guard import check_path


def link_inputs(root: Path, folder: Path, inputs: Iterable[str]) -> list[str]:
    """Link each input of the repository at `root` into `folder`, at the same relative path; returns the links' paths.

    Where `folder` holds a real folder of that name (a part of it is tracked), the children that it lacks are linked
    instead; an empty one, as git leaves for a submodule, gives way to the link.
    Links that are there already are kept, or set right if they point elsewhere.

    Raises:
        NotReady: an input is gone, or its place lies behind a link that leads out of `folder`.
    """
    return [link for path in inputs for link in _link(root, folder, check_path(path))]


def _link(root: Path, folder: Path, path: str) -> Iterator[str]:
    source, place = root / path, folder / path
    if not source.exists():
        raise NotReady(f"the input {path!r} is gone from {str(root)!r}", "Put it back, or set up a run without it")
    if not place.parent.resolve().is_relative_to(folder.resolve()):
        raise NotReady(f"the place of the input {path!r} lies behind a link", "Set up a run with another path for it")
    if place.is_symlink() and not place.exists():  # the repository was moved
        place.unlink()
    if place.is_symlink() and place.readlink() == source:
        yield path
    elif not os.path.lexists(place) or (source.is_dir() and _gave_way(place)):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
        yield path
    elif place.is_dir() and source.is_dir() and not place.is_symlink():
        for child in sorted(source.iterdir()):
            yield from _link(root, folder, f"{path}/{child.name}")


def _gave_way(place: Path) -> bool:
    """Delete an empty folder; False where it is none."""
    try:
        place.rmdir()
    except OSError:
        return False
    return True
