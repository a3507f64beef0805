"""Fine-tune the vectors of a live collection with NUDGE: proven before anything is written, and undone at will."""

from nudge_vdb.adopt import adopt
from nudge_vdb.backends import connect
from nudge_vdb.diff import Difference, diff
from nudge_vdb.doctor import diagnose
from nudge_vdb.evaluate import Evaluation, evaluate
from nudge_vdb.exporting import export_map
from nudge_vdb.judgements import Judgements
from nudge_vdb.newcomers import carry
from nudge_vdb.options import Options
from nudge_vdb.prune import Pruned, prune
from nudge_vdb.run import Applied, Plan, apply, plan, prepared, resume, rollback
from nudge_vdb.standing import history, status, verify

__all__ = [
    "Applied",
    "Difference",
    "Evaluation",
    "Judgements",
    "Options",
    "Plan",
    "Pruned",
    "adopt",
    "apply",
    "carry",
    "connect",
    "diagnose",
    "diff",
    "evaluate",
    "export_map",
    "history",
    "plan",
    "prepared",
    "prune",
    "resume",
    "rollback",
    "status",
    "verify",
]


def __dir__() -> list[str]:
    """Return the public names; modules are imported by their own."""
    return sorted(__all__)
