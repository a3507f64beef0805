"""Rows in clusters under an index that is built, and what a plan by search and one by scan say of them."""

from __future__ import annotations

from pathlib import Path

import nudge_vdb
from benchmarks.clustered import Clustered
from nudge_vdb.contract import Collection
from nudge_vdb.judgements import Judgements
from nudge_vdb.run import Plan

WIDTH, QUERIES = 64, 300
WAYS = ("scan", "search")


def world(rows: int, seed: int = 0) -> Clustered:
    """Return so many rows, and queries that ask for some of them."""
    return Clustered(rows, WIDTH, QUERIES, seed=seed)


def judgements(clustered: Clustered) -> Judgements:
    """Return what the queries ask for; row ids are places, from 1."""
    queries, places = clustered.judged()
    return Judgements.from_arrays(queries, [[str(place + 1)] for place in places.tolist()])


def plans(collection: Collection, given: Judgements, folder: Path, *ways: str) -> dict[str, Plan]:
    """Return a plan by each of *ways*, each from a state of its own."""
    return {way: nudge_vdb.plan(collection, given, state=folder / way, rivals=way) for way in ways or WAYS}


def told(found: dict[str, Plan]) -> str:
    """Return the steps and the recall, in words."""
    recall = found["search"].report["rivals_recall"] if "search" in found else None
    steps = ", ".join(f"{way} {plan.step:g} (gain {plan.gain:.4f})" for way, plan in found.items())
    return f"steps: {steps}; recall {recall}"
