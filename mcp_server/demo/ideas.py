"""What the scripted agent tries on train.py. A language model would think of these; here they are written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Idea:
    """One change to the script.

    Attributes:
        source: how it is handed to `register`: as knobs, as edits, as whole files, or made in the workspace.
        replacements: pairs of a text that occurs once in train.py and what takes its place.
    """

    hypothesis: str
    category: str
    source: Literal["knobs", "edits", "files", "workspace"]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    replacements: tuple[tuple[str, str], ...] = ()
    lesson: str = ""

    def applied(self, text: str) -> str:
        """The script after the replacements."""
        for old, new in self.replacements:
            text = text.replace(old, new)
        return text


RELU_SQUARED = "hidden = F.relu(self.up(norm(x)))"

IDEAS: tuple[Idea, ...] = (
    Idea(
        "Smaller batches mean more steps in the same time",
        "hyperparams",
        "knobs",
        {"TOTAL_BATCH_SIZE": 1024},
    ),
    Idea(
        "A SwiGLU gate is better than squared ReLU",
        "activation",
        "edits",
        replacements=((RELU_SQUARED, RELU_SQUARED.replace("F.relu", "F.swiglu")),),
        lesson="torch has no F.swiglu; write the gate out, with a matrix of its own",
    ),
    Idea(
        "Ten times the learning rate learns ten times as fast",
        "optimizer",
        "knobs",
        {"MATRIX_LR": 0.4},
        lesson="the matrices do not stand 0.4",
    ),
    Idea(
        "A longer cool-down settles the weights",
        "scheduling",
        "edits",
        replacements=(("WARMDOWN = 0.5", "WARMDOWN = 0.8"),),
    ),
    Idea(
        "Without the soft cap there is less to compute, and nothing is lost in so short a run",
        "simplification",
        "files",
        replacements=(("SOFTCAP = 15.0", "SOFTCAP = 0.0"),),
    ),
    Idea(
        "Three blocks see more tokens in the time than four",
        "architecture",
        "workspace",
        replacements=(("DEPTH = 4 ", "DEPTH = 3 "),),
    ),
)
