"""A change of nothing but the seed is told from an idea."""

import pytest

from mcp_server.research.seeds import only_seed_changed

SCRIPT = """\
import os, random, torch
SEED = 42  # of everything
LR = 0.1
torch.manual_seed(SEED)
torch.cuda.manual_seed_all(1)
random.seed(7)
np.random.default_rng(3)
key = jax.random.PRNGKey(0)
split(x, random_state=1, size=2)
config = {"seed": 1, "size": 2}
parser.add_argument("--seed", type=int, default=1)
chosen = os.environ.get("AUTORESEARCH_SEED", "1")
def train(size, seed=1, *, data_seed: int = 2): ...
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SEED = 42", "SEED = 1337"),
        ("SEED = 42  # of everything", "SEED = 6 * 7 + 1  # luckier"),
        ("manual_seed(SEED)", "manual_seed(1337)"),
        ("manual_seed_all(1)", "manual_seed_all(SEED + 1)"),
        ("random.seed(7)", "random.seed(8)"),
        ("default_rng(3)", "default_rng(seed=4)"),
        ("PRNGKey(0)", "PRNGKey(1)"),
        ("random_state=1", "random_state=2"),
        ('"seed": 1', '"seed": 2'),
        ("default=1", "default=2"),
        ('_SEED", "1"', '_SEED", "2"'),
        ("seed=1, *", "seed=9, *"),
        ("data_seed: int = 2", "data_seed: int = 9"),
        ("random.seed(7)\n", "random.seed(7)\ntorch.manual_seed(7)\n"),
        ("key = jax", "os.environ['AUTORESEARCH_SEED'] = '7'\nkey = jax"),
        ("split(x,", "from dataclasses import replace\nsplit(replace(x, seed=7),"),
    ],
)
def test_only_a_seed(old: str, new: str) -> None:
    assert SCRIPT.count(old) == 1
    assert only_seed_changed(SCRIPT, SCRIPT.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LR = 0.1", "LR = 0.2"),
        ("SEED = 42", "SEED = 43\nLR2 = 1"),
        ("# of everything", "# of all"),
        ("size=2", "size=3"),
        ("size=2", "size=3)\ntorch.manual_seed(9"),
        ("import os, random", "import math, os, random"),
        ('"size": 2', '"size": 3'),
        ("type=int", "type=float"),
        ("random.seed(7)\n", ""),
        ("def train(size", "def train(width"),
        ("SEED = 42", "SEED = 42)"),
    ],
)
def test_more_than_a_seed_or_nothing(old: str, new: str) -> None:
    assert SCRIPT.count(old) >= 1
    assert not only_seed_changed(SCRIPT, SCRIPT.replace(old, new))
    assert not only_seed_changed(SCRIPT.replace("SEED = 42", "SEED = 1)"), SCRIPT)


def test_a_script_as_deep_as_a_well_is_no_seed() -> None:
    deep = f"x = {'-' * 5000}1\n"
    assert not only_seed_changed(f"SEED = 1\n{deep}", f"SEED = 2\n{deep}")
