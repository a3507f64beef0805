"""Conditions that say nothing: a bound, a list or a text that a script left empty, and that every row meets."""

from __future__ import annotations

import re

from nudge_vdb.errors import BadAddress

_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_EMPTY = re.compile(r"\[\s*\]|\(\s*\)|\{\s*\}")
_LIKE = re.compile(r"\blike\s*$", re.IGNORECASE)
_BEGIN, _END = r"(?:^|\(|!|&&|\|\||\b(?:and|or|not)\b)\s*", r"\s*(?:$|\)|&&|\|\||\b(?:and|or)\b)"
_CONSTANT = r"(?:[-+]?[\d.]+|\"\"|true|false)"
_CONSTANTS = re.compile(
    rf"{_BEGIN}({_CONSTANT}(?:\s*(?:[<>=!]=?|\bin\b|\blike\b)\s*{_CONSTANT})*){_END}", re.IGNORECASE
)


def require_conditions(expression: str) -> None:
    """Refuse a filter of which any part, at any depth, says nothing; "" is no filter.

    An empty list is met by every row where it is denied, as in ``tenant not in []``, and by none where it is not.

    Raises:
        BadAddress: such a part, which the message names.
    """
    why = _nothing_said(expression) if expression else ""
    if why:
        raise BadAddress(
            f"option filter={expression}: {why}, which says nothing of the rows that are meant; "
            "leave the option away to mean all rows"
        )


def _nothing_said(expression: str) -> str:
    if not expression.strip():
        return "it is blank"
    between = _TEXT.split(expression)  # every second part is a text
    for before, text in zip(between[::2], between[1::2], strict=False):
        like = _LIKE.search(before)
        if like and not text[1:-1].strip("%"):
            return f"it holds {like[0]}{text}"
    bare = _TEXT.sub('""', expression)
    found = _EMPTY.search(bare)
    if found:
        return f"it holds {found[0]}"
    constant = _CONSTANTS.search(bare)
    return f"it holds {constant[1]} without a field" if constant else ""
