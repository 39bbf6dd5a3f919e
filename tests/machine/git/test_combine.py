"""Changes put together on the present best, or every place where they do not fit; the user's files stay untouched."""

from pathlib import Path

import pytest

from mcp_server.machine.git import Conflict, Repository, combine
from tests.machine.git.helpers import commit_files, run_git

SCRIPT = "".join(f"line_{n} = {n}\n" for n in range(1, 21))


@pytest.fixture
def start(repository: Repository, base: str) -> str:
    return commit_files(repository, base, train_py=SCRIPT)


def changed(*lines: int, text: str = SCRIPT, to: str = "0") -> str:
    for line in lines:
        text = text.replace(f"line_{line} = {line}\n", f"line_{line} = {to}\n")
    return text


def commit_all(folder: Path) -> str:
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", "More")
    return run_git(folder, "rev-parse", "HEAD")


def test_knobs_that_stand_line_under_line_do_not_conflict(repository: Repository, start: str) -> None:
    best = commit_files(repository, start, train_py=changed(10, to="3"))
    a = commit_files(repository, start, train_py=changed(9, 11, to="4").replace("line_12 = 12", "line_12 = print()"))
    combined = combine(repository, best, [(start, a)])
    assert combined.tree is not None
    wanted = changed(9, 11, to="4", text=changed(10, to="3")).replace("line_12 = 12", "line_12 = print()")
    assert repository.read_file(combined.tree, "train.py") == wanted
    both = commit_files(repository, start, train_py=changed(9, 10, to="5"))
    [conflict] = combine(repository, best, [(start, both)]).conflicts
    assert (conflict.start, conflict.end, conflict.present) == (10, 10, "line_10 = 3\n")


def test_two_changes_meet_on_a_third(repository: Repository, start: str, folder: Path) -> None:
    best = commit_files(repository, start, train_py=changed(10))
    a = commit_files(repository, start, train_py=changed(2), new_py="a = 1\n")
    b = commit_files(repository, start, train_py=changed(18), src__model_py=None)
    before = run_git(folder, "status", "--porcelain"), run_git(folder, "rev-parse", "HEAD")
    combined = combine(repository, best, [(start, a), (start, b)])
    assert not combined.conflicts
    assert combined.tree is not None
    assert repository.read_file(combined.tree, "train.py") == changed(2, 10, 18)
    assert repository.files(combined.tree) == [".gitignore", "new.py", "prepare.py", "train.py"]
    assert before == (run_git(folder, "status", "--porcelain"), run_git(folder, "rev-parse", "HEAD"))


def test_what_the_best_has_already_changes_nothing(repository: Repository, start: str) -> None:
    best = commit_files(repository, start, train_py=changed(2, 10), new_py="a = 1\n")
    a = commit_files(repository, start, train_py=changed(2), new_py="a = 1\n")
    assert combine(repository, best, [(start, a), (start, best)]).tree == repository.tree_of(best)
    assert combine(repository, best, []).tree == repository.tree_of(best)
    neighbours = commit_files(repository, start, train_py=changed(2, 3))
    assert combine(repository, neighbours, [(start, a)]).tree == repository.tree_of(
        commit_files(repository, neighbours, new_py="a = 1\n")
    )


def test_each_conflict_is_told_with_its_lines_and_both_sides(repository: Repository, start: str) -> None:
    best = commit_files(repository, start, train_py="first = 1\n" + changed(5, 15, to="best"))
    a = commit_files(repository, start, train_py=changed(1, 5, 15, to="a"))
    combined = combine(repository, best, [(start, a)])
    assert combined.tree is None
    shown = [(c.commit, c.path, c.start, c.end, c.present, c.change) for c in combined.conflicts]
    assert shown == [
        (a, "train.py", 1, 2, "first = 1\nline_1 = 1\n", "line_1 = a\n"),
        (a, "train.py", 6, 6, "line_5 = best\n", "line_5 = a\n"),
        (a, "train.py", 16, 16, "line_15 = best\n", "line_15 = a\n"),
    ]


def test_a_conflict_of_the_second_change_counts_the_first_one_s_lines(repository: Repository, start: str) -> None:
    a = commit_files(repository, start, train_py="one = 1\ntwo = 2\n" + changed(10, to="a"))
    b = commit_files(repository, start, train_py=changed(10, to="b"))
    (conflict,) = combine(repository, start, [(start, a), (start, b)]).conflicts
    assert (conflict.commit, conflict.start, conflict.end) == (b, 12, 12)
    assert (conflict.present, conflict.change) == ("line_10 = a\n", "line_10 = b\n")


def test_a_deleted_place_has_an_empty_range(repository: Repository, start: str) -> None:
    best = commit_files(repository, start, train_py=SCRIPT.replace("line_5 = 5\n", ""))
    a = commit_files(repository, start, train_py=changed(5))
    (conflict,) = combine(repository, best, [(start, a)]).conflicts
    assert (conflict.start, conflict.end, conflict.present, conflict.change) == (5, 4, "", "line_5 = 0\n")


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ({"train_py": None}, {"train_py": changed(1)}, "has deleted"),
        ({"train_py": changed(1)}, {"train_py": None}, "the change deletes"),
        ({"lib__a_py": "x = 1\n"}, {"lib": "x = 2\n"}, "folder of this name"),
        ({"lib": "x = 1\n"}, {"lib__a_py": "x = 2\n"}, "needs a folder"),
        ({"train_py": "\0binary 1"}, {"train_py": "\0binary 2"}, "not text"),
    ],
)
def test_files_that_cannot_both_be(
    repository: Repository, start: str, ours: dict[str, str | None], theirs: dict[str, str | None], reason: str
) -> None:
    best, a = commit_files(repository, start, **ours), commit_files(repository, start, **theirs)
    (conflict,) = combine(repository, best, [(start, a)]).conflicts
    assert (conflict.start, conflict.end, conflict.commit) == (0, 0, a)
    assert reason in conflict.reason


def test_the_same_new_file_with_other_text(repository: Repository, start: str) -> None:
    best = commit_files(repository, start, new_py="a = 1\n")
    a = commit_files(repository, start, new_py="a = 2\n")
    (conflict,) = combine(repository, best, [(start, a)]).conflicts
    assert (conflict.path, conflict.present, conflict.change) == ("new.py", "a = 1\n", "a = 2\n")


def test_a_folder_makes_room_for_a_file_and_a_file_for_a_folder(repository: Repository, start: str) -> None:
    other = commit_files(repository, start, prepare_py=None, src__model_py=None)
    swapped = commit_files(repository, other, src="now a file\n", prepare_py__inner_py="x = 1\n")
    combined = combine(repository, start, [(start, swapped)])
    assert combined.tree == repository.tree_of(swapped)


def test_links_cannot_be_merged_but_may_be_taken(repository: Repository, start: str, folder: Path) -> None:
    run_git(folder, "checkout", "--quiet", "--detach", start)
    (folder / "train.py").unlink()
    (folder / "train.py").symlink_to("prepare.py")
    linked = commit_all(folder)
    best = commit_files(repository, start, train_py=changed(1))
    (conflict,) = combine(repository, best, [(start, linked)]).conflicts
    assert "symbolic link" in conflict.reason
    assert combine(repository, start, [(start, linked)]).tree == repository.tree_of(linked)


def test_modes_line_ends_and_odd_bytes_survive(repository: Repository, start: str, folder: Path) -> None:
    text = SCRIPT.replace("\n", "\r\n").encode() + b"# caf\xe9"
    run_git(folder, "checkout", "--quiet", "--detach", start)
    (folder / "train.py").write_bytes(text)
    (folder / ".gitattributes").write_text("* text=auto eol=lf\n")
    run_git(folder, "-c", "core.autocrlf=false", "add", "--all", "--renormalize")
    (folder / ".gitattributes").write_text("* -text\n")
    base = commit_all(folder)
    (folder / "train.py").write_bytes(text.replace(b"line_2 = 2", b"line_2 = 0"))
    (folder / "train.py").chmod(0o755)
    best = commit_all(folder)
    run_git(folder, "checkout", "--quiet", "--detach", base)
    (folder / "train.py").write_bytes(text.replace(b"line_18 = 18", b"line_18 = 0"))
    a = commit_all(folder)
    combined = combine(repository, best, [(base, a)])
    assert combined.tree is not None
    raw = repository.main.git("cat-file", "blob", f"{combined.tree}:train.py").encode("utf-8", "surrogateescape")
    assert raw == text.replace(b"line_2 = 2", b"line_2 = 0").replace(b"line_18 = 18", b"line_18 = 0")
    assert repository.entries(combined.tree)["train.py"].mode == "100755"


def test_text_that_looks_like_a_conflict_is_text(repository: Repository, start: str) -> None:
    marks = "<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    best = commit_files(repository, start, train_py=marks + changed(10, to="best"))
    a = commit_files(repository, start, train_py=changed(10, 20, to="a"))
    (conflict,) = combine(repository, best, [(start, a)]).conflicts
    assert conflict == Conflict(a, "train.py", 13, 13, "line_10 = best\n", "line_10 = a\n", "both changed these lines")


def test_settings_of_the_user_do_not_matter(repository: Repository, start: str, folder: Path) -> None:
    run_git(folder, "config", "merge.conflictStyle", "zdiff3")
    run_git(folder, "config", "merge.renames", "true")
    best = commit_files(repository, start, train_py=changed(5, to="best"))
    a = commit_files(repository, start, train_py=changed(5, to="a"))
    assert len(combine(repository, best, [(start, a)]).conflicts) == 1
