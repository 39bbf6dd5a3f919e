"""Which changes an experiment may make: path rules, globs, and the check of a commit's changes against its task."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mcp_server.errors import InvalidInput
from mcp_server.research.task import DEPENDENCY_FILES, Task

SYMLINK, SUBMODULE, FOLDER = "120000", "160000", "040000"
"""Git's modes of the tree entries that are not plain files."""

_ABSENT = "000000"
HARNESS = ("prepare.py", "portable.py", "scoring.py")
_IMPORTED = (".py", ".pyc", ".pyd", ".so")
_GITS_OWN = (".gitattributes", ".gitmodules")
"""By these git writes other files than were committed."""
_STAR = "[^/]*"
_WILDCARD = re.compile(r"[*?\[]")
_PART = re.compile(r"(?:(?<=/)|^)\*\*/|(?<=/)\*\*$|^\*\*$|\*+|\?|\[!?\]?[^\]/]*\]|[\s\S]")


@dataclass(frozen=True)
class Change:
    """One path that differs between two commits.

    Attributes:
        status: git's letter: A added, D deleted, M modified, T type changed.
        old_mode: git's octal mode in the first commit, `000000` where it is absent.
        added: lines added; 0 for binary files.
    """

    path: str
    status: str
    old_mode: str
    new_mode: str
    added: int
    removed: int


def matches(patterns: Iterable[str], path: str) -> bool:
    """Whether `path` (relative, POSIX) matches one of the globs, which read as in a .gitignore.

    - `*` and `?` stay within one folder, `[abc]` and `[!abc]` are classes, `**` as a whole part crosses folders;
    - a name without wildcards means exactly that path from the top: `train.py`, not `old/train.py`;
    - a wildcard without a slash matches at any depth: `*.py`;
    - everything else, and what begins with `/`, counts from the top: `src/*.py`;
    - a pattern whose last part has no wildcard, or which ends with `/`, covers all that lies in the folder it names.
    """
    return any(_compile(pattern).fullmatch(path) for pattern in patterns)


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    body = pattern.strip("/").removeprefix("./")
    wild = bool(_WILDCARD.search(body))
    anywhere = wild and "/" not in body and not pattern.startswith("/") and body != "**"
    covers = pattern.endswith("/") or not _WILDCARD.search(body.rpartition("/")[2])
    regex = "(?:.*/)?" if anywhere else ""
    name: list[str] = []  # the pieces of a name between two slashes
    for part in _PART.finditer(body):
        if part.group() in ("/", "**/") or (part.group() == "**" and part.end() == len(body)):
            regex += _name(name) + {"/": "/", "**/": "(?:.*/)?", "**": ".+"}[part.group()]
            name = []
        else:
            name.append(_translate(part.group()))
    return re.compile(regex + _name(name) + ("(?:/.*)?" if covers else ""), re.DOTALL)


def _name(pieces: Sequence[str]) -> str:
    """The expression for one name. Each star but the last takes the first place that fits, for good: nothing that it
    could take instead fits better, and going through all ways to share a long name between stars takes for ever.
    """
    fixed = [""]
    for piece in pieces:
        if piece == _STAR:
            fixed.append("")
        else:
            fixed[-1] += piece
    first, *rest = fixed
    if not rest:
        return first
    return first + "".join(f"(?>{_STAR}?{each})" for each in rest[:-1] if each) + _STAR + rest[-1]


def _translate(part: str) -> str:
    if part[0] == "*":
        return _STAR
    if part == "?":
        return "[^/]"
    if len(part) > 1:  # a class
        negated = part[1] == "!"
        inside = re.sub(r"([\\^\[\]&~|])", r"\\\1", part[2 if negated else 1 : -1])
        return f"[^/{inside}]" if negated else f"[{inside}]"
    return re.escape(part)


def check_pattern(name: str, number: int, pattern: str) -> str:
    """Return `pattern` if it is a glob that can name files of the repository; else raise InvalidInput.

    Args:
        name, number: the argument that it belongs to, and which of its patterns it is, from 0.
    """
    body = pattern.strip("/").removeprefix("./")
    reason = _path_fault(body) or ("contains '**' more than twice" if body.count("**") > 2 else "")
    try:
        _compile(pattern)
    except re.error:
        reason = reason or "has a range of characters that ends before it begins"
    if reason:
        what = f"{name} pattern {pattern[:200]!r} {reason}"
        raise InvalidInput(what, "Give globs such as 'train.py' or 'src/**'", (name, number))
    return pattern


def check_path(path: str, *at: int | str) -> str:
    """Return `path` if it can name a file of the repository; else raise InvalidInput.

    It must be relative, POSIX, without `..`, and outside of `.git` and `.autoresearch`.

    Args:
        at: the argument that it belongs to, see `InvalidInput`.
    """
    reason = _path_fault(path)
    if reason:
        raise InvalidInput(
            f"{at[0] if at else 'path'} {path[:200]!r} {reason}",
            "Give a path relative to the top of the repository, such as 'src/train.py'",
            at,
        )
    return path


def _path_fault(path: str) -> str:
    if not path:
        return "is empty"
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        return "is not relative"
    if "\\" in path:
        return "contains a backslash"
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in path):
        return "contains control characters or is not UTF-8"
    if any(unicodedata.category(char) == "Cf" for char in path):
        return "contains invisible characters"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "contains '..', '.' or an empty part"
    if any(len(part.encode()) > 255 for part in parts) or len(path.encode()) > 1024:
        return "is too long"
    plain = [_plain(part) for part in parts]
    if ".git" in plain or "git~1" in plain or plain[0] == ".autoresearch":
        return "lies in .git or .autoresearch"
    return ""


def _plain(part: str) -> str:
    """The name as a case-insensitive file system that drops invisible characters would see it."""
    visible = "".join(char for char in part if unicodedata.category(char) != "Cf")
    return visible.casefold().rstrip(" .").split(":")[0]


def check_changes(task: Task, changes: Sequence[Change]) -> None:
    """Raise InvalidInput, naming the first offending path, unless the task lets all these changes be made."""
    for change in changes:
        reason = _change_fault(task, change)
        if reason:
            raise InvalidInput(
                f"{change.path[:200]!r} {reason}", f"Undo that change; editable in this run: {', '.join(task.editable)}"
            )
    lines = sum(change.added + change.removed for change in changes)
    for what, number, limit in (("files", len(changes), task.max_files), ("lines", lines, task.max_lines)):
        if limit is not None and number > limit:
            raise InvalidInput(
                f"the change touches {number} {what}, and this task allows {limit}", "Make a smaller change"
            )


def _change_fault(task: Task, change: Change) -> str:
    modes = (change.old_mode, change.new_mode)
    if SYMLINK in modes:
        return "is a symbolic link, which an experiment may not add, change or remove"
    if SUBMODULE in modes:
        return "is a submodule or a nested repository, which an experiment may not add, change or remove"
    if _path_fault(change.path):
        return _path_fault(change.path)
    if _plain(change.path.rpartition("/")[2]) in _GITS_OWN:
        return "tells git how to write files, and stays as it is during a run"
    if matches(task.inputs, change.path):
        return "is an input of this run"
    if is_dependency_file(change.path):
        return "declares dependencies, which stay as they are during a run"
    if task.builtin and (reason := _harness_fault(change.path)):
        return reason
    if matches(task.readonly, change.path):
        return f"is read-only in this run (readonly: {', '.join(task.readonly)})"
    if not matches(task.editable, change.path):
        return f"is {'a new file ' if change.old_mode == _ABSENT else ''}outside of the editable files"
    return ""


def _harness_fault(path: str) -> str:
    """Why a path is the harness's, or one that Python would import in its place; empty where it is neither."""
    *folders, name = path.casefold().split("/")
    modules = {module.removesuffix(".py") for module in HARNESS}
    if name in HARNESS:
        return "is the fixed harness, which is never edited"
    shadows = modules.intersection(folders) or (name.split(".")[0] in modules and name.endswith(_IMPORTED))
    return "would be imported in place of the fixed harness" if shadows else ""


def is_dependency_file(path: str) -> bool:
    """Whether `path`, at any depth, declares what a training's environment is made of."""
    return matches((f"**/{pattern.casefold()}" for pattern in DEPENDENCY_FILES), path.casefold())
