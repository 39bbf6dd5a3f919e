"""What an operation takes, as every door checks it, and the sentence that anything else gets."""

import json
from typing import Any

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.interfaces.arguments import check_arguments, input_schema, read_texts
from mcp_server.operations import OPERATIONS

BY_NAME = {operation.name: operation for operation in OPERATIONS}
PROPOSAL = {"tag": "mar8", "hypothesis": "it helps", "category": "other"}

REFUSED = [
    ("register", {"hypotesis": "x"}, "register has no argument 'hypotesis' (given 'x'). Use 'hypothesis' instead."),
    ("devices", {"all": True}, "devices has no argument 'all' (given True). It takes no arguments."),
    ("complete", {"zzz": 1}, "complete has no argument 'zzz' (given 1). It takes experiment_id, metrics, lesson."),
    ("train", {}, "train needs 'experiment_id', which is missing. Give experiment_id."),
    ("register", PROPOSAL | {"category": "arch"}, "category is 'arch'. Choose from 'architecture', 'optimizer',"),
    ("register", PROPOSAL | {"hypothesis": ""}, "hypothesis is ''. It should have at least 1 character"),
    ("register", PROPOSAL | {"edits": [{"path": "a", "old": 1}]}, "edits.0.old is 1. It should be a valid string"),
    ("register", PROPOSAL | {"files": "{broken"}, "files is '{broken'. It should be a valid dictionary"),
    ("setup_run", {"resume": "true"}, "resume is 'true'. It should be a valid boolean"),
    ("setup_run", {"scope": "attention"}, "scope is 'attention'. It should be a valid list"),
    ("setup_run", {"time_budget_seconds": -1}, "time_budget_seconds is -1. It should be greater than 0"),
    ("setup_run", {"time_budget_seconds": float("nan")}, "time_budget_seconds is nan. It should be greater than 0"),
    ("history", {"limit": 0}, "limit is 0. It should be greater than or equal to 1 (How many)."),
    ("history", {"limit": True}, "limit is True. It should be a valid integer"),
    ("history", {"limit": 2.5}, "limit is 2.5. It should be a valid integer"),
    ("history", {"limit": "20"}, "limit is '20'. It should be a valid integer"),
    ("train", {"experiment_id": 5}, "experiment_id is 5. It should be a valid string"),
    ("train", {"experiment_id": None}, "experiment_id is None. It should be a valid string"),
    ("train", {"experiment_id": "mar8-1", "wait_seconds": False}, "wait_seconds is False. It should be a valid number"),
    ("complete", {"experiment_id": "mar8-1", "metrics": {"loss": "1"}}, "metrics.loss is '1'. It should be a valid"),
]


@pytest.mark.parametrize(("name", "given", "sentence"), REFUSED, ids=[sentence[:40] for *_, sentence in REFUSED])
def test_says_what_is_wrong(name: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_arguments(BY_NAME[name], given)
    assert str(refusal.value).startswith(sentence)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_arguments(BY_NAME["train"], {"experiment_id": ["x" * 100_000]})
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("name", "given", "argument", "taken"),
    [
        ("history", {"limit": 20.0}, "limit", 20),
        ("train", {"experiment_id": "mar8-1", "wait_seconds": 3}, "wait_seconds", 3.0),
        ("train", {"experiment_id": "mar8-1", "seed": None}, "seed", None),
        ("register", PROPOSAL | {"knobs": '{"LR": 0.1}'}, "knobs", {"LR": 0.1}),
        ("register", PROPOSAL | {"edits": '[{"path": "a"}]'}, "edits", [{"path": "a"}]),
        ("register", PROPOSAL | {"hypothesis": "[1]"}, "hypothesis", "[1]"),
    ],
)
def test_takes_what_agents_send(name: str, given: dict[str, Any], argument: str, taken: Any) -> None:
    checked = check_arguments(BY_NAME[name], given)
    assert checked[argument] == taken
    assert type(checked[argument]) is type(taken)


def test_texts_become_values() -> None:
    texts = {"tag": "8", "limit": "3", "status": "keep", "detail": "full", "typo": "x"}
    assert read_texts(BY_NAME["history"], texts) == {**texts, "limit": 3}
    assert read_texts(BY_NAME["setup_run"], {"resume": "true", "scope": '["other"]', "target": "one"}) == {
        "resume": True,
        "scope": ["other"],
        "target": "one",
    }


@pytest.mark.parametrize("name", BY_NAME)
def test_schemas_are_terse_and_closed(name: str) -> None:
    schema = input_schema(BY_NAME[name])
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert not {"progress", "self"} & set(schema["properties"])
    assert '"title":' not in json.dumps(schema)
    assert "null" not in json.dumps(schema)


def test_descriptions_and_bounds_reach_the_schema() -> None:
    limit = input_schema(BY_NAME["history"])["properties"]["limit"]
    assert limit == {"type": "integer", "description": "How many", "default": 20, "minimum": 1, "maximum": 200}


def test_all_tools_together_cost_less_than_6000_tokens() -> None:
    tools = [
        {"name": operation.name, "description": operation.description, "inputSchema": input_schema(operation)}
        for operation in OPERATIONS
    ]
    characters_per_token = 3.5  # JSON of this kind has about 4
    assert len(json.dumps(tools)) / characters_per_token < 6000
