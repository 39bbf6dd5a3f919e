"""Which names are data, and which are orders to tools and agents."""

import re
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.lab.reporting import SUMMARY
from mcp_server.research.data_files import EXPORTS, check_data_file, in_exports
from mcp_server.research.task import Task

DATA = (
    *("results.tsv", "results-mar8.tsv", "table.csv", "run.jsonl", "run.ndjson", "summary.json", "report.md"),
    *("notes/history.md", "a/b/run.txt", "table 2.tex", "ergebnisse-ü.tsv", "mar8.v2.csv", "block-scores.json"),
    *("Results.TSV", "requirement-list.csv", "package.csv", "reading_results.txt", "Report of clauses.md", "c.ndjson"),
    *("results-mar8.1.md", "autoresearch-summary.md", "autoresearch-summary-mar8-2.md", "report-2026-11-27-0700.md"),
    *("results.csv", "results.jsonl", "table.tex", "results-2.tsv", "plane.tsv", "night3.md", "all_runs.markdown"),
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
NOT_KNOWN_AS_RESULTS = (
    *("lefthook.json", "cdk.json", "devbox.json", "meson_options.txt", "compile_flags.txt", "import_map.json"),
    *("runtime.txt", "llms.txt", "llms-full.txt", "gemini-extension.json", "SUMMARY.md", "src/Summary.markdown"),
    *("prd.json", "progress.txt", "findings.md", "task_plan.md", "Brewfile.lock.json", "pnpm-workspace.json"),
    *("cspell.json", "knip.json", "oxlintrc.json", "flags.txt", "humans.txt", "ads.txt", "CNAME.txt", "main.tex"),
    *("hyphen.tex", "xkeyval.tex", "PULL_REQUEST_TEMPLATE.md", "architecture.md", "deno.jsonc", "notes.md", "x.json"),
    *("results.tf.json", "results.auto.tfvars.json", "report.pkr.json", "table.css.json", "runs.steering.md"),
    *("results.command.md", "runs.json.txt", "results.d.json", "Dockerfile.results.txt", "history.mdc.md"),
    *("runner.json", "runtime-results-requirements.txt", "r\u0435sults.json", "resultset.json", "brun.txt"),
)
"""Names that tools or agents read, or may read, and names that only look as if they were of results."""


@pytest.mark.parametrize("path", DATA)
def test_data(path: str) -> None:
    assert check_data_file(path) == path
    assert check_data_file(f"{EXPORTS}/{path}") == f"{EXPORTS}/{path}"


@pytest.mark.parametrize("path", [*ORDERS, *NOT_KNOWN_AS_RESULTS])
def test_what_is_more_than_data(path: str) -> None:
    for check in (check_data_file, in_exports):
        with pytest.raises(InvalidInput) as refusal:
            check(path, "results_file")
        assert refusal.value.what.startswith("results_file ")


@pytest.mark.parametrize(
    ("path", "example"),
    [
        *(("llms.txt", "results-llms.txt"), ("a/cdk.json", "results-cdk.json"), ("main.tex", "results-main.tex")),
        *(
            ("requirements.txt", "results.txt"),
            ("Makefile", "results-makefile.tsv"),
            ("SUMMARY.md", "results-summary.md"),
        ),
        *(("a.prompt.md", "results.md"), ("SUMMARY.md", "results-summary.md"), ("CLAUDE.md", "results-claude.md")),
    ],
)
def test_a_refusal_names_what_is_taken(path: str, example: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_data_file(path)
    assert refusal.value.todo == f"Give a name such as {example!r}"
    assert check_data_file(example) == example


@pytest.mark.parametrize("path", [*ORDERS, *NOT_KNOWN_AS_RESULTS])
def test_whatever_is_refused_for_its_name_gets_an_example(path: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_data_file(path)
    if refusal.value.todo.startswith("Give a name such as"):
        example = refusal.value.todo.split("'")[1]
        assert check_data_file(example) == example


def test_what_the_product_writes_and_its_pages_show_is_taken() -> None:
    root = Path(__file__).parents[2]
    pages = "\n".join(page.read_text() for page in [root / "README.md", *(root / "docs").glob("*.md")])
    shown = re.findall(r"autoresearch export\b.*? --path ([^\s`]+)", pages)
    assert {"table.tex", "results.csv", "results.jsonl"} <= set(shown)
    for name in (*shown, Task.results_file, "results-mar8.tsv", f"{SUMMARY}.md", f"{SUMMARY}-mar8-2.md"):
        assert check_data_file(name) == name


def test_where_a_caller_may_write() -> None:
    assert in_exports("a.csv") == in_exports(f"{EXPORTS}/a.csv") == f"{EXPORTS}/a.csv"
    assert in_exports(f"{EXPORTS}/deep/a.csv") == f"{EXPORTS}/deep/a.csv"
    for path in ("out/a.csv", "./a.csv", ".autoresearch/a.csv", ".autoresearch/exportsx/a.csv"):
        with pytest.raises(InvalidInput):
            in_exports(path)
