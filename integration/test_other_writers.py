"""Others write to the very rows that a tune is writing: what they did stays, but for a window, which is measured."""

import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pytest

import nudge_vdb
from integration.topics import CHOICES, topics
from integration.witness import MilvusWitness, QdrantWitness
from nudge_vdb import writeback
from nudge_vdb.phases import Phases
from nudge_vdb_milvus.wire import Wire

TOPICS, WIDTH = 60, 128
BATCHES = 12
AT_ONCE = 10
MEANWHILE = 5
"""How much others do between two batches at least, each time to AT_ONCE rows."""
LONGEST = 60
ADDED = 100_000
"""The ids of rows that are added begin here."""
EDIT = {"edited": True}


@dataclass
class Watched:
    """A collection that notes when each row was being written: from before the last look at it until it was done."""

    inner: object
    before_each: object = int  # does nothing
    windows: list[tuple[float, float, set[str]]] = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def write(self, keys, vectors, expected):
        self.before_each()
        start = time.monotonic()
        outcomes = self.inner.write(keys, vectors, expected)
        self.windows.append((start, time.monotonic(), {self.inner.text_of(key) for key in keys}))
        return outcomes

    def was_writing(self, row, start, end):
        """Tell whether the row was being written at some time from *start* to *end*."""
        return any(str(row) in rows and since <= end and start <= until for since, until, rows in self.windows)

    def told(self):
        milliseconds = sorted(1000 * (until - since) for since, until, _ in self.windows)
        rows = max(len(rows) for _, _, rows in self.windows)
        return f"a window of {np.median(milliseconds):.0f} ms (median; at most {milliseconds[-1]:.0f}) for {rows} rows"


class Others:
    """The owners of the rows: each row has one thing done to it at most, while a tune writes."""

    def __init__(self, witness, base, seed):
        self.witness, self.base, self.rng = witness, base, np.random.default_rng(seed)
        self.done: dict[str, dict[int, tuple[float, float]]] = {"re-embed": {}, "delete": {}, "edit": {}, "add": {}}
        self.theirs = -base  # as far from ours as can be
        order = self.rng.permutation(len(base)) + 1
        self.waiting = dict(zip(["re-embed", "delete", "edit", "left alone"], np.array_split(order, 4), strict=True))
        self.waiting["add"] = np.arange(ADDED, ADDED + len(base) // 4)
        self._enough, self._more, self._count = threading.Event(), threading.Condition(), 0
        self._thread = threading.Thread(target=self._work)

    def start(self):
        self._thread.start()

    def stop(self):
        self._enough.set()
        self._thread.join()

    def wait_for_more(self):
        """Return when they have done a good deal more than when this was last called, or all there was to do."""
        with self._more:
            wanted = self._count + MEANWHILE
            self._more.wait_for(lambda: self._count >= wanted or self._enough.is_set(), timeout=LONGEST)

    def _work(self):
        while not self._enough.is_set() and any(len(self.waiting[what]) for what in self.done):
            what = self.rng.choice([what for what in self.done if len(self.waiting[what])])
            ids, self.waiting[what] = np.split(self.waiting[what], [AT_ONCE])
            start = time.monotonic()
            self._do(what, ids.tolist())
            self.done[what] |= dict.fromkeys(ids.tolist(), (start, time.monotonic()))
            with self._more:
                self._count += 1
                self._more.notify()
        self._enough.set()
        with self._more:
            self._more.notify()

    def _do(self, what, ids):
        if what == "add":
            self.witness.insert(ids, self.theirs[: len(ids)])
        elif what == "delete":
            self.witness.delete(ids)
        elif what == "edit":
            self.witness.edit(ids, EDIT, self.base[np.array(ids) - 1])
        else:
            self.witness.re_embed(ids, self.theirs[np.array(ids) - 1])


class WithOthers(Phases):
    """Lets the others work while rows are written, and no longer."""

    def __init__(self, others):
        super().__init__()
        self.others = others

    def shown(self, name, total):
        {"write": self.others.start, "verify": self.others.stop}.get(name, lambda: None)()
        return super().shown(name, total)


@dataclass
class Story:
    """What was there before, what others did, what we did, and what is there now."""

    others: Others
    watched: Watched
    alone: Watched
    """The way back, without others."""
    applied: object
    tuned: dict[int, np.ndarray]
    before: object
    after: object

    @cached_property
    def held(self):
        """The vectors that are there now, by id."""
        return self.after.vector_of()

    def where(self, row):
        """Tell whose vector a row holds, "nobody's" where it has none of the three, "gone" where there is no row."""
        vector = self.held.get(row)
        if vector is None:
            return "gone"
        ours = {"ours": self.tuned[row], "theirs": self.others.theirs[row - 1], "the base": self.others.base[row - 1]}
        return next((whose for whose, held in ours.items() if (vector == held).all()), "nobody's")

    def outside_window(self, what, rows):
        """Return those of *rows* that were not being written when *what* was done to them."""
        return [row for row in rows if not self.watched.was_writing(row, *self.others.done[what][row])]

    def listed(self, reason):
        """Return the ids that the report gives with *reason*."""
        verified = {"changed": "re_embedded", "missing": "missing"}
        found = {*self.applied.skipped.get(reason, []), *self.applied.report["verified"][verified[reason]]}
        return set(map(int, found))


@pytest.fixture(
    scope="module",
    params=["Qdrant 1.16.3", pytest.param("Milvus 2.3.5", marks=pytest.mark.milvus_server)],
)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def story(engine, request, tmp_path_factory):
    """A tune among others."""
    server = request.getfixturevalue("qdrant" if engine.startswith("Qdrant") else "milvus_server")
    witness = (QdrantWitness if engine.startswith("Qdrant") else MilvusWitness)(server, "others")
    world, state = topics(TOPICS, 50, WIDTH), tmp_path_factory.mktemp("others")
    with pytest.MonkeyPatch.context() as patch, closing(witness):
        patch.setattr(writeback, "BATCH_BYTES", 4 * WIDTH * len(world.rows) // BATCHES)
        witness.fill(world.rows)
        before = witness.read()
        with closing(nudge_vdb.connect(witness.address)) as collection:
            others = Others(witness, before.vectors, 0)
            watched = Watched(collection, others.wait_for_more)
            plan = nudge_vdb.plan(watched, world.judgements(), state=state, phases=WithOthers(others), **CHOICES)
            applied = nudge_vdb.apply(plan, force=True)
        after, content = witness.read(), plan.version.content
        with closing(nudge_vdb.connect(witness.address)) as collection:
            alone = Watched(collection)
            nudge_vdb.rollback(alone, to=0, state=state)
        tuned = {int(collection.text_of(key)): content.tuned[place] for place, key in enumerate(content.keys)}
        yield Story(others, watched, alone, applied, tuned, before, after)


def test_every_row_that_was_embedded_again_stays_so_but_for_a_window(story, engine, figure):
    figure(f"{engine}, nobody else at work: {story.alone.told()}")
    done = story.others.done["re-embed"]
    where = {row: story.where(row) for row in done}
    lost = [row for row in done if where[row] == "ours"]
    figure(
        f"{engine}, others write to the rows of a tune: {len(done)} embedded again, {len(lost)} of them lost in "
        f"{story.watched.told()}"
    )
    assert set(where.values()) <= {"theirs", "ours"}
    assert len(done) > 100
    assert not story.outside_window("re-embed", lost)


def test_no_deleted_row_is_back_but_on_milvus_in_a_window(story, engine, figure):
    done = story.others.done["delete"]
    back = [row for row in done if story.where(row) != "gone"]
    figure(f"{engine}, others write to the rows of a tune: {len(done)} deleted, {len(back)} of them back")
    assert len(done) > 100
    assert not back or engine.startswith("Milvus")
    assert not story.outside_window("delete", back)


def test_every_payload_stays_edited_but_on_milvus_in_a_window(story, engine, figure):
    done, beside = story.others.done["edit"], story.after.beside_of()
    lost = [row for row in done if not holds_edit(beside[row])]
    figure(f"{engine}, others write to the rows of a tune: {len(done)} payloads edited, {len(lost)} edits lost")
    assert len(done) > 100
    assert not lost or engine.startswith("Milvus")
    assert not story.outside_window("edit", lost)
    whose = Counter(story.where(row) for row in done)
    assert whose.keys() <= ({"ours"} if engine.startswith("Qdrant") else {"ours", "the base"})


def holds_edit(beside):
    return "edited" in (beside[1] if isinstance(beside, tuple) else beside)


def test_rows_that_others_add_and_rows_that_they_leave_alone_are_as_they_should_be(story):
    added, vectors = story.others.done["add"], story.held
    assert len(added) > 100
    assert added.keys() == {row for row in vectors if row >= ADDED}
    assert all((vectors[row] == -story.before.vectors[(row - ADDED) % AT_ONCE]).all() for row in added)
    touched = set().union(*story.others.done.values())
    alone = [row for row in story.before.ids if row not in touched]
    before, after = story.before.beside_of(), story.after.beside_of()
    assert {story.where(row) for row in alone} == {"ours"}
    assert all(after[row] == before[row] for row in alone)


def test_the_report_lists_every_row_that_was_left_to_others_with_the_reason(story):
    theirs = {row for row in story.others.done["re-embed"] if story.where(row) == "theirs"}
    gone = {row for row in story.others.done["delete"] if story.where(row) == "gone"}
    assert theirs <= story.listed("changed")
    assert gone <= story.listed("missing")


@pytest.mark.milvus_server
def test_a_run_goes_on_though_some_of_the_first_rows_are_deleted_while_they_are_tried(
    milvus_server, tmp_path, monkeypatch
):
    world, upsert = topics(4, 10, WIDTH), Wire.upsert
    deleted = [1, 3]
    with closing(MilvusWitness(milvus_server, "canaries")) as witness:

        def upsert_and_delete(wire, *sent):
            upsert(wire, *sent)
            if deleted:
                witness.delete(deleted)
                deleted.clear()

        witness.fill(world.rows)
        before = witness.read()
        with closing(nudge_vdb.connect(witness.address)) as collection:
            plan = nudge_vdb.plan(collection, world.judgements(), state=tmp_path, **CHOICES)
            monkeypatch.setattr(Wire, "upsert", upsert_and_delete)
            applied = nudge_vdb.apply(plan, force=True)
        after = witness.read()
        assert set(applied.report["verified"]["missing"]) == {"1", "3"}
        assert after.ids == [row for row in before.ids if row not in (1, 3)]
        assert after.beside == [
            beside for row, beside in zip(before.ids, before.beside, strict=True) if row in after.ids
        ]
        assert (after.vectors == plan.version.content.tuned[[row - 1 for row in after.ids]]).all()
