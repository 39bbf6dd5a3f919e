"""The options of a training script: defaults of argparse, which can be read and set as its constants are."""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libcst


@dataclass(frozen=True)
class Option:
    """An option that is added once, with a default.

    Attributes:
        default: its expression.
        help: what the script says of it.
        is_float: whether its type is `float`, so that a default of 1 stands for 1.0.
    """

    name: str
    default: ast.expr
    help: str
    is_float: bool


def read_options(tree: ast.Module) -> Iterator[Option]:
    """The options of a script with a default, such as `--lr`, in the order they are written."""
    found: list[Option] = []
    count: Counter[str] = Counter()
    for node in sorted(_additions(tree), key=lambda call: call.lineno):
        texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        name = next((text for text in texts if text.startswith("--")), None)
        if name is None:
            continue
        count[name] += 1
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if default := keywords.get("default"):
            told, kind = keywords.get("help"), keywords.get("type")
            text = told.value if isinstance(told, ast.Constant) and isinstance(told.value, str) else ""
            found.append(Option(name, default, text[:200], isinstance(kind, ast.Name) and kind.id == "float"))
    return (option for option in found if count[option.name] == 1)


def _additions(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield node


def with_defaults(
    module: "libcst.Module", rewritten: Callable[[str, "libcst.BaseExpression"], "libcst.BaseExpression | None"]
) -> "libcst.Module":
    """The module with the defaults of options replaced.

    Args:
        rewritten: the new expression, given an option's name and its old one; None for an option that stays.
    """
    import libcst

    class Defaults(libcst.CSTTransformer):
        def leave_Call(  # noqa: N802 - the name that libcst calls
            self, original_node: libcst.Call, updated_node: libcst.Call
        ) -> libcst.Call:
            function = updated_node.func
            if not isinstance(function, libcst.Attribute) or function.attr.value != "add_argument":
                return updated_node
            texts = [
                arg.value.evaluated_value for arg in updated_node.args if isinstance(arg.value, libcst.SimpleString)
            ]
            name = next((text for text in texts if isinstance(text, str) and text.startswith("--")), "")
            args = list(updated_node.args)
            for number, arg in enumerate(args):
                if arg.keyword and arg.keyword.value == "default" and (new := rewritten(name, arg.value)):
                    args[number] = arg.with_changes(value=new)
            return updated_node.with_changes(args=args)

    return module.visit(Defaults())
