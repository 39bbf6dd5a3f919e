"""The limits in docs/security.md are those of the code."""

import re
from dataclasses import fields
from pathlib import Path

from mcp_server.interfaces.limits import Limits, Rate

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
UNTOLD = {"idle_seconds", "sessions"}
"""Limits that bar nobody."""


def test_limits_are_told_as_they_are() -> None:
    limits = Limits()
    expected = {}
    for field in fields(limits):
        value = getattr(limits, field.name)
        told = f"{value.per_second:g} a second, {value.burst:g} at once" if isinstance(value, Rate) else f"{value}"
        expected[field.name] = told
    page = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE))
    assert page == {name: value for name, value in expected.items() if name not in UNTOLD}
