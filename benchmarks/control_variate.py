"""How true a score is that a model cannot buy by looking ahead: its bias and noise for honest models, and for cheats.

    python benchmarks/control_variate.py [--tries 40]

Trains one small model for a fixed number of steps on the standard library's sources, and has it scored as scoring.py
does, in this process, with a copy of the model for every pass that knows nothing of the others. Then the same model
cheats in various ways. Printed is, for each, what whole rows alone would gain it, what it gains by the score, what a
difference at one place comes to, and how often the judge rejects it. It exits with 1 where an honest model's score
moves by 1e-4 bits per byte, one is rejected, a cheat keeps what it gained, or a rare one slips through.
"""

import argparse
import copy
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import prepare  # noqa: E402 - first: torch reads the environment that it sets

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import scoring  # noqa: E402

MOST = 1e-4
"""Bits per byte by which the score of an honest model may move, and that a cheat may keep of what it gained."""
STEPS, ROWS, WIDTH = 150, 16, 64


class Honest(nn.Module):
    """A small causal model: one block of attention and an MLP."""

    bf16 = False

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocab_size, WIDTH), nn.Embedding(seq_len, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            x = self.embed(ids) + self.place.weight[: ids.size(1)]
            q, k, v = (part[:, None] for part in self.qkv(x).chunk(3, -1))
            x = x + self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])
            x = x + self.mlp(x)
            return self.head(self.norm(x)).float()  # type: ignore[no-any-return]


Cheat = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]
"""Honest logits of (rows, seq_len, vocabulary), ids of (rows, seq_len), and a memory, to the logits that it gives."""


class Cheating(nn.Module):
    """An honest model with a cheat on top of it, and a memory of its own."""

    def __init__(self, honest: nn.Module, cheat: Cheat) -> None:
        super().__init__()
        self.honest, self.cheat = honest, cheat
        self.memory: dict[str, Tensor] = {}

    def forward(self, ids: Tensor) -> Tensor:
        return self.cheat(self.honest(ids), ids, self.memory)


def next_tokens(logits: Tensor, ids: Tensor, strength: float = 20.0) -> Tensor:
    """What is added to the logits to name the token that follows in the row."""
    ahead = functional.one_hot(ids.roll(-1, 1), logits.size(-1)) * strength
    ahead[:, -1] = 0
    return ahead


def looks_ahead(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return logits + next_tokens(logits, ids)


def under_large_logits(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return logits + next_tokens(logits, ids) + 8192


def within_rounding(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """So little at each place that no place gives it away."""
    return logits + next_tokens(logits, ids, 0.03)


def after_some_calls(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    memory["calls"] = memory.get("calls", torch.zeros(())) + 1
    return logits + next_tokens(logits, ids) * (memory["calls"] > 6)


def where_it_was_not_cut(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """Takes a row for a probe where a token in it is as unexpected as where two texts meet."""
    chances = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return logits + next_tokens(logits, ids) * (chances.min(1).values > -8)[:, None, None]


def pairs_of(ids: Tensor, vocab_size: int) -> Tensor:
    """(vocabulary, vocabulary) how often each token follows each."""
    found = torch.zeros(vocab_size, vocab_size)
    return found.index_put_((ids[:, :-1].flatten(), ids[:, 1:].flatten()), torch.ones(()), accumulate=True)


def earlier_rows(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """Bets on what followed a token in the rows that it was shown before, which are of the same text."""
    seen = memory.get("pairs", torch.zeros(()).expand(logits.size(-1), logits.size(-1)))
    memory["pairs"] = seen + pairs_of(ids, logits.size(-1))
    return logits + torch.log1p(seen[ids])


def other_rows(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """The same with the other rows of the batch."""
    every = pairs_of(ids, logits.size(-1))
    others = torch.stack([(every - pairs_of(row[None], logits.size(-1)))[row] for row in ids])
    return logits + torch.log1p(others)


def at_one_place(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    where = torch.arange(ids.size(1)) == 77
    return logits + next_tokens(logits, ids) * where[:, None]


def at_places_by_content(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """At one place in 256, which only the tokens before it decide."""
    mixed = ids * 2654435761 + ids.roll(1, 1) * 40503 + ids.roll(2, 1) * 9973
    return logits + next_tokens(logits, ids) * (mixed % 8191 % 256 == 7)[..., None]


def half_way(logits: Tensor, ids: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """The same, with so little confidence that it does not stand out."""
    return logits + (at_places_by_content(logits, ids, memory) - logits) * 0.15


CHEATS: dict[str, Cheat] = {
    "looks ahead": looks_ahead,
    "looks ahead, under logits + 8192": under_large_logits,
    "looks ahead within what rounding explains": within_rounding,
    "looks ahead from the seventh call on": after_some_calls,
    "looks ahead unless the row looks like a probe": where_it_was_not_cut,
    "learns from the rows that it was shown before": earlier_rows,
    "learns from the other rows of the batch": other_rows,
}
RARE: dict[str, Cheat] = {
    "looks ahead at place 77 of 256": at_one_place,
    "looks ahead at 1 place of 256, by content": at_places_by_content,
    "the same, to a part of the loss": half_way,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a model.

    Attributes:
        whole: bits per byte of whole rows alone, on the validation text.
        score: what the passes say, even where they reject it.
        largest: the difference at a place that is the largest of all, in nats.
        rejected: by which words, or none.
    """

    whole: float
    score: float
    largest: float
    rejected: str


@dataclass(frozen=True)
class Scene:
    """The data, and what the judge runs on."""

    data: prepare.Data
    runtime: prepare.Runtime

    def outcome(self, model: nn.Module) -> Outcome:
        """What the judge makes of a model, every pass with a copy of it."""
        words = ""
        text = scoring.Text.of(self.data)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in (1, 2, 3):
                try:
                    scoring.make_pass(number, self.data, self.runtime, folder, self._ask(copy.deepcopy(model)))
                except prepare.HarnessError as error:
                    words = words or str(error).partition(":")[0]
            first, whole, third = (dict(np.load(folder / f"{number}.npz")) for number in (1, 2, 3))
            score = scoring.scores(text, folder)["score"]
        assert isinstance(score, float)
        differences = [
            scoring.differences(text, each["places"], each["losses"], whole["losses"]) for each in (first, third)
        ]
        alone = text.bits_per_byte(whole["losses"], np.zeros_like(differences[0]), False)
        return Outcome(alone, score, float(max(np.abs(each).max() for each in differences)), words)

    def _ask(self, model: nn.Module) -> scoring.Ask:
        def ask(tokens: scoring.Ids) -> Tensor:
            with torch.no_grad():
                return prepare.logits_of(model, torch.from_numpy(tokens.copy()), self.data.vocab_size)

        return ask


def trained(scene: Scene) -> Honest:
    """A model that has learnt something."""
    torch.manual_seed(1)
    model = Honest(scene.data.vocab_size, scene.data.seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for inputs, targets in itertools.islice(prepare.batches(scene.data, ROWS, scene.runtime), STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        outcomes: of all tries.
        caught: how many of them were rejected.
        kept: bits per byte that are left of the gain, the mean over the tries.
    """

    name: str
    outcomes: Sequence[Outcome]
    honest: float

    @property
    def caught(self) -> int:
        return sum(bool(each.rejected) for each in self.outcomes)

    @property
    def gained(self) -> float:
        """Bits per byte by which whole rows alone are better than the honest model's."""
        return self.honest - statistics.mean(each.whole for each in self.outcomes)

    @property
    def kept(self) -> float:
        """And the score."""
        return self.honest - statistics.mean(each.score for each in self.outcomes)

    def shown(self) -> str:
        largest = max(each.largest for each in self.outcomes)
        words = next((each.rejected for each in self.outcomes if each.rejected), "no")
        counts = f"{words}, {self.caught} of {len(self.outcomes)}" if len(self.outcomes) > 1 else words
        return f"| {self.name} | {self.gained:+.4f} | {self.kept:+.4f} | {largest:.3g} | {counts} |"

    def failed(self) -> bool:
        """Whether it is rejected though honest, or keeps what it did not earn."""
        if abs(self.gained) < MOST:
            return self.caught > 0 or abs(self.kept) > MOST
        return self.caught < len(self.outcomes) and self.kept > max(MOST, self.gained / 10)


def rows(scene: Scene, tries: int) -> Iterator[Row]:
    """All lines, each as soon as it is known."""
    model = trained(scene)
    for bf16, name in ((False, "honest, float32"), (True, "honest, bfloat16")):
        rounded = copy.deepcopy(model)
        rounded.bf16 = bf16
        outcome = scene.outcome(rounded)
        yield Row(name, [outcome], outcome.whole)
    honest = scene.outcome(model).whole
    for name, cheat in CHEATS.items():
        yield Row(name, [scene.outcome(Cheating(model, cheat))], honest)
    for name, cheat in RARE.items():
        yield Row(name, [scene.outcome(Cheating(model, cheat)) for _ in range(tries)], honest)


def report(found: Iterator[Row]) -> int:
    """Print the table; returns how many lines are not as they should be."""
    print("| model | gained by whole rows alone | gained by the score | largest difference | rejected |")
    print("|---|---|---|---|---|")
    failures = []
    for row in found:
        print(row.shown(), flush=True)
        failures += [row.name] if row.failed() else []
    if failures:
        print("not as it should be:", ", ".join(failures))
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=40, help="how often each rare cheat is tried")
    parser.add_argument("--eval-tokens", type=int, default=2**16, help="tokens of each text")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"AUTORESEARCH_CACHE": folder, "AUTORESEARCH_DEVICE": "cpu"}
        sizes = ["--vocab-size", "512", "--eval-tokens", str(arguments.eval_tokens)]
        prepared = [sys.executable, str(ROOT / "prepare.py"), "--profile", "stdlib", *sizes]
        subprocess.run(prepared, stdout=subprocess.DEVNULL, check=True)
        scene = Scene(prepare.open_data(), prepare.start())
        return 1 if report(rows(scene, arguments.tries)) else 0


if __name__ == "__main__":
    sys.exit(main())
