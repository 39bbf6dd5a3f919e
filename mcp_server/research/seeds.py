"""Recognising a change of nothing but the seed, which is another draw of the noise and no idea."""

import ast
import re
from typing import Any

from mcp_server.errors import InvalidInput
from mcp_server.research.knobs import parse
from mcp_server.research.script import words_of

_NAME = re.compile(r"(?:^|_)seed$")
_CALL = re.compile(
    r"(?:^|_)seed$|^manual_seed|^seed_(all|everything)$|^set_(random_)?seed$|^default_rng$|^prng_?key$|^random_state$"
)
_KEYWORD = re.compile(r"(?:^|_)seed$|^random_state$")


def only_seed_changed(old_source: str, new_source: str) -> bool:
    """Whether two scripts differ in a seed and otherwise at most in comments and formatting.

    A seed is what a name that ends in `seed` is set to (a constant, a default, a keyword, an entry of a dictionary, an
    option), and what is handed to `manual_seed`, `random.seed`, `default_rng` and the like. A seed that is set once
    more, or put in place of another with `replace(..., seed=...)`, is another seed and nothing else.
    """
    try:
        old, new = parse(old_source), parse(new_source)
        if ast.dump(old) == ast.dump(new):
            return False
        hidden = _Hidden()
        old, new = hidden.visit(old), hidden.visit(new)
        if ast.dump(old) == ast.dump(new):
            return True
        before, after = _Unseeded(), _Unseeded()
        same = ast.dump(before.visit(old)) == ast.dump(after.visit(new))
        return same and after.seedings > before.seedings
    except (InvalidInput, RecursionError):
        return False


class _Hidden(ast.NodeTransformer):
    """Puts an ellipsis in the place of every seed."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if all(_is_seed(_name(target)) for target in node.targets):
            node.value = _seed()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if _is_seed(_name(node.target)) and node.value is not None:
            node.value = _seed()
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        self.generic_visit(node)
        positional = [*node.posonlyargs, *node.args]
        for position, argument in enumerate(positional[len(positional) - len(node.defaults) :]):
            if _is_seed(argument.arg):
                node.defaults[position] = _seed()
        for position, argument in enumerate(node.kwonlyargs):
            if _is_seed(argument.arg) and node.kw_defaults[position] is not None:
                node.kw_defaults[position] = _seed()
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        self.generic_visit(node)
        for position, key in enumerate(node.keys):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and _is_seed(key.value):
                node.values[position] = _seed()
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _CALL.search(words_of(_name(node.func))):
            node.args, node.keywords = [_seed()], []
        elif any(_is_seed(_text(argument)) for argument in node.args):
            # An option's default, or what is taken where the environment says nothing.
            node.args = [argument if _is_seed(_text(argument)) else _seed() for argument in node.args]
        for keyword in node.keywords:
            words = words_of(keyword.arg or "")
            if _KEYWORD.search(words) or (words == "default" and any(_is_seed(_text(a)) for a in node.args)):
                keyword.value = _seed()
        return node


class _Unseeded(ast.NodeTransformer):
    """Leaves out whatever only sets a seed, and imports, and counts the former."""

    def __init__(self) -> None:
        self.seedings = 0

    def visit(self, node: ast.AST) -> Any:
        node = super().visit(node)
        if isinstance(getattr(node, "body", None), list) and not node.body:  # type: ignore[attr-defined]
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Call) and _CALL.search(words_of(_name(node.value.func))):
            self.seedings += 1
            return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if all(isinstance(target, ast.Subscript) and _is_seed(_text(target.slice)) for target in node.targets):
            self.seedings += 1
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        seeds = [keyword for keyword in node.keywords if _KEYWORD.search(words_of(keyword.arg or ""))]
        if _name(node.func) in ("replace", "_replace") and seeds and len(seeds) == len(node.keywords):
            self.seedings += 1
            return node.args[0] if node.args else node.func
        return node


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _name(node: ast.expr) -> str:
    """The last part of a dotted name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _is_seed(name: str) -> bool:
    return _NAME.search(words_of(name)) is not None


def _seed() -> ast.expr:
    return ast.Constant(...)
