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


RELU = "F.relu(self.up(norm(x)))"
DECAYED = "rate * (even + decay * weights * (even * weights > 0))"

IDEAS: tuple[Idea, ...] = (
    Idea("Smaller batches buy more steps in the same time", "hyperparams", "knobs", {"TOTAL_BATCH_SIZE": 1024}),
    Idea(
        "A SwiGLU gate beats squared ReLU",
        "activation",
        "edits",
        replacements=((RELU, RELU.replace("relu", "swiglu")),),
    ),
    Idea("A longer cool-down settles the weights", "scheduling", "knobs", {"WARMDOWN": 0.8}),
    Idea(
        "Ten times the learning rate learns ten times as fast",
        "optimizer",
        "knobs",
        {"MATRIX_LR": 0.4},
        lesson="Muon does not stand a learning rate of 0.4",
    ),
    Idea(
        "Weight decay has no time to matter: take it out",
        "simplification",
        "files",
        replacements=((DECAYED, "rate * even"),),
    ),
    Idea(
        "A little learning rate left at the end still learns",
        "scheduling",
        "workspace",
        replacements=(("FINAL_LR = 0.0 ", "FINAL_LR = 0.05 "),),
    ),
)
