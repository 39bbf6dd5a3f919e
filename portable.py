"""A model as a list of plain tensor operations, free of the code that made it: how to write it, and to run it again.

prepare.py hands every evaluated model in by this, and scoring.py runs what was handed in. Agents never edit this file.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import operator
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PROGRAM, WEIGHTS, PICKLE = "program.json", "program.bin", "model.pickle"
ALIGNMENT = 64  # bytes: every tensor of the program begins at a multiple


class PortableError(ValueError):
    """A model cannot be written as such a list, or what was handed in is no such list."""


# ---- Writing ---------------------------------------------------------------------------------------------------------


def hand_in(model: nn.Module, shape: tuple[int, int], device: str, folder: Path | None) -> float:
    """Leaves a model in evaluation mode in the folder, where there is one; it is made for token ids of this shape.

    Returns the CPU seconds that this took.
    """
    if folder is None:
        return 0.0
    begin = time.process_time()
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    inner: nn.Module = getattr(model, "_orig_mod", model)  # of torch.compile
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch.export's own insides
            exported = torch.export.export(inner, (tokens,), strict=False).run_decompositions({})
        write_program(exported, folder)
    except Exception as error:  # of whatever kind: it is the model's code that ran
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"note: the model is handed in as a pickle, since it cannot be exported: {reason[:200]}", flush=True)
        (folder / PROGRAM).unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # then there is nothing to score
            torch.save(inner, folder / PICKLE)
    return time.process_time() - begin


def write_program(exported: torch.export.ExportedProgram, folder: Path) -> None:
    """Writes the operations as JSON and the tensors behind each other; PortableError where it is no such list."""
    signature = exported.graph_signature
    if [spec.kind.name for spec in signature.output_specs] != ["USER_OUTPUT"]:
        raise PortableError("the model changes its own tensors when it is called, or returns more than logits")
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
    (output,) = next(iter(exported.graph.output_node().args))
    calls = list(calls_of(exported.graph, plain(output)))[::-1]
    for call in calls:
        operation(call)  # what the scorer would refuse is handed in otherwise
    program = {"inputs": inputs, "calls": calls, "output": plain(output)}
    (folder / PROGRAM).write_text(json.dumps(program))


def calls_of(graph: torch.fx.Graph, output: Any) -> Iterator[dict[str, Any]]:
    """The operations that the output rests on, the last first; all but checks, that is, on which nothing rests."""
    wanted = set(nodes_in(output))
    for node in reversed(graph.nodes):
        if node.op == "call_function" and node.name in wanted:
            yield (call := call_of(node))
            wanted |= set(nodes_in([call["args"], call["kwargs"]]))


def call_of(node: torch.fx.Node) -> dict[str, Any]:
    """One operation as JSON."""
    op = "getitem" if node.target is operator.getitem else str(node.target)
    arguments = {name: plain(value) for name, value in node.kwargs.items()}
    return {"name": node.name, "op": op, "args": plain(node.args), "kwargs": arguments}


KINDS = (torch.dtype, torch.layout, torch.memory_format)


def plain(value: Any) -> Any:
    """An argument of an operation as JSON. Raises PortableError for one that is not fixed."""
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
    raise PortableError(f"an operation takes {value!r}, which is not fixed when the model is exported")


# ---- Reading ---------------------------------------------------------------------------------------------------------

OPERATION = re.compile(r"aten\.([a-z_0-9]+)\.([A-Za-z_0-9]+)")
OPERATIONS = {
    "made of nothing": (
        "arange eye full full_like linspace logspace new_full new_ones new_zeros ones ones_like scalar_tensor zeros "
        "zeros_like"
    ),
    "number by number": (
        "__and__ __lshift__ __or__ __rshift__ __xor__ _to_copy abs acos acosh add addcdiv addcmul alias angle arctan "
        "arctan2 asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or "
        "bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clone complex conj copy copysign cos cosh "
        "deg2rad detach digamma div eq erf erfc erfinv exp exp2 expm1 fill float_power floor floor_divide fmax fmin "
        "fmod frac ge gt heaviside hypot imag isfinite isinf isnan ldexp le lerp lgamma log log10 log1p log2 "
        "logaddexp logaddexp2 logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mul "
        "nan_to_num ne neg polar positive pow real reciprocal remainder round rsqrt rsub sgn sigmoid sign signbit sin "
        "sinc sinh special_erf special_expit special_i0 special_xlog1py sqrt square sub tan tanh to trunc type_as "
        "view_as_complex view_as_real where xlogy"
    ),
    "activations": (
        "celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish prelu relu relu6 "
        "selu silu softplus softshrink threshold"
    ),
    "over an axis": (
        "_log_softmax _softmax all amax amin aminmax any argmax argmin argsort bincount count_nonzero cummax cummin "
        "cumprod cumsum diff histc kthvalue log_softmax logcumsumexp logsumexp max mean median min mode nanmean "
        "nansum norm prod softmax sort std std_mean sum topk trapezoid var var_mean"
    ),
    "shapes": (
        "alias_copy broadcast_to cat chunk column_stack concat constant_pad_nd diag diag_embed diagonal dstack expand "
        "expand_as flatten flip fliplr flipud hsplit hstack meshgrid movedim narrow pad permute pixel_shuffle "
        "pixel_unshuffle reflection_pad1d repeat repeat_interleave replication_pad1d replication_pad2d reshape "
        "reshape_as roll rot90 select slice split split_with_sizes squeeze stack swapaxes t take_along_dim tile "
        "transpose tril tril_indices triu triu_indices unbind unflatten unfold unsqueeze view view_as vsplit vstack "
        "_unsafe_view"
    ),
    "by index": (
        "bucketize diagonal_scatter embedding gather index index_add index_copy index_fill index_put "
        "index_reduce index_select isin masked_scatter one_hot scatter scatter_add scatter_reduce searchsorted "
        "select_scatter slice_scatter take"
    ),
    "products": (
        "addbmm addmm addmv addr baddbmm bilinear bmm chain_matmul cross dot einsum inner kron linear matmul mm mv "
        "outer tensordot vdot"
    ),
    "layers": (
        "_native_batch_norm_legit_no_training _weight_norm adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d "
        "avg_pool2d cdist conv1d conv2d conv3d conv_tbc conv_transpose1d convolution cosine_similarity group_norm gru "
        "layer_norm lstm max_pool1d max_pool2d native_group_norm native_layer_norm pairwise_distance rms_norm "
        "rnn_relu rnn_tanh scaled_dot_product_attention upsample_bilinear2d upsample_linear1d upsample_nearest1d "
        "upsample_nearest2d"
    ),
    "Fourier transforms and matrices": (
        "fft_fft fft_fft2 fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftshift fft_ihfft fft_irfft fft_rfft "
        "linalg_cholesky linalg_det linalg_eigh linalg_inv linalg_lstsq linalg_matrix_exp linalg_matrix_norm "
        "linalg_matrix_power linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_triangular "
        "linalg_svd linalg_vector_norm matrix_exp"
    ),
}
ACCEPTED = frozenset(name for names in OPERATIONS.values() for name in names.split())
"""The operations of a program: each makes numbers from numbers, and leaves what it is given as it is.

Not among them is what writes to its arguments whatever its schema says (batch norms in training), reads memory that
nothing was written to (empty), or beyond its arguments (as_strided, _reshape_alias), draws random numbers, or reads
files. Two read beyond an argument that is too short, and are given a length that fits, see `fits`.
"""


class Program(nn.Module):
    """A list of operations that was handed in. Nothing of it is code: each is one of torch's own, and keeps nothing."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises PortableError where an operation is not known, keeps something, or draws random numbers."""
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
            arguments = self.value(call["args"], values)
            if not fits(call["op"], function, arguments, keywords):
                raise PortableError(f"{call['op']} would read beyond its arguments")
            values[call["name"]] = function(*arguments, **keywords)
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
    """A dtype, layout or memory format by its name; PortableError for anything else."""
    kind = getattr(torch, str(name), None)
    if not isinstance(kind, KINDS):
        raise PortableError(f"the program handed in names {name!r}, which is no type of numbers")
    return kind


def tensor_of(content: mmap.mmap, about: dict[str, Any]) -> Tensor:
    """A tensor of the program, by its place in the file; torch refuses one that reaches beyond."""
    dtype, shape = kind_of(str(about["dtype"]).removeprefix("torch.")), [int(size) for size in about["shape"]]
    if 0 in shape:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=int(about["offset"])).view(shape)


def operation(call: dict[str, Any]) -> Callable[..., Any]:
    """The function of one call; PortableError unless it is one of torch's that only makes numbers from numbers."""
    if call["op"] == "getitem":
        return operator.getitem
    found = OPERATION.fullmatch(str(call["op"]))
    packet = getattr(torch.ops.aten, found[1], None) if found and found[1] in ACCEPTED else None
    overload = getattr(packet, found[2], None) if found and packet is not None else None
    if overload is None:
        raise PortableError(f"the program has the operation {call['op']!r}, which is not accepted")
    if overload._schema.is_mutable:
        raise PortableError(f"the program changes its own tensors: {call['op']}")
    if torch.Tag.nondeterministic_seeded in overload.tags and not without_chance(overload, call):
        raise PortableError(f"the program draws random numbers: {call['op']}")
    return overload  # type: ignore[no-any-return]


def fits(op: str, function: Any, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the arguments are as long as an operation takes for granted that they are.

    PyTorch checks most of them itself, but not the statistics of a batch norm, one number for each channel, nor the
    lengths of normalised weights, one for each of them.
    """
    if not op.startswith(("aten._native_batch_norm", "aten._weight_norm")):
        return True
    given = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | kwargs
    if "weight_norm" in op:
        weights, along = given["v"], int(given.get("dim", 0))
        return bool(given["g"].numel() == (1 if along == -1 else weights.shape[along]))
    names = ("weight", "bias", "running_mean", "running_var")
    channels = given["input"].shape[1]
    return all(given[name] is None or given[name].numel() == channels for name in names)


def without_chance(overload: Any, call: dict[str, Any]) -> bool:
    """Whether an operation that may drop numbers at random is told to drop none, or that it is not in training."""
    names = [argument.name for argument in overload._schema.arguments]
    given = dict(zip(names, call["args"], strict=False)) | call["kwargs"]
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0) == 0.0)
    return "train" in names and given.get("train") is False
