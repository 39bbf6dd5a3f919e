"""Reading YAML and TOML together with the lines on which things stand."""

import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

from mcp_server.errors import InvalidInput

MOST_THINGS = 20_000
"""Of a YAML file; aliases can make a small text into one that fills the memory."""

LineOf = Callable[[Sequence[int | str]], int]
"""The line of a file, from 1, in which what a path of names and numbers leads to stands."""


def marked_yaml(name: str, text: str) -> tuple[Any, LineOf]:
    """The content of a YAML text and where it stands in it; raises InvalidInput, naming the line, where it is none."""
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            _check_size(name, node, {})
        _refuse_twins(name, node)
        content = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        said = " ".join(filter(None, (error.context, error.problem)))
        raise InvalidInput(f"{name}{line}: it is not YAML ({said})", "Mend that line") from None
    except RecursionError:
        raise InvalidInput(f"{name}: it is nested too deeply to be a task", "Name a task file") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"{name}: it is not YAML ({error})", "Mend it") from None
    finally:
        loader.dispose()
    return content, lambda path: _line_in(node, path)


def _check_size(name: str, node: Any, sizes: dict[int, int]) -> int:
    """The number of things in a node with every alias written out; raises InvalidInput where they are too many.

    Args:
        sizes: those of the nodes that were seen, by identity; 0 for one that the walk is in.
    """
    import yaml

    line = node.start_mark.line + 1
    if id(node) not in sizes:
        sizes[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [each for pair in pairs for each in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_check_size(name, each, sizes) for each in inner)
    elif not sizes[id(node)]:
        raise InvalidInput(f"{name}, line {line}: an alias in it leads back to it", "Write out what is meant")
    if sizes[id(node)] > MOST_THINGS:
        what = f"{name}, line {line}: with its aliases written out it has more than {MOST_THINGS} values"
        raise InvalidInput(what, "Write out what is meant")
    return sizes[id(node)]


def _refuse_twins(name: str, node: Any) -> None:
    """Raise InvalidInput where a mapping has a name twice: YAML would silently take the second."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise InvalidInput(f"{name}, line {line}: a name is no text", "Write `name: value`")
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InvalidInput(
                    f"{name}, line {line}: {key.value!r} stands on line {seen[key.value]} already", "Take one out"
                )
            seen[str(key.value)] = key.start_mark.line + 1
            _refuse_twins(name, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(name, value)


def _line_in(node: Any, path: Sequence[int | str]) -> int:
    import yaml

    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)


def marked_toml(name: str, text: str) -> tuple[Any, LineOf]:
    """The content of a TOML text and where it stands in it; raises InvalidInput, naming the line, where it is none."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{name}: it is not TOML ({error})", "Mend that line") from None

    def line_of(path: Sequence[int | str]) -> int:
        names, table = [part for part in path if isinstance(part, str)], ""
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
                table = f"{header[1]}."
                key = header[1]
            else:
                key = table + line.partition("=")[0].strip()
            if key == ".".join(names):
                return number
        return line_of(names[:-1]) if names else 1

    return content, line_of
