"""The walls of the house: who may import whom, where SQL and git may stand, and how full a room may be."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mcp_server"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in SOURCES]

MAY_IMPORT = {
    "errors": set(),
    "settings": set(),
    "research": {"research", "errors"},
    "machine": {"machine", "research", "errors", "settings"},
    "lab": {"lab", "research", "machine", "errors", "settings"},
    "operations": {"lab"},
    "interfaces": {
        "interfaces",
        "operations",
        "errors",
        "settings",
        "lab.lab",
        "lab.artifact_loop",
        "lab.doctor",
        "lab.lending",
        "lab.tracking",
        "research.marking",
        "research.tables",
        "demo",
    }
    | {"night"},
    "demo": {"demo", "night.follower", "interfaces", "errors", "settings", "lab.doctor", "machine.git"}
    | {"machine.starter", "research.marking"},
    "night": {"night", "interfaces", "operations", "errors", "settings", "lab", "machine", "research"},
}
"""For each room, the rooms that it may import."""

IMPURE = {"aiosqlite", "anyio", "asyncio", "git", "mcp", "os", "pydantic", "shutil", "socket", "sqlite3", "subprocess"}
IMPURE |= {"random", "tempfile", "time", "torch"}
SQL = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|PRAGMA)\s", re.MULTILINE)


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The room that a file belongs to: its folder, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_nobody_imports_through_a_wall(path: Path) -> None:
    allowed = MAY_IMPORT.get(room(path))
    for name in imports(path):
        assert name.split(".")[0] not in {"torch", "train", "prepare", "portable", "scoring"}, (
            f"{name}: the script and the server are strangers"
        )
        if allowed is not None and name.startswith("mcp_server."):
            inner = name.removeprefix("mcp_server.")
            assert any(inner == each or inner.startswith(f"{each}.") for each in allowed | {"__version__"}), name


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) == "research"], ids=lambda path: path.name)
def test_research_is_pure(path: Path) -> None:
    names = set(imports(path)) - {"random.Random"}  # which draws the same from the same seed
    assert not IMPURE.intersection(name.split(".")[0] for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_sql_stands_in_the_store_alone(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "machine" / "store") or path.name == "doctor.py":
        return
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and SQL.search(text)]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_git_is_run_in_its_room_alone(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "machine" / "git"):
        return
    assert not [name for name in imports(path) if name == "git" or name.startswith("git.")]
    lists = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.List) and node.elts]
    first = [each.elts[0].value for each in lists if isinstance(each.elts[0], ast.Constant)]
    assert "git" not in first


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *(ROOT / name for name in ("prepare.py", "portable.py", "scoring.py", "train.py"))],
    ids=lambda path: path.name,
)
def test_no_room_and_no_function_is_too_full(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    limit = 800 if path.parent == ROOT else 400
    assert text.count("\n") <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name}: {lines} lines"
