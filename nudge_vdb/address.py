"""Addresses: the one string that names a collection, its vector field and its scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from nudge_vdb.errors import BadAddress

SHAPE = "backend[+transport]://[host[:port]]/[…/]collection[?option=value&…]"


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

    def allow(self, *names: str) -> None:
        """Refuse any option not among *names*."""
        unknown = sorted(set(self.options) - set(names))
        if unknown:
            raise BadAddress(f"{self.backend} addresses have no option {', '.join(unknown)}; known: {', '.join(names)}")


def canonical_host(host: str) -> str:
    """Return *host* in the one spelling of all its names that can be told from the names alone."""
    name = host.strip("[]").rstrip(".").lower()
    return "localhost" if name in ("localhost", "::1") or name.startswith("127.") else name


def parse_address(text: str) -> Address:
    """Read *text* as an address.

    Raises:
        BadAddress: no scheme, no collection, a user or password, a bad port, an option given twice.
    """
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise BadAddress(
            "an address may not hold a user or password, since addresses end up in logs; "
            "set QDRANT_API_KEY or MILVUS_TOKEN in the environment instead"
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
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    place = (unquote(host), port, unquote(path), unquote(collection))
    return Address(backend, transport, *place, _options(text, parts.query))


def _shown(text: str) -> str:
    """Return *text* for a message, without what stands before an @: it may be a password."""
    return repr("…@" + text.rpartition("@")[2] if "@" in text else text)


def _options(text: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise BadAddress(f"{_shown(text)} gives an option twice")
    return options
