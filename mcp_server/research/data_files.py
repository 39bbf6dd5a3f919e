"""Files that hold data and nothing else: what exports and results files may be called.

By its ending such a file is one that no program runs, and by its name none that tools or agents read as their own:
`CLAUDE.md`, `package.json` and `requirements.txt` would be orders to whoever finds them.
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
_PROJECT = (
    *("authors", "changelog", "changes", "code_of_conduct", "codeowners", "contributing", "copying", "governance"),
    *("index", "install", "licence", "license", "maintainers", "news", "notice", "readme", "security", "support"),
)
"""What package builders, forges and site generators take from a project."""
_JSON = (
    *("analysis_options", "angular", "app", "appsettings", "asset-manifest", "biome", "bower", "bun.lock", "cargo"),
    *("cmakepresets", "cmakeuserpresets", "components", "composer", "compile_commands", "conanfile", "config", "crate"),
    *("data-package", "datapackage", "deno", "devcontainer", "docker-compose", "elm", "eslint", "extensions"),
    *("firebase", "flake", "function", "global", "gulpfile", "host", "hooks", "jsconfig", "keybindings", "launch"),
    *("launchsettings", "lerna", "local.settings", "manifest", "mcp", "mypy", "netlify", "ng-package", "nodemon"),
    *("now", "npm-shrinkwrap", "nuget", "nx", "package", "package-lock", "permissions", "pipfile", "plugin"),
    *("prettier", "project", "pyrightconfig", "renovate", "rush", "schema", "serverless", "settings"),
    *("settings.local", "snippets", "stylelint", "tasks", "template", "terraform", "tfstate", "tsconfig", "tslint"),
    *("turbo", "typedoc", "vcpkg", "vercel", "wrangler", "xmake"),
)
_TEXT = ("cmakelists", "constraints", "conda", "environment", "manifest", "packages", "pip", "requirements", "robots")
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
        todo = "Give a name such as 'results-2.tsv' or 'report.md'"
        raise InvalidInput(f"{name} {path[:200]!r} {reason}", todo, [name])
    return path


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
    ending = ".md" if ending == ".markdown" else ending
    others = {".json": _JSON, ".txt": (*_TEXT, *_PROJECT), ".md": _PROJECT}.get(ending, ())
    pattern = _BY_ENDING.get(ending)
    named = stem in (*_INSTRUCTIONS, *others) or (ending == ".md" and stem.partition(".")[0] in _INSTRUCTIONS)
    if named or (pattern and pattern.fullmatch(stem)):
        return "is a name that tools or agents read as theirs"
    return ""
