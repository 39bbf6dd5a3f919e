"""Changes to the code itself that are worth a try, tied to the part of the script where they would go."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcp_server.research.experiment import Experiment
from mcp_server.research.script import Outline, Part, words_of
from mcp_server.research.task import Category


@dataclass(frozen=True)
class Idea:
    """A change to a kind of part.

    Attributes:
        where: pattern for the name of the part, in small words.
        needs: pattern that the part's code must contain; its line is where the change goes.
        known: words that show, in the script or in an experiment's hypothesis, that this was done already.
    """

    category: Category
    where: str
    needs: str
    known: str
    text: str


@dataclass(frozen=True)
class Place:
    """An idea with the part and line of this script that it is about."""

    idea: Idea
    part: Part
    line: int


def places(outline: Outline, source: str, tried: Sequence[Experiment]) -> Iterator[Place]:
    """The ideas that fit this script, that it does not contain yet and that no experiment speaks of."""
    history = "\n".join(f"{e.hypothesis} {e.description}" for e in tried)
    for idea in IDEAS:
        if re.search(idea.known, f"{source}\n{history}", re.I):
            continue
        for part in outline.parts:
            match = re.search(idea.needs, part.source) if re.search(idea.where, words_of(part.name)) else None
            if match:
                yield Place(idea, part, part.line + part.source[: match.start()].count("\n"))
                break


IDEAS: tuple[Idea, ...] = (
    Idea(
        "architecture",
        r"block|layer|gpt|model",
        r"self\.(attn|attention)\(",
        r"parallel (block|attention|attn|mlp)|in parallel",
        "feed attention and MLP from the same normalised input, in parallel: fewer steps in sequence, more "
        "tokens in the "
        "budget",
    ),
    Idea(
        "architecture",
        r"gpt|model|transformer",
        r"for .* in .*(blocks|layers|self\.h\b|\.h\))",
        r"u-?net|skip connection|long skip",
        "add learned skips from the first half of the blocks to the second (first to last, second to last but "
        "one), with "
        "weights that start at 0",
    ),
    Idea(
        "architecture",
        r"\w*net|model|cnn",
        r"conv",
        r"shortcut|residual|skip",
        "add a residual connection around each pair of convolutions",
    ),
    Idea(
        "optimizer",
        r"muon|orthogonal|optim",
        r"momentum",
        r"group(ed|s)? by role|split.*qkv|per.?head muon|orthogonalise each head",
        "orthogonalise the query, key and value matrices head by head instead of whole",
    ),
    Idea(
        "optimizer",
        r"optim|train|main|fit",
        r"Adam\(|AdamW\(|SGD\(",
        r"muon|lion|nesterov|lookahead|sophia",
        "use Nesterov momentum (NAdam, or SGD with nesterov=True) in place of the present optimizer",
    ),
    Idea(
        "activation",
        r"block|mlp|ffn|feed_forward|net|model",
        r"relu\(|gelu\(|silu\(|ReLU\(|GELU\(|SiLU\(",
        r"swiglu|reglu|geglu|gated (mlp|linear)|\bglu\b",
        "make the MLP gated (the activation of one projection times a second one), with the hidden width cut to "
        "two thirds "
        "so that the number of parameters stays",
    ),
    Idea(
        "activation",
        r"block|mlp|ffn|feed_forward|net|model",
        r"relu\(|gelu\(|silu\(|ReLU\(|GELU\(|SiLU\(",
        r"leaky|negative slope|shifted relu",
        "let a little of the negative side through (slope 0.1) so that no unit stays dead in a short training",
    ),
    Idea(
        "attention",
        r"attention|attn",
        r"\.(out|proj|c_proj|o_proj|wo)\(",
        r"output gate|gated attention|gate.*head.*output|sigmoid gate",
        "gate the output of each head by the sigmoid of a small projection of the input, starting open, so that "
        "a head can "
        "say nothing",
    ),
    Idea(
        "attention",
        r"attention|attn",
        r"norm\(",
        r"learn\w* temperature|attention (scale|temperature)|qk.?(scale|gain)",
        "give each head a learned temperature: one scalar that multiplies the normalised queries, starting at 1.2",
    ),
    Idea(
        "attention",
        r"attention|attn",
        r"self\.(k|key|c_k|wk|c_attn)\b",
        r"gqa|grouped.query|shared? keys|multi.query|\bmqa\b|kv_?heads?",
        "share keys and values between pairs of heads: smaller matrices, more steps in the same budget",
    ),
    Idea(
        "embedding",
        r"rotate|rotary|rope|attention|attn|gpt",
        r"cos",
        r"partial (rotary|rope)|half the channels|half of the channels",
        "turn only half of each head's channels by position and leave the rest free of it",
    ),
    Idea(
        "embedding",
        r"gpt|model|transformer",
        r"embed|wte",
        r"smear|previous token|bigram|token shift|n-?gram",
        "mix a learned share of the previous token's embedding into each token's (a gate that starts at 0)",
    ),
    Idea(
        "normalization",
        r"block|layer",
        r"norm\(|ln_?\d?\(",
        r"sandwich|post.?norm|peri.?ln|norm after",
        "normalise also what each branch returns, before it is added to the stream",
    ),
    Idea(
        "normalization",
        r"norm",
        r"rms_norm|layer_norm|mean\(",
        r"learn(ed|able|t) (gain|scale|norm)|norm weight|elementwise",
        "give the normalisation a learned gain per channel, starting at 1",
    ),
    Idea(
        "normalization",
        r"net|model|cnn",
        r"conv|Conv",
        r"batch_?norm|group_?norm|BatchNorm|GroupNorm",
        "normalise the channels after each convolution",
    ),
    Idea(
        "regularization",
        r"block|gpt|model|transformer|net",
        r"\bx = |return",
        r"dropout|stochastic depth|drop.?path|layer.?drop",
        "drop whole branches at random with probability 0.05 while training (stochastic depth), less in early layers",
    ),
    Idea(
        "regularization",
        r"gpt|model|train|loss",
        r"logits",
        r"z.?loss|logit penalty|entropy penalty",
        "pull the mean of the logits towards 0 by subtracting it before they are returned",
    ),
    Idea(
        "scheduling",
        r"learning_rate|lr|schedul",
        r"progress|step|it\b|epoch",
        r"square.?root|sqrt (cool|decay|warm)|1-sqrt|cosine",
        "replace the straight descent by 1 - sqrt(share of the descent), which stays longer near the low end",
    ),
    Idea(
        "scheduling",
        r"main|train|fit",
        r"batch",
        r"batch.?size (schedule|warm|ramp)|ramp.*batch|growing batch",
        "start with half the batch and double it after a third of the budget: more steps while the gradient is "
        "still loud",
    ),
    Idea(
        "initialization",
        r"init|gpt|model",
        r"uniform_|normal_|xavier|kaiming",
        r"orthogonal_|init\w* (smaller|larger|half|scale)|depth.?scaled",
        "halve the scale of the matrices of the blocks at the start, leaving the embeddings as they are",
    ),
    Idea(
        "initialization",
        r"gpt|model|init",
        r"head|lm_head|fc\d?",
        r"head (starts|init)|zero.?init\w* head|head.*zero",
        "start the output matrix at zero, so that the first step begins from the uniform guess",
    ),
)
