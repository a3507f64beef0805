"""The REST port that an address names and the gRPC port beside it: rows of one server only are read and written."""

from contextlib import closing, contextmanager

import pytest
from qdrant_client import QdrantClient

from integration.engines import for_tests, own_name, qdrant_server
from integration.judged import judged, vectors_of
from nudge_vdb.backends import connect
from nudge_vdb.errors import BadAddress, BadOption, UnfitCollection
from nudge_vdb_qdrant import QdrantCollection, opening
from nudge_vdb_qdrant.reading import by_stubs


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two servers that know nothing of each other."""
    folder = tmp_path_factory.mktemp("servers")
    with for_tests(qdrant_server(folder / "one")) as one, for_tests(qdrant_server(folder / "other")) as other:
        yield one, other


@pytest.fixture
def twins(servers, tmp_path):
    """The same rows under one name on both: the name, the file of judgements, and a back door to each."""
    name = own_name(tmp_path.name)
    filled = [judged(server.address(name, vector="v"), tmp_path) for server in servers]
    yield name, filled[0][1], [fixture for fixture, _ in filled]
    for fixture, _ in filled:
        fixture.close()


def test_a_grpc_port_that_belongs_to_another_server_is_refused_before_anything_is_read(servers, twins, nudge_vdb):
    name, file, fixtures = twins
    before = [vectors_of(fixture) for fixture in fixtures]
    address = servers[0].address(name, vector="v", grpc_port=servers[1].grpc_port)
    for command in (["tune", address, "--judgements", file], ["status", address]):
        status, told = nudge_vdb(*command)
        assert (status, told["error"]) == (2, "BadAddress")
        assert "belongs to another server than the REST port" in told["message"]
    assert [vectors_of(fixture) for fixture in fixtures] == before


def test_another_servers_grpc_at_the_usual_port_is_left_alone_and_rest_used(
    servers, twins, nudge_vdb, monkeypatch, caplog
):
    name, file, fixtures = twins
    monkeypatch.setattr(opening, "DEFAULT_GRPC_PORT", servers[1].grpc_port)
    before = [vectors_of(fixture) for fixture in fixtures]
    address = f"qdrant://127.0.0.1:{servers[0].port}/{name}?vector=v"
    assert nudge_vdb("tune", address, "--judgements", file)[0] == 0
    assert "belongs to another server" in caplog.text
    assert "using REST" in caplog.text
    assert vectors_of(fixtures[0]) != before[0]
    assert vectors_of(fixtures[1]) == before[1]


def test_a_client_whose_ports_are_of_two_servers_is_refused(servers, twins):
    name = twins[0]
    with client_of(servers[0], servers[1]) as client, pytest.raises(BadOption, match="lead to different servers"):
        QdrantCollection(client, name, "v")


def test_a_collection_that_only_the_server_behind_grpc_has_is_not_there_and_its_names_are_not_told(servers, tmp_path):
    name = own_name(tmp_path.name)
    fixture, _ = judged(servers[1].address(name, vector="v"), tmp_path)
    with pytest.raises(UnfitCollection, match=f"there is no collection '{name}'") as refused:
        connect(servers[0].address(name, vector="v", grpc_port=servers[1].grpc_port))
    assert name not in str(refused.value).partition("there are:")[2]
    with client_of(servers[0], servers[1]) as client, pytest.raises(UnfitCollection):
        QdrantCollection(client, name, "v")
    fixture.close()


def test_a_collection_that_only_the_server_behind_rest_has_is_not_looked_for_elsewhere(servers, tmp_path):
    name = own_name(tmp_path.name)
    fixture, _ = judged(servers[0].address(name, vector="v"), tmp_path)
    with pytest.raises(BadAddress, match="belongs to another server"):
        connect(servers[0].address(name, vector="v", grpc_port=servers[1].grpc_port))
    fixture.close()


def test_the_two_ports_of_one_server_are_told_to_be_its_own(servers, twins):
    name = twins[0]
    with closing(connect(servers[0].address(name, vector="v"))) as collection:
        assert by_stubs(collection._points)
    with client_of(servers[0], servers[0]) as client:
        assert by_stubs(QdrantCollection(client, name, "v")._points)


@contextmanager
def client_of(rest, grpc):
    with closing(
        QdrantClient(
            host=rest.host, port=rest.port, grpc_port=grpc.grpc_port, prefer_grpc=True, check_compatibility=False
        )
    ) as client:
        yield client
