"""Ideas of the scripted agent itself, beside what the server suggests: one that crashes, and one that is too bold."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Idea:
    """One change to the script.

    Attributes:
        source: how it is handed to `register`: as edits, or made in the workspace.
        replacements: pairs of a text that occurs once in train.py and what takes its place.
    """

    hypothesis: str
    category: str
    source: Literal["edits", "workspace"]
    replacements: tuple[tuple[str, str], ...]
    lesson: str = ""

    def applied(self, text: str) -> str:
        """The script after the replacements."""
        for old, new in self.replacements:
            text = text.replace(old, new)
        return text


RELU = "F.relu(self.up(norm(x)))"

IDEAS: tuple[Idea, ...] = (
    Idea("A SwiGLU gate beats squared ReLU", "activation", "edits", ((RELU, RELU.replace("relu", "swiglu")),)),
    Idea(
        "Ten times the learning rate learns ten times as fast",
        "optimizer",
        "workspace",
        (("MATRIX_LR = 0.04 ", "MATRIX_LR = 0.4 "),),
        lesson="Muon does not stand a learning rate of 0.4",
    ),
)
