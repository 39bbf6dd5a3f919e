"""Text from elsewhere without what hides or forges text on a screen."""

import re

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC: titles, hyperlinks
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\r\n]*(?:\x1b\\|\x9c)?"  # device and application strings
    r"|\x1b[ -/]*[0-~]"  # all other escapes
)
_INVISIBLE = re.compile(  # bidi overrides, zero widths and Unicode tags can hide text from a person, not from a model
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def clean(text: str, limit: int) -> str:
    """Make text from a training fit to show: at most `limit` characters, of which the last ones stay.

    Escape sequences and invisible characters go, of a line that overwrote itself the last state stays, and every
    other run of control characters becomes one U+FFFD.
    """
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text)).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(_last_state(line) for line in text.split("\n"))
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(text) <= limit:
        return text
    return ("…" + text[len(text) - limit + 1 :]) if limit > 0 else ""


def without_escapes(text: str) -> str:
    """The text without the escape sequences of terminals."""
    return _ESCAPES.sub("", text)


def _last_state(line: str) -> str:
    """What a terminal shows of a line that used carriage returns to overwrite itself (its last non-empty state)."""
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""
