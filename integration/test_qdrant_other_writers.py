"""Others use a collection on a Qdrant server at the same time, and a run dies: nothing but judged vectors moves."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from integration.engines import own_name
from integration.judged import ASKED, ROWS, WIDTH, beside, judged, judged_rows, vectors_of, write_judgements
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric, Outcome
from nudge_vdb.testing import example_rows
from nudge_vdb.testing.kit import scan_all, turned

ROUTES = pytest.mark.parametrize("options", [{}, {"grpc_port": 1}], ids=["grpc", "rest"])


@pytest.fixture
def articles(qdrant, tmp_path):
    """A judged collection: address, file of judgements, back door."""
    address = qdrant.address(own_name(tmp_path.name), vector="v")
    fixture, file = judged(address, tmp_path)
    yield address, file, fixture
    fixture.close()


def test_of_three_thousand_points_the_deleted_one_is_told_and_none_is_created(qdrant, tmp_path):
    fixture = fill(qdrant.address(own_name(tmp_path.name)), example_rows(list(range(3000)), 32), Metric.DOT)
    collection = fixture.collection
    keys, before = scan_all(collection, 1000)
    fixture.delete([1234])
    outcomes = collection.write(keys, turned(before), before)
    assert [place for place, outcome in enumerate(outcomes) if outcome is not Outcome.WRITTEN] == [1234]
    assert outcomes[1234] is Outcome.MISSING
    assert fixture._client.count(fixture._name, exact=True).count == 2999
    live = scan_all(collection, 1000)[1]
    assert (live == np.delete(turned(before), 1234, axis=0)).all()
    fixture.close()


def test_a_row_deleted_between_plan_and_apply_is_told_and_none_is_created(articles, nudge_vdb):
    address, file, fixture = articles
    assert nudge_vdb("plan", address, "--judgements", file)[0] == 0
    fixture.delete([7])
    status, told = nudge_vdb("apply", address)
    assert (status, told["skipped"]) == (4, {"missing": ["7"]})
    assert told["written"] == ASKED - 1
    assert len(fixture.read()) == ROWS - 1


@ROUTES
def test_other_vectors_and_nested_payloads_stay_byte_for_byte_and_no_point_is_given_a_vector(
    qdrant, tmp_path, nudge_vdb, options
):
    name, (rows, queries) = own_name(tmp_path.name), judged_rows()
    client = QdrantClient(url=qdrant.url, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)
    sizes = {"a": models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)}
    sizes["b"] = models.VectorParams(size=5, distance=models.Distance.EUCLID)
    client.create_collection(name, sizes, sparse_vectors_config={"s": models.SparseVectorParams()})
    client.upsert(name, [mixed(number, row) for number, row in enumerate(rows.vectors.tolist(), start=1)], wait=True)

    def held():
        points = client.scroll(name, limit=1000, with_vectors=True)[0]
        vectors = {point.id: point.vector.pop("a", None) for point in points}
        return vectors, {point.id: (point.payload, point.vector) for point in points}

    vectors, rest = held()
    file = write_judgements(tmp_path / "judgements.jsonl", queries)
    address = qdrant.address(name, vector="a", **options)
    assert nudge_vdb("tune", address, "--judgements", file)[0] == 0
    tuned, tuned_rest = held()
    assert tuned_rest == rest
    moved = {number for number, vector in vectors.items() if tuned[number] != vector}
    assert moved == set(range(1, ASKED + 1))
    assert [number for number, vector in tuned.items() if vector is None] == [ROWS - 1, ROWS]
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert held() == (vectors, rest)
    client.close()


def mixed(number, row):
    """A point with vectors of every kind, the last two without the one that is tuned."""
    vector = {"b": [number / 3] * 5, "s": models.SparseVector(indices=[7, 3], values=[0.1, number / 7])}
    if number <= ROWS - 2:
        vector["a"] = row
    payload = {"n": number, "deep": {"list": [None, {"x": number / 7, "text": "“quoted” 日本"}], "empty": {}}}
    return models.PointStruct(id=number, vector=vector, payload=payload)


def test_what_other_writers_change_between_plan_and_apply_is_theirs(articles, nudge_vdb):
    address, file, fixture = articles
    assert nudge_vdb("plan", address, "--judgements", file)[0] == 0
    theirs = judged_rows(seed=9)[0].vectors
    fixture.re_embed(list(range(1, 31)), theirs[:30])
    fixture._client.set_payload(fixture._name, {"edited": True}, list(range(20, 120)), wait=True)
    before, payloads = vectors_of(fixture), beside(fixture)
    status, told = nudge_vdb("apply", address)
    assert (status, told["skipped"]) == (4, {"changed": [str(number) for number in range(1, 31)]})
    after = vectors_of(fixture)
    moved = {text for text in before if before[text] != after[text]}
    assert moved == {str(number) for number in range(31, ASKED + 1)}
    assert beside(fixture) == payloads
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert vectors_of(fixture) == before


DYING = """
import os, signal, sys
from nudge_vdb import cli, writeback
from nudge_vdb_qdrant.points import ClientPoints
from nudge_vdb_qdrant.stub_points import StubPoints

writeback.BATCH_BYTES = 4 * 16 * 20
calls = []


def dying(update):
    def updated(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and "{moment}" == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = update(*arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return updated


for points in (StubPoints, ClientPoints):
    points.update = dying(points.update)
cli.main()
"""


@ROUTES
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_in_the_middle_of_a_write_can_be_undone_bit_for_bit(qdrant, tmp_path, nudge_vdb, options, moment):
    address = qdrant.address(own_name(tmp_path.name), vector="v", **options)
    fixture, file = judged(address, tmp_path)
    before, payloads = vectors_of(fixture), beside(fixture)
    program = DYING.replace("{moment}", moment)
    died = subprocess.run(
        [sys.executable, "-c", program, "tune", address, "--judgements", str(file)], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert vectors_of(fixture) != before
    status, told = nudge_vdb("status", address)
    assert (status, told["unfinished"]) == (0, 1)
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert (vectors_of(fixture), beside(fixture)) == (before, payloads)
    fixture.close()


@ROUTES
@pytest.mark.parametrize("shape", ["float64", "every other column", "columns first"])
def test_arrays_of_any_layout_are_written_as_the_numbers_they_hold(qdrant, tmp_path, options, shape):
    fixture = fill(qdrant.address(own_name(tmp_path.name), **options), example_rows(list(range(9)), 8), Metric.DOT)
    collection = fixture.collection
    keys, before = scan_all(collection, 100)
    target = turned(before)
    spread = np.zeros((9, 16), np.float32)
    spread[:, ::2] = target
    shapes = {
        "float64": target.astype(np.float64),
        "every other column": spread[:, ::2],
        "columns first": np.asfortranarray(target),
    }
    assert collection.write(keys, shapes[shape], before) == [Outcome.WRITTEN] * 9
    assert (scan_all(collection, 100)[1] == target).all()
    fixture.close()
