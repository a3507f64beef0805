"""JSON, text, numbers and arrays that others wrote: what cannot be read is said in words, whatever it is."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN = 80
"""Characters of a foreign value that a message repeats."""
_WIDE = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"))
MARKS = (*_WIDE, (codecs.BOM_UTF16_BE, "UTF-16"))
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Unreadable(ValueError):
    """What was given cannot be read; the message is the end of a sentence that begins with its name."""


class NotJson(Unreadable):
    """It is no JSON at all."""


def decoded(held: bytes) -> str:
    """Return the UTF-8 text in *held*, without a byte order mark.

    Raises:
        Unreadable: it is text of another encoding, or no text.
    """
    for mark, encoding in MARKS:
        if held.startswith(mark):
            raise Unreadable(f"is {encoding} text, and is not UTF-8; save it as UTF-8")
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Unreadable(f"is not UTF-8 text: byte {exc.start + 1} is 0x{held[exc.start]:02x}") from exc
    if "\0" in text:
        raise Unreadable("is not UTF-8 text: it holds zero bytes, as UTF-16 does; save it as UTF-8")
    return text


def parsed(held: bytes | str, *, distinct: bool = False) -> object:
    """Return the JSON value that *held* is. NaN and Infinity, which Python writes, are read as the numbers they mean.

    Raises:
        Unreadable: it is no JSON, or more than can be read; with *distinct*, also an object that names a member twice.
    """
    text = decoded(held) if isinstance(held, bytes) else held
    with in_words():
        value: object = json.loads(text, object_pairs_hook=distinct_members if distinct else None)
    return value


@contextmanager
def in_words() -> Iterator[None]:
    """Turn what Python's JSON reader raises into Unreadable."""
    try:
        yield
    except json.JSONDecodeError as exc:
        raise NotJson(f"is not JSON: {exc.msg} at character {exc.colno}") from exc
    except RecursionError as exc:
        raise Unreadable("is nested too deeply") from exc
    except Unreadable:
        raise
    except ValueError as exc:  # of int(): Python reads no number of more than 4,300 digits
        raise Unreadable("holds a whole number of thousands of digits") from exc


def distinct_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        Unreadable: one is named twice, so that nobody knows which is meant.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Unreadable(f"names {shown(next(name for name in names if names.count(name) > 1))} twice")
    return found


def number_in(text: str) -> float | None:
    """Return the decimal number that *text* is, None where it is none or is beyond any float."""
    found = float(text) if NUMBER.fullmatch(text.strip()) else np.inf
    return found if np.isfinite(found) else None


def is_unicode(text: str) -> bool:
    """Tell whether UTF-8 can carry *text*: JSON can spell one half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """Return *value* for a message: cut where it is long, and never an error of its own."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4,300 digits, or nesting
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def mapped_array(path: Path) -> NDArray[Any]:
    """Return the array in the .npy file *path*, mapped, read-only, however much its header promises.

    Raises:
        Unreadable: it is no whole .npy file, or holds Python objects.
        OSError: the file cannot be read.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as exc:  # a header is Python source: what reads it raises nearly anything
        raise Unreadable(f"is no .npy file of numbers: {exc or type(exc).__name__}") from exc
    if not isinstance(found, np.ndarray):
        raise Unreadable("is no .npy file of numbers: it is an archive of several")
    return found
