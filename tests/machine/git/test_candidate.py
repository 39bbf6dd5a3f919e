"""Trees made from edits and texts: exact, and never through a link or out of the repository."""

from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.machine.git import Edit, Repository, apply_edits, tree_with_files
from tests.machine.git.helpers import run_git


def commit_all(folder: Path) -> str:
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "More")
    return run_git(folder, "rev-parse", "HEAD")


def test_texts_are_written_and_deleted_exactly(repository: Repository, folder: Path) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ".gitattributes").write_text("* text=auto eol=lf\n*.py filter=broken\n")
    base = commit_all(folder)
    odd = "new\nline \\t ü.py".replace("\\", "")
    files: dict[str, str | None] = {
        "train.py": "LR = 1\r\nno newline at the end",
        "run.sh": "#!/bin/bash\n",
        "src/deep/er/new.py": "",
        'ünï "q".py': "x",
        "src/model.py": None,
    }
    tree = tree_with_files(repository, base, files)
    assert tree == tree_with_files(repository, base, files)
    for path, text in files.items():
        assert repository.read_file(tree, path) == text
    assert repository.entries(tree)["run.sh"].mode == "100755"
    assert repository.entries(tree)["prepare.py"] == repository.entries(base)["prepare.py"]
    with pytest.raises(InvalidInput, match="control characters"):
        tree_with_files(repository, base, {odd: "x"})
    assert tree_with_files(repository, base, {}) == repository.tree_of(base)
    assert run_git(folder, "status", "--porcelain") == ""


def test_edits_apply_in_order_and_keep_line_ends(repository: Repository, folder: Path) -> None:
    (folder / "windows.py").write_bytes("ä = 1\r\nb = 2".encode())
    base = commit_all(folder)
    assert apply_edits(
        repository,
        base,
        [
            Edit("windows.py", "b = 2", "b = 3"),
            Edit("train.py", "LR = 0.1", "LR = 0.2"),
            Edit("train.py", "LR = 0.2\nSTEPS = 10", "LR = 0.3"),
            Edit("new.py", "", "a = 1\n"),
            Edit("new.py", "1", "2"),
        ],
    ) == {
        "windows.py": "ä = 1\r\nb = 3",
        "train.py": "LR = 0.3\nprint('loss: 1.0')\n",
        "new.py": "a = 2\n",
    }


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("train.py", "LR = 7", "x"), "'LR = 7' is absent from 'train.py'. Copy it exactly"),
        (Edit("train.py", "\n", "x"), "occurs 3 times in 'train.py', on lines 1, 2, 3. Give more"),
        (Edit("aaa.py", "aa", "x"), "occurs 2 times in 'aaa.py', on lines 1, 1"),
        (Edit("crlf.py", "a\nb", "x"), r"absent from 'crlf.py'. Write its line ends as \\r\\n"),
        (Edit("gone.py", "x", "y"), "'gone.py' does not exist"),
        (Edit("train.py", "", "y"), "exists, and the edit has an empty old"),
        (Edit("src", "", "y"), "'src' is a folder"),
        (Edit("image.py", "x", "y"), "not UTF-8"),
        (Edit("link.py", "train", "y"), "'link.py' is a symbolic link"),
        (Edit("outside/x.py", "", "y"), "leads through 'outside', which is not a folder"),
        (Edit("train.py/x.py", "", "y"), "leads through 'train.py'"),
        (Edit("sub", "", "y"), "'sub' is a submodule"),
        (Edit("sub/train.py", "", "y"), "leads through 'sub'"),
        (Edit("../x.py", "", "y"), "contains '..'"),
        (Edit("/etc/passwd", "", "y"), "is not relative"),
        (Edit(".git/hooks/pre-commit", "", "y"), "lies in .git"),
        (Edit("Train.py", "", "y"), "'Train.py' differs from 'train.py' only in case"),
        (Edit("SRC/x.py", "", "y"), "differs from 'src' only in case"),
    ],
)
def test_edits_that_are_refused(repository: Repository, folder: Path, edit: Edit, message: str) -> None:
    (folder / "aaa.py").write_text("aaa")
    (folder / "crlf.py").write_bytes(b"a\r\nb\r\n")
    (folder / "image.py").write_bytes(b"\xff\xfe")
    (folder / "link.py").symlink_to("train.py")
    (folder / "outside").symlink_to("/tmp")
    head = run_git(folder, "rev-parse", "HEAD")
    run_git(folder, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    (folder / "sub").mkdir()
    base = commit_all(folder)
    with pytest.raises(InvalidInput, match=message):
        apply_edits(repository, base, [edit])
    assert run_git(folder, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"gone.py": None}, "'gone.py' does not exist"),
        ({"a.py": "1", "A.py": "2"}, "only in case"),
        ({"a/x.py": "1", "A/y.py": "2"}, "only in case"),
        ({"a": "1", "a/b": "2"}, "leads through 'a'"),
        ({"src": None}, "'src' is a folder"),
        ({"a.py": "\ud800"}, "is not UTF-8"),
        ({"": "x"}, "is empty"),
    ],
)
def test_texts_that_are_refused(repository: Repository, base: str, files: dict[str, str | None], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        tree_with_files(repository, base, files)
