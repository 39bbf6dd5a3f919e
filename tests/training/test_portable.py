"""Models as lists of plain operations: what honest ones need is accepted, and nothing that keeps or reads anything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import portable

VOCABULARY, LENGTH, WIDTH = 64, 32, 16
Mix = Callable[[Tensor, Tensor], Tensor]
"""(rows, tokens, channels) of the embedded tokens, and (rows, tokens) ids, to what is added to them."""


class Model(nn.Module):
    """Embeds, mixes, and bets."""

    def __init__(self, mix: Mix | nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.mix = mix

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.mix(x, ids))  # type: ignore[no-any-return]


class On(nn.Module):
    """A layer on the channels of each token, or on the tokens of each channel."""

    def __init__(self, layer: nn.Module, over_time: bool = False, pad: int = 0) -> None:
        super().__init__()
        self.layer, self.over_time, self.pad = layer, over_time, pad

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        found = self.layer(functional.pad(x.mT, (self.pad, 0))).mT if self.over_time else self.layer(x)
        return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]


def causal(tokens: int) -> Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


def fused_attention(x: Tensor, ids: Tensor) -> Tensor:
    heads = x.view(*x.shape[:2], 4, -1).transpose(1, 2)
    few = heads[:, :2]
    out = functional.scaled_dot_product_attention(heads, few, few, is_causal=True, enable_gqa=True, scale=0.1)
    return out.transpose(1, 2).reshape(x.shape)


def masked_attention(x: Tensor, ids: Tensor) -> Tensor:
    scores = torch.einsum("btd,bsd->bts", x, x).masked_fill(~causal(x.size(1)), -torch.inf)
    return torch.einsum("bts,bsd->btd", scores.softmax(-1), x)


def copied(x: Tensor, ids: Tensor) -> Tensor:
    same = (ids[:, :, None] == ids[:, None]) & causal(ids.size(1)).tril(-1)
    return same.float() @ x / (1 + same.sum(-1, keepdim=True))


def experts(x: Tensor, ids: Tensor) -> Tensor:
    flat, weights = x.reshape(-1, WIDTH), torch.linspace(-1, 1, 4 * WIDTH * WIDTH).view(4, WIDTH, WIDTH)
    chosen = flat[:, :4].topk(2, -1).indices[:, 0]
    order = chosen.argsort()
    out = torch.bmm(flat[order].unsqueeze(1), weights[chosen[order]]).squeeze(1)
    return torch.zeros_like(flat).index_add(0, order, out).view_as(x)


def running(x: Tensor, ids: Tensor) -> Tensor:
    mean = x.cumsum(1) / torch.arange(1, x.size(1) + 1)[:, None]
    return mean + x.cummax(1).values + torch.logcumsumexp(x, 1)


def recurrence(x: Tensor, ids: Tensor) -> Tensor:
    state, out = torch.zeros_like(x[:, 0]), []
    for step in x.unbind(1):
        state = 0.9 * state + 0.1 * step
        out.append(state)
    return torch.stack(out, 1)


def linear_attention(x: Tensor, ids: Tensor) -> Tensor:
    chunks = x.view(x.size(0), -1, 8, WIDTH)
    states = functional.pad(torch.cumsum(chunks.mT @ chunks, 1), (0, 0, 0, 0, 1, 0))[:, :-1]
    return (torch.tril(chunks @ chunks.mT) @ chunks + chunks @ states).reshape(x.shape)


def long_convolution(x: Tensor, ids: Tensor) -> Tensor:
    kernel = torch.fft.rfft(torch.linspace(1, 0, x.size(1))[:, None].expand(-1, WIDTH), n=2 * x.size(1), dim=0)
    found: Tensor = torch.fft.irfft(torch.fft.rfft(x, n=2 * x.size(1), dim=1) * kernel, n=2 * x.size(1), dim=1)
    return found[:, : x.size(1)]


def counts(x: Tensor, ids: Tensor) -> Tensor:
    seen = torch.zeros(*ids.shape, VOCABULARY).scatter(-1, ids[..., None], 1.0)
    seen = seen.scatter_add(-1, (ids[..., None] + 1) % VOCABULARY, torch.ones(*ids.shape, 1)).cumsum(1)
    found: Tensor = seen / seen.norm(dim=-1, keepdim=True)
    return found[..., :WIDTH]


def in_place(x: Tensor, ids: Tensor) -> Tensor:
    mine = x.clone()
    mine[:, 0] = 0
    mine[:, 1:, :4].mul_(2).add_(1)
    mine[ids > 3] = 0
    return mine.masked_fill_(mine < 0, 0)


def rotated(x: Tensor, ids: Tensor) -> Tensor:
    turns = torch.polar(
        torch.ones(LENGTH, WIDTH // 2), torch.outer(torch.arange(LENGTH), torch.arange(WIDTH // 2)).float()
    )
    return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) * turns).flatten(-2)


def mixed_precision(x: Tensor, ids: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return functional.dropout(x @ x.new_ones(WIDTH, WIDTH), 0.5, training=False).float()


def shifted(x: Tensor, ids: Tensor) -> Tensor:
    before = torch.roll(x, 1, 1) * (torch.arange(x.size(1)) > 0)[:, None]
    return torch.cat((before, x), -1).chunk(2, -1)[0] * torch.sigmoid(x) + functional.glu(torch.cat((x, before), -1))


MODELS: dict[str, Mix | nn.Module] = {
    **{
        mix.__name__: mix
        for mix in (
            *(fused_attention, masked_attention, copied, experts, running, recurrence, linear_attention),
            *(long_convolution, counts, in_place, rotated, mixed_precision, shifted),
        )
    },
    "convolution": On(nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH), over_time=True, pad=3),
    "layer norm": On(nn.LayerNorm(WIDTH)),
    "root mean square": On(nn.RMSNorm(WIDTH)),
    "group norm": On(nn.GroupNorm(2, WIDTH), over_time=True),
    "batch norm": On(nn.BatchNorm1d(WIDTH), over_time=True),
    "weight norm": On(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))),
    "gated recurrence": On(nn.GRU(WIDTH, WIDTH, batch_first=True)),
    "long short-term memory": On(nn.LSTM(WIDTH, WIDTH, batch_first=True)),
    "dropout": On(nn.Sequential(nn.Dropout(0.5), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Mish(), nn.ELU())),
}


@pytest.mark.parametrize("mix", MODELS.values(), ids=MODELS)
def test_what_honest_models_do_is_written_and_run_the_same(
    tmp_path: Path, mix: Mix | nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model(mix).eval()
    ids = torch.randint(VOCABULARY, (4, LENGTH))
    with torch.no_grad():
        portable.hand_in(model, (4, LENGTH), "cpu", tmp_path)
        assert (tmp_path / portable.PROGRAM).exists(), capsys.readouterr().out
        program = portable.Program(tmp_path, "cpu")
        before = {name: tensor.clone() for name, tensor in program.fixed.items()}
        first, second = program(ids), program(ids)
    torch.testing.assert_close(first, model(ids), equal_nan=True)
    assert torch.equal(first, second)
    assert all(torch.equal(program.fixed[name], tensor) for name, tensor in before.items())


def written(folder: Path, op: str, place: int = -1) -> None:
    """A program that was handed in, with one operation replaced by another."""
    portable.hand_in(Model(lambda x, ids: x).eval(), (4, LENGTH), "cpu", folder)
    program = json.loads((folder / portable.PROGRAM).read_text())
    program["calls"][place]["op"] = op
    (folder / portable.PROGRAM).write_text(json.dumps(program))


@pytest.mark.parametrize(
    "op",
    [
        # these write to their arguments, though their schema says that they do not
        *("aten.native_batch_norm.default", "aten.batch_norm.default", "aten.cudnn_batch_norm.default"),
        *("aten._batch_norm_impl_index.default", "aten.instance_norm.default", "aten.miopen_batch_norm.default"),
        "aten._native_batch_norm_legit_functional.default",
        # memory that nothing was written to, or that of others
        *("aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default", "aten.as_strided.default"),
        *("aten.empty_strided.default", "aten.resize.default", "aten.set.source_Tensor", "aten._reshape_alias.default"),
        # files, chance, words, code
        *("aten.from_file.default", "aten.rand.default", "aten.bernoulli.default", "aten.randperm.default"),
        *("aten._print.default", "aten.item.default", "aten._local_scalar_dense.default", "os.system", "prims.rng.x"),
        *("aten.no_such_thing.default", "higher_order.cond.default", "getattr", "aten.add.no_such_overload"),
    ],
)
def test_what_is_not_on_the_list_is_refused(tmp_path: Path, op: str) -> None:
    written(tmp_path, op)
    with pytest.raises(portable.PortableError, match="is not accepted"):
        portable.Program(tmp_path, "cpu")


OUTSIDE = {
    "mean of a batch norm": ("_native_batch_norm_legit_no_training.default", [8, None, None, 1, 8, 0.1, 1e-5]),
    "variance of a batch norm": ("_native_batch_norm_legit_no_training.default", [8, None, None, 8, 1, 0.1, 1e-5]),
    "weight of a batch norm": ("_native_batch_norm_legit_no_training.default", [8, 1, None, 8, 8, 0.1, 1e-5]),
    "bias of a batch norm": ("_native_batch_norm_legit_no_training.default", [8, 8, 1, 8, 8, 0.1, 1e-5]),
    "lengths of weights": ("_weight_norm.default", [8, 1, 0]),
    "lengths of weights in all": ("_weight_norm.default", [8, 0, -1]),
}
"""An operation of the list with arguments, of which an int in place of a tensor is how many numbers it is given; the
first is of (8, 8) numbers."""


@pytest.mark.parametrize(("op", "given"), OUTSIDE.values(), ids=OUTSIDE)
def test_nothing_is_read_beyond_an_argument(tmp_path: Path, op: str, given: list[object]) -> None:
    """What lies there may be what the model was asked before."""
    function = portable.operation({"op": f"aten.{op}", "args": [], "kwargs": {}})
    norm = "batch" in op
    counts = given[:5] if norm else given[:2]
    tensors = [torch.ones(8, 8), *(None if count is None else torch.ones(int(str(count))) for count in counts[1:])]
    args = [*tensors, *given[len(tensors) :]]
    assert not portable.fits(f"aten.{op}", function, args, {})
    enough = [None if each is None else torch.ones(8 if norm or args[2] == 0 else 1) for each in tensors[1:]]
    assert portable.fits(f"aten.{op}", function, [tensors[0], *enough, *args[len(tensors) :]], {})


def test_a_program_that_reads_beyond_its_arguments_is_not_run(tmp_path: Path) -> None:
    portable.hand_in(Model(On(nn.BatchNorm1d(WIDTH), over_time=True)).eval(), (4, LENGTH), "cpu", tmp_path)
    program = json.loads((tmp_path / portable.PROGRAM).read_text())
    for name, about in program["inputs"].items():
        if "running_mean" in name:
            about["shape"] = [1]
    (tmp_path / portable.PROGRAM).write_text(json.dumps(program))
    with pytest.raises(portable.PortableError, match="would read beyond its arguments"):
        portable.Program(tmp_path, "cpu")(torch.zeros(4, LENGTH, dtype=torch.long))


def test_what_is_on_the_list_has_no_form_that_writes_or_draws(tmp_path: Path) -> None:
    refused = 0
    for name in portable.ACCEPTED:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            schema = getattr(packet, overload)._schema
            if schema.is_mutable:
                refused += 1
                with pytest.raises(portable.PortableError, match="changes its own tensors"):
                    portable.operation({"op": f"aten.{name}.{overload}", "args": [], "kwargs": {}})
    assert refused > 100


def test_recurrence_and_attention_in_training_draw_random_numbers(tmp_path: Path) -> None:
    state = {"op": "aten.gru.input", "kwargs": {}}
    portable.operation(state | {"args": ["x", "h", "w", True, 1, 0.5, False, False, True]})
    with pytest.raises(portable.PortableError, match="draws random numbers"):
        portable.operation(state | {"args": ["x", "h", "w", True, 1, 0.5, True, False, True]})
    attention = {"op": "aten.scaled_dot_product_attention.default", "args": ["q", "k", "v"]}
    portable.operation(attention | {"kwargs": {}})
    with pytest.raises(portable.PortableError, match="draws random numbers"):
        portable.operation(attention | {"kwargs": {"dropout_p": 0.1}})


def test_a_batch_norm_in_training_is_a_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its running mean is a tensor of the model: what it was shown would be there in the next call."""

    class Remembers(nn.Module):
        mean: Tensor
        variance: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(WIDTH))
            self.register_buffer("variance", torch.ones(WIDTH))

        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            return torch.native_batch_norm(x.mT, None, None, self.mean, self.variance, True, 0.1, 1e-5)[0].mT

    portable.hand_in(Model(Remembers()).eval(), (4, LENGTH), "cpu", tmp_path)
    assert "cannot be exported" in capsys.readouterr().out
    assert not (tmp_path / portable.PROGRAM).exists()
