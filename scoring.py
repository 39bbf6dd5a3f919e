"""The other fixed half: scoring a model anew, out of reach of the code that trained it. Agents never edit this file.

    python scoring.py score     holds the model: reads tokens on stdin, answers with logits on stdout
    python scoring.py judge     holds the targets: asks on stdout, reads answers on stdin, prints the score on stderr

The two are run by the server, each other's output their input, from the code that the run began with. After evaluating,
prepare.py hands the model in: as a list of plain tensor operations (see portable.py), free of the agent's Python; where
that cannot be done, as a pickle, loaded only behind walls.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import IO

import numpy as np

import prepare  # first: torch reads the environment that it sets

# isort: split
import torch
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

MOST_LOGITS = 2**35  # bytes that go from process to process in a pass; of more rows, evenly chosen ones are scored
PROBES = 6  # batches of a pass that are asked for twice


class Remote(nn.Module):
    """The model in the scorer's process."""

    def __init__(self, data: prepare.Data, runtime: prepare.Runtime) -> None:
        super().__init__()
        self.answers, self.requests = streams()
        rows = prepare.eval_rows(data, runtime)
        about = {"rows": rows, "seq_len": data.seq_len, "vocab_size": data.vocab_size}
        send(self.requests, memoryview(f"{json.dumps(about)}\n".encode()))
        self.loader = self.answers.readline(100).decode(errors="replace").strip()
        self.logits = np.empty((rows, data.seq_len, data.vocab_size), dtype=np.float32)
        if self.loader not in ("exported", "imported"):
            raise prepare.HarnessError("the scorer ended before its first answer")

    def forward(self, tokens: Tensor) -> Tensor:
        """(rows, tokens) ids to (rows, tokens, vocabulary) logits. Raises HarnessError where the scorer ended."""
        with contextlib.suppress(BrokenPipeError):
            send(self.requests, tokens.cpu().contiguous().numpy().data.cast("B"))
        if not receive(self.answers, self.logits.data.cast("B")):
            raise prepare.HarnessError("the scorer ended before its last answer")
        return torch.from_numpy(self.logits).to(tokens.device, copy=True)


class Probed(nn.Module):
    """A model that is also asked, at secret times, for rows whose later tokens are those of other rows.

    What it says of the earlier tokens must not depend on that, nor on the other rows of the batch. Which of the two
    is asked for first is secret too, so that neither can be answered from memory.
    """

    def __init__(self, model: nn.Module, rows: Tensor, calls: int) -> None:
        super().__init__()
        self.model, self.rows, self.call = model, rows, 0
        self.secret = np.random.default_rng(int.from_bytes(os.urandom(16)))
        self.probed = set(self.secret.permutation(calls)[:PROBES].tolist())

    def forward(self, tokens: Tensor) -> Tensor:
        self.call += 1
        if self.call - 1 not in self.probed:
            return self.model(tokens)  # type: ignore[no-any-return]
        rows, length = tokens.shape
        cuts = self.secret.integers(1, length, size=rows)
        cuts[self.secret.permutation(rows)[: rows // 3]] = length
        cuts[self.secret.permutation(rows)[: rows // 6]] = 0
        kept = (torch.arange(length) < torch.from_numpy(cuts)[:, None]).to(tokens.device)
        others = self.rows[self.secret.integers(len(self.rows), size=rows)].to(tokens.device)
        changed = torch.where(kept, tokens, others)
        after = self.model(changed) if (first := self.secret.random() < 0.5) else None
        before: Tensor = self.model(tokens)
        after = after if first else self.model(changed)
        assert after is not None
        moved = (after - before).abs() > prepare.CAUSAL_TOLERANCE * (1 + before.abs())
        if (moved.any(-1) & kept).any():
            raise prepare.HarnessError("the model looks ahead: its logits change when later tokens do")
        return before


def judge() -> None:
    """Scores the split that AUTORESEARCH_SPLIT names, and prints `key: value` lines on stderr."""
    split = os.environ.get("AUTORESEARCH_SPLIT", "val")
    runtime, data = prepare.start(), prepare.open_data()
    tokens = data.held_out(split)
    rows = tokens[:-1].view(-1, data.seq_len)
    every = math.ceil(rows.numel() * data.vocab_size * 4 / MOST_LOGITS)
    rows = rows[::every]
    remote = Remote(data, runtime)
    probed = Probed(remote, rows, math.ceil(len(rows) / prepare.eval_rows(data, runtime)))
    with torch.no_grad():
        value = prepare.bits_per_byte(probed, data, runtime, split, every)
    facts = {"score": value, "fingerprint": data.fingerprint, "loader": remote.loader, "partial": int(every > 1)}
    print("---", *(f"{name}: {fact}" for name, fact in facts.items()), sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    prepare.run({"score": score, "judge": judge}[sys.argv[1]])
