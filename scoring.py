"""The other fixed half: scoring a model anew, out of reach of the code that trained it. Agents never edit this file.

    python scoring.py score     holds the model: reads tokens on stdin, answers with logits on stdout
    python scoring.py judge     holds the targets: asks on stdout, reads answers on stdin, prints the score on stderr

The two are run by the server, each other's output their input, from the code that the run began with. After evaluating,
prepare.py hands the model in: as a list of plain tensor operations (program.json, program.bin), made by torch.export
and free of the agent's Python; where that cannot be done, as a pickle (model.pickle), loaded only behind walls.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import math
import mmap
import operator
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

import prepare  # first: torch reads the environment that it sets

# isort: split
import torch
from torch import Tensor, nn

PROGRAM, WEIGHTS, PICKLE = "program.json", "program.bin", "model.pickle"
ALIGNMENT = 64  # bytes: every tensor of the program begins at a multiple


# ---- Handing in: a model as a list of operations ---------------------------------------------------------------------


def hand_in(model: nn.Module, data: prepare.Data, runtime: prepare.Runtime) -> None:
    """Leaves the evaluated model in AUTORESEARCH_OUT, in evaluation mode, if there is such a folder."""
    if runtime.out is None:
        return
    inner: nn.Module = getattr(model, "_orig_mod", model)  # of torch.compile
    runtime.out.mkdir(parents=True, exist_ok=True)
    tokens = torch.zeros(prepare.eval_rows(data, runtime), data.seq_len, dtype=torch.long, device=runtime.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch.export's own insides
            exported = torch.export.export(inner, (tokens,), strict=False).run_decompositions({})
        write_program(exported, runtime.out)
    except Exception as error:  # of whatever kind: it is the model's code that ran
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"note: the model is handed in as a pickle, since it cannot be exported: {reason[:200]}", flush=True)
        (runtime.out / PROGRAM).unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # then there is nothing to score
            torch.save(inner, runtime.out / PICKLE)


def write_program(exported: torch.export.ExportedProgram, folder: Path) -> None:
    """Writes the operations as JSON and the tensors behind each other. Raises HarnessError where it is no such list."""
    signature = exported.graph_signature
    if [spec.kind.name for spec in signature.output_specs] != ["USER_OUTPUT"]:
        raise prepare.HarnessError("the model changes its own tensors when it is called, or returns more than logits")
    tensors = {**exported.state_dict, **exported.constants}
    inputs: dict[str, Any] = {}
    with (folder / WEIGHTS).open("wb") as file:
        for spec in signature.input_specs:
            inputs[str(spec.arg.name)] = None
            if spec.kind.name != "USER_INPUT":
                tensor = tensors[str(spec.target)].detach().cpu().contiguous()
                file.write(bytes(-file.tell() % ALIGNMENT))
                about = {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "offset": file.tell()}
                inputs[str(spec.arg.name)] = about
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        file.write(bytes(ALIGNMENT))  # no file of no bytes, which cannot be mapped
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    calls = [call_of(node) for node in nodes if not getattr(node.target, "__name__", "").startswith("_assert")]
    (output,) = next(iter(exported.graph.output_node().args))
    program = {"inputs": inputs, "calls": calls, "output": plain(output)}
    (folder / PROGRAM).write_text(json.dumps(program))


def call_of(node: torch.fx.Node) -> dict[str, Any]:
    """One operation as JSON."""
    op = "getitem" if node.target is operator.getitem else str(node.target)
    arguments = {name: plain(value) for name, value in node.kwargs.items()}
    return {"name": node.name, "op": op, "args": plain(node.args), "kwargs": arguments}


KINDS = (torch.dtype, torch.layout, torch.memory_format)


def plain(value: Any) -> Any:
    """An argument of an operation as JSON. Raises HarnessError for one that is not fixed."""
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.device):
        return {"device": "the scorer's own"}
    if isinstance(value, KINDS):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise prepare.HarnessError(f"an operation takes {value!r}, which is not fixed when the model is exported")


# ---- The scorer: from tokens to logits -------------------------------------------------------------------------------

OPERATION = re.compile(r"aten\.([a-z_0-9]+)\.([A-Za-z_0-9]+)")
REFUSED = re.compile(r"from_file|empty|resize|^set_|record_stream|print|rrelu|_linalg_check")
"""Operations that read files, or memory that nothing was written to."""


class Program(nn.Module):
    """A list of operations that was handed in. Nothing of it is code: each is one of torch's own, and keeps nothing."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises HarnessError where an operation is not known, keeps something, or draws random numbers."""
        super().__init__()
        described = json.loads((folder / PROGRAM).read_text())
        self.device, self.output = device, str(described["output"]["node"])
        self.calls = [(call, operation(call)) for call in described["calls"]]
        self.fixed: dict[str, Tensor] = {}
        with (folder / WEIGHTS).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        for name, about in described["inputs"].items():
            if about is None:
                self.input = str(name)
            else:
                self.fixed[name] = tensor_of(content, about).to(device)
        self.last: dict[str, int] = {}  # the last call that uses a value
        for number, (call, _) in enumerate(self.calls):
            self.last |= dict.fromkeys(nodes_in([call["args"], call["kwargs"]]), number)

    def forward(self, tokens: Tensor) -> Tensor:
        values: dict[str, Any] = {**self.fixed, self.input: tokens}
        for number, (call, function) in enumerate(self.calls):
            keywords = {name: self.value(item, values) for name, item in call["kwargs"].items()}
            values[call["name"]] = function(*self.value(call["args"], values), **keywords)
            for name in nodes_in([call["args"], call["kwargs"]]):
                if self.last[name] == number and name != self.output:
                    values.pop(name, None)
        logits: Tensor = values[self.output]
        return logits

    def value(self, item: Any, values: dict[str, Any]) -> Any:
        """What a JSON argument stands for."""
        if isinstance(item, list):
            return [self.value(each, values) for each in item]
        if not isinstance(item, dict):
            return item
        if "node" in item:
            return values[item["node"]]
        return self.device if "device" in item else kind_of(item["torch"])


def nodes_in(item: Any) -> Iterator[str]:
    """The names of the values that arguments mention."""
    if isinstance(item, dict) and "node" in item:
        yield item["node"]
    elif isinstance(item, dict | list):
        for each in item.values() if isinstance(item, dict) else item:
            yield from nodes_in(each)


def kind_of(name: str) -> Any:
    """A dtype, layout or memory format by its name; HarnessError for anything else."""
    kind = getattr(torch, str(name), None)
    if not isinstance(kind, KINDS):
        raise prepare.HarnessError(f"the program handed in names {name!r}, which is no type of numbers")
    return kind


def tensor_of(content: mmap.mmap, about: dict[str, Any]) -> Tensor:
    """A tensor of the program, by its place in the file; torch refuses one that reaches beyond."""
    dtype, shape = kind_of(str(about["dtype"]).removeprefix("torch.")), [int(size) for size in about["shape"]]
    if 0 in shape:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=int(about["offset"])).view(shape)


def operation(call: dict[str, Any]) -> Callable[..., Any]:
    """The function of one call; HarnessError unless it is one of torch's that only makes numbers from numbers."""
    if call["op"] == "getitem":
        return operator.getitem
    found = OPERATION.fullmatch(str(call["op"]))
    packet = getattr(torch.ops.aten, found[1], None) if found and not REFUSED.search(found[1]) else None
    overload = getattr(packet, found[2], None) if found and packet is not None else None
    if overload is None:
        raise prepare.HarnessError(f"the program handed in has the operation {call['op']!r}, which is not accepted")
    if overload._schema.is_mutable:
        raise prepare.HarnessError(f"the program handed in changes its own tensors: {call['op']}")
    if torch.Tag.nondeterministic_seeded in overload.tags and not without_dropout(overload, call):
        raise prepare.HarnessError(f"the program handed in draws random numbers: {call['op']}")
    return overload  # type: ignore[no-any-return]


def without_dropout(overload: Any, call: dict[str, Any]) -> bool:
    """Whether an attention kernel, which may drop weights at random, is told to drop none."""
    names = [argument.name for argument in overload._schema.arguments]
    if "dropout_p" not in names:
        return False
    place = names.index("dropout_p")
    given = call["args"][place] if place < len(call["args"]) else call["kwargs"].get("dropout_p", 0.0)
    return bool(given == 0.0)


def load_model(folder: Path, device: str) -> tuple[str, nn.Module]:
    """What was handed in, and how it was loaded: `exported` or `imported`. Raises HarnessError where that cannot be."""
    if (folder / PROGRAM).exists():
        try:
            return "exported", Program(folder, device)
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
