"""Addresses: the one string that names a collection, its vector field and its scope."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from urllib.parse import parse_qsl, unquote, urlsplit

from nudge_vdb.errors import BadAddress
from nudge_vdb.foreign import NotJson, Unreadable, parsed

Scalar = str | int | float | bool

PAIR = re.compile(r'(?P<key>[^:,]+):(?P<value>"(?:[^"\\]|\\.)*"|[^,"]*)(?:,|$)')
CONSTANTS = ("NaN", "Infinity", "-Infinity")
INTEGERS = range(-(2**63), 2**63)
SHAPE = "backend[+transport]://[[user@]host[:port]]/[…/]collection[?option=value&…]"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address.

    ``qdrant+local:///data/db/articles?vector=title`` has backend ``qdrant``, transport ``local``, an empty
    host, path ``/data/db``, collection ``articles`` and the option ``vector``.
    """

    backend: str
    transport: str
    host: str
    port: int | None
    path: str
    collection: str
    options: Mapping[str, str]
    user: str = ""
    """Who connects; a backend that knows users says so to :meth:`allow`."""

    @property
    def file(self) -> str:
        """The file or folder of an embedded engine: host and path read as one file name."""
        return self.host + self.path

    def option(self, name: str) -> str | None:
        """Return the option *name*, None where it was not given."""
        return self.options.get(name)

    def seconds(self, name: str, default: float) -> float:
        """Return the option *name* as a positive number of seconds."""
        text = self.options.get(name)
        try:
            seconds = default if text is None else float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise BadAddress(f"option {name}={text}: give a number of seconds above 0")
        return seconds

    def pairs(self, name: str) -> dict[str, str]:
        """Return the option *name* read as ``key:value[,key:value…]``, nothing where it was not given."""
        text = self.options.get(name)
        pairs = [] if text is None else list(_pairs(name, text))
        if text is not None and (not pairs or len(dict(pairs)) < len(pairs)):
            raise BadAddress(f"option {name}={text}: a key stands there twice, or none does; {_expected(name)}")
        return dict(pairs)

    def allow(self, *names: str, user: bool = False) -> None:
        """Refuse any option not among *names*, and the name of a user unless such addresses may hold one."""
        if self.user and not user:  # what stands there may be a key, so it is not repeated
            raise BadAddress(
                f"{self.backend} addresses have no user before the host; leave it out, and give what proves who you "
                "are in the environment: the documentation of the backend names the variable"
            )
        unknown = sorted(set(self.options) - set(names))
        if unknown:
            raise BadAddress(f"{self.backend} addresses have no option {', '.join(unknown)}; known: {', '.join(names)}")


def scalar_of(text: str) -> Scalar | None:
    """Return the JSON scalar that *text* is, *text* itself where it is no JSON, None where it is no single value.

    A whole number is an integer, of 64 bits; NaN and Infinity are texts.
    """
    try:
        value = parsed(text)
    except NotJson:
        return text
    except Unreadable:
        return None
    if text.strip() in CONSTANTS:
        return text
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | bool) or (isinstance(value, float) and isfinite(value)):
        return value
    return value if isinstance(value, int) and value in INTEGERS else None


def named_conditions(values: Mapping[str, Scalar], given: str) -> dict[str, str]:
    """Return the conditions that *values* by key, and the filter *given* (or ""), are, in one spelling, by name.

    Two scopes that want different values of one key have no row in common, and the name of such a condition says the
    key; of two filters that is not known, so each has a name of its own.
    """
    named = {f"where:{key}": json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    if given:
        named[f"filter:{hashlib.sha256(given.encode()).hexdigest()[:8]}"] = given
    return named


def canonical_host(host: str) -> str:
    """Return *host* in the one spelling of all its names that can be told from the names alone."""
    name = host.strip("[]").rstrip(".").lower()
    return "localhost" if name in ("localhost", "::1") or name.startswith("127.") else name


def parse_address(text: str) -> Address:
    """Read *text* as an address.

    Raises:
        BadAddress: no scheme, no collection, a password, a bad port, an option given twice.
    """
    user, at, _ = text.partition("://")[2].partition("/")[0].rpartition("@")
    if at and (":" in unquote(user) or not user):
        raise BadAddress(
            "an address may not hold a password, since addresses end up in logs; give it in the environment instead: "
            "the documentation of the backend names the variable"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        why = "" if "@" in text else f" ({exc})"
        raise BadAddress(f"{_shown(text)} is not an address{why}; expected {SHAPE}") from exc
    backend, _, transport = parts.scheme.partition("+")
    path, _, collection = parts.path.rpartition("/")
    if not backend or "://" not in text:
        raise BadAddress(f"{_shown(text)} lacks a backend in front, such as qdrant://; expected {SHAPE}")
    if not collection:
        raise BadAddress(f"{_shown(text)} lacks the name of a collection at its end; expected {SHAPE}")
    if parts.fragment:
        raise BadAddress(
            f"{_shown(text.partition('#')[0])} is followed by a '#'; write it as %23, or leave it out; expected {SHAPE}"
        )
    host = parts.netloc.rpartition("@")[2]
    host = host if port is None else host.rpartition(":")[0]
    place = (unquote(host), port, unquote(path), unquote(collection))
    return Address(backend, transport, *place, _options(text, parts.query), unquote(user))


def _pairs(name: str, text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        found = PAIR.match(text, place)
        if not found:
            raise BadAddress(f"option {name}={text}: {text[place:]!r} is not understood; {_expected(name)}")
        yield found["key"], found["value"]
        place = found.end()


def _expected(name: str) -> str:
    return f"expected {name}=key:value[,key:value…], a value with a comma in quotes"


def _shown(text: str) -> str:
    """Return *text* for a message, without what stands before an @: it may be a password."""
    return repr("…@" + text.rpartition("@")[2] if "@" in text else text)


def _options(text: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise BadAddress(f"{_shown(text)} gives an option twice")
    return options
