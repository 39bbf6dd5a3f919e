"""The same training in less memory: half the batch, twice the accumulation, so that an optimizer step sees as much.

What is set is named by the task: a constant of the script (`BATCH`), the default of one of its options
(`--batch-size`), or a key in a settings file (`conf/train.yaml:batch_size`).
"""

import ast
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcp_server.errors import InvalidInput
from mcp_server.research.knobs import literal, parse, read_knobs, write_knobs
from mcp_server.research.script import outline, words_of
from mcp_server.research.task import Task

_BATCH = re.compile(r"(per_)?(device_)?((micro|mini|train|training)_)?batch(_size)?|bs")
_ACCUMULATION = re.compile(r"(grad(ient)?s?_)?accum(ulation|ulate)?(_grad)?(_(steps|iter|iters|batches))?")


@dataclass(frozen=True)
class Shrunk:
    """Texts of files in which a training needs less memory.

    Attributes:
        changes: name -> (old, new) of what was set.
    """

    texts: Mapping[str, str]
    changes: Mapping[str, tuple[int | bool, int | bool]]

    def __str__(self) -> str:
        return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in self.changes.items())


def files_of(task: Task) -> list[str]:
    """The files in which what decides the memory is set."""
    knobs = [task.batch_knob, task.accumulation_knob, task.checkpointing_knob]
    return list(dict.fromkeys(place for knob in knobs if knob and (place := _place(task, knob)[0])))


def check_settings(task: Task, texts: Mapping[str, str]) -> None:
    """Raise InvalidInput where a setting that the task names is nowhere, or is none that decides the memory.

    Args:
        texts: those of `files_of` that there are.
    """
    for field in ("batch_knob", "accumulation_knob", "checkpointing_knob"):
        knob = getattr(task, field)
        if not knob:
            continue
        path = _place(task, knob)[0]
        if path in texts and not path.endswith(".py"):  # it is read when it is needed
            continue
        try:
            value = _get(task, texts, knob)
        except InvalidInput as error:
            raise InvalidInput(error.what, error.todo, [field]) from None
        wanted = bool if field == "checkpointing_knob" else int
        if type(value) is not wanted:
            kind = "True or False" if wanted is bool else "a whole number"
            raise InvalidInput(f"{knob} is {value!r}, not {kind}", "Name another setting", [field])


def shrink(task: Task, texts: Mapping[str, str]) -> Shrunk:
    """Halve the batch, double the accumulation, and turn gradient checkpointing on, as far as the task names them.

    Args:
        texts: the files of `files_of`.

    Raises:
        InvalidInput: that is not possible; the text says why.
    """
    if not task.batch_knob and not task.checkpointing_knob:
        raise InvalidInput(
            "The task names no setting that decides how much memory a training takes",
            "Name them in its runner.memory, and what runs out of memory is tried once with half the batch",
        )
    new, changes = dict(texts), dict[str, tuple[int | bool, int | bool]]()
    if task.checkpointing_knob and _get(task, new, task.checkpointing_knob) is False:
        changes[task.checkpointing_knob] = (False, True)
    batch = _get(task, new, task.batch_knob) if task.batch_knob else 1
    if isinstance(batch, bool) or not isinstance(batch, int):
        raise InvalidInput(f"{task.batch_knob} is {batch!r}, not a whole number", "Name the setting of the batch")
    if batch % 2 == 0 and batch > 1:
        changes[task.batch_knob] = (batch, batch // 2)
        if task.accumulation_knob:
            steps = _get(task, new, task.accumulation_knob)
            if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
                raise InvalidInput(f"{task.accumulation_knob} is {steps!r}", "It must be a whole number from 1 on")
            changes[task.accumulation_knob] = (steps, 2 * steps)
    if not changes:
        raise InvalidInput(f"{task.batch_knob} is {batch}, which cannot be halved", "Make the model smaller")
    for knob, (_, value) in changes.items():
        _set(task, new, knob, value)
    return Shrunk({path: text for path, text in new.items() if text != texts[path]}, changes)


def find_memory_knobs(source: str) -> tuple[str, str] | None:
    """The names of a script's settings for batch and accumulation, if it has one of each and no doubt about either."""
    try:
        names = [setting.knob.name for setting in outline(source).settings if type(setting.knob.value) is int]
    except InvalidInput:
        return None
    plain = [name for name in names if "." not in name]
    batch, accumulation = _only(_BATCH, plain), _only(_ACCUMULATION, plain)
    return (batch, accumulation) if batch and accumulation else None


def _only(pattern: re.Pattern[str], names: Iterable[str]) -> str:
    found = [name for name in names if pattern.fullmatch(words_of(name))]
    return found[0] if len(found) == 1 else ""


def _place(task: Task, knob: str) -> tuple[str, str]:
    """The file in which a knob is set, from the top of the repository, and its name there."""
    if ":" not in knob:
        return task.train_script, knob
    path, _, name = knob.rpartition(":")
    return posixpath.normpath(f"{task.folder}/{path}" if task.folder else path), name


def _get(task: Task, texts: Mapping[str, str], knob: str) -> object:
    path, name = _place(task, knob)
    text = texts.get(path)
    if text is None:
        raise InvalidInput(f"{path!r}, in which {knob!r} should be, is not in the commit", "Mend the task")
    if not path.endswith(".py"):
        return _line(path, text, name)[2]
    if name.startswith("-"):
        try:
            return literal(_default(text, name))
        except (ValueError, ArithmeticError):
            raise InvalidInput(
                f"The default of {name} in {path} is no plain number", "Write the number there"
            ) from None
    knobs = read_knobs(text)
    if name not in knobs:
        raise InvalidInput(f"{name!r} is no constant of {path}", f"It has {', '.join(knobs) or 'none'}")
    return knobs[name].value


def _set(task: Task, texts: dict[str, str], knob: str, value: int | bool) -> None:
    path, name = _place(task, knob)
    text = texts[path]
    if not path.endswith(".py"):
        start, end, old = _line(path, text, name)
        written = str(value).lower() if isinstance(old, bool) else str(value)
        texts[path] = text[:start] + written + text[end:]
    elif name.startswith("-"):
        node = _default(text, name)
        lines = text.split("\n")
        line = lines[node.lineno - 1].encode()
        rest = line[: node.col_offset] + repr(value).encode() + line[node.end_col_offset :]
        texts[path] = "\n".join([*lines[: node.lineno - 1], rest.decode(), *lines[node.lineno :]])
    else:
        texts[path] = write_knobs(text, {name: value})


def _default(text: str, option: str) -> ast.expr:
    """The default in `add_argument(option, default=...)`."""
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            default = next((keyword.value for keyword in node.keywords if keyword.arg == "default"), None)
            if option in names and default is not None and default.lineno == default.end_lineno:
                return default
    raise InvalidInput(f"The script has no option {option} with a default", "Mend the task")


def _line(path: str, text: str, name: str) -> tuple[int, int, int | bool]:
    """Where the value of a key stands in a settings file (YAML, TOML, JSON), and the value."""
    key = re.escape(name.rpartition(".")[2])
    pattern = re.compile(rf"""^[ \t{{,]*["']?{key}["']?[ \t]*[:=][ \t]*(\d+|true|false|True|False)\b""", re.MULTILINE)
    found = list(pattern.finditer(text))
    if len(found) != 1:
        raise InvalidInput(f"{path} sets {name!r} on {len(found)} lines", "Name a key that is set on one line")
    value = found[0][1]
    return found[0].start(1), found[0].end(1), int(value) if value.isdigit() else value.lower() == "true"
