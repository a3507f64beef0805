"""Finding the package that can open an address."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nudge_vdb.address import SHAPE, Address, parse_address
from nudge_vdb.contract import CONTRACT, Collection, Fixture, Metric, Rows
from nudge_vdb.errors import BackendUnavailable, BadAddress
from nudge_vdb.retry import opened

BACKENDS = "nudge_vdb.backends"
FIXTURES = "nudge_vdb.fixtures"
MEMBERS = sorted(name for name in vars(Collection) if not name.startswith("_"))
FAILURES = (Exception, SystemExit)
"""What importing a package may end in: a fault of one is no reason that the others cannot be used."""


def connect(address: str) -> Collection:
    """Open the collection at *address*.

    Raises:
        BadAddress: it cannot be read.
        BackendUnavailable: nobody, or more than one, provides its backend, its package or client cannot be imported,
            or it keeps another contract than this nudge-vdb.
        UnfitCollection: there is no such collection, or it cannot be tuned.
        EngineError: the engine cannot be reached, or refuses.
    """
    if not isinstance(address, str):  # a client, a path or an open collection was given by mistake
        raise BadAddress(f"a {type(address).__name__} was given; expected an address as text: {SHAPE}")
    parsed = parse_address(address)
    point = _only(BACKENDS, parsed.backend)
    opener = _load(point)
    collection: Collection = opened(lambda: opener(parsed))
    fault = fault_of(collection)
    if fault is not None:
        raise BackendUnavailable(f"the backend {point.name} of {_package(point)} {fault}")
    return collection


def fault_of(collection: object) -> str | None:
    """Return why *collection* cannot be used by this nudge-vdb, in words that follow its name; None if it can."""
    number = getattr(collection, "contract", 1)
    if not isinstance(number, int) or number > CONTRACT:
        return (
            f"keeps contract {number!r}, and this nudge-vdb knows contracts up to {CONTRACT}; upgrade nudge-vdb with: "
            "pip install --upgrade nudge-vdb"
        )
    lacking = [name for name in MEMBERS if not hasattr(type(collection), name) and not hasattr(collection, name)]
    if not lacking:
        return None
    return f"lacks what contract {number} wants of a collection: {', '.join(lacking)}; upgrade its package"


def fill(address: str, rows: Rows, metric: Metric) -> Fixture:
    """Create the collection at *address*, which must not exist, and fill it with *rows*: for tests and the demo."""
    parsed: Address = parse_address(address)
    fixture: Fixture = _load(_only(FIXTURES, parsed.backend))(parsed, rows, metric)
    return fixture


def installed() -> list[dict[str, Any]]:
    """Return every backend that is installed, with its package, whether it can be imported, and if not, why."""
    return [_described(point) for point in sorted(entry_points(group=BACKENDS), key=lambda point: point.name)]


def _described(point: EntryPoint) -> dict[str, Any]:
    reason = ""
    try:
        _load(point)
    except BackendUnavailable as exc:
        reason = str(exc)
    return {"backend": point.name, "package": _package(point), "usable": not reason, "reason": reason}


def _only(group: str, name: str) -> EntryPoint:
    """Return the entry point *name* of *group*, of which there must be one."""
    found = entry_points(group=group)
    matching = [point for point in found if point.name == name]
    if not matching:
        known = ", ".join(sorted(found.names)) or "none"
        raise BackendUnavailable(f"no installed package provides the backend {name!r}; installed: {known}")
    if len(matching) > 1:
        packages = " and ".join(sorted(map(_package, matching)))
        raise BackendUnavailable(f"{packages} both provide the backend {name!r}; uninstall one of them")
    return matching[0]


def _load(point: EntryPoint) -> Any:  # noqa: ANN401 - what an entry point holds is known by its group
    """Import what *point* names.

    Raises:
        BackendUnavailable: that fails; the message says how.
    """
    try:
        opener = point.load()
    except ImportError as exc:
        raise BackendUnavailable(_advice(point, exc)) from exc
    except FAILURES as exc:
        raise BackendUnavailable(
            f"the backend {point.name} of {_package(point)} cannot be used: importing {point.module} ended in "
            f"{type(exc).__name__}: {exc}; upgrade or uninstall that package"
        ) from exc
    if not callable(opener):
        raise BackendUnavailable(
            f"the backend {point.name} of {_package(point)} cannot be used: {point.value} is no function; upgrade or "
            "uninstall that package"
        )
    return opener


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def _advice(point: EntryPoint, failure: ImportError) -> str:
    package = _package(point)
    wanted = f"{package}[{point.name}]" if package == "nudge-vdb" else package
    return f"the client of {point.name} cannot be imported ({failure}); install it with: pip install '{wanted}'"
