"""What engines call themselves, and what that lets them be sent."""

import re

import pytest
from pymilvus import MilvusClient

from nudge_vdb.address import parse_address
from nudge_vdb.errors import BadAddress, BadOption, Refused
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.connection import server_of
from nudge_vdb_milvus.release import parse_release

CLOUD = "Zilliz Cloud Vector Database(Compatible with Milvus 2.6)"
UNTOLD = ["unknown-20260608-7ea6e3526", "master-20260226-abcdef", "", "20260608", "a1b2.3c4", "2026.0608-1"]


@pytest.fixture
def client(tmp_path):
    """A client whose engine, a Milvus Lite, can be told to call itself anything."""
    client = MilvusClient(f"{tmp_path}/named.db", dedicated=True)
    client.create_collection("docs", dimension=8)
    yield client
    client.close()


def calls_itself(client, told, greeting=None):
    detail = {"version": greeting} if greeting is not None else told
    client.get_server_version = lambda detail_=detail, **given: detail_ if given.get("detail") else told


@pytest.mark.parametrize(
    ("text", "number", "name"),
    [
        (CLOUD, (2, 6), "Milvus 2.6"),
        ("2.6-20260404-31fb3fc", (2, 6), "Milvus 2.6"),
        ("v2.6.8", (2, 6, 8), "Milvus 2.6.8"),
        ("2.6.8-hotfix-20260404", (2, 6, 8), "Milvus 2.6.8"),
        ("v2.6.8.1", (2, 6, 8), "Milvus 2.6.8"),
        ("milvus_lite-3.2", (3, 2), "Milvus Lite 3.2"),
    ],
)
def test_the_versions_of_clouds_and_nightly_builds_are_read(text, number, name):
    release = parse_release(text)
    assert (release.number, str(release)) == (number, name)


@pytest.mark.parametrize("text", UNTOLD)
def test_a_version_that_tells_nothing_is_refused_with_the_way_on(text, client):
    calls_itself(client, text)
    with pytest.raises(Refused, match=re.escape(repr(text)) + ".*release=2.6"):
        MilvusCollection(client, "docs")


def test_of_a_release_told_in_part_nothing_is_taken_that_only_its_later_builds_can_do():
    assert not parse_release("2.6").merges  # up to 2.6.1, rows would lose all that an update does not hold
    assert parse_release("3.0").merges
    assert parse_release("2.4").sorts_for_iterators_only


def test_what_an_engine_tells_who_greets_it_completes_its_version(client):
    calls_itself(client, CLOUD, greeting="v2.6.4")
    assert MilvusCollection(client, "docs").traits.engine == "Milvus 2.6.4"
    calls_itself(client, "unknown-20260608-7ea6e3526", greeting="2.6.5")
    assert MilvusCollection(client, "docs").traits.engine == "Milvus 2.6.5"


@pytest.mark.parametrize("text", UNTOLD)
def test_a_release_named_by_the_user_opens_a_build_that_tells_none_and_is_sent_whole_rows(text, client):
    calls_itself(client, text)
    docs = MilvusCollection(client, "docs", release="2.6.8")
    assert docs.traits.engine == "Milvus 2.6.8, as release= says"
    written = next(remark.text for remark in docs.diagnose() if remark.topic == "writing")
    assert written.startswith("whole rows are read and sent back")


@pytest.mark.parametrize(("told", "named"), [("v2.3.5", "2.6.8"), (CLOUD, "2.5"), ("milvus_lite-3.2.2", "3.2.2")])
def test_no_release_is_named_against_the_word_of_the_engine(told, named, client):
    calls_itself(client, told)
    with pytest.raises(Refused, match="leave the option away"):
        MilvusCollection(client, "docs", release=named)


def test_a_release_that_agrees_with_the_engine_changes_nothing(client):
    calls_itself(client, "v2.6.8")
    assert MilvusCollection(client, "docs", release="2.6").traits.engine == "Milvus 2.6.8"
    calls_itself(client, CLOUD)
    assert MilvusCollection(client, "docs", release="2.6.8").traits.engine == "Milvus 2.6"


@pytest.mark.parametrize("named", ["", " ", "new", "2", "v", "milvus_lite-3.2.2"])
def test_a_release_that_is_none_is_refused(named, client):
    calls_itself(client, "master-20260226-abcdef")
    with pytest.raises(BadOption, match="two or three numbers"):
        MilvusCollection(client, "docs", release=named)


def test_an_address_of_a_server_names_the_release_and_one_of_a_file_does_not(tmp_path):
    assert server_of(parse_address("milvus://127.0.0.1:19530/docs?release=2.6")).target == "127.0.0.1:19530"
    (tmp_path / "a.db").mkdir()
    with pytest.raises(BadAddress, match="release"):
        open_collection(parse_address(f"milvus+lite://{tmp_path}/a.db/docs?release=2.6"))
