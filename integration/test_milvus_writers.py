"""What becomes of rows that others write, of a server that dies, and of more than a message can hold."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from pymilvus import MilvusClient

from integration.engines_milvus import milvus_for_tests
from integration.milvus_rows import (
    TIMEOUT,
    copies,
    create,
    entities,
    judged_docs,
    live,
    random_vectors,
    stored,
    vector_field,
)
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Outcome, agree
from nudge_vdb.errors import Refused, TooLarge, Unknown, Unreachable
from nudge_vdb.retry import Patient
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.endpoint import endpoint_of
from nudge_vdb_milvus.fixture import ID, VECTOR
from nudge_vdb_milvus.rewriting import Rewriting
from nudge_vdb_milvus.sources import OwnChannel
from nudge_vdb_milvus.wire import LATEST, Wire

pytestmark = pytest.mark.milvus_server


def test_what_others_change_meanwhile_is_left_as_they_left_it(client, wire, docs):
    vectors = random_vectors(200)
    client.insert(docs, entities(range(200), vectors, note="old"))
    collection = MilvusCollection(client, docs)
    keys, read = scan_all(collection, 64)
    client.upsert(docs, entities(range(0, 20), -vectors[:20], note="theirs"))
    client.delete(docs, filter=f"{ID} in {list(range(20, 40))}")
    client.insert(docs, entities(range(500, 520), vectors[:20], note="new"))
    client.upsert(docs, entities(range(40, 60), vectors[40:60], note="noted"))
    outcomes = write(collection, keys, turned(read), read)
    assert outcomes == [Outcome.CHANGED] * 20 + [Outcome.MISSING] * 20 + [Outcome.WRITTEN] * 160
    assert (live(client, docs, *range(20)) == -vectors[:20]).all()
    assert (live(client, docs, *range(500, 520)) == vectors[:20]).all()
    notes = {pk: row["$meta"] for pk, row in stored(wire, docs).items()}
    assert notes.keys() == {*range(20), *range(40, 200), *range(500, 520)}
    assert {notes[pk] for pk in range(40, 60)} == {b'{"note":"noted"}'}
    assert copies(client, docs) == 200


def test_rows_that_another_writer_keeps_upserting_are_never_taken_for_deleted(milvus_server, client, docs):
    vectors = random_vectors(200)
    client.insert(docs, entities(range(200), vectors))
    collection = MilvusCollection(client, docs)
    with busy_writer(milvus_server, docs, vectors):
        for _ in range(8):
            keys, read = scan_all(collection, 50)
            assert [int(collection.text_of(key)) for key in keys] == list(range(200))
            assert (read == vectors).all()
            assert fetch(collection, keys)[1].all()
            assert None not in collection.locate([str(pk) for pk in range(200)])


@contextmanager
def busy_writer(server, name, vectors):
    """Another client that upserts all rows just as they are, over and over."""
    other, stop = MilvusClient(server.uri, timeout=TIMEOUT, dedicated=True), threading.Event()

    def write_on():
        while not stop.wait(0.05):
            other.upsert(name, entities(range(len(vectors)), vectors))

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        other.close()


def wire_of(client, name):
    return Wire(endpoint_of(client), name, TIMEOUT)


class Forgetful:
    """A wire whose first answer to any question holds no rows, as if all were just being replaced."""

    def __init__(self, wire):
        self.wire = wire
        self.now, self.upsert = wire.now, wire.upsert
        self.asked = set()

    def query(self, where, fields, partition, at, options=None):
        again = (where, partition) in self.asked
        self.asked.add((where, partition))
        return self.wire.query(where if again else f"{ID} in []", fields, partition, at, options)


def test_a_row_that_is_missing_once_is_not_taken_for_deleted(client, docs):
    vectors = random_vectors(20)
    client.insert(docs, entities(range(20), vectors))
    collection = MilvusCollection(client, docs)
    shape = collection._table.shape
    collection._table._source = OwnChannel(Forgetful(wire_of(client, docs)), shape)
    collection._writing = Rewriting(Forgetful(wire_of(client, docs)), shape)
    keys, read = scan_all(collection, 7)
    assert (read == vectors).all()
    assert fetch(collection, keys)[1].all()
    assert collection.locate([str(pk) for pk in range(20)]) == keys
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (live(client, docs, *range(20)) == turned(read)).all()


class Damaging:
    """A wire that loses the dynamic fields of what is sent, as a server with a fault might."""

    def __init__(self, wire):
        self.query = wire.query
        self._upsert = wire.upsert
        self.sent = 0

    def upsert(self, columns, count, partition):
        self.sent += 1
        if self.sent == 1:
            for column in columns:
                if column.is_dynamic:
                    column.scalars.json_data.data[:] = [b"{}"] * count
        self._upsert(columns, count, partition)


def test_the_first_rows_are_proven_to_survive_before_any_other_is_written(client, wire, docs):
    vectors = random_vectors(100)
    client.insert(docs, entities(range(100), vectors, note="kept"))
    before = stored(wire, docs)
    collection = MilvusCollection(client, docs)
    collection._writing = Rewriting(Damaging(wire_of(client, docs)), collection._table.shape)
    keys, read = scan_all(collection, 1000)
    with pytest.raises(Refused, match=r"do not survive being written \(row 0 has other fields than before\); the 8"):
        collection.write(keys, turned(read), read)
    assert stored(wire, docs) == before
    assert (live(client, docs, *range(100)) == vectors).all()


class Vanishing:
    """A wire on which the rows of the first page are deleted between being listed and being read."""

    def __init__(self, wire, delete):
        self.wire, self.delete = wire, delete
        self.now = wire.now

    def query(self, where, fields, partition, at, options=None):
        if VECTOR in fields and self.delete:
            self.delete.pop()()
        return self.wire.query(where, fields, partition, LATEST, options)


def test_a_page_of_which_every_row_is_deleted_meanwhile_is_not_the_end(client, docs):
    vectors = random_vectors(40)
    client.insert(docs, entities(range(40), vectors))
    collection = MilvusCollection(client, docs)
    delete = [lambda: client.delete(docs, filter=f"{ID} < 20")]
    collection._table._source = OwnChannel(Vanishing(wire_of(client, docs), delete), collection._table.shape)
    keys, read = scan_all(collection, 20)
    assert [int(collection.text_of(key)) for key in keys] == list(range(20, 40))
    assert (read == vectors[20:]).all()


# Crashes


def test_after_a_crash_amid_writing_every_row_is_as_it_was_or_as_acknowledged(tmp_path):
    vectors, acknowledged = random_vectors(1000), []
    settings = {"COMMON_SESSION_TTL": "3"}  # so long a server that comes back waits for the one that died
    with milvus_for_tests(tmp_path / "server", settings) as server:
        client = MilvusClient(server.uri, timeout=TIMEOUT, dedicated=True)
        create(client, "docs")
        client.insert("docs", entities(range(1000), vectors, note="kept"))
        collection = MilvusCollection(client, "docs", timeout=5)
        keys, read = scan_all(collection, 1000)
        with killed_on_demand(server.process) as enough, pytest.raises((Unknown, Unreachable)):
            write_until_it_fails(collection, keys, read, acknowledged, enough)
        client.close()
    assert acknowledged
    with milvus_for_tests(tmp_path / "server", settings) as server:
        collection = Patient(open_collection(parse_address(server.address("docs"))))
        out, found = fetch(collection, keys)
        written = agree(out, turned(read), 0.0)
        assert found.all()
        assert written[acknowledged].all()
        assert (written | agree(out, read, 0.0)).all()
        assert set(write(collection, keys, turned(read), out)) == {Outcome.WRITTEN}
        assert (fetch(collection, keys)[0] == turned(read)).all()
        collection.close()


def write_until_it_fails(collection, keys, read, acknowledged, enough):
    for first in range(0, len(keys), 50):
        part = slice(first, first + 50)
        assert set(collection.write(keys[part], turned(read)[part], read[part])) == {Outcome.WRITTEN}
        acknowledged += range(first, first + 50)
        if first >= 100:
            enough.set()


@contextmanager
def killed_on_demand(process):
    """Kill *process* as soon as the event that this returns is set: whoever set it is in the middle of more."""
    enough = threading.Event()
    killer = threading.Thread(target=lambda: enough.wait() and os.kill(process, signal.SIGKILL))
    killer.start()
    try:
        yield enough
    finally:
        enough.set()
        killer.join()


KILLED_BEHIND_ITS_THIRD_ANSWER = """
import os
from nudge_vdb import cli, writeback
from nudge_vdb_milvus.wire import Wire
writeback.BATCH_BYTES = 4 * 16 * 20
upsert, answers = Wire.upsert, []
def dying(*request):
    upsert(*request)
    answers.append(1)
    if len(answers) == 3:
        os.kill(os.getpid(), 9)
Wire.upsert = dying
cli.main()
"""


def test_a_run_that_is_killed_between_an_answer_and_its_journal_can_be_finished_and_undone(
    milvus_server, client, wire, name, nudge_vdb, tmp_path
):
    file, address = judged_docs(client, name, tmp_path), milvus_server.address(name)
    before, fields = live(client, name, *range(1, 201)), stored(wire, name)
    tune = [sys.executable, "-c", KILLED_BEHIND_ITS_THIRD_ANSWER, "tune", address, "--judgements", str(file), "--json"]
    assert subprocess.run(tune, check=False).returncode == -signal.SIGKILL
    assert (live(client, name, *range(1, 201)) != before).any()
    assert nudge_vdb("status", address)[1]["unfinished"] == 1
    status, told = nudge_vdb("apply", address)
    assert (status, told["status"]) == (0, "applied")
    assert nudge_vdb("verify", address)[0] == 0
    assert nudge_vdb("rollback", address, "--to", 0)[0] == 0
    assert (live(client, name, *range(1, 201)) == before).all()
    assert stored(wire, name) == fields


# Much


@pytest.fixture(scope="module")
def much(milvus_server):
    """3,000 rows, 12 MB, in 3 segments of each of two shards: the collection's name and the vectors."""
    client = MilvusClient(milvus_server.uri, timeout=TIMEOUT, dedicated=True)
    create(client, "much", vector_field(1024), load=False, num_shards=2)
    vectors = random_vectors(3000, 1024)
    for segment in range(3):
        client.insert("much", entities(range(segment, 3000, 3), vectors[segment::3]))
        client.flush("much")
    client.load_collection("much")
    yield "much", vectors
    client.drop_collection("much")
    client.close()


def test_many_segments_and_shards_are_paged_whole_in_messages_that_fit(client, much):
    name, vectors = much
    collection = MilvusCollection(client, name)
    keys, read = scan_all(collection, 16_384)
    assert [int(collection.text_of(key)) for key in keys] == list(range(len(vectors)))
    assert (read == vectors).all()
    out, found = fetch(collection, keys[::-1])
    assert found.all()
    assert (out == vectors[::-1]).all()


def test_a_reply_that_no_message_can_hold_is_too_large(client, much):
    with pytest.raises(TooLarge, match="more than a message may hold"):
        wire_of(client, much[0]).query(f"{ID} >= 0", [VECTOR], "", LATEST, {"limit": "16384"})
