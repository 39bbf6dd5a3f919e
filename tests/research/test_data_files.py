"""Which names are data, and which are orders to tools and agents."""

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.data_files import EXPORTS, check_data_file, in_exports

DATA = (
    *("results.tsv", "results-mar8.tsv", "table.csv", "run.jsonl", "run.ndjson", "summary.json", "report.md"),
    *("notes/history.md", "a/b/c.txt", "table 2.tex", "ergebnisse-ü.tsv", "mar8.v2.csv", "block.json", "plane.md"),
    *("Results.TSV", "requirement-list.csv", "package.csv", "reading.txt", "clauses.md"),
)
ORDERS = (
    *(
        "GNUmakefile",
        "Makefile",
        "makefile",
        "conftest.py",
        ".gitattributes",
        ".envrc",
        ".env",
        "CLAUDE.md",
        "claude.MD",
    ),
    *(
        "AGENTS.md",
        "agents.txt",
        "Agents.override.md",
        "GEMINI.md",
        "SKILL.md",
        "README.md",
        "readme.txt",
        "README.rst",
    ),
    *("requirements.txt", "dev-requirements.txt", "requirements-dev.txt", "requirements.in", "constraints.txt"),
    *(
        "CMakeLists.txt",
        "package.json",
        "Package-Lock.json",
        "tsconfig.build.json",
        "babel.config.json",
        "eslintrc.json",
    ),
    *("mcp.json", "settings.local.json", "pyproject.toml", "setup.cfg", "tox.ini", "noxfile.py", "Dockerfile", "a.yml"),
    *(
        "x.pth",
        "sitecustomize.py",
        "a.sh",
        "index.html",
        "a.js",
        "a.svg",
        "a.pkl",
        "a.so",
        "noending",
        "a.in",
        "license.md",
    ),
    *("copilot-instructions.md", "python.instructions.md", "review.prompt.md", "program.md", "robots.txt", "con.csv"),
    *(".github/workflows/ci.md", ".github/a.md", ".vscode/tasks.json", ".cursor/a.md", "a/.b/c.tsv", ".hidden.tsv"),
    *(
        "CLAUDE.md/",
        "results.tsv.",
        "results.tsv ",
        "CLAUDE.md:a.tsv",
        "\uff23LAUDE.md",
        "license.md",
        ".tsv",
        "a.tsv.py",
    ),
    *("../a.tsv", "/tmp/a.tsv", "~/a.tsv", ".git/a.tsv", ".autoresearch/a.tsv", ".autoresearch/exports/../a.tsv", ""),
    *("a\\b.tsv", "a\nb.tsv", "a\u200b.tsv", "x" * 300 + ".tsv", ".autoresearch/exports/CLAUDE.md"),
)


@pytest.mark.parametrize("path", DATA)
def test_data(path: str) -> None:
    assert check_data_file(path) == path
    assert check_data_file(f"{EXPORTS}/{path}") == f"{EXPORTS}/{path}"


@pytest.mark.parametrize("path", ORDERS)
def test_what_is_more_than_data(path: str) -> None:
    for check in (check_data_file, in_exports):
        with pytest.raises(InvalidInput) as refusal:
            check(path, "results_file")
        assert refusal.value.what.startswith("results_file ")


def test_where_a_caller_may_write() -> None:
    assert in_exports("a.csv") == in_exports(f"{EXPORTS}/a.csv") == f"{EXPORTS}/a.csv"
    assert in_exports(f"{EXPORTS}/deep/a.csv") == f"{EXPORTS}/deep/a.csv"
    for path in ("out/a.csv", "./a.csv", ".autoresearch/a.csv", ".autoresearch/exportsx/a.csv"):
        with pytest.raises(InvalidInput):
            in_exports(path)
