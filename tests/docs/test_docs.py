"""What can be typed is documented, what is documented exists, and links lead somewhere."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from docs.generate import PAGE, page
from mcp_server.interfaces.arguments import arguments_model
from mcp_server.interfaces.verbs import flag
from mcp_server.lab.doctor import VARIABLES
from mcp_server.operations import OPERATIONS, Operation

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
KNOWN_WORDS = {"serve", "demo", "night", "doctor", *(operation.name for operation in OPERATIONS)}


def test_the_generated_parts_are_up_to_date() -> None:
    assert page(PAGE.read_text()) == PAGE.read_text(), "run `python -m docs.generate`"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_and_argument_is_documented(operation: Operation) -> None:
    section = PAGE.read_text().split(f"\n### {operation.name}\n")[1].split("\n### ")[0]
    for name in arguments_model(operation).model_fields:
        assert f"| `{name}` |" in section
        assert flag(name) in section or name.upper() in section


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
