"""What there is to change in a training script: its settings and its parts, each with its category."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mcp_server.research.knobs import Knob, literal, parse, read_knobs
from mcp_server.research.task import Category


@dataclass(frozen=True)
class Setting:
    """A knob, or something like one: a configuration field (`Config.lr`).

    Attributes:
        options: for text, other values that the script names.
        settable: whether `register(knobs=...)` can set it.
    """

    knob: Knob
    category: Category
    options: tuple[str, ...] = ()
    settable: bool = True


@dataclass(frozen=True)
class Part:
    """A class, function or method; `lines` is how many lines it takes."""

    name: str
    line: int
    lines: int
    category: Category
    source: str


@dataclass(frozen=True)
class Outline:
    """The settings and parts of a script, in the order they are written."""

    settings: tuple[Setting, ...] = ()
    parts: tuple[Part, ...] = ()

    def setting(self, name: str) -> Setting | None:
        """The setting of that name."""
        return next((setting for setting in self.settings if setting.knob.name == name), None)


# The first rule that matches decides: WARMUP_RATIO is scheduling although it is a ratio, EMBEDDING_LR is optimizer.
_RULES: tuple[tuple[Category, str], ...] = (
    ("regularization", r"weight_decay|wd|dropout|drop|(label_)?smoothing|noise|augment\w*|mixup|cutout|l[12]|ema"),
    (
        "scheduling",
        r"warm\w*|cool\w*|schedule\w*|final|anneal\w*|cosine|milestones|(lr_)?decay|min_lr|get_lr|lr_mult\w*",
    ),
    ("optimizer", r"lrs?|learning_rate|muon|adam\w*|sgd|lion|betas?|momentum|optim\w*|eps|epsilon|clip|polar|nesterov"),
    ("initialization", r"init\w*|std|gain"),
    ("normalization", r"\w*norm|normali[sz]\w+|rms"),
    ("embedding", r"embed(ding)?s?|emb|wte|wpe|rope|rotary|rotate|pos|position\w*|vocab\w*|ve"),
    ("attention", r"attn|attention|attend\w*|n?heads?|windows?|kv|qk|qkv|gate|causal"),
    ("activation", r"act|activations?|gelu|relu|silu|swish|swiglu|softcap|cap|non_?linearity"),
    ("hyperparams", r"batch\w*|seq\w*|context|accum\w*|block_size|epochs?|micro\w*"),
    ("architecture", r"depth|width|layers?|dim|aspect|mlp|ffn|hidden|blocks?|expan\w*|model|\w*net|gpt|transformer"),
    ("architecture", r"channels?|kernel\w*|ratio|resid\w*|residual|n?embd|stride|filters?|trees?"),
    ("hyperparams", r"len|length|steps|iters|iterations|size|max\w*|min\w*|rate|fraction|frac|threshold"),
)
_CATEGORY = tuple((category, re.compile(rf"(?:^|_)(?:{words})(?:_|$)")) for category, words in _RULES)

# Not ideas: where things lie, what is printed, what the harness fixes, and the seed, which only redraws the noise.
_HOUSEKEEPING = re.compile(
    r"(?:^|_)(?:seed|path|dir|folder|file\w*|logs?|logging|print\w*|wandb|url|version|debug|verbose|name|eval\w*|val"
    r"|workers|compile\w*|dtype|cache\w*|interval|save\w*|resume|checkpoint\w*|budget|data|dataset|tokenizer|peak|t?flops"
    r"|profile\w*|port|host|project|entity|metric|target|time\w*|device(?!_batch)|gpu|gi?b|memory|cuda)(?:_|$)"
)


_ONLY_ON = re.compile(r"\b(cuda|mps|gpu|cpu)s? only\b|\bonly (?:on|for|with) (?:an? |the )?(cuda|mps|gpu|cpu)\b", re.I)


def words_of(name: str) -> str:
    """A name in small words: `CausalSelfAttention` -> `causal_self_attention`, `ADAM_BETA1` -> `adam_beta_1`."""
    return "_".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def category_of(name: str) -> Category | None:
    """The category that a name, or a heading, speaks of; None where it speaks of none."""
    words = words_of(name)
    return next((category for category, pattern in _CATEGORY if pattern.search(words)), None)


def outline(source: str) -> Outline:
    """Find a script's settings and parts; raises InvalidInput where the source is not Python."""
    tree = parse(source)
    headings = _headings(source)
    knobs = [(knob, True) for knob in read_knobs(source).values()]
    if not any(_is_idea(knob) for knob, _ in knobs):
        knobs += [(knob, False) for knob in _fields(tree)]
    settings = []
    for knob, settable in knobs:
        if _is_idea(knob):
            category = category_of(knob.name) or _heading_above(headings, knob.line) or "other"
            settings.append(Setting(knob, category, _options(tree, knob), settable))
    return Outline(tuple(settings), tuple(_parts(tree, source)))


def effective(found: Outline, device_kind: str, command: str = "") -> Outline:
    """The outline without the settings whose comments say that they do nothing on this kind of device.

    Args:
        command: that which trains; an option that it gives has no use for its default.
    """
    given = {word.partition("=")[0] for word in command.split()}
    settings = (s for s in found.settings if s.knob.name not in given)
    return replace(found, settings=tuple(s for s in settings if device_kind in _works_on(s.knob.comment)))


def _works_on(comment: str) -> tuple[str, ...]:
    """The kinds of device on which a setting has an effect, as far as its comment says so."""
    match = _ONLY_ON.search(comment)
    word = (match[1] or match[2]).lower() if match else ""
    return {"": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(word, (word,))


def _is_idea(knob: Knob) -> bool:
    return not _HOUSEKEEPING.search(words_of(knob.name)) and knob.value is not None


def _headings(source: str) -> list[tuple[int, Category]]:
    """Comments of their own at the left margin that speak of a category, e.g. `# ---- Optimizer ----`."""
    headings = []
    for number, line in enumerate(source.split("\n"), start=1):
        match = re.match(r"#[\s\W_]*([A-Za-z][^,.:;(]{0,60})", line)
        category = category_of(match[1]) if match and len(match[1].split()) <= 4 else None
        if category:
            headings.append((number, category))
    return headings


def _heading_above(headings: list[tuple[int, Category]], line: int) -> Category | None:
    above = [category for number, category in headings if number < line]
    return above[-1] if above else None


def _parts(tree: ast.Module, source: str) -> Iterator[Part]:
    lines = source.split("\n")
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield from _part(node, node.name, lines)
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                    yield from _part(method, f"{node.name}.{method.name}", lines)


def _part(node: ast.ClassDef | ast.FunctionDef, name: str, lines: list[str]) -> Iterator[Part]:
    category = category_of(node.name)
    if (
        category == "optimizer"
        and isinstance(node, ast.FunctionDef)
        and re.search("lr|learning_rate", words_of(node.name))
    ):
        category = "scheduling"  # a function of the learning rate is its schedule, a constant is the optimizer's
    if category and not _HOUSEKEEPING.search(words_of(node.name)):
        end = node.end_lineno or node.lineno
        yield Part(name, node.lineno, end - node.lineno + 1, category, "\n".join(lines[node.lineno - 1 : end]))


def _fields(tree: ast.Module) -> Iterator[Knob]:
    """Fields of configuration classes and entries of module-level dictionaries."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=holder, body=body):
                for field in body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value:
                        yield from _knob(f"{holder}.{field.target.id}", field.value)
            case ast.Assign(targets=[ast.Name(id=holder)], value=ast.Dict(keys=keys, values=values)):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield from _knob(f"{holder}.{key.value}", value)
            case ast.Assign(targets=[ast.Name(id=holder)], value=ast.Call(func=ast.Name(id="dict"), keywords=keywords)):
                for keyword in keywords:
                    yield from _knob(f"{holder}.{keyword.arg}", keyword.value)


def _knob(name: str, node: ast.expr, comment: ast.expr | None = None) -> Iterator[Knob]:
    text = comment.value if isinstance(comment, ast.Constant) and isinstance(comment.value, str) else ""
    try:
        yield Knob(name, literal(node), node.lineno, text[:200], ast.unparse(node))
    except (ValueError, ArithmeticError, RecursionError):
        return


def _options(tree: ast.Module, knob: Knob) -> tuple[str, ...]:
    """Texts that the script compares this text knob with, and the alternatives that its comment lists."""
    if not isinstance(knob.value, str):
        return ()
    own = knob.name.lstrip("-").split(".")[-1].lower()
    found = re.findall(r"[\w-]+(?=\s*\|)|(?<=\|)\s*[\w-]+", knob.comment)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name | ast.Attribute):
            name = node.left.id if isinstance(node.left, ast.Name) else node.left.attr
            if name.lower() == own:
                constants = [
                    c.value for side in node.comparators for c in ast.walk(side) if isinstance(c, ast.Constant)
                ]
                found += [text for text in constants if isinstance(text, str)]
    return tuple(dict.fromkeys(text.strip() for text in found if text.strip() not in ("", knob.value)))
