"""Finding the package that can open an address."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nudge_vdb.address import Address, parse_address
from nudge_vdb.contract import Collection, Fixture, Metric, Rows
from nudge_vdb.errors import BackendUnavailable

BACKENDS = "nudge_vdb.backends"
FIXTURES = "nudge_vdb.fixtures"


def connect(address: str) -> Collection:
    """Open the collection at *address*.

    Raises:
        BadAddress: it cannot be read.
        BackendUnavailable: nobody, or more than one, provides its backend, or the client is not installed.
        UnfitCollection: there is no such collection, or it cannot be tuned.
        EngineError: the engine cannot be reached, or refuses.
    """
    parsed = parse_address(address)
    collection: Collection = _load(BACKENDS, parsed.backend)(parsed)
    return collection


def fill(address: str, rows: Rows, metric: Metric) -> Fixture:
    """Create the collection at *address*, which must not exist, and fill it with *rows*: for tests and the demo."""
    parsed: Address = parse_address(address)
    fixture: Fixture = _load(FIXTURES, parsed.backend)(parsed, rows, metric)
    return fixture


def installed() -> list[dict[str, Any]]:
    """Return every backend that is installed, with its package and whether its client can be imported."""
    return [_described(point) for point in sorted(entry_points(group=BACKENDS), key=lambda point: point.name)]


def _described(point: EntryPoint) -> dict[str, Any]:
    reason = ""
    try:
        point.load()
    except ImportError as exc:
        reason = _advice(point, exc)
    return {"backend": point.name, "package": _package(point), "usable": not reason, "reason": reason}


def _load(group: str, name: str) -> Any:  # noqa: ANN401 - what an entry point holds is known by its group
    found = entry_points(group=group)
    matching = [point for point in found if point.name == name]
    if not matching:
        known = ", ".join(sorted(found.names)) or "none"
        raise BackendUnavailable(f"no installed package provides the backend {name!r}; installed: {known}")
    if len(matching) > 1:
        packages = " and ".join(sorted(map(_package, matching)))
        raise BackendUnavailable(f"{packages} both provide the backend {name!r}; uninstall one of them")
    try:
        return matching[0].load()
    except ImportError as exc:
        raise BackendUnavailable(_advice(matching[0], exc)) from exc


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def _advice(point: EntryPoint, failure: ImportError) -> str:
    package = _package(point)
    wanted = f"{package}[{point.name}]" if package == "nudge-vdb" else package
    return f"the client of {point.name} cannot be imported ({failure}); install it with: pip install '{wanted}'"
