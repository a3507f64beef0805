"""What servers, tokens, notes and damaged files say is read in one place, and never ends a run without words."""

import base64
import json

import pytest

import nudge_vdb
from nudge_vdb.address import scalar_of
from nudge_vdb.budget import parse_size
from nudge_vdb.errors import BadAddress, BadOption, EngineError, StateConflict, StateDamaged
from nudge_vdb.hold import _holder
from nudge_vdb.standing import open_state
from nudge_vdb_milvus.failures import _between
from nudge_vdb_milvus.searching import Index
from nudge_vdb_qdrant.access import claims_of, minutes_left
from nudge_vdb_qdrant.failures import _in_words, reading
from nudge_vdb_qdrant.notes import version_of
from tests.conftest import make_world

LONG, DEEP = "9" * 5000, "[" * 100_000
CHEAP = {"step": 0.3, "max_queries": 30}
NOTE = {"state": "x", "version": 1, "vector": "", "scope": {}, "host": "h", "folder": "f"}


@pytest.fixture
def world():
    return make_world()


def token(claims):
    body = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
    return f"x.{body}.y"


@pytest.mark.parametrize("claims", [DEEP, f'{{"exp": {LONG}}}', "[1]", "{", "\0"])
def test_a_token_that_cannot_be_read_claims_nothing(claims):
    assert claims_of(token(claims)) == {}


@pytest.mark.parametrize("expiry", ['"soon"', "[1]", "true", "null", "Infinity", '{"a": 1}'])
def test_an_expiry_that_is_no_number_is_none(expiry):
    assert minutes_left(token(f'{{"exp": {expiry}}}')) is None


def test_an_expiry_that_is_a_number_is_told_in_minutes():
    assert minutes_left(token('{"exp": 60}')) < 0


@pytest.mark.parametrize("answer", [DEEP, f'{{"status": {LONG}}}', "[]", '{"status": 7}', "{"])
def test_an_answer_that_cannot_be_read_is_repeated_as_it_is(answer):
    assert _in_words(answer) == answer[:300]


@pytest.mark.parametrize("found", [lambda: json.loads(DEEP), lambda: b"\xff".decode()])
def test_an_answer_that_the_client_cannot_read_is_an_error_of_the_engine(found):
    with pytest.raises(EngineError, match="what answers is no Qdrant"), reading("articles"):
        found()


@pytest.mark.parametrize("story", ["[rate=1.2.3]", "[rate=e]", "[rate=-1]", "[rate=0]", "[rate=1e-300]", "no rate"])
def test_a_rate_that_cannot_be_waited_for_is_none(story):
    assert _between(story) is None


def test_a_rate_is_told_in_seconds_between_requests():
    assert _between("[rate=4]") == 0.25


def test_odd_numbers_of_servers_are_read_or_passed_over():
    assert version_of(f"Qdrant {LONG}.{LONG}")[0] < 10**9
    assert [Index.of({"nlist": given}).lists for given in ("128", 128, "auto", None, "")] == [128, 128, 0, 0, 0]


@pytest.mark.parametrize("size", [LONG, f"{LONG}GB", f"1.{LONG}"])
def test_a_size_of_thousands_of_digits_is_refused(size):
    with pytest.raises(BadOption, match="expected a size"):
        parse_size(size)


def test_a_port_of_thousands_of_digits_is_refused():
    with pytest.raises(BadAddress, match="grpc_port"):
        nudge_vdb.connect(f"qdrant://localhost/a?grpc_port={LONG}")


def test_a_condition_that_is_no_single_value_is_none_and_what_is_no_json_is_text():
    assert [scalar_of(text) for text in (DEEP, LONG, "[1]", "1e999")] == [None] * 4
    assert [scalar_of(text) for text in ("NaN", "-Infinity", "red", "[red", "7", "1.0", "true")] == [
        *("NaN", "-Infinity", "red", "[red", 7, 1, True)
    ]


ODD_NOTES = [DEEP, LONG, "[]", "7", "{}", json.dumps({**NOTE, "version": "1"}), json.dumps({**NOTE, "version": True})]
ODD_NOTES += [json.dumps({**NOTE, **each}) for each in ({"scope": 7}, {"scope": {"a": 1}}, {"host": 1}, {"more": 1})]


@pytest.mark.parametrize("text", ODD_NOTES)
def test_a_note_that_cannot_be_read_is_refused_by_name_and_stops_no_verb_that_reads(text, world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)
    world.collection.kept["nudge_vdb/x"] = text
    assert nudge_vdb.diagnose(world.collection)["fit"]
    assert nudge_vdb.evaluate(world.collection, world.train, state=tmp_path).queries
    with pytest.raises(StateConflict, match=r"the note nudge_vdb/x with .* cannot be read"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)


@pytest.mark.parametrize("held", [DEEP, LONG, "[]", "\0", "{", ""])
def test_a_damaged_name_of_a_dead_holder_keeps_nobody_out(held, world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)
    file = open_state(world.collection, tmp_path).folder / "holder.json"
    file.write_text(held)
    assert _holder(file) == {}
    assert nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP).report["version"] == 1


@pytest.mark.parametrize("held", [DEEP, LONG, f'{{"format": {LONG}}}', "[]", "7", '{"format": [2]}', "\0", "{"])
@pytest.mark.parametrize("name", ["collection.json", "versions/*/manifest.json"])
def test_state_that_cannot_be_read_is_damage(name, held, world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)
    (path,) = open_state(world.collection, tmp_path).folder.glob(name)
    path.write_text(held)
    with pytest.raises(StateDamaged, match=path.name):
        nudge_vdb.apply(nudge_vdb.prepared(world.collection, 1, state=tmp_path), force=True)
