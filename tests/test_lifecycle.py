"""A collection's life at random, against a model of ten lines: no base is lost, and what is not ours stays as it was.

NUDGE_VDB_LIVES says how many lives are lived, 15 by default.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nudge_vdb
from nudge_vdb.contract import Metric, Rows
from nudge_vdb.errors import StateConflict
from nudge_vdb.prune import prune
from nudge_vdb.testing import Faulty
from tests.conftest import make_world

LIVES = int(os.environ.get("NUDGE_VDB_LIVES", "15"))
WIDTH, ROWS_A_BATCH = 8, 20
JUDGEMENTS = st.sampled_from(["train", "fewer", "test"])
STEPS = st.sampled_from([0.1, 0.4])
DEATHS = st.tuples(st.sampled_from(["before", "after"]), st.sampled_from(["fetch", "write"]), st.integers(1, 6))


class Model:
    """What a collection must hold."""

    def __init__(self, base):
        self.base, self.versions, self.heading = dict(base), {}, {0}

    def place(self, number, text):
        """Where a version has a row: at its tuned vector, if its owner has not embedded it again since."""
        base, tuned = self.versions.get(number, {}).get(text, (None, None))
        return tuned if base is not None and (base == self.base[text]).all() else self.base[text]

    def allows(self, text, vector):
        """Whether a row may hold *vector*: that of the live version, or of one that a move has headed for since."""
        return any((vector == self.place(number, text)).all() for number in self.heading)


class Life(RuleBasedStateMachine):
    """Everything that may happen to a collection, in any order."""

    @initialize()
    def begin(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * WIDTH * ROWS_A_BATCH)
        self.patch.setattr("os.fsync", lambda handle: None)
        self.folder = Path(tempfile.mkdtemp(prefix="nudge-vdb-life-"))
        self.world = make_world(Metric.DOT, width=WIDTH)  # bit for bit
        self.collection, self.fixture = self.world.collection, self.world.fixture
        self.model = Model(self.world.vectors())
        self.rest = {text: (row.payload, row.others) for text, row in self.fixture.read().items()}
        self.live, self.reached, self.drawn = 0, {0}, np.random.default_rng(0)
        self.written = {0}

    def teardown(self):
        if hasattr(self, "model"):
            self.arrive(0, self.rollback_to(0))
            vectors = self.world.vectors()
            assert all((vectors[text] == base).all() for text, base in self.model.base.items()), "a base was lost"
            self.patch.undo()
            shutil.rmtree(self.folder)

    # Ours

    @rule(judgements=JUDGEMENTS, step=STEPS)
    def plan(self, judgements, step):
        self.planned(self.collection, judgements, step)

    @rule(judgements=JUDGEMENTS, step=STEPS)
    def tune(self, judgements, step):
        plan = self.planned(self.collection, judgements, step)
        self.arrive(plan.version.number, nudge_vdb.apply(plan, force=True))

    @rule(judgements=JUDGEMENTS, step=STEPS, death=DEATHS)
    def tune_and_die(self, judgements, step, death):
        number = self.planned(self.collection, judgements, step).version.number
        plan = nudge_vdb.prepared(self.dying(death), number, state=self.folder)
        self.maybe_arrive(number, lambda: nudge_vdb.apply(plan, force=True))

    @rule(data=st.data())
    def roll(self, data):
        number = data.draw(st.sampled_from(sorted(self.reached)))
        self.arrive(number, self.rollback_to(number))

    @precondition(lambda self: self.reached != {0})
    @rule(data=st.data(), death=DEATHS)
    def roll_and_die(self, data, death):
        number, dying = data.draw(st.sampled_from(sorted(self.reached))), self.dying(death)
        self.maybe_arrive(number, lambda: nudge_vdb.rollback(dying, to=number, state=self.folder))

    @precondition(lambda self: self.unfinished() is not None)
    @rule()
    def resume(self):
        self.arrive(self.unfinished(), nudge_vdb.resume(self.collection, state=self.folder))

    @precondition(lambda self: len(self.reached) > 2)
    @rule(keep=st.integers(0, 2))
    def prune(self, keep):
        if self.unfinished() is not None:
            with pytest.raises(StateConflict, match="resume"):
                prune(self.collection, keep=keep, state=self.folder)
            return
        self.reached -= set(prune(self.collection, keep=keep, state=self.folder).dropped)
        assert self.live in self.reached

    @precondition(lambda self: self.reached != {0})
    @rule()
    def verify(self):
        found = nudge_vdb.verify(self.collection, state=self.folder, deep=True)
        if self.unfinished() is None:
            held = self.model.versions.get(self.live, {}).keys()
            assert found.missing == sorted(held - self.model.base.keys())
            assert found.re_embedded == sorted(text for text in held & self.model.base.keys() if self.strange(text))
            assert found.astray == []

    # The owner's

    @rule(place=st.integers(0, 250), count=st.integers(1, 3))
    def re_embed(self, place, count):
        texts = sorted(self.model.base)[place % len(self.model.base) :][:count]
        vectors = self.fresh(len(texts))
        self.fixture.re_embed(texts, vectors)
        self.model.base |= dict(zip(texts, vectors, strict=True))

    @precondition(lambda self: len(self.model.base) > 180)
    @rule(place=st.integers(0, 250))
    def delete(self, place):
        text = sorted(self.model.base)[place % len(self.model.base)]
        self.fixture.delete([text])
        del self.model.base[text], self.rest[text]

    @rule(place=st.integers(0, 199))
    def insert(self, place):
        text = f"row {place:03}" if f"row {place:03}" not in self.model.base else f"new {len(self.model.base)} {place}"
        (vector,) = self.fresh(1)
        self.fixture.insert(Rows([text], vector[None], [{"new": place}]))
        self.model.base[text], self.rest[text] = vector, ({"new": place}, {})

    # What always holds

    @invariant()
    def every_row_is_where_the_model_has_it(self):
        if hasattr(self, "model"):
            held = self.fixture.read()
            assert {text: (row.payload, row.others) for text, row in held.items()} == self.rest
            wrong = [text for text, row in held.items() if not self.model.allows(text, row.vector)]
            assert not wrong

    @invariant()
    def status_tells_what_is_live_and_how_to_go_on(self):
        if hasattr(self, "model"):
            told = nudge_vdb.status(self.collection, state=self.folder)
            assert told["live"] == self.live
            assert ("resume ADDRESS" in told["message"]) == (told["unfinished"] is not None)

    # How

    def fresh(self, count):
        return self.drawn.normal(size=(count, WIDTH)).astype(np.float32)

    def strange(self, text):
        """Whether no version that was ever written knows the base of a row; a dropped one leaves it behind."""
        known = [self.model.versions[number].get(text) for number in self.written - {0}]
        return not any(pair and (pair[0] == self.model.base[text]).all() for pair in known)

    def unfinished(self):
        return nudge_vdb.status(self.collection, state=self.folder)["unfinished"]

    def dying(self, death):
        moment, call, number = death

        def die():
            raise KeyboardInterrupt

        return Faulty(self.collection, **{moment: {(call, number): die}})

    def planned(self, collection, judgements, step):
        given = getattr(self.world, judgements)
        plan = nudge_vdb.plan(collection, given, state=self.folder, step=step, max_queries=20)
        content = plan.version.content
        texts = [key.decode() for key in content.keys]
        rows = zip(texts, zip(content.base.copy(), content.tuned.copy(), strict=True), strict=True)
        self.model.versions.setdefault(plan.version.number, dict(rows))
        return plan

    def rollback_to(self, number):
        if not (self.reached - {0}):
            return None
        return nudge_vdb.rollback(self.collection, to=number, state=self.folder)

    def arrive(self, number, applied):
        if applied is not None:
            assert "unverified" not in applied.skipped
            self.live, self.model.heading = number, {number}
            self.reached.add(number)
            self.written.add(number)

    def maybe_arrive(self, number, move):
        try:
            self.arrive(number, move())
        except KeyboardInterrupt:
            self.reached.add(number)
            self.written.add(number)
            if self.unfinished() is None:
                self.arrive(number, nudge_vdb.verify(self.collection, state=self.folder) and Arrived)
            else:
                self.model.heading.add(number)


class Arrived:
    """A move that died after its end was noted, while it read back."""

    skipped = ()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=LIVES, stateful_step_count=20, deadline=None)
