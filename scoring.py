"""The other fixed half: scoring a model anew, out of reach of the code that trained it. Agents never edit this file.

    python scoring.py score     holds the model: reads tokens on stdin, answers with logits on stdout
    python scoring.py judge     holds the targets: asks on stdout, reads answers on stdin, prints the score on stderr

The two are run by the server, each other's output their input, from the code that the run began with. After evaluating,
prepare.py hands the model in: as a list of plain tensor operations (see portable.py), free of the agent's Python; where
that cannot be done, as a pickle, loaded only behind walls.

The judge asks three times, each time a fresh scorer that shares nothing with the others but the weights:

1. each row once, with other text from a secret place on: what the model says at that place, it cannot have looked up;
2. each row whole, validation and hidden text shuffled together: the score, as far as it can be trusted;
3. each row once more, with other text behind a place where the second pass knew suspiciously much; some of them whole,
   but alone among rows of training text: what all batches of the first two have in common may be learnt from any.

score = mean of the second pass + mean of (first - second) over the places of the first. That is, the first pass is the
score, and the second its control variate: an honest model's differences are rounding, so that nothing of the noise of
few places is left; what looking ahead gains in the second, the differences take off. The first pass comes before any
scorer was shown the answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import prepare  # first: torch reads the environment that it sets

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from portable import PICKLE, PROGRAM, PortableError, Program

# ---- The scorer: from tokens to logits -------------------------------------------------------------------------------


def load_model(folder: Path, device: str) -> tuple[str, nn.Module]:
    """What was handed in, and how it was loaded: `exported` or `imported`. Raises HarnessError where that cannot be."""
    if (folder / PROGRAM).exists():
        try:
            return "exported", Program(folder, device)
        except PortableError as error:
            raise prepare.HarnessError(str(error)) from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise prepare.HarnessError(f"the program handed in cannot be read: {error}") from error
    if not (folder / PICKLE).exists():
        raise prepare.HarnessError(
            "no model was handed in: let prepare.evaluate score it in the training's own process"
        )
    if os.environ.get("AUTORESEARCH_SANDBOXED") != "1":
        raise prepare.HarnessError(
            "the model cannot be exported (the log says why), and its own code is imported only behind walls, of which "
            "there are none here: use operations that torch.export takes, or install bubblewrap"
        )
    script = Path(os.environ["AUTORESEARCH_SCRIPT"])
    sys.path.insert(0, str(script.parent))
    sys.modules["__main__"].__dict__.update(vars(importlib.import_module(script.stem)))
    return "imported", torch.load(folder / PICKLE, weights_only=False, map_location=device).eval()


def streams() -> tuple[IO[bytes], IO[bytes]]:
    """stdin and stdout for the other process alone: what is printed from now on goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for stream in (sys.stdin.buffer, answers):
        with contextlib.suppress(OSError, AttributeError):  # it is only faster
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 2**20)
    return sys.stdin.buffer, answers


def send(stream: IO[bytes], content: memoryview) -> None:
    """Writes all of it."""
    while content:
        content = content[stream.write(content) :]


def receive(stream: IO[bytes], content: memoryview) -> bool:
    """Fills all of it; False where the other process ended."""
    while content:
        got = stream.readinto(content)  # type: ignore[attr-defined]
        if not got:
            return False
        content = content[got:]
    return True


def score() -> None:
    """Answers every batch of tokens with its logits, until there are no more."""
    requests, answers = streams()
    runtime = prepare.start()
    assert runtime.out is not None
    about = json.loads(requests.readline())
    loader, model = load_model(runtime.out, runtime.device)
    send(answers, memoryview(f"{loader}\n".encode()))
    tokens = np.empty((about["rows"], about["seq_len"]), dtype=np.int64)
    with torch.no_grad():
        while receive(requests, tokens.data.cast("B")):
            inputs = torch.from_numpy(tokens.copy()).to(runtime.device)
            logits = prepare.logits_of(model, inputs, about["vocab_size"]).cpu().contiguous()
            send(answers, logits.numpy().data.cast("B"))


# ---- The judge: from logits to the score -----------------------------------------------------------------------------

MOST_LOGITS = 2**36  # bytes that go from process to process in a pass; of more rows, evenly chosen ones are scored
MOST_SHOWN = 256  # rows of each text that are shown one by one
TOLERANCE = {"cpu": 2**-4, "mps": 2**-2, "cuda": 2**-2}  # nats by which rounding may move the loss of one token
DRIFT = {"cpu": 2**-10, "mps": 2**-6, "cuda": 2**-6}  # and on average, of tokens before the places

ALONE = 16  # rows that are asked for with none of their text beside them
NO_DRIFT, CERTAIN = 2**-14, 6.0  # nats; standard deviations from which a trend over the turns is no chance

Ids = npt.NDArray[np.int64]
Nats = npt.NDArray[np.float32]
Pass = dict[str, npt.NDArray[Any]]  # what a pass left: `places`, `losses`, and the `turns` in which rows were asked for
Ask = Callable[[Ids], Tensor]  # (rows, seq_len) ids to (rows, seq_len, vocabulary) logits


class Remote:
    """The model in the scorer's process."""

    def __init__(self, data: prepare.Data, runtime: prepare.Runtime) -> None:
        self.answers, self.requests = streams()
        self.rows, self.runtime = prepare.eval_rows(data, runtime), runtime
        about = {"rows": self.rows, "seq_len": data.seq_len, "vocab_size": data.vocab_size}
        send(self.requests, memoryview(f"{json.dumps(about)}\n".encode()))
        self.loader = self.answers.readline(100).decode(errors="replace").strip()
        self.logits = np.empty((self.rows, data.seq_len, data.vocab_size), dtype=np.float32)
        if self.loader not in ("exported", "imported"):
            raise prepare.HarnessError("the scorer ended before its first answer")

    def ask(self, tokens: Ids) -> Tensor:
        """(rows, seq_len) ids to (rows, seq_len, vocabulary) logits. Raises HarnessError where the scorer ended."""
        with contextlib.suppress(BrokenPipeError):
            send(self.requests, np.ascontiguousarray(tokens).data.cast("B"))
        if not receive(self.answers, self.logits.data.cast("B")):
            raise prepare.HarnessError("the scorer ended before its last answer")
        return torch.from_numpy(self.logits).to(self.runtime.device, copy=True)


def losses_of(ask: Ask, batches: list[Ids], inputs: Ids, targets: Ids) -> Nats:
    """(all, seq_len) nats of every target; a batch is the numbers of its rows.

    Raises HarnessError where the scorer ended, or a logit or a loss is not finite.
    """
    found = np.empty(inputs.shape, dtype=np.float32)
    for some in batches:
        logits = ask(inputs[some])
        answers = torch.from_numpy(targets[some]).to(logits.device)
        losses = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
        if not (logits.sum() + losses.sum()).isfinite():  # a sum is finite only if every term is
            raise prepare.HarnessError("the model's logits are not finite: the run is worth nothing")
        found[some] = losses.view(answers.shape).cpu().numpy()
    return found


@dataclass(frozen=True)
class Text:
    """Rows of the validation text and, behind them, of the hidden text.

    Attributes:
        inputs, targets: (rows, seq_len) token ids.
        sizes: (rows, seq_len) bytes of the targets that count; 0 of those that do not: marks that begin documents, and
            the last of each row, which begins the next.
        hidden: (rows,) whether it is hidden text.
        every: one in so many rows of the text.
    """

    inputs: Ids
    targets: Ids
    sizes: Ids
    hidden: npt.NDArray[np.bool_]
    every: int

    @classmethod
    def of(cls, data: prepare.Data) -> Text:
        """The rows that are scored: all, or evenly chosen ones where there are too many."""
        splits = [data.held_out(split).numpy() for split in ("val", "audit")]
        total = sum(len(tokens) - 1 for tokens in splits)
        every = math.ceil(total * data.vocab_size * 4 / MOST_LOGITS)
        inputs = [tokens[:-1].reshape(-1, data.seq_len)[::every] for tokens in splits]
        targets = np.concatenate([tokens[1:].reshape(-1, data.seq_len)[::every] for tokens in splits])
        sizes = prepare.token_bytes(data, "cpu").numpy()[targets]
        sizes[:, -1] = 0
        hidden = np.repeat([False, True], [len(rows) for rows in inputs])
        return cls(np.concatenate(inputs), targets, sizes, hidden, every)

    def cut(self, cuts: Ids, data: prepare.Data, secret: np.random.Generator) -> Ids:
        """The inputs, behind the place of each row as some of the training text goes on.

        Never validation or hidden text, which would show the answers of other rows. What follows says nothing of the
        true token: it is drawn without regard to it.
        """
        other = training_rows(len(cuts), data, secret)
        return np.where(np.arange(data.seq_len) <= cuts[:, None], self.inputs, other)

    def bits(self, losses: Nats, differences: Nats) -> npt.NDArray[np.float64]:
        """(rows,) bits of (rows, seq_len) losses, and of (rows,) what is to be added at one place each.

        A place is drawn evenly from those of its row, so that its difference stands for them all.
        """
        nats = np.where(self.sizes > 0, losses, 0).sum(1, dtype=np.float64)
        found: npt.NDArray[np.float64] = (
            nats + (self.inputs.shape[1] - 1) * differences.astype(np.float64)
        ) / math.log(2)
        return found

    def bits_per_byte(self, losses: Nats, differences: Nats, hidden: bool) -> float:
        """The score of one of both texts; the arguments are those of `bits`."""
        rows = self.hidden == hidden
        return float(self.bits(losses, differences)[rows].sum() / self.sizes[rows].sum())

    def by_row(self, bits: npt.NDArray[np.float64]) -> dict[str, object]:
        """What tells on which rows a model is better than another: bits and bytes of each, in the order of the text.

        Of more than MOST_SHOWN rows, as many stretches of neighbouring ones. `of` names the rows, whatever the model.
        """
        digest = hashlib.sha256(f"{self.inputs.shape} {self.every}".encode())
        for part in (self.inputs, self.targets, self.sizes, self.hidden):
            digest.update(np.ascontiguousarray(part).data)
        found: dict[str, object] = {"of": digest.hexdigest()[:32]}
        for name, hidden in (("validation", False), ("hidden", True)):
            rows = np.flatnonzero((self.hidden == hidden) & (self.sizes.sum(1) > 0))
            some = [each for each in np.array_split(rows, min(len(rows), MOST_SHOWN) or 1) if len(each)]
            columns = [
                [round(float(bits[each].sum()), 3) for each in some],
                [int(self.sizes[each].sum()) for each in some],
            ]
            found |= {name: columns} if some else {}
        return found


def training_rows(count: int, data: prepare.Data, secret: np.random.Generator) -> Ids:
    """(count, seq_len) token ids from anywhere in the training text."""
    begins = secret.integers(len(data.train) - data.seq_len, size=count)
    rows = [data.train[begin : begin + data.seq_len] for begin in begins]
    return np.array(rows, dtype=np.int64).reshape(count, data.seq_len)


def even_places(text: Text, secret: np.random.Generator) -> Ids:
    """(rows,) one place for each row: every place with equal chance, and all of them equally often in each text."""
    found = np.empty(len(text.hidden), dtype=np.int64)
    places = text.inputs.shape[1] - 1
    for hidden in (False, True):
        rows = np.flatnonzero(text.hidden == hidden)
        dealt = [secret.permutation(places) for _ in range(math.ceil(len(rows) / places))]
        found[secret.permutation(rows)] = np.concatenate([np.empty(0, dtype=np.int64), *dealt])[: len(rows)]
    return found


LOOKED_AT = 2**22  # training tokens that pairs are counted in
DISCOUNT = 8.0  # how often a pair is taken to have been seen as often as its second token lets one expect


def pair_losses(text: Text, train: prepare.Tokens, vocab_size: int) -> Nats:
    """(rows, seq_len) nats of the targets to one who knows the token before, from counts in the training text.

    Smoothed by Dirichlet priors (MacKay and Peto, 1995): p(b | a) = (n(a, b) + m p(b)) / (n(a) + m).
    """
    seen = train[:LOOKED_AT].astype(np.int64)
    single = np.bincount(seen, minlength=vocab_size)
    pairs, counts = np.unique(seen[:-1] * vocab_size + seen[1:], return_counts=True)
    wanted = text.inputs * vocab_size + text.targets
    at = np.searchsorted(pairs, wanted).clip(max=len(pairs) - 1)
    together = np.where(pairs[at] == wanted, counts[at], 0)
    alone = (single[text.targets] + 1) / (len(seen) + vocab_size)
    chance = (together + DISCOUNT * alone) / (single[text.inputs] + DISCOUNT)
    return np.asarray(-np.log(chance), dtype=np.float32)


def doubtful_places(text: Text, losses: Nats, expected: Nats, secret: np.random.Generator) -> Ids:
    """(rows,) one place for each row, with a chance that grows as the square of what was known more than expected."""
    weights = np.where(text.sizes > 0, np.maximum(expected - losses, 0) ** 2, 0) + 1e-9
    weights[:, -1] = 0
    with np.errstate(divide="ignore"):
        found: Ids = (np.log(weights) + secret.gumbel(size=weights.shape)).argmax(1)
    return found


def at_places(values: npt.NDArray[Any], places: Ids) -> npt.NDArray[Any]:
    """(rows,) the value of each row at its place."""
    return np.take_along_axis(values, places[:, None], 1)[:, 0]


def differences(text: Text, places: Ids, blind: Nats, seen: Nats) -> Nats:
    """(rows,) by how many nats the target of each row's place costs more where what follows is hidden; 0 if it has no
    bytes."""
    return np.where(at_places(text.sizes, places) > 0, at_places(blind, places) - at_places(seen, places), 0)


def compare(text: Text, cut: Pass, whole: Pass, device: str) -> None:
    """Raises HarnessError where the losses of a pass differ from those of the second by more than rounding explains.

    That of the target at each place does where the model looks ahead. Those before it do where the model makes
    anything of the other rows, of what it was asked before, or of chance; or they differ by little, but by the more the
    later it was asked. The rows that were asked for alone are looked at by themselves.
    """
    places, blind, seen = cut["places"], cut["losses"], whole["losses"]
    most, allowed = differences(text, places, blind, seen), TOLERANCE[device]
    before = np.arange(blind.shape[1]) < places[:, None]
    moves = np.where(before, blind - seen, 0)
    looked_at = (slice(None), cut["alone"])
    moved = max(np.abs(moves[some]).sum(dtype=np.float64) / max(1, before[some].sum()) for some in looked_at)
    later = trend(moves.sum(1) / before.sum(1).clip(min=1), cut["turns"] - whole["turns"])
    largest = int(np.abs(most).argmax())
    if moved > DRIFT[device] or (moved > NO_DRIFT and abs(later) > CERTAIN):
        raise prepare.HarnessError(
            f"the model keeps state, looks ahead or at other rows: of the same beginnings of rows, asked again "
            f"among others, it said something else, by {moved:.2g} nats a token; rounding explains {DRIFT[device]:g}"
        )
    if abs(most[largest]) > allowed:
        known, unknown = (float(losses[largest, places[largest]]) for losses in (seen, blind))
        raise prepare.HarnessError(
            f"the model looks ahead: at {(np.abs(most) > allowed).sum()} of {len(places)} places a token cost it "
            f"another loss once other text followed, {unknown:.3f} for {known:.3f} nats; rounding explains {allowed:g}"
        )


def trend(values: npt.NDArray[Any], turns: Ids) -> float:
    """How clearly values rise or fall with the turns, in standard deviations of chance; 0 where all are equal."""
    if len(values) < 3 or not values.std() or not turns.std():
        return 0.0
    return float(np.corrcoef(values, turns)[0, 1] * math.sqrt(len(values)))


def places_of(number: int, text: Text, data: prepare.Data, folder: Path, secret: np.random.Generator) -> Ids:
    """(rows,) behind which place each row goes on as other text in a pass; behind the last, nothing does."""
    if number == 1:
        return even_places(text, secret)
    if number == 2:
        return np.full(len(text.hidden), text.inputs.shape[1] - 1)
    expected = pair_losses(text, data.train, data.vocab_size)
    return doubtful_places(text, np.load(folder / "2.npz")["losses"], expected, secret)


def batches_of(alone: Ids, rows: int, size: int, secret: np.random.Generator) -> list[Ids]:
    """The numbers of all rows in batches of this size, in any order; some have a batch to themselves."""
    order = secret.permutation(np.setdiff1d(np.arange(rows), alone))
    found = [*np.array_split(order, range(size, len(order), size)), *alone[:, None]]
    return [found[turn] for turn in secret.permutation(len(found))]


def make_pass(number: int, data: prepare.Data, runtime: prepare.Runtime, folder: Path, ask: Ask) -> dict[str, object]:
    """Makes a pass with a fresh scorer, and leaves in the folder what the next need: what is to be printed.

    Raises HarnessError where the model looks ahead, keeps state, or gives no finite logits.
    """
    secret = np.random.default_rng(int.from_bytes(os.urandom(16)))
    text = Text.of(data)
    places = places_of(number, text, data, folder, secret)
    count, size = len(places), prepare.eval_rows(data, runtime)
    alone = secret.choice(count, min(ALONE, count // 2) if number == 3 else 0, replace=False)
    places[alone] = data.seq_len - 1
    batches = batches_of(alone, count, size, secret)

    def filled(rows: Ids) -> Tensor:
        order = secret.permutation(size)  # else a row that is asked for alone is known by its place
        asked = np.concatenate([rows, training_rows(size - len(rows), data, secret)])[order]
        return ask(asked)[order.argsort()][: len(rows)]

    losses = losses_of(filled, batches, text.cut(places, data, secret), text.targets)
    turns = np.concatenate(batches).argsort()
    np.savez(folder / f"{number}.npz", places=places, losses=losses, turns=turns, alone=alone)
    if number > 1:
        cut, whole = (dict(np.load(folder / f"{each}.npz")) for each in (2 * number - 3, 2))
        compare(text, cut, whole, runtime.device)
    return scores(text, folder) | {"partial": int(text.every > 1)} if number > 2 else {"again": 1}


def scores(text: Text, folder: Path) -> dict[str, object]:
    """The score of both texts: the mean of the second pass, and what the first differs by; by row in rows.json."""
    blind, seen = (dict(np.load(folder / f"{number}.npz")) for number in (1, 2))
    more = differences(text, blind["places"], blind["losses"], seen["losses"])
    (folder / "rows.json").write_text(json.dumps(text.by_row(text.bits(seen["losses"], more))))
    return {name: text.bits_per_byte(seen["losses"], more, name == "audit") for name in ("score", "audit")}


def judge() -> None:
    """Makes the pass that AUTORESEARCH_PASS names, and prints `key: value` lines on stderr; see the top of the file.

    What one pass leaves for the next lies in AUTORESEARCH_PRIVATE, which scorers and trainings cannot see.
    """
    if not (folder := os.environ.get("AUTORESEARCH_PRIVATE")):
        raise prepare.HarnessError("AUTORESEARCH_PRIVATE names no folder: a server of this version or later sets it")
    runtime, data = prepare.start(), prepare.open_data()
    remote = Remote(data, runtime)
    number = int(prepare.setting("AUTORESEARCH_PASS", 1, 1))
    facts = make_pass(number, data, runtime, Path(folder), remote.ask)
    facts |= {"fingerprint": data.fingerprint, "loader": remote.loader}
    print("---", *(f"{name}: {fact}" for name, fact in facts.items()), sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    prepare.run({"score": score, "judge": judge}[sys.argv[1]])
