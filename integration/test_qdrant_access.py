"""Who may do what on a Qdrant server: certificates, keys, tokens, and the other names of a collection."""

import base64
import hmac
import json
import time
from contextlib import closing

import pytest
import trustme
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from integration.engines import for_tests, own_name, qdrant_server
from integration.judged import judged, vectors_of
from nudge_vdb.backends import connect
from nudge_vdb.contract import Weight
from nudge_vdb.errors import BadAddress, Refused
from nudge_vdb.testing.kit import scan_all, turned
from nudge_vdb_qdrant.points import ClientPoints
from nudge_vdb_qdrant.reading import by_stubs
from nudge_vdb_qdrant.stub_points import StubPoints

MASTER = "the key of all keys"
LEEWAY = 30
"""Seconds that a server goes on taking a token after it has expired."""

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "2")


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """Certificates of a private authority for a server and a client, and a stranger's authority, as files."""
    folder, ours, strange = tmp_path_factory.mktemp("papers"), trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    strange.cert_pem.write_to_path(folder / "strange.pem")
    for name, issued in (("server", ours.issue_cert("127.0.0.1")), ("client", ours.issue_cert("me@example.org"))):
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture(scope="module")
def encrypted(papers, tmp_path_factory):
    """A server that speaks TLS, and wants a certificate of whoever speaks REST to it."""
    settings = {
        "QDRANT__SERVICE__ENABLE_TLS": "true",
        "QDRANT__SERVICE__VERIFY_HTTPS_CLIENT_CERTIFICATE": "true",
        "QDRANT__TLS__CERT": str(papers / "server.pem"),
        "QDRANT__TLS__KEY": str(papers / "server.key"),
        "QDRANT__TLS__CA_CERT": str(papers / "ca.pem"),
    }
    with for_tests(qdrant_server(tmp_path_factory.mktemp("encrypted"), settings, scheme="https")) as server:
        yield server


def with_papers(papers, authority="ca.pem", **more):
    return {"tls_ca": papers / authority, "tls_cert": papers / "client.pem", "tls_key": papers / "client.key", **more}


@pytest.mark.parametrize(("options", "points"), [({}, StubPoints), ({"grpc_port": 1}, ClientPoints)])
def test_a_collection_is_tuned_over_tls_with_an_authority_of_ones_own(
    encrypted, papers, tmp_path, nudge_vdb, options, points
):
    address = encrypted.address(own_name(points.__name__), vector="v", **with_papers(papers, **options))
    fixture, file = judged(address, tmp_path)
    before = vectors_of(fixture)
    assert isinstance(fixture.collection._points, points)
    assert nudge_vdb("tune", address, "--judgements", file)[0] == 0
    assert vectors_of(fixture) != before
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert vectors_of(fixture) == before
    fixture.close()


TLS_FAILURES = {
    "no authority": ({"tls_ca": None}, "name that with tls_ca=FILE"),
    "another authority": ({"tls_ca": "strange.pem"}, "name that with tls_ca=FILE"),
    "no certificate": ({"tls_cert": None, "tls_key": None, "grpc_port": 1}, "give tls_cert=FILE and tls_key=FILE"),
}


@pytest.mark.parametrize("case", TLS_FAILURES)
def test_a_connection_that_proves_nothing_is_refused_with_what_would(encrypted, papers, nudge_vdb, case):
    changes, words = TLS_FAILURES[case]
    changes = {name: papers / value if isinstance(value, str) else value for name, value in changes.items()}
    options = {name: value for name, value in {**with_papers(papers), **changes}.items() if value is not None}
    status, told = nudge_vdb("status", encrypted.address("rows", timeout=5, **options))
    assert (status, told["error"]) == (6, "Refused")
    assert words in told["message"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("qdrant://h/c?tls_ca=/ca.pem", "option tls_ca is for encrypted connections; write qdrant\\+https://"),
        ("qdrant+https://h/c?tls_ca=/no/such.pem", "option tls_ca=/no/such.pem cannot be read: No such file"),
        ("qdrant+https://h/c?tls_cert=/a.pem", "give both tls_cert=FILE and tls_key=FILE"),
        ("qdrant+https://h/c?tls_ca=PAPERS/server.key", "expected certificates and a key that belong together"),
    ],
)
def test_papers_that_cannot_be_used_are_refused_before_anything_is_sent(papers, address, words):
    with pytest.raises(BadAddress, match=words):
        connect(address.replace("PAPERS", str(papers)))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that wants a key, and hands out tokens."""
    settings = {
        "QDRANT__SERVICE__API_KEY": MASTER,
        "QDRANT__SERVICE__READ_ONLY_API_KEY": "only reads",
        "QDRANT__SERVICE__JWT_RBAC": "true",
    }
    with for_tests(qdrant_server(tmp_path_factory.mktemp("guarded"), settings)) as server:
        yield server


def token(**claims) -> str:
    """A JSON web token signed with the server's key."""

    def encoded(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    body = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{body}.{encoded(hmac.new(MASTER.encode(), body.encode(), 'sha256').digest())}"


def token_for(collection, access, **claims):
    return token(access=[{"collection": collection, "access": access}], **claims)


@pytest.fixture
def mine(guarded, tmp_path, request, monkeypatch):
    """A judged collection on the guarded server: name, address, file of judgements, back door with all rights."""
    monkeypatch.setenv("QDRANT_API_KEY", MASTER)
    name = "".join(filter(str.isalnum, request.node.name))
    fixture, file = judged(guarded.address(name, vector="v"), tmp_path)
    yield name, guarded.address(name, vector="v"), file, fixture
    fixture.close()


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_wrong_key_is_refused_and_never_repeated(guarded, key, monkeypatch, nudge_vdb):
    monkeypatch.setenv("QDRANT_API_KEY", key)
    status, told = nudge_vdb("status", guarded.address("any"))
    assert (status, told["error"]) == (6, "Refused")
    assert "set QDRANT_API_KEY" in told["message"]
    assert "wrong" not in told["message"]


@pytest.mark.parametrize("options", [{}, {"grpc_port": 1}], ids=["grpc", "rest"])
def test_a_token_that_may_write_one_collection_is_enough(guarded, mine, monkeypatch, nudge_vdb, options):
    name, _, file, fixture = mine
    address = guarded.address(name, vector="v", **options)
    before = vectors_of(fixture)
    monkeypatch.setenv("QDRANT_API_KEY", token_for(name, "prw"))
    assert nudge_vdb("tune", address, "--judgements", file)[0] == 0
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert vectors_of(fixture) == before


@pytest.mark.parametrize("options", [{}, {"grpc_port": 1}], ids=["grpc", "rest"])
@pytest.mark.parametrize("kind", ["token", "key"])
def test_a_key_that_only_reads_may_plan_and_is_refused_before_a_tune_computes_anything(
    guarded, mine, monkeypatch, nudge_vdb, options, kind
):
    name, _, file, fixture = mine
    address = guarded.address(name, vector="v", **options)
    before = vectors_of(fixture)
    monkeypatch.setenv("QDRANT_API_KEY", token_for(name, "r") if kind == "token" else "only reads")
    assert obstacles(address) == {"permissions"}
    for refused in (["tune", address, "--judgements", file], ["apply", address]):
        status, told = nudge_vdb(*refused)
        assert (status, told["error"]) == (6, "Refused")
        assert "cannot be written, so nothing was begun" in told["message"]
        assert "set QDRANT_API_KEY" in told["message"]
    assert nudge_vdb("history", address)[1]["versions"] == []
    assert nudge_vdb("plan", address, "--judgements", file)[0] == 0
    with closing(connect(address)) as collection:
        keys, vectors = scan_all(collection, 1000)
        with pytest.raises(Refused, match="set QDRANT_API_KEY"):
            collection.write(keys, turned(vectors), vectors)
    assert vectors_of(fixture) == before
    monkeypatch.setenv("QDRANT_API_KEY", token_for(name, "prw"))
    assert obstacles(address) == set()
    assert nudge_vdb("apply", address)[0] == 0


def obstacles(address):
    with closing(connect(address)) as collection:
        return {remark.topic for remark in collection.diagnose() if remark.weight is Weight.OBSTACLE}


def test_a_token_that_expires_in_the_middle_of_a_write_leaves_a_run_that_can_be_finished(
    guarded, mine, monkeypatch, nudge_vdb, at_write
):
    name, address, file, fixture = mine
    before = vectors_of(fixture)
    assert nudge_vdb("plan", address, "--judgements", file)[0] == 0
    short = token_for(name, "prw", exp=int(time.time()) - LEEWAY + 6)
    monkeypatch.setenv("QDRANT_API_KEY", short)
    at_write(lambda: wait_until_refused(guarded, name, short))
    status, told = nudge_vdb("apply", address)
    assert (status, told["error"]) == (6, "Refused")
    assert "has expired; set a new one and run the same again" in told["message"]
    monkeypatch.setenv("QDRANT_API_KEY", token_for(name, "prw"))
    assert nudge_vdb("status", address)[1]["unfinished"] == 1
    assert nudge_vdb("resume", address)[0] == 0
    assert nudge_vdb("verify", address)[0] == 0
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert vectors_of(fixture) == before


def wait_until_refused(server, collection, key):
    with closing(QdrantClient(url=server.url, api_key=key, check_compatibility=False)) as client:
        while True:
            try:
                client.count(collection)
            except UnexpectedResponse:
                return


def test_a_token_for_one_collection_is_refused_by_an_alias_with_what_to_do(guarded, mine, monkeypatch):
    name, _, _, fixture = mine
    point_alias(fixture._client, f"{name}alias", name)
    monkeypatch.setenv("QDRANT_API_KEY", token_for(name, "prw"))
    with pytest.raises(Refused, match="knows it by its own name only, not by an alias"):
        connect(guarded.address(f"{name}alias", vector="v"))


def point_alias(client, alias, collection):
    create = models.CreateAlias(alias_name=alias, collection_name=collection)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


@pytest.fixture
def two(qdrant, tmp_path):
    """Two collections with the same rows: the name of their alias, a way to point it, file and back doors."""
    names = [own_name(f"{tmp_path.name}_{letter}") for letter in "ab"]
    fixtures = [judged(qdrant.address(name, vector="v"), tmp_path) for name in names]
    alias, client = own_name(f"{tmp_path.name}_live"), fixtures[0][0]._client
    point_alias(client, alias, names[0])
    yield alias, lambda: point_alias(client, alias, names[1]), fixtures[0][1], [fixture for fixture, _ in fixtures]
    for fixture, _ in fixtures:
        fixture.close()


def test_an_alias_that_is_pointed_elsewhere_after_the_plan_leads_to_no_other_rows(two, qdrant, nudge_vdb):
    alias, switch, file, fixtures = two
    address = qdrant.address(alias, vector="v")
    before = [vectors_of(fixture) for fixture in fixtures]
    assert nudge_vdb("plan", address, "--judgements", file)[0] == 0
    switch()
    status, told = nudge_vdb("apply", address)
    assert (status, told["error"]) == (2, "BadOption")
    assert f"{fixtures[1]._name}?vector=v has no prepared version" in told["message"]
    assert [vectors_of(fixture) for fixture in fixtures] == before


def test_an_alias_that_is_pointed_elsewhere_in_the_middle_of_a_write_is_not_followed(two, qdrant, nudge_vdb, at_write):
    alias, switch, file, fixtures = two
    before = [vectors_of(fixture) for fixture in fixtures]
    at_write(switch)
    status, told = nudge_vdb("tune", qdrant.address(alias, vector="v"), "--judgements", file)
    assert (status, told["status"]) == (0, "applied")
    assert vectors_of(fixtures[1]) == before[1]
    own = qdrant.address(fixtures[0]._name, vector="v")
    assert nudge_vdb("verify", own)[0] == 0
    assert nudge_vdb("rollback", own, "--to", "0")[0] == 0
    assert [vectors_of(fixture) for fixture in fixtures] == before


def test_the_diagnosis_says_whose_alias_an_address_uses(two, qdrant):
    alias, _, _, fixtures = two
    with closing(connect(qdrant.address(alias, vector="v"))) as collection:
        assert any(f"{alias} is an alias of {fixtures[0]._name}" in remark.text for remark in collection.diagnose())


def test_a_key_that_only_reads_and_writes_points_cannot_tell_whose_grpc_port_it_is_so_rest_is_used(
    guarded, mine, monkeypatch, caplog
):
    name, address, _, _ = mine
    for access, stubs in (("prw", False), ("rw", True)):
        monkeypatch.setenv("QDRANT_API_KEY", token_for(name, access))
        caplog.clear()
        with closing(connect(address)) as collection:
            assert by_stubs(collection._points) == stubs
        assert ("told only to a key that may read the collection whole" in caplog.text) != stubs
