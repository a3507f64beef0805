"""What a run says of itself: one flat object for machines, a table and a few sentences for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nudge_vdb.pace import Pace
from nudge_vdb.verify import Findings
from nudge_vdb.writeback import Tally

Report = dict[str, Any]

INTERNAL = ("files", "format", "digest")
IDENTITY = ("version", "created", "parent", "collection", "engine", "judgements")


def now() -> str:
    """Return the time as a manifest holds it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def identity_of(manifest: Mapping[str, Any]) -> Report:
    """Return what names a version, without its figures."""
    return {name: manifest[name] for name in IDENTITY}


def plan_report(manifest: Mapping[str, Any], status: str, seconds: Mapping[str, float]) -> Report:
    """Return what is known of a version before it is applied."""
    facts = {name: value for name, value in manifest.items() if name not in INTERNAL}
    nothing_yet = {"written": 0, "missing": 0, "changed": 0}
    return {**facts, "status": status, **nothing_yet, "seconds": dict(seconds)}


def move_report(tally: Tally, findings: Findings) -> Report:
    """Return what became of the rows of a move."""
    counts = {outcome: len(tally.skipped.get(outcome, [])) for outcome in ("missing", "changed", "refused", "unknown")}
    return {
        "written": tally.written,
        "already": tally.already,
        **counts,
        "skipped": tally.skipped,
        "rebased": tally.rebased,
        "at_base_again": tally.at_base_again,
        "verified": asdict(findings),
    }


def pace_report(pace: Pace) -> Report:
    """Return for how many seconds a move waited, and what for."""
    return {"waited": {"throttle": round(pace.throttled, 3), "slow_server": round(pace.gave_way, 3)}}
