"""What a source imports, and which files that may run."""

import pytest

from mcp_server.research.imports import imported_modules, places_of


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import a\nimport b.c as d", ["a", "b.c"]),
        ("from a import b, c", ["a", "a.b", "a.c"]),
        ("from . import b\nfrom ..p import q", [".", ".b", "..p", "..p.q"]),
        ("def f():\n    if 1:\n        import deep", ["deep"]),
        ("import importlib\nimportlib.import_module('named')\n__import__('too')\nimportlib.import_module(x)", None),
        ("print 'no Python 3'", []),
        ("import a\0", []),
    ],
)
def test_imports_are_read_off_the_text(source: str, modules: list[str] | None) -> None:
    assert imported_modules(source) == (["importlib", "named", "too"] if modules is None else modules)


def test_every_package_on_the_way_is_run() -> None:
    assert places_of("a.b", "judge.py", ("", "src")) == [
        *("a/__init__.py", "a.py", "a/b/__init__.py", "a/b.py"),
        *("src/a/__init__.py", "src/a.py", "src/a/b/__init__.py", "src/a/b.py"),
    ]
    assert places_of("..p", "x/y/judge.py", ("",)) == ["x/p/__init__.py", "x/p.py"]
    assert places_of(".p", "judge.py", ("src",)) == ["p/__init__.py", "p.py"]
