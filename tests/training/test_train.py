"""The script that agents edit: its parts, and whole runs of it."""

import ast
import itertools
import json
import math
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import prepare
import train
from tests.training.small import ROOT, Script

SCRIPT = (ROOT / "train.py").read_text()


@pytest.fixture
def recipe(runtime: prepare.Runtime) -> train.Recipe:
    return replace(train.recipe_for(runtime, 256, 32), width=64)


# ---- Knobs -----------------------------------------------------------------------------------------------------------


def knobs() -> dict[str, ast.Assign]:
    """Top-level assignments to capitals, before the first function."""
    body = ast.parse(SCRIPT).body
    first = next(i for i, node in enumerate(body) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    assigned = [node for node in body[:first] if isinstance(node, ast.Assign)]
    return {node.targets[0].id: node for node in assigned if isinstance(node.targets[0], ast.Name)}


def test_every_knob_is_one_literal_with_its_unit() -> None:
    lines = SCRIPT.splitlines()
    assert len(knobs()) > 20
    for name, node in knobs().items():
        ast.literal_eval(node.value)
        assert SCRIPT.count(f"\n{name} = ") == 1, name
        if name not in ("BIG_GPU", "SMALL_GPU"):
            assert re.fullmatch(rf"{name} = \S+  # .+", lines[node.lineno - 1]), name


def test_factors_name_knobs() -> None:
    assert train.BIG_GPU.keys() | train.SMALL_GPU.keys() <= knobs().keys()


@pytest.mark.parametrize(
    ("device", "memory", "seq_len", "expected"),
    [
        ("cpu", 0, 256, {"depth": 2, "width": 96, "mlp": 192, "rows": 8, "passes": 1, "pattern": "L", "softcap": 0}),
        ("mps", 0, 256, {"depth": 2, "width": 96, "mlp": 192, "rows": 8, "passes": 1, "pattern": "L", "softcap": 0}),
        ("cpu", 0, 256, {"heads": 1}),
        ("cuda", 80, 2048, {"heads": 4}),
        ("cpu", 0, 2048, {"rows": 1, "passes": 1}),  # 2048 tokens hold one row
        ("cpu", 0, 4096, {"rows": 1, "passes": 1}),  # and never less
        # 2**19 tokens of 2048 = 256 rows, 128 at a time
        ("cuda", 80, 2048, {"depth": 8, "width": 512, "mlp": 2048, "rows": 128, "passes": 2, "pattern": "SSSL"}),
        ("cuda", 80, 2048, {"softcap": 15.0, "value_embed_every": 2, "head_lr": pytest.approx(0.004)}),
        # 2**16 tokens of 2048 = 32 rows, 8 at a time
        ("cuda", 12, 2048, {"depth": 6, "width": 384, "mlp": 1536, "rows": 8, "passes": 4}),
    ],
)
def test_the_recipe_for_a_device(
    runtime: prepare.Runtime, device: str, memory: float, seq_len: int, expected: dict[str, object]
) -> None:
    recipe = train.recipe_for(replace(runtime, device=device, memory_gib=memory), 2048, seq_len)
    assert {name: getattr(recipe, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("threads", "rows", "passes"),
    [(1, 8, 1), (2, 4, 2), (3, 2, 4), (8, 1, 8), (64, 1, 8)],  # rows * passes = 2048 tokens / 256
)
def test_a_cpu_cuts_the_batch_into_a_pass_for_each_thread(
    runtime: prepare.Runtime, threads: int, rows: int, passes: int
) -> None:
    recipe = train.recipe_for(replace(runtime, threads=threads), 2048, 256)
    assert (recipe.rows, recipe.passes) == (rows, passes)


def test_work_side_by_side_keeps_its_order() -> None:
    meeting = threading.Barrier(2)

    def work(item: int) -> tuple[int, int]:
        meeting.wait(timeout=10)  # both are at it at once
        return item, torch.get_num_threads()

    assert list(train.side_by_side(2)(work, range(6))) == [(i, 1) for i in range(6)]


@pytest.mark.parametrize(("width", "heads"), [(64, 1), (128, 1), (160, 1), (192, 2), (256, 2), (300, 2)])
def test_heads_are_as_near_to_their_size_as_the_width_allows(
    runtime: prepare.Runtime, monkeypatch: pytest.MonkeyPatch, width: int, heads: int
) -> None:
    monkeypatch.setattr(train, "WIDTH", width)
    recipe = train.recipe_for(runtime, 256, 32)
    assert recipe.heads == heads
    assert train.GPT(recipe, train.attend_plain)(torch.zeros(1, 32, dtype=torch.long)).shape == (1, 32, 256)
    monkeypatch.setattr(train, "WIDTH", 321)
    with pytest.raises(prepare.HarnessError, match="WIDTH is 321, which 3 heads of an even width cannot share"):
        train.recipe_for(runtime, 256, 32)


@pytest.mark.parametrize(
    ("pattern", "depth", "expected"),
    [("SSSL", 8, [16, 16, 16, 32] * 2), ("SSSL", 6, [16, 16, 16, 32, 16, 32]), ("L", 2, [32, 32]), ("S", 1, [32])],
)
def test_windows_follow_the_pattern_and_the_last_is_long(
    recipe: train.Recipe, pattern: str, depth: int, expected: list[int]
) -> None:
    assert train.windows(replace(recipe, pattern=pattern, depth=depth)) == expected


# ---- Attention -------------------------------------------------------------------------------------------------------


def by_hand(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention of each token, one at a time."""
    out = torch.zeros_like(v)
    for i in range(q.size(1)):
        keys = slice(max(0, i - window), i + 1)
        scores = torch.einsum("bhd,bthd->bht", q[:, i], k[:, keys]) / q.size(-1) ** 0.5
        out[:, i] = torch.einsum("bht,bthd->bhd", scores.softmax(-1), v[:, keys])
    return out


def fake_varlen(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, _: Tensor, longest: int, __: int, *, window_size: tuple[int, int]
) -> Tensor:
    """varlen_attn as torch documents it: sequences laid end to end, a window to the left and none to the right."""
    assert starts.dtype == torch.int32
    assert longest == int(starts.diff().max())
    assert window_size[1] == 0
    ranges = itertools.pairwise(starts.tolist())
    return torch.cat([by_hand(q[None, a:b], k[None, a:b], v[None, a:b], window_size[0])[0] for a, b in ranges])


@pytest.mark.parametrize("window", [64, 63, 32, 5, 0])
@pytest.mark.parametrize("name", ["sdpa", "plain", "varlen", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_attention_sees_the_same_window(
    monkeypatch: pytest.MonkeyPatch, recipe: train.Recipe, name: str, window: int
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", fake_varlen)
    monkeypatch.setattr(train, "windows", lambda recipe: [window])
    flex = train.make_attend_flex(replace(recipe, seq_len=64), "cpu")
    attends = {"sdpa": train.attend_sdpa, "plain": train.attend_plain, "varlen": train.attend_varlen, "flex": flex}
    q, k, v = torch.randn(3, 2, 64, 2, 16).unbind()
    torch.testing.assert_close(attends[name](q, k, v, window), by_hand(q, k, v, window))


@pytest.mark.parametrize(
    ("device", "bf16", "seconds", "expected"),
    [
        ("cpu", True, {}, train.attend_plain),
        ("cpu", False, {}, train.attend_sdpa),
        ("mps", False, {}, train.attend_sdpa),
        ("cuda", False, {}, train.attend_sdpa),
        ("cuda", True, {"attend_varlen": 2.0, "attend_plain": 1.0}, train.attend_plain),
        ("cuda", True, {"attend_varlen": 1.0, "attend_plain": math.inf}, train.attend_varlen),
        ("cuda", True, {"attend_varlen": math.inf, "attend_plain": math.inf}, train.attend_sdpa),
    ],
)
def test_attention_is_chosen_by_device(
    runtime: prepare.Runtime,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    bf16: bool,
    seconds: dict[str, float],
    expected: train.Attend,
) -> None:
    monkeypatch.setattr(train, "make_attend_flex", lambda recipe, device: train.attend_plain)  # needs a GPU
    runtime = replace(runtime, device=device, bf16=bf16)
    recipe = train.recipe_for(runtime, 256, 32)
    assert train.choose_attention(runtime, recipe, lambda attend, _: seconds[attend.__name__]) is expected


# ---- Model and optimizer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
def test_the_model_starts_knowing_nothing_and_never_looks_ahead(
    data: prepare.Data, runtime: prepare.Runtime, recipe: train.Recipe, bf16: bool
) -> None:
    torch.manual_seed(0)
    recipe = replace(recipe, depth=3, pattern="SL", softcap=15.0, bf16=bf16)
    model = train.GPT(recipe, train.attend_plain if bf16 else train.attend_sdpa)
    assert prepare.evaluate(model, data, runtime) == pytest.approx(8.0, abs=0.02)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    prepare.check_causality(model, data, runtime)


@pytest.mark.parametrize("lean", [False, True])
def test_training_learns(data: prepare.Data, runtime: prepare.Runtime, recipe: train.Recipe, lean: bool) -> None:
    torch.manual_seed(0)
    recipe = replace(recipe, lean=lean)
    model = train.GPT(recipe, train.attend_sdpa)
    adamw, muon = train.make_optimizers(model, recipe, compiled=False)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    batches = prepare.batches(data, 8, runtime)
    for step in range(20):
        train.follow_schedule(adamw, muon, step, step / 20)
        inputs, targets = next(batches)
        loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        adamw.step()
        muon.step()
        model.zero_grad()
    assert loss.item() < 3.5 < math.log(256)
    kept = {state["mean"].dtype for state in muon.state.values()}
    assert kept == {torch.bfloat16 if lean else torch.float32}
    assert not [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 32, 8), (2, 8, 32)])
def test_orthogonalising_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(train.orthogonalise(torch.randn(shape), torch.float32))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_muon_update_decays_only_where_it_agrees() -> None:
    torch.manual_seed(0)
    weights, gradients = torch.randn(1, 8, 8), torch.randn(1, 8, 8)

    def updated(decay: float) -> Tensor:
        mean, variance = torch.zeros(1, 8, 8), torch.zeros(1, 8, 1)
        return train.muon_update(weights, gradients, mean, variance, torch.tensor([0.1, 0.9, decay]), torch.float32)

    plain, decayed = updated(0.0), updated(0.5)
    agrees = (weights - plain) * weights > 0  # the update already makes the weight smaller
    torch.testing.assert_close(decayed, torch.where(agrees, plain - 0.1 * 0.5 * weights, plain))
    assert agrees.any()
    assert not agrees.all()


@pytest.mark.parametrize(
    ("progress", "warmup", "warmdown", "final", "expected"),
    [
        (0.0, 0.0, 0.5, 0.0, 1.0),
        (0.5, 0.0, 0.5, 0.0, 1.0),
        (0.75, 0.0, 0.5, 0.0, 0.5),
        (1.0, 0.0, 0.5, 0.0, 0.0),
        (1.0, 0.0, 0.5, 0.1, 0.1),
        (0.05, 0.1, 0.5, 0.0, 0.5),
        (1.0, 0.0, 0.0, 0.0, 1.0),
    ],
)
def test_the_learning_rate_rises_stays_and_falls(
    monkeypatch: pytest.MonkeyPatch, progress: float, warmup: float, warmdown: float, final: float, expected: float
) -> None:
    for name, value in {"WARMUP": warmup, "WARMDOWN": warmdown, "FINAL_LR": final}.items():
        monkeypatch.setattr(train, name, value)
    assert train.learning_rate(progress) == pytest.approx(expected)


# ---- What is printed -------------------------------------------------------------------------------------------------


def test_a_progress_line(runtime: prepare.Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    clock = prepare.BudgetClock(replace(runtime, budget=300.0))
    clock.elapsed, clock.progress = 12.34, 0.0411
    line = "step 00042 | loss: 3.4567 | lr: 1.00 | tok/s: 6,805 | elapsed: 12.3s | remaining: 287.7s | 4.1%"
    assert train.progress_line(42, 3.4567, 2048, clock) == line  # 41 * 2048 / 12.34
    shown = train.Progress(clock, 2048)
    for step in range(1, 4):
        shown.update(step, 2.0)
    assert capsys.readouterr().out.count("\n") == 1  # one a second
    with pytest.raises(prepare.HarnessError, match="the loss is nan at step 4"):
        shown.update(4, math.nan)


SUMMARY = r"""---
val_bpb:          \d\.\d{6}
training_seconds: \d+\.\d
total_seconds:    \d+\.\d
peak_vram_mb:     \d+\.\d
mfu_percent:      \d+\.\d\d
total_tokens_M:   \d+\.\d
num_steps:        \d+
num_params_M:     \d+\.\d
depth:            2
startup_seconds:  \d+\.\d
compile_seconds:  \d+\.\d
eval_seconds:     \d+\.\d
budget_seconds:   0\.50
hand_in_seconds:  \d+\.\d\d
num_modules:      \d+
device:           cpu
threads:          1
precision:        (bf16|fp32)
seed:             3
profile:          path
fingerprint:      [0-9a-f]{64}
"""


def copied(folder: Path, edit: Callable[[str], str] = lambda text: text) -> Path:
    """A checkout of its own, with train.py edited."""
    for name in ("prepare.py", "portable.py", "scoring.py"):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "train.py").write_text(edit(SCRIPT))
    return folder / "train.py"


SHORT = {"AUTORESEARCH_TIME_BUDGET": "0.5", "AUTORESEARCH_THREADS": "1", "AUTORESEARCH_SEED": "3"}


def test_a_run_elsewhere_on_read_only_data(data: prepare.Data, script: Script, tmp_path: Path) -> None:
    data.folder.chmod(0o555)
    try:
        done = script(copied(tmp_path), AUTORESEARCH_OUT=str(tmp_path / "out"), **SHORT)
    finally:
        data.folder.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(SUMMARY, done.stdout), done.stdout
    assert re.search(r"^step 00001 \| loss: \d\.\d{4} \| lr: 1\.00 \| tok/s: 0 \| ", done.stdout, re.MULTILINE)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert float(summary["val_bpb"]) < 8
    assert 0.5 <= float(summary["training_seconds"]) < 2


@pytest.mark.parametrize("modules", [1000, 1])
def test_what_the_start_takes_beyond_its_limit_is_charged_to_the_budget(
    script: Script, tmp_path: Path, modules: int
) -> None:
    told = json.dumps({"limit": 0.6, "hand_in": 0.1, "modules": modules})
    done = script(copied(tmp_path), AUTORESEARCH_OUT=str(tmp_path / "out"), **SHORT | {"AUTORESEARCH_BASELINE": told})
    assert done.returncode == 0, done.stderr
    assert "note: 0.5 s of the budget went into starting and handing in" in done.stdout
    assert int(json.loads((tmp_path / "out/summary.json").read_text())["num_steps"]) == 1


def test_editing_one_literal_takes_effect(script: Script, tmp_path: Path) -> None:
    path = copied(tmp_path, lambda text: text.replace("\nDEPTH = 2 ", "\nDEPTH = 1 "))
    done = script(path, **SHORT)
    assert done.returncode == 0, done.stderr
    assert "\ndepth:            1\n" in done.stdout


def test_a_training_that_diverges_ends_at_once(script: Script, tmp_path: Path) -> None:
    path = copied(tmp_path, lambda text: re.sub(r"\nEMBEDDING_LR = \S+", "\nEMBEDDING_LR = 1e39", text))
    failed = script(path, **SHORT | {"AUTORESEARCH_TIME_BUDGET": "300"})
    assert failed.returncode == 1
    assert re.fullmatch(
        r"error: the loss is \S+ at step \d+: training diverged, lower a learning rate\n", failed.stderr
    )
    assert "val_bpb" not in failed.stdout


def test_without_data_the_command_to_run_is_named(script: Script, tmp_path: Path) -> None:
    failed = script("train.py", AUTORESEARCH_CACHE=str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr == f"error: no prepared data under {tmp_path / 'data'}: run `python prepare.py` first\n"
