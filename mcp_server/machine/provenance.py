"""Whose a file of a commit is: the user's, who committed it, or an agent's, whose experiment brought it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcp_server.machine.git import Repository
from mcp_server.machine.git.command import IDENTITY, LONG_TIMEOUT, GitFailed
from mcp_server.machine.starter import starter_files

OURS = "autoresearch/"
"""How the branches of runs begin; what only they, and the refs of experiments, lead to is an agent's."""


@dataclass(frozen=True)
class Provenance:
    """Whose the files of a commit are.

    Attributes:
        brought: the commit of an agent that brought a path as it is; all other paths are the user's.
        replaced: those of `brought` that the user once committed in another form.
        deleted: what the user committed before any agent did, and the commit has no more.
    """

    brought: Mapping[str, str]
    replaced: frozenset[str]
    deleted: frozenset[str] = frozenset()


def provenance(repository: Repository, commit: str) -> Provenance:
    """Tell the user's files in a commit from those that an agent brought.

    An agent's are the commits that this server made, but for those without parents, which hold a user's folder as it
    was found; and those that no branch, tag, remote or HEAD of the user leads to. A file that an agent's commit brought
    is the agent's in every later commit too. It is the user's again where a commit with no agent's before it has the
    same, and where it is one of our harness as this package has it. Replaced objects and grafts are not looked at.
    """
    suspects = _unreached(repository, commit) | _by_this_server(repository, commit)
    if not suspects:
        return Provenance({}, frozenset())
    history = _history(repository, commit)
    made = {each for each in suspects if history[each]}
    entries = repository.entries(commit)
    brought = {
        path: by
        for (path, oid), by in _introduced(repository, made, history).items()
        if path in entries and entries[path].oid == oid
    }
    before = list(_last_of_the_user(history, made))
    theirs = [repository.entries(each) for each in before]
    shipped = _shipped(repository, brought)
    kept = {path for path in brought if any(entries[path] == tree.get(path) for tree in theirs)}
    brought = {path: by for path, by in brought.items() if path not in kept and entries[path].oid != shipped.get(path)}
    replaced = frozenset(path for path in brought if any(path in tree for tree in theirs))
    return Provenance(brought, replaced, frozenset(path for tree in theirs for path in tree.keys() - entries.keys()))


def _history(repository: Repository, commit: str) -> dict[str, list[str]]:
    """The parents of every commit up to this one, the oldest first."""
    listed = _git(repository, "rev-list", "--topo-order", "--reverse", "--parents", commit)
    lines = [line.split() for line in listed.splitlines()]
    return {each: parents for each, *parents in lines}


def _unreached(repository: Repository, commit: str) -> set[str]:
    """The commits up to this one that nothing of the user's leads to."""
    heads = []
    for tree in {repository.main, repository.here}:
        try:
            on = tree.git("rev-parse", "--symbolic-full-name", "HEAD").strip()
            if not on.startswith(f"refs/heads/{OURS}"):
                heads.append(tree.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}").strip())
        except GitFailed:  # nothing is committed there
            continue
    theirs = ("--branches", "--exclude=*/autoresearch/*", "--remotes", "--tags", *heads)
    return set(_git(repository, "rev-list", commit, "--not", f"--exclude={OURS}*", *theirs).split())


def _by_this_server(repository: Repository, commit: str) -> set[str]:
    return set(_git(repository, "rev-list", "--fixed-strings", f"--committer=<{IDENTITY}>", commit).split())


def _introduced(
    repository: Repository, commits: Iterable[str], history: Mapping[str, list[str]]
) -> dict[tuple[str, str], str]:
    """The commit that brought a path with an object, for all that these changed against every one of their parents."""
    ids = "".join(f"{commit}\n" for commit in commits).encode()
    words = ("diff-tree", "--stdin", "-r", "-m", "--raw", "--no-renames", "--no-ext-diff", "--full-index", "-z")
    fields = iter(_git(repository, *words, stdin=ids).split("\0")[:-1])
    seen: Counter[tuple[str, str, str]] = Counter()
    commit = ""
    for field in fields:
        if field.startswith(":"):
            seen[commit, next(fields), field.split(" ")[3]] += 1
        else:
            commit = field.strip()
    return {(path, oid): commit for (commit, path, oid), times in seen.items() if times >= len(history[commit])}


def _last_of_the_user(history: Mapping[str, list[str]], made: set[str]) -> Iterable[str]:
    """The commits that agents' are made on and that have no agent's before them."""
    touched = set(made)
    for commit, parents in history.items():  # the oldest first
        if touched.intersection(parents):
            touched.add(commit)
    return dict.fromkeys(parent for commit in made for parent in history[commit] if parent not in touched)


def _shipped(repository: Repository, paths: Iterable[str]) -> dict[str, str]:
    """The objects that those of the paths would have which are files of our harness, as this package has them."""
    files = {name: path for name, path in starter_files().items() if name in paths and name != "train.py"}
    return {
        name: repository.main.git("hash-object", "--no-filters", "--", str(path)).strip()
        for name, path in files.items()
    }


def _git(repository: Repository, *words: str, stdin: bytes | None = None) -> str:
    """Run git with no help from files beside the objects that could tell another history."""
    return repository.main.git("-c", "core.commitGraph=false", *words, stdin=stdin, timeout=LONG_TIMEOUT)
