"""Reading, setting and comparing the constants of a training script."""

import random

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.knobs import changed_knobs, read_knobs, write_knobs

SCRIPT = '''\
"""A script."""
import math  # not a knob

# ---- Optimizer ----
MATRIX_LR = 0.04  # learning rate of Muon
ADAM_BETAS = (0.8, 0.95)  # beta1, beta2
TOTAL_BATCH_SIZE = 2**19  # tokens per step
DEPTH: int = 8   # layers
NEGATIVE = -1.5
WINDOW = "SSSL"
COMPILE = True; SEED = 42  # both
BIG = 524_288
NOTHING = None
HALF = 1 / 2

twice = 1
twice = 2
for loop in range(3):
    inside = loop
a = b = 1
counter = 0


def step():
    global counter
    local = 3
    counter += 1
    return local
'''


def test_knobs_are_found_with_value_line_and_comment() -> None:
    knobs = read_knobs(SCRIPT)
    assert {name: knob.value for name, knob in knobs.items()} == {
        "MATRIX_LR": 0.04,
        "ADAM_BETAS": (0.8, 0.95),
        "TOTAL_BATCH_SIZE": 524288,
        "DEPTH": 8,
        "NEGATIVE": -1.5,
        "WINDOW": "SSSL",
        "COMPILE": True,
        "SEED": 42,
        "BIG": 524288,
        "NOTHING": None,
        "HALF": 0.5,
    }
    assert (knobs["MATRIX_LR"].line, knobs["MATRIX_LR"].comment) == (5, "learning rate of Muon")
    assert (knobs["TOTAL_BATCH_SIZE"].text, knobs["DEPTH"].comment) == ("2**19", "layers")


@pytest.mark.parametrize(
    "source",
    [
        "x = f()",
        "x = [1, 2]",
        "x = 1 + y",
        "x = 10**10**10",
        "x = 1 / 0",
        "x = (-8) ** 0.5",
        "x = 1e400",
        "x = 2**64",
        "x = -'a'",
        "x = -True",
        "x = b'bytes'",
        "x = '" + "long" * 100 + "'",
        "x: int",
        "__version__ = '1'",
        "x = 1\nif x: x = 2",
        "x = 1\nx += 1",
        "x = 1\ndef x(): pass",
        "import x\nx = 1",
        "x = 1\nwith open('f') as x: pass",
        "x = 1\n(x := 2)",
        "x, y = 1, 2",
        "x = 1\ndel x",
        "x = " + "1 + " * 5000 + "1",
    ],
)
def test_what_is_no_knob(source: str) -> None:
    try:
        knobs = read_knobs(source)
    except InvalidInput:  # where the parser itself gives up on the nesting
        knobs = {}
    assert "x" not in knobs
    assert not any(name.startswith("__") for name in knobs)


@pytest.mark.parametrize(("source", "line"), [("x = 1\ny = (\n", "line 2"), ("x = = 1", "line 1"), ("x\0", "null")])
def test_a_syntax_error_is_reported_with_its_line(source: str, line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        read_knobs(source)


def test_only_the_values_change_when_knobs_are_written() -> None:
    written = write_knobs(
        SCRIPT,
        {
            "MATRIX_LR": 0.06,
            "ADAM_BETAS": [0.9, 0.95],
            "TOTAL_BATCH_SIZE": 262144,
            "DEPTH": 10,
            "NEGATIVE": 2,
            "WINDOW": "SL",
            "COMPILE": False,
            "BIG": 65536,
            "NOTHING": 3,
        },
    )
    expected = (
        SCRIPT.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.06")
        .replace("(0.8, 0.95)", "(0.9, 0.95)")
        .replace("2**19", "2**18")
        .replace("int = 8", "int = 10")
        .replace("-1.5", "2.0")
        .replace('"SSSL"', '"SL"')
        .replace("True", "False")
        .replace("524_288", "65_536")
        .replace("None", "3")
    )
    assert written == expected


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("X = 2 ** 19", 2**20, "X = 2 ** 20"),
        ("X = (2**19)  # note", 3, "X = 3  # note"),
        ("X = 2**3", 1, "X = 1"),
        ("X = 1e-3", 5e-4, "X = 0.0005"),
        ("X = 1e-3", 1e-5, "X = 1e-05"),
        ("X = 'a'", "b", "X = 'b'"),
        ('X = "a"', 'say "b"', "X = 'say \"b\"'"),
        ('X = "a"', "line\n", "X = 'line\\n'"),
        ("X = (\n    1,  # one\n    2,  # two\n)", (1, 5), "X = (\n    1,  # one\n    5,  # two\n)"),
        ("X = 3\r\nY = 4\r\n", 5, "X = 5\r\nY = 4\r\n"),
        ("X = 3  # naïve 漢字", 5, "X = 5  # naïve 漢字"),
        ("\ufeffX = 3", 5, "\ufeffX = 5"),
        ("X = 3", -5, "X = -5"),
    ],
)
def test_the_way_of_writing_stays(before: str, value: object, after: str) -> None:
    assert write_knobs(before, {"X": value}) == after


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MATRIX_RL": 0.1}, "MATRIX_LR"),
        ({"depth": 3}, "DEPTH"),
        ({"twice": 3}, "'twice' is no knob"),
        ({"DEPTH": 8}, "change nothing"),
        ({}, "change nothing"),
        ({"DEPTH": 8.5}, "whole number"),
        ({"DEPTH": True}, "whole number"),
        ({"DEPTH": 2**70}, "whole number"),
        ({"DEPTH": "8"}, "whole number"),
        ({"COMPILE": 1}, "true or false"),
        ({"WINDOW": 3}, "text"),
        ({"WINDOW": "S" * 1000}, "text"),
        ({"MATRIX_LR": float("nan")}, "finite"),
        ({"MATRIX_LR": float("inf")}, "finite"),
        ({"MATRIX_LR": 10**400}, "finite"),
        ({"MATRIX_LR": None}, "finite"),
        ({"ADAM_BETAS": (0.8,)}, "a tuple of 2"),
        ({"ADAM_BETAS": (0.8, "x")}, "finite"),
        ({"NOTHING": [1]}, "finite number, text"),
        ({"NOTHING": float("nan")}, "finite number, text"),
    ],
)
def test_values_that_cannot_be_set_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        write_knobs(SCRIPT, values)


def test_a_script_without_knobs_says_so() -> None:
    with pytest.raises(InvalidInput, match="no constant"):
        write_knobs("print(1)", {"DEPTH": 3})


def test_changes_are_named_with_both_values() -> None:
    new = SCRIPT.replace("0.04", "0.06").replace("DEPTH: int = 8", "DEPTH: int = 8.0").replace("BIG = 524_288\n", "")
    assert changed_knobs(SCRIPT, new) == {"MATRIX_LR": (0.04, 0.06), "DEPTH": (8, 8.0)}
    assert changed_knobs(SCRIPT, SCRIPT) == {}
    assert changed_knobs(SCRIPT, "def (") == {}


def test_whatever_is_written_is_read_back() -> None:
    rng = random.Random(7)
    for _ in range(200):
        values = {
            "MATRIX_LR": rng.choice([rng.random(), 10 ** rng.uniform(-12, 12)]),
            "TOTAL_BATCH_SIZE": rng.choice([2 ** rng.randrange(30), rng.randrange(-9, 10**9)]),
            "WINDOW": "".join(rng.choices("SL'\"\\\n# é", k=6)),
            "ADAM_BETAS": (rng.random(), rng.random()),
        }
        knobs = read_knobs(write_knobs(SCRIPT, values))
        assert {name: knobs[name].value for name in values} == values


OPTIONS = """\
def main():
    parser.add_argument("-l", "--lr", type=float, default=1, help="peak rate")  # why
    parser.add_argument('--hidden-size', type=int,
                        default=2**6)
    parser.add_argument("--steps", default=compute())
    sub.add_argument("--twice", default=1), other.add_argument("--twice", default=2)
    parser.add_argument("--fast", action="store_true")
"""


def test_options_with_defaults_are_knobs_too() -> None:
    knobs = read_knobs(OPTIONS)
    assert {name: knob.value for name, knob in knobs.items()} == {"--lr": 1.0, "--hidden-size": 64}
    assert (knobs["--lr"].line, knobs["--lr"].comment, knobs["--hidden-size"].text) == (2, "peak rate", "2**6")
    written = write_knobs(OPTIONS, {"--lr": 0.5, "--hidden-size": 128})
    assert written == OPTIONS.replace("default=1, help", "default=0.5, help").replace("2**6", "2**7")
    assert changed_knobs(OPTIONS, written) == {"--lr": (1.0, 0.5), "--hidden-size": (64, 128)}
    with pytest.raises(InvalidInput, match=r"'--LR' is no knob of the script. Did you mean --lr"):
        write_knobs(OPTIONS, {"--LR": 1})
