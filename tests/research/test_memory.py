"""Equal changes are known whatever they look like, similar ones by what they share."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.research.memory import Fingerprint, fingerprint, likeness

BASE = '''\
"""A script."""
import torch

LR = 0.04  # rate
BATCH = 2**14
BETAS = (0.8, 0.95)
USE_BIAS = False


class Block:
    def forward(self, x):
        """One block."""
        x = x + self.attn(norm(x))
        return x + self.mlp(norm(x))


class MLP:
    def forward(self, x):
        x = self.c_fc(x)
        x = relu(x).square()  # activation
        return self.c_proj(x)
'''


def change(*replaced: tuple[str, str], base: str = BASE) -> Fingerprint:
    """The fingerprint of replacing these texts in a script."""
    new = base
    for old, text in replaced:
        assert old in new
        new = new.replace(old, text)
    return fingerprint({"train.py": (base, new)})


OTHER_BASE = BASE.replace("import torch\n", "import math\nimport torch\n").replace("0.95)", "0.9)") + "\nprint(1)\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("LR = 0.04", "LR = 0.06")], [("LR = 0.04  # rate", "LR   = 6e-2 # faster")]),
        ([("2**14", "2**15")], [("2**14", "32768")]),
        ([("relu(x).square()", "gelu(x)")], [("relu(x).square()  # activation", "gelu( x )  # smoother\n")]),
        ([("norm(x))\n        return", "norm(x)); return")], [('"""One block."""', '"""Other words."""')]),
        (
            [("return x + self.mlp", "return x - self.mlp")],
            [("return x + self.mlp(norm(x))", "return (x - self.mlp(norm(x)))")],
        ),
    ],
)
def test_formatting_and_comments_make_no_difference(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert change(*one) == change(*other)


@pytest.mark.parametrize(
    "replaced",
    [("LR = 0.04", "LR = 0.06"), ("relu(x).square()", "gelu(x)"), ("USE_BIAS = False", "USE_BIAS = True")],
)
def test_the_same_change_on_another_base_is_the_same_change(replaced: tuple[str, str]) -> None:
    assert change(replaced) == change(replaced, base=OTHER_BASE)


DIFFERENT: list[list[tuple[str, str]]] = [
    [("LR = 0.04", "LR = 0.06")],
    [("LR = 0.04", "LR = 0.08")],
    [("LR = 0.04", "LR = 0.02")],
    [("LR = 0.04", "LR = 0.06"), ("2**14", "2**15")],
    [("(0.8, 0.95)", "(0.9, 0.95)")],
    [("x + self.attn", "x - self.attn")],
    [("x + self.mlp", "x - self.mlp")],
    [("        x = self.c_fc(x)\n", "")],
    [("relu(x)", "gelu(x)")],
    [("LR = 0.04", "LR = float('0.06')")],
    [("LR = 0.04  # rate\n", "")],
]


def test_different_changes_differ() -> None:
    assert len({change(*replaced).digest for replaced in DIFFERENT}) == len(DIFFERENT)


def test_the_same_line_in_another_function_is_another_change() -> None:
    first = change(
        (
            "    def forward(self, x):\n        x = self.c_fc",
            "    def forward(self, x):\n        y = 1\n        x = self.c_fc",
        )
    )
    second = change(('"""One block."""', "y = 1"))
    assert first.digest != second.digest


@pytest.mark.parametrize(
    "text", [BASE, BASE.replace("# rate", "# slow"), BASE.replace("2**14", "16_384"), BASE + "\n\n"]
)
def test_nothing_but_looks_leaves_an_empty_sketch(text: str) -> None:
    assert fingerprint({"train.py": (BASE, text)}) == fingerprint({})
    assert fingerprint({}).sketch == fingerprint({}).keys == ()


def test_files_come_and_go() -> None:
    made = fingerprint({"new.py": (None, "x = f()\n")})
    gone = fingerprint({"new.py": ("x = f()\n", None)})
    elsewhere = fingerprint({"other.py": (None, "x = f()\n")})
    empty = fingerprint({"new.py": (None, "")})
    assert len({each.digest for each in (made, gone, elsewhere, empty, fingerprint({}))}) == 5


def test_what_is_not_python_is_compared_by_its_lines() -> None:
    one = fingerprint({"a.yaml": ("lr: 1\nb: 2\n", "lr: 2\nb: 2\n")})
    assert one == fingerprint({"a.yaml": ("lr: 1\n\nb: 2\n", "lr: 2  \n\nb: 2\n")})
    assert one != fingerprint({"a.yaml": ("lr: 1\nb: 2\n", "lr: 3\nb: 2\n")})
    assert fingerprint({"train.py": (BASE, "def broken(:\n")}).sketch


def test_a_knob_moved_the_same_way_is_similar_and_the_other_way_is_not() -> None:
    up, further, down = (change(("LR = 0.04", f"LR = {value}")) for value in (0.06, 0.08, 0.02))
    assert set(up.keys) & set(further.keys)
    assert not set(up.keys) & set(down.keys)
    assert 0 < likeness(up.sketch, further.sketch) < 1
    assert likeness(up.sketch, down.sketch) == 0


def test_code_that_is_nearly_the_same_is_similar() -> None:
    long = "".join(f"            x = layer_{n}(x)\n" for n in range(20))
    one = change(("        x = self.c_fc(x)\n", f"        if self.deep:\n{long}"))
    near = change(("        x = self.c_fc(x)\n", f"        if self.deep:\n{long.replace('layer_7', 'other')}"))
    far = change(("        x = self.c_fc(x)\n", "        x = torch.cat([x, x])\n"))
    assert likeness(one.sketch, near.sketch) > 0.8 > 0.2 > likeness(one.sketch, far.sketch)
    assert set(one.keys) & set(near.keys)
    assert one.digest != near.digest


def test_much_code_is_quick_and_small() -> None:
    lines = random.Random(1)
    text = "".join(f"x_{lines.randrange(10**9)} = f({n})\n" for n in range(5_000))
    made = fingerprint({"train.py": (text, text + "y = g()\n"), "new.py": (None, text)})
    assert len(made.sketch) == 64
    assert len(made.keys) <= 7


@given(
    st.dictionaries(
        st.sampled_from(["a.py", "b/c.py"]),
        st.tuples(*[st.none() | st.text(st.sampled_from(string.printable), max_size=80)] * 2),
    )
)
def test_any_text_has_a_fingerprint(files: dict[str, tuple[str | None, str | None]]) -> None:
    made = fingerprint(files)
    assert made == fingerprint(dict(reversed(files.items())))
    assert all(-(2**63) <= number < 2**63 for number in (*made.keys, *made.sketch))
    assert likeness(made.sketch, made.sketch) == bool(made.sketch)


NUMBERS = st.sets(st.integers(0, 40), max_size=30).map(lambda numbers: tuple(sorted(numbers)))


@given(NUMBERS, NUMBERS)
def test_likeness_is_the_share_in_common(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    union = {*one, *other}
    assert likeness(one, other) == likeness(other, one) == (len({*one} & {*other}) / len(union) if union else 0)
