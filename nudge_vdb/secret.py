"""What no message may hold: keys, tokens and passwords, remembered here and replaced wherever text is told."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

HIDDEN = "(hidden)"
SHORTEST = 4
"""Characters of a secret that is replaced; a shorter one would take words of the message with it."""
SHORTEST_PART = 8
"""The same for the password in user:password, of which "Milvus" is one."""

_spellings: set[str] = set()


def remember(secret: str | None) -> None:
    """Replace *secret* in every message from now on, in each of its spellings."""
    for text in _parts(secret or ""):
        octets = text.encode(errors="surrogateescape")
        _spellings.update((text, repr(text)[1:-1], repr(octets)[2:-1], quote(octets, safe="")))
        _spellings.add(b64encode(octets).decode())


def hidden(text: str) -> str:
    """Return *text* without any secret that is remembered."""
    for spelling in sorted(_spellings, key=len, reverse=True):
        text = text.replace(spelling, HIDDEN)
    return text


def scrub(failure: BaseException) -> None:
    """Take every secret out of what *failure* says, and out of what it was raised from: tracebacks show all of them."""
    met: list[object] = []
    due: list[object] = [failure]
    while due:
        each = due.pop()
        if each is None or any(each is known for known in met):
            continue
        met.append(each)
        if isinstance(each, BaseException):
            each.args = tuple(_without(value) for value in each.args)
            due += [each.__cause__, each.__context__]
        for name, value in list(getattr(each, "__dict__", {}).items()):
            if isinstance(value, str | bytes):
                setattr(each, name, _without(value))
        due += [getattr(each, "source", None), getattr(each, "_state", None)]  # qdrant_client's and gRPC's words


def _parts(secret: str) -> Iterator[str]:
    whole = secret.strip()
    if len(whole) >= SHORTEST:
        yield whole
    yield from (part for part in whole.partition(":")[2:] if len(part) >= SHORTEST_PART)


def _without(value: object) -> object:
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, bytes):
        return hidden(value.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    return value
