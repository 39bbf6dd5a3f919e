"""Half the batch and twice the accumulation, wherever a task says that they are set."""

from collections.abc import Mapping
from typing import Any

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.shrinking import files_of, find_memory_knobs, shrink
from mcp_server.research.task import Task

CONSTANTS = "BATCH = 2**5  # rows\nSTEPS = 1\nCHECKPOINT = False\n"
OPTIONS = (
    "p.add_argument('-b', '--batch-size', type=int, default=64, help='rows')\n"
    "p.add_argument('--grad-accum', default=2, type=int)\n"
)
YAML = "train:\n  lr: 0.1\n  batch_size: 48  # rows\n  accumulate: 3\nmodel: {checkpoint: false}\n"
JSON = '{\n  "batch_size": 12,\n  "steps": 4\n}\n'
TOML = "batch = 8\nsteps = 1\ncheckpoint = false\n"


def task(batch: str = "", accumulation: str = "", checkpointing: str = "", **fields: Any) -> Task:
    return Task(
        metric="loss",
        direction="minimize",
        time_budget_seconds=1,
        train_script="train.py",
        command="python train.py",
        interpreter="python",
        editable=("train.py",),
        batch_knob=batch,
        accumulation_knob=accumulation,
        checkpointing_knob=checkpointing,
        **fields,
    )


SHRUNK = [
    (task("BATCH", "STEPS"), {"train.py": CONSTANTS}, "BATCH = 2**4  # rows\nSTEPS = 2\nCHECKPOINT = False\n"),
    (task("BATCH"), {"train.py": CONSTANTS}, "BATCH = 2**4  # rows\nSTEPS = 1\nCHECKPOINT = False\n"),
    (
        task("BATCH", "STEPS", "CHECKPOINT"),
        {"train.py": CONSTANTS},
        "BATCH = 2**4  # rows\nSTEPS = 2\nCHECKPOINT = True\n",
    ),
    (task(checkpointing="CHECKPOINT"), {"train.py": "CHECKPOINT = False\n"}, "CHECKPOINT = True\n"),
    (task("B", checkpointing="C"), {"train.py": "B = 1\nC = False\n"}, "B = 1\nC = True\n"),  # 1 cannot be halved
    (
        task("--batch-size", "--grad-accum"),
        {"train.py": OPTIONS},
        OPTIONS.replace("default=64", "default=32").replace("default=2", "default=4"),
    ),
    (
        task("conf/t.yaml:train.batch_size", "conf/t.yaml:accumulate"),
        {"conf/t.yaml": YAML},
        YAML.replace("48", "24").replace("accumulate: 3", "accumulate: 6"),
    ),
    (task("t.json:batch_size"), {"t.json": JSON}, JSON.replace("12", "6")),
    (
        task("t.toml:batch", "t.toml:steps", "t.toml:checkpoint"),
        {"t.toml": TOML},
        "batch = 4\nsteps = 2\ncheckpoint = true\n",
    ),
]


@pytest.mark.parametrize(("given", "texts", "after"), SHRUNK)
def test_a_step_sees_as_much_in_less_memory(given: Task, texts: Mapping[str, str], after: str) -> None:
    assert files_of(given) == list(texts)
    assert list(shrink(given, texts).texts.values()) == [after]


def test_what_was_set_is_told_in_a_line() -> None:
    shrunk = shrink(task("BATCH", "STEPS"), {"train.py": CONSTANTS})
    assert (str(shrunk), shrunk.changes["BATCH"]) == ("BATCH 32 -> 16, STEPS 1 -> 2", (32, 16))


def test_files_count_from_the_folder_of_the_task() -> None:
    assert files_of(task("conf/t.yaml:batch", "STEPS", folder="jobs")) == ["jobs/conf/t.yaml", "train.py"]


IMPOSSIBLE = [
    (task(), {}, "names no setting"),
    (task("BATCH"), {"train.py": "BATCH = 1\n"}, "cannot be halved"),
    (task("BATCH"), {"train.py": "BATCH = 7\n"}, "cannot be halved"),  # not without another effective batch
    (task("BATCH"), {"train.py": "BATCH = 0.5\n"}, "not a whole number"),
    (task("ROWS"), {"train.py": "BATCH = 2\n"}, "is no constant of train.py. It has BATCH"),
    (task("--rows"), {"train.py": OPTIONS}, "no option --rows"),
    (task("a.yaml:batch"), {}, "'a.yaml', in which 'a.yaml:batch' should be, is not in the commit"),
    (task("a.yaml:b"), {"a.yaml": "x:\n  b: 2\ny:\n  b: 4\n"}, "on 2 lines"),
    (task("BATCH", "STEPS"), {"train.py": "BATCH = 4\nSTEPS = 0\n"}, "from 1 on"),
]


@pytest.mark.parametrize(("given", "texts", "says"), IMPOSSIBLE)
def test_why_there_is_no_way(given: Task, texts: Mapping[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        shrink(given, texts)


FOUND = [
    ("BATCH_SIZE = 4\nGRAD_ACCUM_STEPS = 2\n", ("BATCH_SIZE", "GRAD_ACCUM_STEPS")),
    (OPTIONS, ("--batch-size", "--grad-accum")),
    ("device_batch_size = 4\ngradient_accumulation_steps = 2\n", ("device_batch_size", "gradient_accumulation_steps")),
    ("BATCH_SIZE = 4\n", None),  # half of it would be another effective batch
    ("BATCH_SIZE = 4\nMICRO_BATCH = 2\nACCUM = 1\n", None),  # which of the two
    ("not python", None),
]


@pytest.mark.parametrize(("source", "names"), FOUND)
def test_names_that_everybody_gives_are_found(source: str, names: tuple[str, str] | None) -> None:
    assert find_memory_knobs(source) == names
