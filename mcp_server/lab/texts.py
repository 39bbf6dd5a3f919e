"""Texts that agents write: hypotheses, descriptions, lessons, errors."""

from mcp_server.errors import InvalidInput
from mcp_server.research.metrics import clean

LONGEST = 4000


def clean_text(name: str, text: str | None) -> str:
    """The text without control sequences and white space around it; raises InvalidInput if it is too long."""
    text = text or ""
    if len(text) > LONGEST:
        raise InvalidInput(f"{name} has {len(text)} characters", f"Keep it below {LONGEST}")
    return clean(text, LONGEST).strip()
