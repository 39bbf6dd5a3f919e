"""What can be typed is documented, what is documented exists, and links lead somewhere."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from docs.generate import PAGE, page
from mcp_server.interfaces.arguments import arguments_model
from mcp_server.interfaces.peer_rest import TRAILS, Trail
from mcp_server.interfaces.verbs import flag
from mcp_server.lab.doctor import VARIABLES
from mcp_server.lab.taskfile import PARTS, TaskFile, read_task_file
from mcp_server.operations import OPERATIONS, Operation

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
KNOWN_WORDS = {"serve", "demo", "night", "task", "doctor", *(operation.name for operation in OPERATIONS)}


def test_the_generated_parts_are_up_to_date() -> None:
    assert page(PAGE.read_text()) == PAGE.read_text(), "run `python -m docs.generate`"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_and_argument_is_documented(operation: Operation) -> None:
    section = PAGE.read_text().split(f"\n### {operation.name}\n")[1].split("\n### ")[0]
    for name in arguments_model(operation).model_fields:
        assert f"| `{name}` |" in section
        assert flag(name) in section or name.upper() in section


@pytest.mark.parametrize("trail", TRAILS, ids=lambda trail: trail.path)
def test_every_route_of_the_tracker_is_documented_with_what_it_takes(trail: Trail) -> None:
    rows = (ROOT / "docs" / "rest.md").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `/api/{trail.path}` | {trail.method} |")]
    takes = row.split("|")[3]
    given = trail.body.model_fields.keys() - ({"gpu_id", "host"} if "{gpu_id}" in trail.path else set())
    assert [name for name in given if f"`{name}`" not in takes] == []
    answered = getattr(trail.shape, "__required_keys__", ())
    assert [name for name in answered if f"`{name}`" not in row and name != "gpu_id"] == []


def test_every_variable_is_documented() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    assert [name for name in VARIABLES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_commands_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in target or (path.parent / target).exists(), target
    for word in re.findall(r"(?:^|`)autoresearch ([a-z][a-z_-]*)", text, re.MULTILINE):
        assert word.replace("-", "_") in KNOWN_WORDS, word


def test_every_example_of_a_configuration_can_be_read() -> None:
    text = (ROOT / "docs" / "connect.md").read_text()
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    examples += [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    examples.append(json.loads((ROOT / "claude_config.example.json").read_text()))
    for example in examples:
        [servers] = example.values()
        server = servers["autoresearch"]
        assert server.get("url") == "http://127.0.0.1:8765/mcp" or server["args"][:2] == ["serve", "--repo"]
    for client in ("Claude Code", "Claude Desktop", "Codex", "VS Code", "Cursor", "MCP Inspector"):
        assert f"\n## {client}\n" in text


def test_program_md_is_short_and_speaks_of_tools() -> None:
    text = (ROOT / "program.md").read_text()
    assert text.count("\n") < 90
    tools = set(re.findall(r"`([a-z_]+)`", text)) & KNOWN_WORDS
    assert {"setup_run", "register", "train", "complete", "suggest", "crash", "near_misses", "diff", "logs"} <= tools
    assert not re.search(r"git (commit|reset|checkout|add)|python train\.py|uv run|```", text)


def test_every_example_of_a_task_can_be_read(tmp_path: Path) -> None:
    examples = 0
    for page_path in (ROOT / "docs" / "tasks.md", ROOT / "USAGE.md"):
        for kind, block in re.findall(r"```(yaml|toml)\n(.*?)```", page_path.read_text(), re.DOTALL):
            file = tmp_path / f"example.{kind}"
            file.write_text(block)
            assert read_task_file(file)
            examples += 1
    assert examples == 4


def test_every_field_of_a_task_is_documented() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text()
    models: list[type[BaseModel]] = [TaskFile, *PARTS.values()]
    fields = [name for model in models for name in model.model_fields]
    assert [name for name in fields if not re.search(rf"\b{name}\b", text)] == []
