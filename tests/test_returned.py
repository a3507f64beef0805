"""What a backend returns is checked before the core goes by it."""

from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric, Outcome, Page
from nudge_vdb.errors import ContractBroken, Unknown
from nudge_vdb.retry import Patient
from nudge_vdb.testing import Faulty, MemoryCollection, example_rows, memory_fixture

ROWS = example_rows(["a", "b", "c"])
KEYS = [b"a", b"b", b"c"]
PLAIN = Page(KEYS, ROWS.vectors, np.zeros(3, bool), None)

WRONG = {
    "scan": {
        "doubles": (replace(PLAIN, vectors=ROWS.vectors.astype(np.float64)), "array of float32 of shape (3, 8)"),
        "another byte order": (replace(PLAIN, vectors=ROWS.vectors.astype(">f4")), "array of float32"),
        "fewer vectors": (replace(PLAIN, vectors=ROWS.vectors[:2]), "shape (3, 8)"),
        "wider vectors": (replace(PLAIN, vectors=np.zeros((3, 9), np.float32)), "shape (3, 8)"),
        "a list of vectors": (replace(PLAIN, vectors=ROWS.vectors.tolist()), "array of float32"),
        "a mask of numbers": (replace(PLAIN, absent=np.zeros(3)), "array of bool of shape (3,)"),
        "a mask of another shape": (replace(PLAIN, absent=np.zeros((3, 1), bool)), "shape (3,)"),
        "keys that are texts": (replace(PLAIN, keys=["a", "b", "c"]), "keys that are bytes"),
        "a cursor that is no text": (replace(PLAIN, next=7), "a cursor that is text"),
        "no page": (None, "a Page"),
    },
    "locate": {
        "too few": ([b"a"], "3, one for each text"),
        "too many": ([b"a"] * 4, "3, one for each text"),
        "texts": (["a", None, "b"], "keys that are bytes, or None"),
        "nothing": (None, "a list"),
    },
    "fetch": {
        "a list": ([True, True, True], "array of bool"),
        "numbers": (np.ones(3), "array of bool"),
        "too few": (np.ones(2, bool), "shape (3,)"),
        "nothing": (None, "array of bool"),
    },
    "write": {
        "too few": ([Outcome.WRITTEN] * 2, "3, one for each row"),
        "too many": ([Outcome.WRITTEN] * 4, "3, one for each row"),
        "a word that nobody knows": (
            ["written", "ok", "written"],
            "returned 'ok'; expected an Outcome: written, changed",
        ),
        "a number": ([1, 1, 1], "returned 1; expected an Outcome"),
        "nothing": (None, "a list"),
    },
    "search": {
        "too few": ([[b"a"]], "2, one for each query"),
        "texts": ([["a"], ["b"]], "keys that are bytes"),
        "more than k": ([[b"a", b"b", b"c"], []], "at most 2"),
        "a key twice": ([[b"a", b"a"], []], "the key b'a' twice"),
        "pairs": ([[(b"a", 0.5)], []], "keys that are bytes"),
    },
    "count": {"text": ("3", "a number of rows"), "nothing": (None, "a number of rows"), "less": (-1, "0 or more")},
    "notes": {"nothing": (None, "texts by name"), "numbers": ({"a": 1}, "texts by name")},
    "leave_note": {"nothing": (None, "True or False")},
    "diagnose": {"texts": (["fine"], "a list of Remark"), "nothing": (None, "a list of Remark")},
    "before_move": {"nothing": (None, "a list of Remark")},
}
CALLS = {
    "scan": lambda collection: collection.scan(None, 10),
    "locate": lambda collection: collection.locate(["a", "b", "c"]),
    "fetch": lambda collection: collection.fetch(KEYS, np.zeros((3, 8), np.float32)),
    "write": lambda collection: collection.write(KEYS, ROWS.vectors, ROWS.vectors),
    "search": lambda collection: collection.search(ROWS.vectors[:2], 2),
    "count": lambda collection: collection.count(),
    "notes": lambda collection: collection.notes(),
    "leave_note": lambda collection: collection.leave_note("a", "b"),
    "diagnose": lambda collection: collection.diagnose(),
    "before_move": lambda collection: collection.before_move(3),
}
CASES = [(name, each, *case) for name, cases in WRONG.items() for each, case in cases.items()]


def answering(name, answer):
    """Return a filled collection whose member *name* returns *answer*."""
    kind = type("Answering", (MemoryCollection,), {name: lambda *_: answer})
    return kind(Metric.DOT, engine=memory_fixture(ROWS, Metric.DOT).collection.engine)


@pytest.mark.parametrize(
    ("name", "case", "answer", "words"), CASES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_an_answer_that_the_contract_does_not_allow_is_refused_in_words(name, case, answer, words):
    with pytest.raises(ContractBroken) as refusal:
        CALLS[name](Patient(answering(name, answer)))
    said = str(refusal.value)
    assert said.startswith(f"{__name__}.Answering broke the contract of nudge-vdb: {name} returned ")
    assert words in said
    assert refusal.value.exit_status == 6


@pytest.mark.parametrize("name", CALLS)
def test_a_right_answer_goes_through_as_it_is(name):
    collection = memory_fixture(ROWS, Metric.DOT).collection
    plain, patient = CALLS[name](collection), CALLS[name](Patient(collection))
    assert repr(plain) == repr(patient)


def test_outcomes_that_are_equal_texts_are_outcomes():
    patient = Patient(answering("write", ["written", "changed", "missing"]))
    outcomes = CALLS["write"](patient)
    assert [type(each) for each in outcomes] == [Outcome] * 3
    assert outcomes == [Outcome.WRITTEN, Outcome.CHANGED, Outcome.MISSING]


def test_a_run_over_a_backend_that_answers_in_texts_counts_what_was_written(world, tmp_path):
    class Texts(MemoryCollection):
        def write(self, keys, vectors, expected):
            return [outcome.value for outcome in super().write(keys, vectors, expected)]

    held = world.collection
    collection = Texts(held.metric, held.width, held.name, engine=held.engine)
    plan = nudge_vdb.plan(collection, world.train, state=tmp_path, step=0.3, max_queries=30)
    applied = nudge_vdb.apply(plan, force=True)
    assert applied.written == len(plan.version.content.keys) > 0


@pytest.mark.parametrize("name", [name for name in CALLS if name != "write"])
@pytest.mark.usefixtures("waits")
def test_a_read_whose_answer_was_lost_is_asked_again(name):
    def lost():
        raise Unknown("the connection broke off")

    inner = memory_fixture(ROWS, Metric.DOT).collection
    faulty = Faulty(inner, before={(name, 1): lost, (name, 2): lost})
    assert repr(CALLS[name](Patient(faulty))) == repr(CALLS[name](inner))
    assert faulty.calls[name] == 3
