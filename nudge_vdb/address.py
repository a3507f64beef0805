"""Addresses: the one string that names a collection, its vector field and its scope."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import isfinite
from socket import inet_aton
from urllib.parse import parse_qsl, unquote, urlsplit

from nudge_vdb.errors import BadAddress, BadOption
from nudge_vdb.foreign import NotJson, Unreadable, parsed
from nudge_vdb.secret import remember

Scalar = str | int | float | bool

PAIR = re.compile(r'(?P<key>[^:,]+):(?P<value>"(?:[^"\\]|\\.)*"|[^,"]*)(?:,|$)')
CONSTANTS = ("NaN", "Infinity", "-Infinity")
LEGACY = re.compile(r"[0-9][0-9a-fx]*(\.[0-9][0-9a-fx]*)*")
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
    number = _number_of(name)
    if number is None:
        return name if name.isascii() else _ascii(name)
    return "localhost" if number.is_loopback else str(number)


def is_exposed(host: str) -> bool:
    """Tell whether what is sent to *host* unencrypted leaves this machine."""
    return canonical_host(host) != "localhost"


def secret_in(variable: str) -> str | None:
    """Return the key or token in the environment variable *variable*, None where there is none.

    White space around it is no part of it: a mounted secret often ends with a line end. No message will hold it.

    Raises:
        BadOption: it holds what cannot be sent; the message does not repeat it.
    """
    secret = os.environ.get(variable, "").strip()
    remember(secret)
    _require(str.isprintable, secret, variable, "without line ends or control characters inside")
    return secret or None


def require_sendable(secret: str | None, name: str) -> None:
    """Refuse a *secret*, called *name*, that no header of a request can hold, in words that do not repeat it."""
    _require(lambda mark: " " <= mark <= "~", secret or "", name, "in printable ASCII, without line ends")


def _require(fits: Callable[[str], bool], secret: str, name: str, expected: str) -> None:
    wrong = next((place for place, mark in enumerate(secret, 1) if not fits(mark)), None)
    if wrong is not None:
        raise BadOption(
            f"{name} holds a character that cannot be sent, at place {wrong} of {len(secret)}; expected a key "
            f"{expected}; copy it again"
        )


def _number_of(name: str) -> IPv4Address | IPv6Address | None:
    """Return the numeric address that *name* spells, also as 127.1 or in hexadecimal, None where it is a name."""
    try:
        number = ip_address(name)
    except ValueError:
        if not LEGACY.fullmatch(name):
            return None
        try:
            number = ip_address(inet_aton(name))
        except OSError:
            return None
    return getattr(number, "ipv4_mapped", None) or number


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


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
