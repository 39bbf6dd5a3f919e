"""The knobs of a training script, which can be read, compared and set without running it: constants and options."""

import ast
import difflib
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_server.errors import InvalidInput
from mcp_server.research.experiment import KnobValue
from mcp_server.research.options import read_options, with_defaults

if TYPE_CHECKING:
    import libcst

MAX_TEXT_KNOB = 200
"""Characters; a longer string is content, not a setting."""


@dataclass(frozen=True)
class Knob:
    """A module-level name that is assigned once, to a literal; or an option of argparse with such a default.

    Attributes:
        name: of an option, with its dashes: `--lr`.
        line: where it is assigned, counted from 1.
        comment: the comment at the end of that line, without `#`, by custom it says the unit; of an option, its help.
        text: the value as it is written, e.g. `2**19`.
    """

    name: str
    value: KnobValue
    line: int
    comment: str = ""
    text: str = ""


def read_knobs(source: str) -> dict[str, Knob]:
    """Find the knobs of a script: its constants in the order they are written, then its options.

    Values are numbers (also arithmetic of numbers, such as `2**19`), strings, booleans, None and tuples of these. A
    name that is bound more than once at module level, or rebound through `global`, is no knob: setting one place would
    not set it.

    Raises:
        InvalidInput: the source is not Python; the message names the line.
    """
    tree = parse(source)
    bound = _Bindings()
    bound.visit(tree)
    source = source.removeprefix("\ufeff")
    lines = re.split(r"\r\n|\r|\n", source)  # as Python counts lines; splitlines() also ends them at form feeds
    knobs = {}
    for statement in tree.body:
        name, node = _assignment(statement)
        if name and node and bound.count[name] == 1 and not name.startswith("__"):
            try:
                value = literal(node)
            except (ValueError, ArithmeticError, RecursionError):
                continue
            knobs[name] = Knob(name, value, statement.lineno, _comment(lines, statement), _text(lines, node))
    for option in read_options(tree):
        try:
            value = literal(option.default)
        except (ValueError, ArithmeticError, RecursionError):
            continue
        value = float(value) if option.is_float and type(value) is int else value
        line, text = option.default.lineno, _text(lines, option.default)
        knobs[option.name] = Knob(option.name, value, line, option.help, text)
    return knobs


def write_knobs(source: str, values: Mapping[str, object]) -> str:
    """Return the script with these knobs set; everything else, formatting and comments included, stays as it is.

    A value keeps the kind of the old one (a whole number may be given for a float, a list for a tuple) and the way it
    was written (`2**19` becomes `2**18`).

    Raises:
        InvalidInput: the source is not Python, a name is no knob, a value is of another kind or not finite, or every
            value is what it already was.
    """
    import libcst

    knobs = read_knobs(source)
    if missing := [name for name in values if name not in knobs]:
        raise _unknown(missing[0], knobs)
    wanted = {name: _checked(name, value, knobs[name].value) for name, value in values.items()}
    changed = {name: value for name, value in wanted.items() if not same(value, knobs[name].value)}
    if not changed:
        now = ", ".join(f"{name} = {knobs[name].text}" for name in values) or "no knob was named"
        raise InvalidInput(f"These knobs would change nothing: {now}", "Give at least one knob another value")
    mark = "\ufeff" if source.startswith("\ufeff") else ""  # libcst drops a byte order mark
    module = libcst.parse_module(source.removeprefix(mark))
    module = module.with_changes(body=[_set(statement, knobs, changed) for statement in module.body])
    if any(name.startswith("--") for name in changed):
        module = with_defaults(
            module, lambda name, old: _rewritten(old, knobs[name].value, changed[name]) if name in changed else None
        )
    return mark + module.code


def as_knob(name: str, value: object, knobs: Mapping[str, Knob]) -> KnobValue:
    """A value as a knob of the script would hold it, as `write_knobs` takes it; text that is a number counts as one.

    Raises:
        InvalidInput: there is no such knob, or the value is of another kind or not finite.
    """
    if name not in knobs:
        raise _unknown(name, knobs)
    old = knobs[name].value
    if isinstance(value, str) and isinstance(old, int | float) and not isinstance(old, bool):
        with suppress(ValueError):
            value = float(value)  # YAML takes 1e-3 for text
    if isinstance(value, float) and isinstance(old, int) and not isinstance(old, bool) and value.is_integer():
        value = int(value)
    return _checked(name, value, old)


def changed_knobs(old_source: str, new_source: str) -> dict[str, tuple[KnobValue, KnobValue]]:
    """Name -> (old, new) of the knobs that both scripts have with different values; empty if one is not Python."""
    try:
        old, new = read_knobs(old_source), read_knobs(new_source)
    except InvalidInput:
        return {}
    both = [name for name in old if name in new]
    return {name: (old[name].value, new[name].value) for name in both if not same(old[name].value, new[name].value)}


def parse(source: str) -> ast.Module:
    """Parse Python source; raises InvalidInput with the line where that fails."""
    try:
        return ast.parse(source.removeprefix("\ufeff"))
    except SyntaxError as error:
        where = f"line {error.lineno}: {(error.text or '').strip()[:80]!r}"
        raise InvalidInput(f"The training script is not valid Python, {error.msg} at {where}", "Correct it") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"The training script cannot be parsed: {error}", "Correct it") from None


def literal(node: ast.expr) -> KnobValue:
    """The value of a literal; raises ValueError where it is none, ArithmeticError where it does not evaluate."""
    match node:
        case ast.Constant(value=bool() | None as value):
            return value
        case ast.Constant(value=int() | float() as value):
            return _bounded(value)
        case ast.Constant(value=str() as value) if len(value) <= MAX_TEXT_KNOB:
            return value
        case ast.Tuple(elts=elements):
            return tuple(literal(element) for element in elements)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(operand)
            return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _bounded(_ARITHMETIC[type(op)](_number(left), _number(right)))
    raise ValueError("not a literal")


def _power(base: float, exponent: float) -> Any:
    if abs(exponent) > 64 or (exponent < 1 and base < 0):  # 10**10**10 would take all memory, (-1)**0.5 is complex
        raise ValueError("power out of range")
    return base**exponent


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


def _number(node: ast.expr) -> float:
    value = literal(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return value


def _bounded(number: float) -> float:
    """`number`, if it is finite and, being whole, fits 64 bits."""
    if not math.isfinite(number) or (isinstance(number, int) and abs(number) >= 2**63):
        raise ValueError("number out of range")
    return number


class _Bindings(ast.NodeVisitor):
    """Counts how often each name is bound at module level; a name declared `global` somewhere counts once more."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.depth = 0

    def visit_Name(self, node: ast.Name) -> None:
        if self.depth == 0 and not isinstance(node.ctx, ast.Load):
            self.count[node.id] += 1

    def visit_Global(self, node: ast.Global) -> None:
        self.count.update(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        if self.depth == 0:
            self.count[(node.asname or node.name).split(".")[0]] += 1

    def generic_visit(self, node: ast.AST) -> None:
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
        if self.depth == 0 and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.count[node.name] += 1
        self.depth += inner
        super().generic_visit(node)
        self.depth -= inner


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return name, value
    return "", None


def _text(lines: list[str], node: ast.expr) -> str:
    """An expression as it is written, or in one line if it takes several."""
    if node.lineno != node.end_lineno:
        return ast.unparse(node)
    return lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode()  # offsets count bytes


def _comment(lines: list[str], statement: ast.stmt) -> str:
    """What stands behind a statement on its last line, if that is a comment."""
    rest = lines[(statement.end_lineno or 1) - 1].encode()[statement.end_col_offset :].decode(errors="replace")
    match = re.match(r"\s*;?\s*#+:?\s*(.*?)\s*$", rest)
    return match[1][:200] if match else ""


def _checked(name: str, value: object, old: KnobValue) -> KnobValue:
    """`value` in the kind of `old`; raises InvalidInput where it is of another kind or not finite."""
    match old, value:
        case bool(), bool():
            return value
        case str(), str() if len(value) <= MAX_TEXT_KNOB:
            return value
        case (int(), int()) if not isinstance(old, bool) and not isinstance(value, bool) and abs(value) < 2**63:
            return value
        case (float(), float() | int()) if not isinstance(value, bool) and _is_finite(value):
            return float(value)
        case tuple(), tuple() | list() if len(old) == len(value):
            return tuple(_checked(name, new, present) for new, present in zip(value, old, strict=True))
        case None, None | bool() | str():
            return value
        case None, int() | float() if _is_finite(value):
            return value
    kind = f"a tuple of {len(old)}" if isinstance(old, tuple) else _KINDS[type(old)]
    raise InvalidInput(f"{name} is {old!r}, and {str(value)[:80]!r} is not {kind}", f"Give {name} {kind}")


_KINDS = {
    bool: "true or false",
    str: f"text of at most {MAX_TEXT_KNOB} characters",
    int: "a whole number",
    float: "a finite number",
    type(None): "a finite number, text, true or false",
}


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def same(one: KnobValue, other: KnobValue) -> bool:
    """Whether two values are written alike; 1 and 1.0 and True are three values."""
    return type(one) is type(other) and repr(one) == repr(other)


def _unknown(name: str, knobs: Mapping[str, Knob]) -> InvalidInput:
    if not knobs:
        return InvalidInput(
            f"{name!r} is no knob: the script has no constant at module level and no option with a default",
            "Change it with `edits` instead",
        )
    written_so = name.lower() if name.startswith("-") else name.upper()
    close = difflib.get_close_matches(written_so, knobs, n=3, cutoff=0.5)
    others = [knob for knob in knobs if knob not in close]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return InvalidInput(f"{name!r} is no knob of the script", f"{hint}Its knobs: {', '.join((close + others)[:60])}")


def _set(statement: Any, knobs: Mapping[str, Knob], changed: Mapping[str, KnobValue]) -> Any:
    """The libcst statement with the value of the knob that it assigns replaced, if that is to change."""
    import libcst

    if not isinstance(statement, libcst.SimpleStatementLine):
        return statement
    body = []
    for part in statement.body:
        if isinstance(part, libcst.Assign | libcst.AnnAssign) and part.value is not None:
            target = part.targets[0].target if isinstance(part, libcst.Assign) else part.target
            if isinstance(target, libcst.Name) and target.value in changed:
                value = _rewritten(part.value, knobs[target.value].value, changed[target.value])
                part = part.with_changes(value=value)
        body.append(part)
    return statement.with_changes(body=body)


def _rewritten(node: "libcst.BaseExpression", old: KnobValue, new: KnobValue) -> "libcst.BaseExpression":
    """The expression for `new`; of a tuple, only the elements that differ are written anew."""
    import libcst

    if same(old, new):
        return node
    if isinstance(node, libcst.Tuple) and isinstance(old, tuple) and isinstance(new, tuple):
        elements = [
            element.with_changes(value=_rewritten(element.value, before, after))
            for element, before, after in zip(node.elements, old, new, strict=True)
        ]
        return node.with_changes(elements=elements)
    return libcst.parse_expression(written(new, libcst.Module([]).code_for_node(node).strip("()")))


def written(value: KnobValue, like: str = "") -> str:
    """The Python text of a value, in the manner of the text `like` where that can be: powers, quotes, underscores."""
    power = re.fullmatch(r"(\d+)(\s*\*\*\s*)\d+", like)
    if power and isinstance(value, int) and int(power[1]) > 1 and value > 1:
        exponent = round(math.log(value, int(power[1])))
        if int(power[1]) ** exponent == value:
            return f"{power[1]}{power[2]}{exponent}"
    if isinstance(value, int) and not isinstance(value, bool) and "_" in like:
        return f"{value:_}"
    if isinstance(value, str) and like.startswith('"') and not re.search(r"[\"'\\]", repr(value)[1:-1]):
        return f'"{repr(value)[1:-1]}"'
    return repr(value)
