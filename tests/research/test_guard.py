"""What an experiment may change: globs, paths and the check against the task."""

from dataclasses import replace

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.guard import Change, check_changes, check_path, is_dependency_file, matches
from mcp_server.research.task import Task

TASK = Task("loss", "minimize", 60, "train.py", "python train.py", "/usr/bin/python3", ("train.py", "src/**/*.py"))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("train.py", ["train.py"], ["src/train.py", "train.pyc", "xtrain.py", "Train.py"]),
        ("/train.py", ["train.py"], ["src/train.py"]),
        ("./train.py", ["train.py"], ["src/train.py"]),
        ("src", ["src", "src/a.py", "src/a/b.py"], ["lib/src/a.py", "srcs/a.py"]),
        ("src/", ["src/a.py", "src/a/b.py"], ["lib/src/a.py"]),
        ("*.py", ["a.py", "src/a.py", "src/deep/a.py"], ["a.pyc", "py"]),
        ("/*.py", ["a.py"], ["src/a.py"]),
        ("src/*.py", ["src/a.py"], ["src/deep/a.py", "a.py", "x/src/a.py"]),
        ("src/*", ["src/a.py"], ["src/deep/a.py"]),
        ("src/*/", ["src/deep/a.py"], ["src"]),
        ("src/**", ["src/a.py", "src/deep/a.py"], ["src", "a.py"]),
        ("**", ["a.py", "src/deep/a.py"], []),
        ("**/a.py", ["a.py", "src/deep/a.py"], ["ba.py"]),
        ("src/**/a.py", ["src/a.py", "src/x/y/a.py"], ["a.py", "src/xa.py"]),
        ("src/**.py", ["src/a.py"], ["src/x/a.py"]),
        ("model?.py", ["model1.py", "x/model2.py"], ["model.py", "model12.py", "model/.py"]),
        ("[ab].py", ["a.py", "x/b.py"], ["c.py"]),
        ("[!ab].py", ["c.py"], ["a.py", "/.py"]),
        ("[a-c]x.py", ["bx.py"], ["dx.py"]),
        ("[.py", ["[.py"], ["a.py"]),
        ("a+(b).py", ["a+(b).py"], ["aab.py"]),
        ("ü *.py", ["ü x.py"], ["u x.py"]),
        ("*", ["a.py", "x/a\nb.py"], []),
        ("a*b*c", ["abc", "aXbXbXc", "x/abcbc"], ["acb", "ab/c", "abcd"]),
        ("*a*ab", ["aab", "xaxab", "aaab"], ["ab", "aba"]),
        ("*?.py", ["a.py", "ab.py"], [".py"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes if not matches([pattern], path)] == []
    assert [path for path in no if matches([pattern], path)] == []


def test_a_glob_full_of_stars_takes_no_longer() -> None:
    """By going through all the ways to share the name between the stars it would take for years."""
    assert not matches(["*a" * 40 + "b"], "a" * 250)
    assert not matches(["**/*a*/**/" + "*a" * 40 + "b"], "a/" * 250 + "a" * 250)


@pytest.mark.parametrize("path", ["train.py", "src/ü é.py", "a/b/c", ".github/x.yml", ".gitignore", "...", "git/x"])
def test_paths_that_can_be_files(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "~/a",
        "a\\b",
        "a\nb",
        "a\x00b",
        "..",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        ".git/config",
        "x/.GIT/y",
        ".git./x",
        ".g\u200cit/x",
        "git~1/x",
        ".git /x",
        ".git::$INDEX_ALLOCATION/x",
        ".autoresearch/x",
        ".AutoResearch/x",
        "a\ud800",
        "x" * 256,
        "a/" * 600 + "b",
    ],
)
def test_paths_that_cannot(path: str) -> None:
    with pytest.raises(InvalidInput, match="Give a path relative to the top"):
        check_path(path)


@pytest.mark.parametrize(
    "path",
    ["pyproject.toml", "a/b/Requirements-dev.txt", "requirements/base.txt", "x/requirements/base.txt", "uv.lock"],
)
def test_dependency_files(path: str) -> None:
    assert is_dependency_file(path)
    assert not is_dependency_file(f"{path}.py")


def change(path: str, old: str = "100644", new: str = "100644") -> Change:
    return Change(path, "M", old, new, 1, 1)


def test_changes_that_the_task_allows() -> None:
    check_changes(TASK, [])
    check_changes(TASK, [change("train.py"), change("src/a/new.py", old="000000"), change("src/x.py", new="100755")])
    check_changes(replace(TASK, editable=("prepare.py",)), [change("prepare.py")])


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            change("other.py"),
            "'other.py' is outside of the editable files. Undo that change; editable in this run: train.py",
        ),
        (change("new.py", old="000000"), "is a new file outside of the editable files"),
        (change("src/secret.py"), r"is read-only in this run \(readonly: src/secret.py\)"),
        (change("src/prepare.py"), "is the fixed harness"),
        (change("prepare/__init__.py"), "would be imported in place of the fixed harness"),
        (change("Scoring/any.py"), "would be imported in place of the fixed harness"),
        (change("portable.cpython-311-x86_64-linux-gnu.so"), "would be imported in place of the fixed harness"),
        (change("__pycache__/prepare.cpython-311.pyc"), "would be imported in place of the fixed harness"),
        (change("src/uv.lock.py/poetry.lock"), "declares dependencies"),
        (change("train.py", new="120000"), "is a symbolic link"),
        (change("train.py", old="120000"), "is a symbolic link"),
        (change("src/x.py", new="160000"), "is a submodule or a nested repository"),
        (change("src/.git/x.py"), "lies in .git"),
        (change("src/.gitattributes", old="000000"), "tells git how to write files"),
        (change("src/a\u200b.py"), "contains invisible characters"),
        (change("data/tokens.txt", old="000000"), "is an input of this run"),
    ],
)
def test_changes_that_it_does_not(one: Change, message: str) -> None:
    task = replace(TASK, readonly=("src/secret.py",), inputs=("data",), builtin=True)
    with pytest.raises(InvalidInput, match=message):
        check_changes(task, [change("train.py"), one])
