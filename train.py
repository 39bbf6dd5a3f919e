"""Train a small GPT for a fixed time budget, then score it. This is the file to edit: everything here is fair game.

    python prepare.py      once, for the data
    python train.py        train for AUTORESEARCH_TIME_BUDGET seconds (default 300), then print the score

What stays fixed is prepare.py: the data, the clock that measures the budget, and the judge. The judge calls
`model(x) -> logits` on unseen text and reports the bits it needs for a byte: val_bpb, lower is better.
"""

import prepare  # first: torch reads the environment that it sets

# isort: split
import itertools
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ----------------------------------------------------------------------------------------------------------------------
# Knobs. Each stands on one line, is a plain value and takes effect as it is on a CPU; a GPU multiplies the recipe.
# ----------------------------------------------------------------------------------------------------------------------

# Model
DEPTH = 2  # blocks
WIDTH = 96  # channels of the residual stream
HEAD_DIM = 128  # channels of one attention head, as near as WIDTH allows
MLP_RATIO = 2  # hidden channels of the MLP for each channel of the stream
VALUE_EMBED_EVERY = 1  # blocks from one with value embeddings to the next, counted from the last; 0 for none
VALUE_GATE_CHANNELS = 32  # channels of the stream that the gate on the value embeddings sees
WINDOW_PATTERN = "SSSL"  # attention span of the blocks in turn: S half the context, L all of it (CUDA only; else L)
ROPE_BASE = 10_000.0  # longest wavelength of the rotary embeddings, in tokens / 2 pi
SOFTCAP = 15.0  # bound on the logits, approached smoothly; 0 for none (CUDA only; else 0)

# Batch
TOTAL_BATCH_SIZE = 2048  # tokens in one optimizer step
DEVICE_BATCH_SIZE = 8  # rows at most in one forward pass; gradients add up to TOTAL_BATCH_SIZE

# Learning rates, at the peak
MATRIX_LR = 0.04  # Muon: the matrices of the blocks
EMBEDDING_LR = 0.6  # AdamW: token and value embeddings, at a width of 768
HEAD_LR = 0.008  # AdamW: the output matrix, at a width of 768
SCALAR_LR = 0.5  # AdamW: the weights of x0 in each block; those of the residual learn at a hundredth

# Optimizer
WEIGHT_DECAY = 0.2  # pull of the matrices to 0, only where the update agrees; falls to 0 over the budget
ADAM_BETA1 = 0.65  # decay of AdamW's mean of gradients
ADAM_BETA2 = 0.95  # decay of AdamW's mean of squared gradients
MUON_BETA2 = 0.95  # decay of Muon's variance of each neuron
MUON_ITERATIONS = 5  # steps of Polar Express, at most 5
MOMENTUM_START = 0.85  # Muon's momentum at the first step
MOMENTUM_END = 0.95  # Muon's momentum from MOMENTUM_STEPS on
MOMENTUM_STEPS = 300  # steps

# Schedule
WARMUP = 0.0  # share of the budget in which the learning rates rise from 0
WARMDOWN = 0.7  # share of the budget in which they fall
FINAL_LR = 0.0  # learning rates at the end, as a share of the peak

# Device
COMPILE = "cuda"  # device on which torch.compile is used: cuda, cpu, mps or none
BIG_GPU_GIB = 40  # GiB of memory from which a CUDA GPU counts as big
LEAN_GPU_GIB = 8  # GiB of memory up to which Muon keeps its mean in bfloat16 (CUDA only)

# Factors on the knobs above, for a CUDA GPU. CPU and MPS take the knobs as they are.
BIG_GPU = {
    "DEPTH": 4,
    "WIDTH": 5.3333,  # 512 channels
    "MLP_RATIO": 2,
    "VALUE_EMBED_EVERY": 2,
    "TOTAL_BATCH_SIZE": 256,
    "DEVICE_BATCH_SIZE": 16,
    "HEAD_LR": 0.5,
}
SMALL_GPU = {
    "DEPTH": 3,
    "WIDTH": 4,
    "MLP_RATIO": 2,
    "VALUE_EMBED_EVERY": 2,
    "TOTAL_BATCH_SIZE": 32,
    "DEVICE_BATCH_SIZE": 1,
    "HEAD_LR": 0.5,
}


@dataclass(frozen=True)
class Recipe:
    """What the knobs come to on a device, with the sizes of the data."""

    vocab_size: int  # tokens
    seq_len: int  # tokens
    depth: int  # blocks
    width: int  # channels
    heads: int
    mlp: int  # hidden channels of the MLP
    value_embed_every: int  # blocks
    pattern: str  # letters S and L
    softcap: float
    rows: int  # in one forward pass
    passes: int  # forward passes in one optimizer step
    head_lr: float
    bf16: bool
    lean: bool  # whether Muon keeps its mean in bfloat16


def recipe_for(runtime: prepare.Runtime, vocab_size: int, seq_len: int) -> Recipe:
    """Multiplies the knobs on a GPU, and cuts the batch into passes that hold at least one row."""
    cuda = runtime.device == "cuda"
    factors: dict[str, float] = {} if not cuda else BIG_GPU if runtime.memory_gib >= BIG_GPU_GIB else SMALL_GPU

    def scaled(name: str, knob: int) -> int:
        return round(knob * factors.get(name, 1))

    all_rows = max(1, scaled("TOTAL_BATCH_SIZE", TOTAL_BATCH_SIZE) // seq_len)
    rows = min(all_rows, scaled("DEVICE_BATCH_SIZE", DEVICE_BATCH_SIZE))
    if runtime.device == "cpu":
        rows = max(1, min(rows, all_rows // runtime.threads))  # a pass for each thread
    width = scaled("WIDTH", WIDTH)
    heads = max(1, round(width / HEAD_DIM))
    if width % (2 * heads):
        raise prepare.HarnessError(f"WIDTH is {width}, which {heads} heads of an even width cannot share: change it")
    return Recipe(
        vocab_size=vocab_size,
        seq_len=seq_len,
        depth=scaled("DEPTH", DEPTH),
        width=width,
        heads=heads,
        mlp=scaled("MLP_RATIO", MLP_RATIO) * width,
        value_embed_every=scaled("VALUE_EMBED_EVERY", VALUE_EMBED_EVERY),
        pattern=WINDOW_PATTERN if cuda else "L",
        softcap=SOFTCAP if cuda else 0.0,
        rows=rows,
        passes=all_rows // rows,
        head_lr=HEAD_LR * factors.get("HEAD_LR", 1),
        bf16=runtime.bf16,
        lean=cuda and runtime.bf16 and runtime.memory_gib <= LEAN_GPU_GIB,
    )


def windows(recipe: Recipe) -> list[int]:
    """How many tokens back each block sees. The last always sees the whole context."""
    short = [letter == "S" for letter in itertools.islice(itertools.cycle(recipe.pattern), recipe.depth - 1)]
    return [recipe.seq_len // 2 if is_short else recipe.seq_len for is_short in [*short, False]]


# ----------------------------------------------------------------------------------------------------------------------
# Attention: attend(q, k, v, window) of (rows, tokens, heads, channels); a token sees itself and `window` tokens before
# ----------------------------------------------------------------------------------------------------------------------

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@lru_cache
def window_bias(tokens: int, window: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(tokens, tokens): 0 where a query (row) may see a key (column), -inf elsewhere."""
    back = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)
    return torch.zeros(tokens, tokens, device=device, dtype=dtype).masked_fill((back < 0) | (back > window), -math.inf)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """torch's own kernel, which is fast only where the window is the whole context."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    tokens = q.size(2)
    if window >= tokens - 1:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    make = window_bias.__wrapped__ if torch.compiler.is_exporting() else window_bias  # what is exported is not kept
    bias = make(tokens, window, q.device, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Two matrix products around a softmax; on a CPU in bfloat16 half the time of the fused kernel."""
    rows, tokens, heads, channels = q.shape
    q, k, v = (x.transpose(1, 2).reshape(rows * heads, tokens, channels) for x in (q, k, v))
    bias = window_bias(tokens, window, q.device, q.dtype)
    weights = torch.baddbmm(bias, q, k.mT, alpha=channels**-0.5).softmax(-1)
    return (weights @ v).view(rows, heads, tokens, channels).transpose(1, 2)


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Flash attention over all rows laid end to end; skips what lies outside the window. CUDA only."""
    from torch.nn.attention.varlen import varlen_attn

    rows, tokens, heads, channels = q.shape
    q, k, v = (x.reshape(rows * tokens, heads, channels) for x in (q, k, v))
    starts = torch.arange(0, rows * tokens + 1, tokens, dtype=torch.int32, device=q.device)
    out = varlen_attn(q, k, v, starts, starts, tokens, tokens, window_size=(window, 0))
    assert isinstance(out, Tensor)
    return out.view(rows, tokens, heads, channels)


def make_attend_flex(recipe: Recipe, device: str) -> Attend:
    """FlexAttention, which torch.compile turns into a kernel for each window. CUDA only: on a CPU it cannot learn."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def make_mask(window: int) -> Any:
        def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (query - key <= window)

        return create_block_mask(seen, None, None, recipe.seq_len, recipe.seq_len, device=device)

    masks = {window: make_mask(window) for window in windows(recipe)}  # here, to be out of what is compiled

    def attend_flex(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = flex_attention(q, k, v, block_mask=masks[window])
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)

    return attend_flex


def attention_seconds(attend: Attend, recipe: Recipe) -> float:
    """Seconds of five passes, forward and backward, on the GPU; infinite if the kernel does not run there."""
    shape = (recipe.rows, recipe.seq_len, recipe.heads, recipe.width // recipe.heads)
    run = torch.compile(attend, dynamic=False) if COMPILE == "cuda" else attend
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    try:
        for rounds in (2, 5):  # the first compiles
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(rounds):
                run(q, k, v, windows(recipe)[0]).sum().backward()  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
    except Exception as error:
        print(f"attention {attend.__name__} does not run here: {str(error).splitlines()[0]}")
        return math.inf
    return time.perf_counter() - begin


def choose_attention(
    runtime: prepare.Runtime, recipe: Recipe, seconds: Callable[[Attend, Recipe], float] = attention_seconds
) -> Attend:
    """On CUDA whichever kernel measures faster; elsewhere by precision, so that a seed gives the same run again."""
    if runtime.device != "cuda":
        return attend_plain if runtime.device == "cpu" and recipe.bf16 else attend_sdpa
    if not recipe.bf16:
        return attend_sdpa
    measured = {attend: seconds(attend, recipe) for attend in (attend_varlen, make_attend_flex(recipe, runtime.device))}
    fastest = min(measured, key=lambda attend: measured[attend])
    return fastest if math.isfinite(measured[fastest]) else attend_sdpa


# ----------------------------------------------------------------------------------------------------------------------
# Model
# ----------------------------------------------------------------------------------------------------------------------


def norm(x: Tensor) -> Tensor:
    """Divides the last axis by its root mean square."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """A matrix without bias, kept in float32 and multiplied in the precision of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal self-attention with rotary positions, normalised queries and keys, and gated value embeddings."""

    def __init__(self, recipe: Recipe, attend: Attend, window: int, value_embeds: bool) -> None:
        super().__init__()
        self.attend, self.window, self.heads = attend, window, recipe.heads
        self.q, self.k, self.v, self.out = (Linear(recipe.width, recipe.width) for _ in range(4))
        self.value_embed = nn.Embedding(recipe.vocab_size, recipe.width) if value_embeds else None
        self.value_gate = Linear(VALUE_GATE_CHANNELS, self.heads) if value_embeds else None

    def forward(self, x: Tensor, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = self.q(x).view(split), self.k(x).view(split), self.v(x).view(split)
        if self.value_embed is not None and self.value_gate is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :VALUE_GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * self.value_embed(ids).to(v.dtype).view(split)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        attend = attend_sdpa if torch.compiler.is_exporting() else self.attend  # the judge takes plain operations
        return self.out(attend(q, k, v, self.window).reshape(x.shape))  # type: ignore[no-any-return]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of channels by an angle that grows with the token's position (RoPE, arXiv 2104.09864)."""
    return x * cos + x.roll(x.size(-1) // 2, -1) * sin


class Block(nn.Module):
    """Attention, then an MLP with squared ReLU, each on the normalised stream and added to it."""

    def __init__(self, recipe: Recipe, attend: Attend, window: int, value_embeds: bool) -> None:
        super().__init__()
        self.attention = Attention(recipe, attend, window, value_embeds)
        self.up = Linear(recipe.width, recipe.mlp)
        self.down = Linear(recipe.mlp, recipe.width)

    def forward(self, x: Tensor, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(norm(x), ids, cos, sin)
        hidden = F.relu(self.up(norm(x)))
        return x + self.down(hidden * hidden)  # type: ignore[no-any-return]


class GPT(nn.Module):
    """Token ids of (rows, tokens) to float32 logits of (rows, tokens, vocabulary)."""

    def __init__(self, recipe: Recipe, attend: Attend) -> None:
        super().__init__()
        self.dtype, self.softcap = torch.bfloat16 if recipe.bf16 else torch.float32, recipe.softcap
        self.embed = nn.Embedding(recipe.vocab_size, recipe.width)
        self.blocks = nn.ModuleList()
        every = recipe.value_embed_every
        for i, window in enumerate(windows(recipe)):
            value_embeds = every > 0 and (recipe.depth - 1 - i) % every == 0
            self.blocks.append(Block(recipe, attend, window, value_embeds))
        self.head = Linear(recipe.width, recipe.vocab_size)
        self.residual_weights = nn.Parameter(torch.ones(recipe.depth))
        self.x0_weights = nn.Parameter(torch.full((recipe.depth,), 0.1))
        channels = recipe.width // recipe.heads
        speeds = ROPE_BASE ** -(torch.arange(0, channels, 2) / channels)
        angles = torch.outer(torch.arange(recipe.seq_len), speeds)[:, None, :]
        self.register_buffer("cos", torch.cat((angles.cos(), angles.cos()), -1).to(self.dtype), persistent=False)
        self.register_buffer("sin", torch.cat((angles.sin(), -angles.sin()), -1).to(self.dtype), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Every block starts as the identity: what it adds to the stream is 0."""
        self.embed.weight.normal_()
        self.head.weight.normal_(std=0.001)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("out.weight", "down.weight", "value_gate.weight")):
                weight.zero_()
            else:
                bound = (3 / self.embed.embedding_dim) ** 0.5
                weight.uniform_(-bound, bound)

    def forward(self, ids: Tensor) -> Tensor:
        x = x0 = norm(self.embed(ids).to(self.dtype))
        for i, block in enumerate(self.blocks):
            x = self.residual_weights[i] * x + self.x0_weights[i] * x0
            x = block(x, ids, self.cos, self.sin)
        logits: Tensor = self.head(norm(x)).float()
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


# ----------------------------------------------------------------------------------------------------------------------
# Optimizer: Muon for the matrices of the blocks, AdamW for the rest
# ----------------------------------------------------------------------------------------------------------------------

# Polar Express (arXiv 2505.16932): the best odd polynomial of degree 5 for each step towards the polar factor.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Brings all singular values of (n, rows, columns) near 1."""
    x = matrices.to(dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS[:MUON_ITERATIONS]:
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    result: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


def muon_update(
    weights: Tensor, gradients: Tensor, mean: Tensor, variance: Tensor, rates: Tensor, dtype: torch.dtype
) -> Tensor:
    """New weights for (n, rows, columns) matrices; `mean` and `variance` are updated in place.

    Muon (Jordan 2024) with the variance of each neuron evened out (NorMuon, arXiv 2510.05491) and weight decay only
    where it points the way of the update (arXiv 2510.12402). `rates` holds learning rate, momentum and decay: as a
    tensor, new values do not recompile.
    """
    rate, momentum, decay = rates.unbind()
    mean.lerp_(gradients.to(mean.dtype), (1 - momentum).to(mean.dtype))
    update = orthogonalise(gradients.lerp(mean.to(gradients.dtype), momentum), dtype)
    neuron = -1 if update.size(-2) >= update.size(-1) else -2
    variance.lerp_(update.square().mean(neuron, keepdim=True), 1 - MUON_BETA2)
    even = update * variance.clamp_min(1e-10).rsqrt()
    even = even * (update.norm(dim=(-2, -1), keepdim=True) / even.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10))
    rate = rate * max(1.0, weights.size(-2) / weights.size(-1)) ** 0.5
    new: Tensor = weights - rate * (even + decay * weights * (even * weights > 0))
    return new


class Muon(torch.optim.Optimizer):
    """Updates all matrices of one shape together."""

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, dtype: torch.dtype, compiled: bool, lean: bool = False
    ) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        groups = [{"params": params} for params in shapes.values()]
        super().__init__(groups, {"lr": lr, "momentum": MOMENTUM_START, "weight_decay": WEIGHT_DECAY})
        self.dtype, self.lean = dtype, lean
        self.update = torch.compile(muon_update, dynamic=False) if compiled else muon_update

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params: list[nn.Parameter] = group["params"]
            weights, gradients = torch.stack(list(params)), torch.stack([p.grad for p in params if p.grad is not None])
            state = self.state[params[0]]
            if not state:
                neuron = -1 if weights.size(-2) >= weights.size(-1) else -2
                state["mean"] = torch.zeros_like(weights, dtype=torch.bfloat16 if self.lean else weights.dtype)
                state["variance"] = torch.zeros_like(weights.mean(neuron, keepdim=True))
            rates = torch.tensor([group["lr"], group["momentum"], group["weight_decay"]])
            rates = rates.to(weights.device, non_blocking=True)
            new = self.update(weights, gradients, state["mean"], state["variance"], rates, self.dtype)
            torch._foreach_copy_(list(params), list(new.unbind()))


def make_optimizers(model: GPT, recipe: Recipe, compiled: bool) -> tuple[torch.optim.AdamW, Muon]:
    """Sorts the parameters by role. The learning rates of AdamW shrink with the root of the width."""
    scale = (model.embed.embedding_dim / 768) ** -0.5
    groups = [
        {"params": [w for name, w in model.named_parameters() if "embed" in name], "lr": EMBEDDING_LR * scale},
        {"params": [model.head.weight], "lr": recipe.head_lr * scale},
        {"params": [model.residual_weights], "lr": SCALAR_LR / 100},
        {"params": [model.x0_weights], "lr": SCALAR_LR},
    ]
    adamw = torch.optim.AdamW(groups, betas=(ADAM_BETA1, ADAM_BETA2), eps=1e-10, weight_decay=0.0, fused=True)
    matrices = [w for name, w in model.blocks.named_parameters() if "embed" not in name]
    muon = Muon(matrices, MATRIX_LR, model.dtype, compiled, recipe.lean)
    for group in (*adamw.param_groups, *muon.param_groups):
        group["peak_lr"] = group["lr"]
    return adamw, muon


def learning_rate(progress: float) -> float:
    """Share of the peak learning rates when this share of the budget is used: up, level, down."""
    rising = progress / WARMUP if progress < WARMUP else 1.0
    falling = FINAL_LR + (1 - FINAL_LR) * (1 - progress) / WARMDOWN if progress > 1 - WARMDOWN else 1.0
    return min(rising, falling)


def follow_schedule(adamw: torch.optim.AdamW, muon: Muon, step: int, progress: float) -> None:
    """Sets what changes over the run: by share of the budget, and for Muon's momentum by step."""
    for group in (*adamw.param_groups, *muon.param_groups):
        group["lr"] = group["peak_lr"] * learning_rate(progress)
    ramp = min(1.0, step / MOMENTUM_STEPS) if MOMENTUM_STEPS else 1.0
    for group in muon.param_groups:
        group["momentum"] = MOMENTUM_START + (MOMENTUM_END - MOMENTUM_START) * ramp
        group["weight_decay"] = WEIGHT_DECAY * (1 - progress)


# ----------------------------------------------------------------------------------------------------------------------
# Reporting: one line a second, and the summary block
# ----------------------------------------------------------------------------------------------------------------------

# Peak bfloat16 operations a second without sparsity, from the makers' data sheets; others report 0 % utilisation.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


class Progress:
    """Prints `step 00042 | loss: 3.4567 | ...`: on a terminal over the last line, elsewhere one line a second."""

    def __init__(self, clock: prepare.BudgetClock, tokens_per_step: int) -> None:
        self.clock, self.tokens_per_step = clock, tokens_per_step
        self.smooth_loss = 0.0
        self.shown = -math.inf

    def update(self, step: int, loss: float) -> None:
        """Takes the loss of a finished step. Raises HarnessError when it is not a number to learn from."""
        if not math.isfinite(loss):
            raise prepare.HarnessError(f"the loss is {loss} at step {step}: training diverged, lower a learning rate")
        self.smooth_loss = 0.9 * self.smooth_loss + 0.1 * loss
        now = time.perf_counter()
        if now - self.shown < 1 and step > 1:
            return
        self.shown = now
        line = progress_line(step, self.smooth_loss / (1 - 0.9**step), self.tokens_per_step, self.clock)
        print(line, end="   \r" if sys.stdout.isatty() else "\n", flush=True)


def progress_line(step: int, loss: float, tokens_per_step: int, clock: prepare.BudgetClock) -> str:
    """`key: value` between bars; speed and times are those of the budget clock when the step began."""
    spent, left = clock.elapsed, max(0.0, clock.budget - clock.elapsed)
    speed = (step - 1) * tokens_per_step / spent if spent else 0.0
    return (
        f"step {step:05d} | loss: {loss:.4f} | lr: {learning_rate(clock.progress):.2f} | tok/s: {speed:,.0f}"
        f" | elapsed: {spent:.1f}s | remaining: {left:.1f}s | {100 * clock.progress:.1f}%"
    )


def flops_per_token(model: GPT, recipe: Recipe) -> float:
    """Operations of a forward and a backward pass: 6 for each weight of a product, 12 for each channel and key seen."""
    products = sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear))
    return 6.0 * products + 12.0 * recipe.width * sum(windows(recipe))


def peak_memory_mb(device: str) -> float:
    """Most memory allocated on a CUDA GPU so far, in MiB; elsewhere the most that the process has had resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def print_notes(clock: prepare.BudgetClock) -> None:
    """Says why less was trained than the budget has seconds, where that is so."""
    charged = clock.runtime.budget - clock.budget
    if charged >= 0.05:
        print(f"note: {charged:.1f} s of the budget went into starting and handing in, beyond what is free for that")
    if clock.elapsed < 0.95 * clock.budget:
        print(
            "note: training ended before it had its share of CPU time: its threads waited for each other, or for others"
        )


def print_summary(runtime: prepare.Runtime, data: prepare.Data, clock: prepare.BudgetClock, **results: float) -> None:
    """Prints the block of `key: value` lines that ends a good run; AUTORESEARCH_OUT also gets it as summary.json."""
    now = time.perf_counter()
    name = torch.cuda.get_device_name() if runtime.device == "cuda" else ""
    peak_flops = next((flops for part, flops in PEAK_FLOPS.items() if part in name), math.inf)
    summary = {
        "val_bpb": f"{results['val_bpb']:.6f}",
        "training_seconds": f"{clock.elapsed:.1f}",
        "total_seconds": f"{now - prepare.PROCESS_START:.1f}",
        "peak_vram_mb": f"{peak_memory_mb(runtime.device):.1f}",
        "mfu_percent": f"{100 * results['flops'] / clock.elapsed / peak_flops:.2f}",
        "total_tokens_M": f"{results['tokens'] / 1e6:.1f}",
        "num_steps": f"{results['steps']}",
        "num_params_M": f"{results['params'] / 1e6:.1f}",
        "depth": f"{results['depth']}",
        "startup_seconds": f"{clock.started - prepare.PROCESS_START:.1f}",
        "compile_seconds": f"{results['compiling']:.1f}",
        "eval_seconds": f"{now - clock.ended:.1f}",
        "budget_seconds": f"{clock.progress * clock.budget:.2f}",
        "hand_in_seconds": f"{runtime.hand_in:.2f}",
        "num_modules": f"{results['modules']}",
        "device": runtime.device,
        "threads": f"{runtime.threads}",
        "precision": "bf16" if runtime.bf16 else "fp32",
        "seed": f"{runtime.seed}",
        "profile": data.profile,
        "fingerprint": data.fingerprint,
    }
    print("---", *(f"{key + ':':<18}{value}" for key, value in summary.items()), sep="\n", flush=True)
    if runtime.out:
        prepare.write_atomically(runtime.out / "summary.json", json.dumps(summary, indent=2) + "\n")


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def side_by_side(threads: int) -> Callable[..., Iterator[Any]]:
    """A `map` that works on its items at once, a thread of its own for each.

    On a CPU this halves the time of a step: threads that share every small operation mostly wait for each other.
    """
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    return pool.map


def main() -> None:
    """Set up, warm up off the clock, train until the budget is spent, let the judge score the model."""
    runtime = prepare.start()
    data = prepare.open_data()
    recipe = recipe_for(runtime, data.vocab_size, data.seq_len)
    attend = choose_attention(runtime, recipe)
    model = GPT(recipe, attend).to(runtime.device)
    compiled = runtime.device == COMPILE
    adamw, muon = make_optimizers(model, recipe, compiled)
    batches = prepare.batches(data, recipe.rows, runtime)
    forward: nn.Module = torch.compile(model, dynamic=False) if compiled else model  # type: ignore[assignment]
    weights = list(model.parameters())
    params = sum(weight.numel() for weight in weights)
    each = side_by_side(runtime.threads) if runtime.device == "cpu" else map
    print(
        f"device: {runtime.device} | attention: {attend.__name__} | compiled: {compiled}"
        f" | precision: {'bf16' if recipe.bf16 else 'fp32'} | optimizer state: {'bf16' if recipe.lean else 'fp32'}"
        f" | batch: {recipe.passes} x {recipe.rows} rows | parameters: {params:,}"
    )
    print(recipe, flush=True)

    def pass_over(batch: prepare.Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and gradients of one pass, as shares of the whole batch."""
        inputs, targets = batch
        loss = F.cross_entropy(forward(inputs).flatten(0, 1), targets.flatten()) / recipe.passes
        return loss.detach(), torch.autograd.grad(loss, weights)

    def train_step(batches: Iterator[prepare.Batch]) -> Tensor:
        """One optimizer step; returns the mean loss of its batch, a scalar on the device."""
        losses = []
        for weight in weights:
            weight.grad = None
        for loss, gradients in each(pass_over, itertools.islice(batches, recipe.passes)):
            losses.append(loss)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        for _ in each(lambda optimizer: optimizer.step(), (adamw, muon)):
            pass
        return torch.stack(losses).sum()

    compiling = prepare.warm_up(train_step, forward, [adamw, muon], data, runtime, recipe.rows)
    clock = prepare.BudgetClock(runtime)
    progress = Progress(clock, recipe.rows * recipe.passes * recipe.seq_len)
    step = 0
    while clock.running():
        follow_schedule(adamw, muon, step, clock.progress)
        loss = train_step(batches)
        step += 1
        progress.update(step, loss.item())

    print_notes(clock)
    val_bpb = prepare.evaluate(forward, data, runtime)
    tokens = step * progress.tokens_per_step
    flops = tokens * flops_per_token(model, recipe)
    results = {"steps": step, "tokens": tokens, "params": params, "depth": recipe.depth, "flops": flops}
    results["modules"] = len(list(model.modules()))
    print_summary(runtime, data, clock, val_bpb=val_bpb, compiling=compiling, **results)


if __name__ == "__main__":
    prepare.run(main)
