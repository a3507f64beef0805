"""Text of others as it may be shown: nothing in it moves the cursor, hides, or begins a new line."""

from __future__ import annotations

import json
import math
from typing import Any

_USUAL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, keep: str = "") -> str:
    """Return *text* with every character that a terminal may act on, or hide, spelled as in Python, such as ``\\x1b``.

    Row ids, names, notes and what servers say come from others, who could forge a line of a report or take over the
    terminal. Characters in *keep* stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each in keep else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    form = "\\x{:02x}" if code < 0x100 else "\\u{:04x}" if code < 0x10000 else "\\U{:08x}"
    return _USUAL.get(character) or form.format(code)


def json_text(content: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return *content* as one line of JSON that every parser reads: null for what is not finite, nothing hidden."""
    text = json.dumps(finite(content), ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character > "\x7f" else f"\\u{ord(character):04x}"


def finite(content: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return *content* with None in place of every number that is not finite, at any depth."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content
