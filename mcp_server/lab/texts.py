"""Texts that agents write: hypotheses, descriptions, lessons, errors."""

from mcp_server.errors import InvalidInput
from mcp_server.research.metrics import clean

LONGEST = 4000
LONGEST_NAME = 200


def clean_text(name: str, text: str | None) -> str:
    """The text without control sequences and white space around it; raises InvalidInput if it is too long."""
    text = text or ""
    if len(text) > LONGEST:
        raise InvalidInput(f"{name} has {len(text)} characters", f"Keep it below {LONGEST}")
    return clean(text, LONGEST).strip()


def shortened(text: str, most: int = LONGEST) -> str:
    """Text that an outside agent wrote, without control sequences, and its beginning if it is very long."""
    shown = clean(text, len(text) + 1).strip()
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
