"""Fine-tune the vectors of a live collection with NUDGE: proven before anything is written, and undone at will."""

from nudge_vdb.backends import connect
from nudge_vdb.evaluate import Evaluation, evaluate
from nudge_vdb.judgements import Judgements
from nudge_vdb.options import Options
from nudge_vdb.run import Applied, Plan, apply, plan, prepared, rollback
from nudge_vdb.standing import history, status, verify

__all__ = [
    "Applied",
    "Evaluation",
    "Judgements",
    "Options",
    "Plan",
    "apply",
    "connect",
    "evaluate",
    "history",
    "plan",
    "prepared",
    "rollback",
    "status",
    "verify",
]
