"""Finding what there is to change in a training script."""

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.knobs import Knob
from mcp_server.research.moves import halfway, heading, moves
from mcp_server.research.script import Setting, category_of, effective, outline, words_of


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("DEPTH", "architecture"),
        ("ASPECT_RATIO", "architecture"),
        ("HEAD_DIM", "attention"),
        ("WINDOW_PATTERN", "attention"),
        ("TOTAL_BATCH_SIZE", "hyperparams"),
        ("DEVICE_BATCH_SIZE", "hyperparams"),
        ("MATRIX_LR", "optimizer"),
        ("EMBEDDING_LR", "optimizer"),
        ("UNEMBEDDING_LR", "optimizer"),
        ("SCALAR_LR", "optimizer"),
        ("WEIGHT_DECAY", "regularization"),
        ("ADAM_BETAS", "optimizer"),
        ("WARMUP_RATIO", "scheduling"),
        ("WARMDOWN_RATIO", "scheduling"),
        ("FINAL_LR_FRAC", "scheduling"),
        ("MLP_RATIO", "architecture"),
        ("SOFTCAP", "activation"),
        ("INIT_STD", "initialization"),
        ("ROPE_BASE", "embedding"),
        ("n_embd", "architecture"),
        ("n_head", "attention"),
        ("block_size", "hyperparams"),
        ("dropout", "regularization"),
        ("learning_rate", "optimizer"),
        ("lr_decay_iters", "scheduling"),
        ("grad_clip", "optimizer"),
        ("CausalSelfAttention", "attention"),
        ("MLP", "architecture"),
        ("RMSNorm", "normalization"),
        ("LayerNorm", "normalization"),
        ("apply_rotary_emb", "embedding"),
        ("ValueEmbedding", "embedding"),
        ("Muon", "optimizer"),
        ("get_lr", "scheduling"),
        ("ConvNet", "architecture"),
        ("banana", None),
    ],
)
def test_names_tell_their_category(name: str, category: str | None) -> None:
    assert category_of(name) == category


def test_names_are_split_into_small_words() -> None:
    assert words_of("CausalSelfAttention") == "causal_self_attention"
    assert words_of("ADAM_BETA1") == "adam_beta_1"
    assert words_of("GPTConfig.n_layer") == "gpt_config_n_layer"


def test_a_heading_speaks_for_constants_whose_name_says_nothing() -> None:
    script = "ALPHA = 0.3\n# ----------\n# Attention\n# ----------\nBANANA = 0.3\n# the rest\nCHERRY = 1\n"
    found = {s.knob.name: s.category for s in outline(script).settings}
    assert found == {"ALPHA": "other", "BANANA": "attention", "CHERRY": "attention"}


def test_housekeeping_is_nothing_to_research() -> None:
    script = (
        "SEED = 1\nLOG_EVERY = 10\nDATA_DIR = 'x'\neval_interval = 5\nCOMPILE = True\ndevice = 'cuda'\nNOTHING = None\n"
    )
    assert outline(script).settings == ()


def test_arguments_and_configuration_classes_count_as_settings() -> None:
    script = (
        "parser.add_argument('-l', '--lr', type=float, default=3e-4, help='peak rate')\n"
        "parser.add_argument('--steps', default=compute())\n"
    )
    (lr,) = outline(script).settings
    assert (lr.knob.name, lr.knob.value, lr.knob.comment, lr.settable) == ("--lr", 3e-4, "peak rate", True)
    assert effective(outline(script), "cpu", "python train.py --lr=0.1").settings == ()
    config = "class Config:\n    n_layer: int = 12\ntraining = dict(lr=0.1)\nother = {'momentum': 0.9, 3: 4}\n"
    assert [s.knob.name for s in outline(config).settings] == ["Config.n_layer", "training.lr", "other.momentum"]
    assert [s.knob.name for s in outline("DEPTH = 3\n" + config).settings] == ["DEPTH"]


def test_parts_are_named_with_their_lines() -> None:
    script = (
        "class Attention:\n    def init_weights(self):\n        pass\n\n\n"
        "def get_lr(step):\n    return 1\n\n\ndef main(): ...\n"
    )
    parts = [(part.name, part.line, part.lines, part.category) for part in outline(script).parts]
    assert parts == [
        ("Attention", 1, 3, "attention"),
        ("Attention.init_weights", 2, 2, "initialization"),
        ("get_lr", 6, 2, "scheduling"),
    ]


def test_a_text_setting_knows_the_other_texts_of_the_script() -> None:
    (setting,) = outline(
        "ACT = 'relu'  # relu | gelu\nif ACT == 'silu': pass\nif ACT in ('tanh', 'relu'): pass\n"
    ).settings
    assert setting.options == ("gelu", "silu", "tanh")


def test_a_script_that_is_not_python_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        outline("x = 1\ny = (")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEPTH", 8, [10, 6, 12, 4]),  # a quarter of 8 up and down
        ("DEPTH", 1, [2, 3]),
        ("ASPECT_RATIO", 64, [96, 48, 128, 32]),
        ("HEAD_DIM", 64, [96, 48, 128, 32]),  # divisors of the width 384
        ("N_HEAD", 6, [8, 4, 12, 2]),
        ("N_EMBD", 384, [480, 288, 576, 192]),  # steps of a quarter
        ("TOTAL_BATCH_SIZE", 2**19, [2**18, 2**20, 2**17, 2**21]),  # fewer tokens a step first
        ("MATRIX_LR", 0.04, [0.06, 0.027, 0.08, 0.02]),  # times and divided by 1.5 and 2
        ("WARMUP_RATIO", 0.0, [0.05, 0.1]),
        ("WARMDOWN_RATIO", 0.5, [0.6, 0.4, 0.7, 0.3]),
        ("WARMDOWN_RATIO", 1.0, [0.9, 0.8]),
        ("DROPOUT", 0.05, [0.1, 0.0, 0.15]),
        ("WEIGHT_DECAY", 0.0, [0.01, 0.1]),
        ("ADAM_BETAS", (0.8, 0.95), [(0.9, 0.95), (0.6, 0.95), (0.8, 0.975), (0.8, 0.9)]),  # 1 - beta halved, doubled
        ("ADAM_EPS", 1e-10, [1e-9, 1e-11, 1e-8, 1e-12]),
        ("ROPE_BASE", 10000.0, [50000.0, 2000.0, 250000.0, 400.0]),
        ("SOFTCAP", 15.0, [22.0, 10.0, 30.0, 7.5]),
        ("WINDOW_PATTERN", "SSSL", ["SSL", "SSSSL", "L"]),
        ("WINDOW_PATTERN", "L", ["LL"]),
        ("TIED", True, [False]),
        ("OFFSET", -1.5, [-1.0, -2.2, -0.75, -3.0]),
        ("SHIFT", -3, []),
        ("COUNT", 0, [1]),
        ("NOTHING", None, []),
        ("NESTED", ((1, 2), (3, 4)), []),
        ("SCALE", 1e-12, [1.5e-12, 6.7e-13, 2e-12, 5e-13]),
    ],
)
def test_values_move_on_a_scale_that_suits_them(name: str, value: object, expected: list[object]) -> None:
    setting = Setting(Knob(name, value, 1), "other")  # type: ignore[arg-type]
    found = moves(setting, {"N_EMBD": 384})
    assert [move.value for move in found] == expected
    for move in found:
        assert move.heading == heading(value, move.value)  # type: ignore[arg-type]
        assert type(move.value) is type(value)


def test_a_width_moves_by_whole_heads() -> None:
    found = moves(Setting(Knob("WIDTH", 128, 1), "architecture"), {"WIDTH": 128, "HEAD_DIM": 64})
    assert [move.value for move in found] == [192, 64, 256]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (1, 2, (0, 1)),
        (0.2, 0.1, (0, -1)),
        (1, 1, None),
        ((1, 2), (1, 3), (1, 1)),
        ((1, 2), (2, 3), None),
        ((1, 2), (1, 2, 3), None),
        ("a", "b", None),
        (True, False, None),
        (None, 1, None),
    ],
)
def test_a_change_has_a_heading_if_one_number_moved(old: object, new: object, expected: object) -> None:
    assert heading(old, new) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "middle"),
    [(0.04, 0.16, 0.08), (0.5, 0.6, 0.55), (8, 4, 6), (4, 5, None), (0.0, 0.1, 0.05), (1, 2.0, None), ("a", "b", None)],
)
def test_halfway_is_geometric_where_values_lie_far_apart(one: object, other: object, middle: object) -> None:
    assert halfway(one, other) == middle  # type: ignore[arg-type]
