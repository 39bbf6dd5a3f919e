"""What a Python source imports, as it can be read off its text."""

import ast
from collections.abc import Iterator

LOADERS = ("import_module", "__import__")
"""Functions whose first argument, where it is a text, is the name of a module."""


def imported_modules(source: str) -> list[str]:
    """The dotted names of all modules that a source names in imports, wherever they stand, with their parts.

    `from a import b` gives `a` and `a.b`, since b may be a module. A relative import begins with its dots. A source
    that is no Python gives none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    return list(dict.fromkeys(name for node in ast.walk(tree) for name in _names(node)))


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            start = "." * level + (module or "")
            yield start
            yield from (f"{start}{'.' if module else ''}{alias.name}" for alias in names)
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]):
            if called in LOADERS:
                yield name


def places_of(module: str, importer: str, roots: tuple[str, ...]) -> list[str]:
    """The paths of files that importing a module may run, its packages included, in the order in which they are run.

    Args:
        module: a dotted name, see `imported_modules`.
        importer: the path of the file that imports, from the top of the repository.
        roots: the folders on Python's path, in their order; empty for the top.
    """
    dots = len(module) - len(module.lstrip("."))
    if dots:
        parents = importer.split("/")[:-1]
        roots = ("/".join(parents[: len(parents) - dots + 1]),)
    parts = [part for part in module[dots:].split(".") if part]
    found = []
    for root in roots:
        for count in range(1, len(parts) + 1):
            path = "/".join(filter(None, [root, *parts[:count]]))
            found += [f"{path}/__init__.py", f"{path}.py"]
    return found
