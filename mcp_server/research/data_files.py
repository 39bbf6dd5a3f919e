"""Files that hold data and nothing else: what exports and results files may be called.

By its ending such a file is one that no program runs, and by its name none that tools or agents read as their own:
`CLAUDE.md`, `package.json` and `requirements.txt` would be orders to whoever finds them. Nobody knows all such
names. So where an ending has any, a name must have a word that says that it holds results.
"""

import re
import unicodedata

from mcp_server.errors import InvalidInput
from mcp_server.research.guard import check_path

EXPORTS = ".autoresearch/exports"
"""The folder for all that a caller other than the user on their own terminal has written."""

ENDINGS = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".md", ".markdown", ".txt", ".tex")

_INSTRUCTIONS = (
    *("agent", "agents", "amp", "claude", "codex", "conventions", "copilot", "copilot-instructions", "crush", "cursor"),
    *("gemini", "goose", "guidelines", "iflow", "instructions", "junie", "memory", "opencode", "persona", "plan"),
    *("program", "prompt", "prompts", "qwen", "replit", "rovodev", "rules", "skill", "skills", "soul", "system"),
    *("task", "tasks", "todo", "tools", "user", "warp", "windsurf"),
)
"""What agents read as instructions, whatever its ending."""
_RESULTS = (
    *("ablation", "ablations", "chart", "charts", "claims", "experiment", "experiments", "export", "exports"),
    *("history", "leaderboard", "metrics", "night", "plot", "plots", "report", "reports", "result", "results"),
    *("run", "runs", "score", "scores", "summary", "table", "tables", "trial", "trials"),
)
"""Words of names for results. Not among them are names of notes that agents keep for themselves (`progress.txt`)."""
_NAMED = ("results", "report", "history", "summary", "table", "export")
"""The words that a refusal names."""
_READ_BY_NAME = (".json", ".md", ".txt", ".tex")
"""Endings under which tools and agents look for files of theirs; TeX runs what is in a `.tex` that a document names."""
_CONTENTS = "summary"
"""What site generators take for the contents of a book, as Markdown."""
_BY_ENDING = {
    ".json": re.compile(r".*(?:rc|[.-]config|[.-]lock|[.-]settings|[.-]schema|[.-]manifest)|(?:ts|js)config.*"),
    ".txt": re.compile(r"(?:.*[._-])?(?:requirements|constraints|deps|dependencies)(?:[._-].*)?"),
    ".md": re.compile(r".*[.-](?:instructions|prompt|agent|chatmode|mode|rules|skill|local|override)|readme.*"),
}
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")


def check_data_file(path: str, name: str = "path") -> str:
    """Return `path` if it can name a data file of the repository; else raise InvalidInput.

    Args:
        path: relative to the top of the repository.
        name: the argument that it belongs to.
    """
    below = path.removeprefix(f"{EXPORTS}/")
    *folders, last = check_path(below, name).split("/")
    reason = "leads through a hidden folder" if any(each.startswith(".") for each in folders) else _fault(last)
    return _checked(path, reason, name)


def in_exports(path: str, name: str = "path") -> str:
    """Where a file lies whose path a caller gave who may write into the folder for exports only.

    A bare name is one in that folder. Raises InvalidInput where the path lies elsewhere, or cannot name a data file.
    """
    found = path if path.startswith(f"{EXPORTS}/") else f"{EXPORTS}/{path}"
    if "/" in path and found != path:
        check_path(path, name)
        what = f"{name} {path[:200]!r} lies outside of {EXPORTS}, where callers may have files written"
        raise InvalidInput(what, "Give a bare name, or let the user call it on their own terminal", [name])
    return check_data_file(found, name)


def _checked(path: str, reason: str, name: str) -> str:
    if reason:
        todo = f"Give a name such as {_example(path)!r}"
        raise InvalidInput(f"{name} {path[:200]!r} {reason}", todo, [name])
    return path


def _example(path: str) -> str:
    """A name like the refused one that would be taken."""
    last = path.rpartition("/")[2].casefold()
    ending = next((each for each in ENDINGS if last.endswith(each)), "")
    stem = last.removesuffix(ending) if ending else last.strip(".").partition(".")[0]
    like = "-".join(["results", *re.findall(r"[a-z0-9]{1,20}", stem)[:3]])
    ending = ending or ".tsv"
    return f"results{ending}" if _fault(f"{like}{ending}") else f"{like}{ending}"


def _fault(part: str) -> str:
    """Why a file of this name could be more than data, as a file system without case would see it; empty if not."""
    seen = unicodedata.normalize("NFKC", part).casefold()
    ending = next((each for each in ENDINGS if seen.endswith(each)), "")
    if seen.startswith("."):
        return "is a hidden file"
    if not ending or ":" in seen:
        return f"is not named as data: it ends in none of {', '.join(ENDINGS)}"
    stem = seen.removesuffix(ending).rstrip(" .")
    if not stem or _DEVICE.fullmatch(stem.partition(".")[0]):
        return "is the name of a device" if stem else "has no name before its ending"
    if stem in _INSTRUCTIONS:
        return "is a name that tools or agents read as theirs"
    ending = ".md" if ending == ".markdown" else ending
    return _fault_of_words(stem, ending) if ending in _READ_BY_NAME else ""


def _fault_of_words(stem: str, ending: str) -> str:
    """Why tools or agents may look for a file of this name, where its ending is one of theirs; empty if not."""
    pattern = _BY_ENDING.get(ending)
    orders = ending == ".md" and (stem == _CONTENTS or stem.partition(".")[0] in _INSTRUCTIONS)
    if orders or (pattern and pattern.fullmatch(stem)):
        return "is a name that tools or agents read as theirs"
    if re.search(r"\.(?!\d)", stem):  # *.tf.json, *.prompt.md: the ending is longer than it looks
        return f"may be a name that tools or agents read as theirs: it has more before {ending} than one name"
    if not set(re.findall(r"[a-z]+", stem)).intersection(_RESULTS):
        return (
            f"may be a name that tools or agents read as theirs: none of its words says that a {ending} holds results "
            f"({', '.join(_NAMED)}, ...)"
        )
    return ""
