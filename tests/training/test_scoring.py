"""Scoring a model anew: what is handed in, what the scorer loads of it, and what the judge makes of its answers."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
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


def passes(
    data: prepare.Data, runtime: prepare.Runtime, folder: Path, ask: Callable[[], scoring.Ask]
) -> dict[str, object]:
    """What the judge says of scorers that answer so, each pass a fresh one."""
    folder.mkdir()
    return [scoring.make_pass(number, data, runtime, folder, ask()) for number in (1, 2, 3)][-1]


def adapting(data: prepare.Data, strength: float) -> Callable[[], scoring.Ask]:
    """Scorers that with every batch know a little more of how often each byte comes; without strength, they do not."""
    often = torch.from_numpy(np.log(np.bincount(data.train, minlength=256) + 1.0)).float()

    def fresh() -> scoring.Ask:
        calls = 0

        def ask(tokens: scoring.Ids) -> Tensor:
            nonlocal calls
            calls += 1
            return 3 * nn.functional.one_hot(torch.from_numpy(tokens.copy()), 256) + strength * calls * often

        return ask

    return fresh


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_model_that_adapts_to_what_it_was_shown_is_found_out_however_slowly_it_does(
    data: prepare.Data, runtime: prepare.Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    """Also by less than the rounding of a GPU, since it goes one way."""
    monkeypatch.setitem(prepare.EVAL_BATCH_TOKENS, device, 2**8)  # eight rows in a batch
    runtime = replace(runtime, device=device)
    assert {*passes(data, runtime, tmp_path / "honest", adapting(data, 0.0))} == {"score", "audit", "partial"}
    with pytest.raises(prepare.HarnessError, match="the model keeps state"):
        passes(data, runtime, tmp_path / "adapting", adapting(data, 0.0003))


def knowing_the_batch(data: prepare.Data, strength: float) -> Callable[[], scoring.Ask]:
    """Scorers that are surer of themselves where the other rows of a batch are no training text.

    All batches of validation text show that alike, so that two passes over it never differ.
    """
    text = {data.train[at : at + 8].tobytes() for at in range(len(data.train) - 8)}

    def known(row: scoring.Ids) -> bool:
        return row[:8].astype(np.uint16).tobytes() in text

    def ask(tokens: scoring.Ids) -> Tensor:
        share = sum(known(row) for row in tokens) / len(tokens)
        return (3 + strength * (share < 0.5)) * nn.functional.one_hot(torch.from_numpy(tokens.copy()), 256).float()

    return lambda: ask


def test_what_all_batches_have_in_common_is_nothing_that_a_model_may_know(
    data: prepare.Data, runtime: prepare.Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(prepare.EVAL_BATCH_TOKENS, "cpu", 2**8)  # eight rows in a batch
    assert "score" in passes(data, runtime, tmp_path / "honest", knowing_the_batch(data, 0.0))
    with pytest.raises(prepare.HarnessError, match="other rows"):
        passes(data, runtime, tmp_path / "knowing", knowing_the_batch(data, 0.5))


def test_a_loss_that_is_not_finite_is_refused_where_it_does_not_count_too(
    data: prepare.Data, runtime: prepare.Runtime, tmp_path: Path
) -> None:
    """The mark of a document has no bytes: all its logits are finite, their difference is not."""

    def ask(tokens: scoring.Ids) -> Tensor:
        ids = torch.from_numpy(tokens.copy())
        logits = 3 * nn.functional.one_hot(ids, 256).float()
        marks = (ids[:, 1:] == prepare.BOS).nonzero()[:1]
        for row, place in marks.tolist():
            logits[row, place] = 0
            logits[row, place, prepare.BOS], logits[row, place, 7] = -2.5e38, 2.5e38
        return logits

    with pytest.raises(prepare.HarnessError, match="not finite"):
        passes(data, runtime, tmp_path / "private", lambda: ask)


def test_rounding_of_a_gpu_is_no_trend(
    data: prepare.Data, runtime: prepare.Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(prepare.EVAL_BATCH_TOKENS, "cuda", 2**8)
    chance = torch.Generator().manual_seed(1)

    def rounding() -> scoring.Ask:
        exact = adapting(data, 0.0)()
        return lambda tokens: (answer := exact(tokens)) * (1 + torch.randn(answer.shape, generator=chance) * 2**-9)

    found = passes(data, replace(runtime, device="cuda"), tmp_path / "rounded", rounding)
    exact = prepare.bits_per_byte(Repeating(), data, runtime)
    assert found["score"] == pytest.approx(exact, abs=2e-3)


class Repeating(nn.Module):
    """Bets on the token that it has just seen."""

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.one_hot(ids, 256).float() * 3


def test_places_are_secret_spread_evenly_and_never_the_last(data: prepare.Data) -> None:
    text = scoring.Text.of(data)
    assert 50 < text.hidden.sum() < len(text.hidden) - 50
    drawn = [scoring.even_places(text, np.random.default_rng(seed)) for seed in range(40)]
    assert not np.array_equal(drawn[0], drawn[1])
    for places in drawn:
        for hidden in (False, True):
            times = np.bincount(places[text.hidden == hidden], minlength=31)
            assert len(times) == 31
            assert times.max() - times.min() <= 1
    first = np.bincount([places[0] for places in drawn], minlength=31)
    assert first.max() < 10  # no row has a place of its own


def test_what_follows_a_place_is_training_text(data: prepare.Data) -> None:
    text, secret = scoring.Text.of(data), np.random.default_rng(1)
    places = scoring.even_places(text, secret)
    cut = text.cut(places, data, secret)
    train = data.train.tobytes()
    for row, place, whole in zip(cut, places, text.inputs, strict=True):
        assert np.array_equal(row[: place + 1], whole[: place + 1])
        assert row[place + 1 :].astype(np.uint16).tobytes() in train
    last = np.full(len(places), data.seq_len - 1)
    assert np.array_equal(text.cut(last, data, secret), text.inputs)


def test_a_difference_at_one_place_stands_for_all_of_its_row(data: prepare.Data) -> None:
    """Averaged over all places, the score is that of the cut rows, whatever the whole rows say."""
    text = scoring.Text.of(data)
    chance = np.random.default_rng(1)
    blind, seen = (chance.random(text.inputs.shape, dtype=np.float32) for _ in range(2))
    nothing = np.zeros(len(text.hidden), dtype=np.float32)
    scores = [
        text.bits_per_byte(seen, scoring.differences(text, np.full(len(nothing), place), blind, seen), False)
        for place in range(data.seq_len - 1)
    ]
    assert np.mean(scores) == pytest.approx(text.bits_per_byte(blind, nothing, False), rel=1e-6)
    assert np.mean(scores) != pytest.approx(text.bits_per_byte(seen, nothing, False), rel=1e-6)


def test_places_are_doubted_where_more_is_known_than_pairs_of_tokens_tell(data: prepare.Data) -> None:
    text = scoring.Text.of(data)
    expected = scoring.pair_losses(text, data.train, data.vocab_size)
    known = expected.copy()
    known[:, 7] = 0
    places = scoring.doubtful_places(text, known, expected, np.random.default_rng(1))
    counts = (text.sizes[:, 7] > 0) & (expected[:, 7] > 0.1)
    assert (places[counts] == 7).all()
    assert (scoring.doubtful_places(text, expected, expected, np.random.default_rng(1)) < data.seq_len - 1).all()


def asking(model: nn.Module) -> Callable[[], scoring.Ask]:
    """Scorers that answer as a model does."""
    return lambda: lambda ids: model(torch.from_numpy(ids)).float()


def test_the_score_is_left_by_row_in_the_order_of_the_text(
    data: prepare.Data, runtime: prepare.Runtime, tmp_path: Path
) -> None:
    """However rows were shuffled, those of two models are over the same text, and sum up to the scores."""
    said = []
    for number, model in enumerate((Bigram(), Bigram(), Attention().eval())):
        with torch.no_grad():
            found = passes(data, runtime, tmp_path / str(number), asking(model))
        rows = json.loads((tmp_path / str(number) / "rows.json").read_text())
        for text, name in (("validation", "score"), ("hidden", "audit")):
            assert sum(rows[text][0]) / sum(rows[text][1]) == pytest.approx(found[name], abs=1e-5)
        said.append(rows)
    assert said[0] == said[1]
    assert said[0]["of"] == said[2]["of"]
    assert [said[0][name][1] for name in ("validation", "hidden")] == [
        said[2][name][1] for name in ("validation", "hidden")
    ]
    assert said[0]["validation"][0] != said[2]["validation"][0]


def test_rows_are_named_by_their_text_and_many_are_shown_in_stretches(data: prepare.Data) -> None:
    text = scoring.Text.of(data)
    bits = np.arange(len(text.hidden), dtype=np.float64)
    shown = text.by_row(bits)
    assert shown["validation"] == [list(bits[~text.hidden]), list(text.sizes[~text.hidden].sum(1))]
    assert shown["hidden"] == [list(bits[text.hidden]), list(text.sizes[text.hidden].sum(1))]
    other = text.targets.copy()
    other[-1, 0] += 1
    assert replace(text, targets=other).by_row(bits)["of"] != shown["of"]
    assert replace(text, every=2).by_row(bits)["of"] != shown["of"]
    times = 2 * scoring.MOST_SHOWN // len(text.hidden) + 1
    inputs, targets, sizes = (np.concatenate([each] * times) for each in (text.inputs, text.targets, text.sizes))
    many = scoring.Text(inputs, targets, sizes, np.concatenate([text.hidden] * times), 1)
    losses, weights = cast(list[list[float]], many.by_row(np.ones(len(many.hidden)))["validation"])
    assert len(losses) == len(weights) == min(scoring.MOST_SHOWN, int((~many.hidden).sum()))
    assert (sum(losses), sum(weights)) == ((~many.hidden).sum(), many.sizes[~many.hidden].sum())
