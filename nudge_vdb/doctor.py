"""What there is to know of a collection before it is tuned; reading only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection, Metric, Remark, Vectors, Weight
from nudge_vdb.errors import BadOption, CursorExpired, Refused
from nudge_vdb.given import taking_addresses
from nudge_vdb.notes import own_note
from nudge_vdb.pages import PAGE_BYTES, finite
from nudge_vdb.phases import Phases
from nudge_vdb.retry import Patient
from nudge_vdb.standing import Folder, open_state, state_warnings

DEFAULT_ROWS = 100_000
NEAR_ONE = 1e-3


@dataclass
class Sample:
    """What the first rows of a collection tell."""

    rows: int = 0
    """Rows that were looked at."""
    whole: bool = True
    """Whether that is all of them."""
    absent: int = 0
    """Rows without the vector."""
    not_finite: int = 0
    """Rows with NaN or infinity."""
    zero: int = 0
    doubled: int = 0
    """Rows whose vector another row before them holds as well."""
    shortest: float = np.inf
    """Length of the shortest vector that is not zero."""
    longest: float = 0.0
    digests: set[bytes] = field(default_factory=set, repr=False)

    def add(self, vectors: Vectors) -> None:
        """Take in the vectors (n, width) of some rows."""
        whole = vectors[finite(vectors)]
        lengths = np.linalg.norm(whole.astype(np.float64), axis=1)
        self.not_finite += len(vectors) - len(whole)
        self.zero += int((lengths == 0).sum())
        self.shortest = float(min([self.shortest, *lengths[lengths > 0]]))
        self.longest = float(max([self.longest, *lengths]))
        before = len(self.digests)
        self.digests.update(row.tobytes() for row in whole)
        self.doubled += len(whole) - (len(self.digests) - before)


@taking_addresses
def diagnose(
    collection: Collection, *, rows: int = DEFAULT_ROWS, state: Folder = None, phases: Phases | None = None
) -> dict[str, Any]:
    """Return what is known of *collection*: its traits, what the adapter remarks, and what its first *rows* tell.

    Raises:
        BadOption: *rows* is not above 0.
        EngineError: the engine cannot be reached, or refuses.
    """
    if rows < 1:
        raise BadOption(f"rows {rows}: expected 1 and above")
    patient, phases = Patient(collection), phases or Phases()
    total = patient.count()
    with phases("look", min(rows, total)) as step:
        sample = _sampled(patient, rows, step)
    traits = patient.traits
    remarks = [*patient.diagnose(), *_told_by(sample, traits.metric, rescales=traits.rescales), *_ownership(patient)]
    remarks += [Remark("state", text, Weight.WARNING) for text in state_warnings(open_state(collection, state).root)]
    return {
        "collection": traits.identity,
        "engine": traits.engine,
        "width": traits.width,
        "metric": traits.metric.value,
        "rescales": traits.rescales,
        "tolerance": traits.tolerance,
        "abilities": sorted(traits.abilities),
        "count": total,
        "sample": {name: value for name, value in vars(sample).items() if name != "digests"},
        "remarks": [asdict(remark) for remark in remarks],
        "fit": not any(remark.weight is Weight.OBSTACLE for remark in remarks),
    }


def refuse_obstacles(collection: Collection) -> None:
    """Return if the adapter knows of nothing that a write would fail by; reading only.

    Raises:
        Refused: it does; the message says what it is, and what to do about it.
    """
    found = [remark.text for remark in Patient(collection).diagnose() if remark.weight is Weight.OBSTACLE]
    if found:
        raise Refused(f"{collection.traits.identity} cannot be written, so nothing was begun: {' '.join(found)}")


def _sampled(collection: Collection, rows: int, step: Any) -> Sample:  # noqa: ANN401 - a phase's step
    sample, cursor = Sample(), None
    limit = min(rows, max(16, PAGE_BYTES // (4 * collection.traits.width)))
    for _ in itertools.count():
        try:
            page = collection.scan(cursor, limit)
        except CursorExpired:
            break  # what was sampled so far is a sample, too
        sample.rows += len(page.keys)
        sample.absent += int(page.absent.sum())
        sample.add(page.vectors[~page.absent])
        step(sample.rows)
        cursor, sample.whole = page.next, page.next is None
        if cursor is None or sample.rows >= rows:
            break
    return sample


def _told_by(sample: Sample, metric: Metric, *, rescales: bool) -> Iterator[Remark]:
    """Say what the rows looked at mean for a tune."""
    if sample.rows == sample.absent:
        yield Remark("rows", "no row holds the vector; fill the collection first", Weight.OBSTACLE)
        return
    shortest, longest = f"{sample.shortest:.4g}", f"{sample.longest:.4g}"
    same = shortest == longest
    yield Remark("lengths", f"every vector has length {longest}" if same else f"from {shortest} to {longest}")
    if metric is Metric.DOT and not rescales and sample.longest - sample.shortest < NEAR_ONE:
        yield Remark("lengths", "all vectors are of one length, so inner product ranks as cosine does")
    if sample.absent:
        yield Remark("rows", f"{sample.absent:,} rows lack the vector; they take no part", Weight.WARNING)
    if sample.not_finite:
        yield Remark(
            "rows",
            f"{sample.not_finite:,} rows hold NaN or infinity; they take no part, and are refused if judged: embed "
            "them again",
            Weight.WARNING,
        )
    if sample.zero:
        yield Remark("rows", f"{sample.zero:,} vectors are zero; refused if judged: embed them again", Weight.WARNING)
    if sample.doubled:
        yield Remark(
            "rows",
            f"{sample.doubled:,} rows hold the same vector as another; where only one of them is judged, the other "
            "stays behind",
            Weight.WARNING,
        )


def _ownership(collection: Collection) -> Iterator[Remark]:
    note = own_note(collection, collection.traits)
    if note is not None:
        yield Remark("state", f"vectors belong to {note.origin}")
