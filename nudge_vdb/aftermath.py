"""What the engine says before a move, and what it does after one: index, disk, time."""

from __future__ import annotations

from typing import Any

from nudge_vdb.contract import Weight
from nudge_vdb.errors import EngineError
from nudge_vdb.retry import Patient


def advice(collection: Patient, rows: int) -> dict[str, Any]:
    """Return what writing *rows* rows will do to the engine: "advice" as it was given, "warnings" of what matters."""
    if not rows:
        return {"advice": [], "warnings": []}
    try:
        remarks = collection.before_move(rows)
    except EngineError as exc:
        return {"advice": [], "warnings": [f"the engine gave no advice on the move: {exc}"]}
    given = [{"topic": each.topic, "text": each.text, "weight": each.weight.value} for each in remarks]
    return {"advice": given, "warnings": [each.text for each in remarks if each.weight is not Weight.FINE]}


def finished(collection: Patient, rows: int) -> list[str]:
    """Let the engine do what it does after *rows* rows were written; return what went wrong, in sentences."""
    try:
        if rows:
            collection.after_move(rows)
    except EngineError as exc:
        return [f"the rows are written, but the engine's work after the move failed: {exc}"]
    return []
