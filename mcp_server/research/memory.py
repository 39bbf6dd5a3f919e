"""What a change is, whatever its formatting, comments and place: by this an equal or similar earlier one is found."""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.research.experiment import KnobValue
from mcp_server.research.knobs import parse, read_knobs
from mcp_server.research.moves import heading

Values = Mapping[str, KnobValue]
"""Knobs by name."""
Texts = tuple[str | None, str | None]
"""A file before and after; None where it is absent."""

EXACT = 2000
"""With more lines than this to compare, lines that occur often are passed over, for speed."""
SKETCH = 64
"""The most features of a change that are compared with another's."""
LARGEST = 500
"""The most lines of a change by which similar ones are found."""
BANDS, ROWS = 6, 2
"""Two changes whose code has half of its features in common share one of six bands in four cases of five; with three
quarters in common, nearly always."""


@dataclass(frozen=True)
class Fingerprint:
    """A change in few numbers.

    Attributes:
        digest: equal for equal changes: the same knobs set to the same values, the same code put for the same code.
        keys: similar changes have at least one in common: the same knobs moved the same way, or much the same code.
        sketch: by which the likeness of two changes is computed; empty if nothing but comments or formatting changed.
    """

    digest: str
    keys: tuple[int, ...]
    sketch: tuple[int, ...]


def fingerprint(files: Mapping[str, Texts]) -> Fingerprint:
    """The fingerprint of a change.

    Args:
        files: for each changed path its text before and after; of what is no text, anything that identifies it.
    """
    sides = {path: (_values(old), _values(new)) for path, (old, new) in sorted(files.items())}
    knobs = sorted((path, *knob) for path, values in sides.items() for knob in _moved(*values))
    code = {path: edits for path, values in sides.items() if (edits := list(_code(*files[path], *values)))}
    said = [[(path, name, repr(new)) for path, name, _, new in knobs], sorted(code.items())]
    moved = [f"{path} {name} {_way(old, new)}" for path, name, old, new in knobs]
    set_to = [f"{path} {name} = {new!r}" for path, name, _, new in knobs]
    lines = {f"{path} {line}" for path, edits in code.items() for edit in edits for line in edit}
    features = sorted({_number(feature) for feature in (*moved, *set_to, *lines)})
    keys = [_number("knobs", *moved)] if moved else []
    keys += _bands(sorted(lines, key=_number)[:LARGEST])
    return Fingerprint(_digest(said), tuple(sorted(keys)), tuple(features[:SKETCH]))


def likeness(one: Sequence[int], other: Sequence[int]) -> float:
    """How much of two sketches is the same, from 0 to 1."""
    both = sorted({*one, *other})[:SKETCH]  # the least of the union: as fair a sample of it as each sketch of its own
    return len({*one} & {*other} & {*both}) / len(both) if both else 0.0


def _moved(before: Values, after: Values) -> Iterator[tuple[str, KnobValue, KnobValue]]:
    """Name, old and new value of the knobs that both have and that differ."""
    for name in before.keys() & after.keys():
        if repr(before[name]) != repr(after[name]):
            yield name, before[name], after[name]


def _values(source: str | None) -> Values:
    try:
        return {name: knob.value for name, knob in read_knobs(source).items()} if source else {}
    except (InvalidInput, RecursionError):
        return {}


def _way(old: KnobValue, new: KnobValue) -> str:
    """Which way a knob went; where its values have no order, to what."""
    return str(heading(old, new) or repr(new))


def _code(old: str | None, new: str | None, old_knobs: Values, new_knobs: Values) -> Iterator[tuple[str, ...]]:
    """Each place where other code stands than before: its lines with the class and function they are in, - and +."""
    knobs = old_knobs.keys() & new_knobs.keys()
    before, after = _trimmed(_lines(old, knobs), _lines(new, knobs))
    matcher = SequenceMatcher(None, before, after, autojunk=len(before) > EXACT)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            yield (*(f"-{line}" for line in before[a:b]), *(f"+{line}" for line in after[c:d]))
    if (old is None) != (new is None):
        yield ("-file",) if new is None else ("+file",)


def _trimmed(one: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """Both without the lines that they begin and end with alike: comparing takes the square of what is left."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    back = zip(reversed(one), reversed(other), strict=False)
    end = next((i for i, (a, b) in enumerate(back) if a != b), min(len(one), len(other)))
    return one[: len(one) - end], other[: len(other) - end]


def _lines(source: str | None, knobs: set[str]) -> list[str]:
    """The lines of a source without comments, docstrings, formatting and the knobs named; as they are if not Python."""
    if source is None:
        return []
    try:
        tree = parse(source)
        tree.body = [statement for statement in tree.body if _assigned(statement) not in knobs]
        return list(_scoped(ast.unparse(_Plain().visit(tree)).splitlines()))
    except (InvalidInput, RecursionError):
        return [line.rstrip() for line in source.splitlines() if line.strip()]


def _assigned(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


class _Plain(ast.NodeTransformer):
    """Puts `pass` for docstrings and other texts that stand alone."""

    def visit(self, node: ast.AST) -> Any:
        return node if isinstance(node, ast.expr) else super().visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if alone else node


def _scoped(lines: Sequence[str]) -> Iterator[str]:
    """Each line behind the names of the classes and functions that it is in: the same line elsewhere is another."""
    scopes: list[tuple[int, str]] = []
    for line in lines:
        text = line.lstrip()
        if text in ("", "pass"):
            continue
        depth = len(line) - len(text)
        while scopes and scopes[-1][0] >= depth:
            scopes.pop()
        yield f"{'.'.join(name for _, name in scopes)}: {line}"
        words = text.removeprefix("async ").split(maxsplit=1)
        if len(words) == 2 and words[0] in ("def", "class"):
            scopes.append((depth, words[1].partition("(")[0].partition(":")[0]))


def _bands(features: Sequence[str]) -> Iterator[int]:
    """Numbers of which similar sets of features have one in common: pairs of minima under hashes of their own."""
    for band in range(BANDS if features else 0):
        least = [min(_number(f"{band}.{row}", feature) for feature in features) for row in range(ROWS)]
        yield _number("code", str(band), *map(str, least))


def _number(*words: str) -> int:
    """A number that SQLite can hold, the same wherever and whenever it is computed."""
    said = "\0".join(words).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big", signed=True)


def _digest(said: object) -> str:
    return hashlib.sha256(repr(said).encode("utf-8", "replace")).hexdigest()[:32]
