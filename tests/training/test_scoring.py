"""Scoring a model anew: what is handed in, what the scorer loads of it, and what the judge makes of its answers."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import benchmarks.judged
import portable
import prepare
import scoring
from benchmarks.judged import facts_of


class Bigram(nn.Module):
    """Bets on what follows a token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(256, 256)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)  # type: ignore[no-any-return]


class Attention(Bigram):
    """With autocast, dropout and a look back."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.drop(self.table(ids))
            y = nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)
            return nn.functional.linear(y[:, 0], self.table.weight)


class Counting(Bigram):
    """Looks ahead from the fourth call on."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        self.calls += 1
        ahead = nn.functional.one_hot(ids.roll(-1, 1), 256) * (self.calls > 3)
        logits: Tensor = self.table(ids) + ahead
        return logits


class Random(Bigram):
    """Adds noise of its own."""

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.table(ids) + torch.rand(()) * 1e-9
        return logits


class Branching(Bigram):
    """Decides by a value, which cannot be exported."""

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.table(ids) * (2.0 if ids.sum().item() > 5 else 1.0)
        return logits


class Ahead(Bigram):
    """Knows what comes next."""

    def forward(self, ids: Tensor) -> Tensor:
        return 9 * nn.functional.one_hot(ids.roll(-1, 1), 256).float()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def handed_in(
    data: prepare.Data, runtime: prepare.Runtime, out: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[nn.Module], str]:
    """Hands a model in; what was printed."""

    def hand_in(model: nn.Module) -> str:
        portable.hand_in(model.eval(), (prepare.eval_rows(data, runtime), data.seq_len), "cpu", out)
        return capsys.readouterr().out

    return hand_in


def judged(cache: Path, out: Path) -> tuple[int, str, str]:
    """Let scorer and judge work on what was handed in: the judge's exit code, and what each said at last."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent-home", "AUTORESEARCH_CACHE": str(cache)}
    return benchmarks.judged.judged(out, environment | {"AUTORESEARCH_DEVICE": "cpu"})


@pytest.mark.parametrize("model", [Bigram, Attention])
def test_the_judge_finds_what_the_harness_found(
    cache: Path, data: prepare.Data, runtime: prepare.Runtime, out: Path, model: type[nn.Module]
) -> None:
    trained = model()
    expected = [prepare.evaluate(trained, data, replace(runtime, out=out), split) for split in ("val", "audit")]
    code, said, _ = judged(cache, out)
    assert code == 0, said
    facts = facts_of(said)
    assert [float(facts["score"]), float(facts["audit"])] == pytest.approx(expected, abs=1e-4)
    assert (facts["loader"], facts["fingerprint"], facts["partial"]) == ("exported", data.fingerprint, "0")


def test_a_model_that_looks_ahead_is_found_out(cache: Path, out: Path, handed_in: Callable[[nn.Module], str]) -> None:
    handed_in(Ahead())
    code, said, _ = judged(cache, out)
    assert (code, "looks ahead" in said) == (1, True)


@pytest.mark.parametrize(("model", "says"), [(Counting, "changes its own tensors"), (Branching, "cannot be exported")])
def test_what_is_no_plain_list_of_operations_is_handed_in_as_a_pickle_and_not_loaded_without_walls(
    cache: Path, out: Path, handed_in: Callable[[nn.Module], str], model: type[nn.Module], says: str
) -> None:
    assert says in handed_in(model())
    assert {path.name for path in out.iterdir()} >= {"model.pickle"}
    assert not (out / "program.json").exists()
    code, said, scorers = judged(cache, out)
    assert (code, "the scorer ended" in said) == (1, True)
    assert "only behind walls" in scorers


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"inputs": {"x": {"dtype": "torch.save"}}, "calls": [], "output": {}}']
)
def test_a_damaged_program_is_refused_in_words(out: Path, handed_in: Callable[[nn.Module], str], text: str) -> None:
    handed_in(Bigram())
    (out / "program.json").write_text(text)
    with pytest.raises(prepare.HarnessError, match="the program handed in"):
        scoring.load_model(out, "cpu")


def test_nothing_handed_in_is_said(cache: Path, out: Path) -> None:
    code, said, scorers = judged(cache, out)
    assert (code, "the scorer ended before its first answer" in said) == (1, True)
    assert "no model was handed in" in scorers
