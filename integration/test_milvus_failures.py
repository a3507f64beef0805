"""Everything that can go wrong between the command line and a Milvus server: exit status, message, and what is left."""

import os
import signal
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from pymilvus import MilvusClient, MilvusException

from integration.elsewhere import nobody, paused, silent, web_server
from integration.engines import BETWEEN_LOOKS, PATIENCE
from integration.engines_milvus import MilvusServer, milvus_for_tests
from integration.milvus_rows import TIMEOUT, judged_docs, live
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Weight
from nudge_vdb_milvus import open_collection
from nudge_vdb_milvus.wire import Wire

pytestmark = pytest.mark.milvus_server

ROOT = "root:Milvus"
READER = "reader:secret1"
ALL = range(1, 201)


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "2")


# Somewhere else


@pytest.mark.parametrize("place", [nobody, silent, web_server])
def test_an_address_where_no_milvus_is_is_unreachable_within_the_timeout(place, nudge_vdb):
    with place() as port:
        status, told = nudge_vdb("status", f"milvus://127.0.0.1:{port}/docs?timeout=1")
    assert (status, told["error"]) == (6, "Unreachable")
    assert f"127.0.0.1:{port}" in told["message"]
    assert "is Milvus running at that address" in told["message"]


def test_a_host_that_does_not_exist_is_unreachable(nudge_vdb):
    status, told = nudge_vdb("status", "milvus://no-such-host.invalid/docs?timeout=1")
    assert (status, told["error"]) == (6, "Unreachable")
    assert "no-such-host.invalid:19530" in told["message"]


# A server that asks who is there, and over TLS


@dataclass(frozen=True)
class Guarded:
    """A server that asks for a password and encrypts, with a judged collection."""

    server: MilvusServer
    folder: Path
    client: MilvusClient

    @property
    def judgements(self):
        return self.folder / "judgements.jsonl"

    def address(self, collection="docs", ca="ca.pem", timeout=2):
        server = self.server.address(collection, tls_ca=str(self.folder / ca), timeout=str(timeout))
        return server.replace("milvus://", "milvus+https://")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    settings = {
        "COMMON_SECURITY_AUTHORIZATIONENABLED": "true",
        "COMMON_SECURITY_TLSMODE": "1",
        "QUOTAANDLIMITS_DQL_ENABLED": "true",
        "QUOTAANDLIMITS_QUOTACENTERCOLLECTINTERVAL": "1",
        **certificates(folder),
    }
    with milvus_for_tests(folder / "server", settings) as server:
        client = MilvusClient(
            server.uri.replace("http:", "https:"),
            token=ROOT,
            server_pem_path=str(folder / "ca.pem"),
            timeout=TIMEOUT,
            dedicated=True,
        )
        judged_docs(client, "docs", folder)
        yield Guarded(server, folder, client)
        client.close()


def certificates(folder):
    """Write an authority, another one, and a certificate of the first; return the settings of the server."""
    trusted, other = trustme.CA(), trustme.CA()
    mine = trusted.issue_cert("127.0.0.1", "localhost")
    trusted.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    mine.private_key_pem.write_to_path(folder / "server.key")
    mine.cert_chain_pems[0].write_to_path(folder / "server.pem")
    return {
        "TLS_SERVERPEMPATH": str(folder / "server.pem"),
        "TLS_SERVERKEYPATH": str(folder / "server.key"),
        "TLS_CAPEMPATH": str(folder / "ca.pem"),
    }


@pytest.fixture
def token(monkeypatch):
    def become(text):
        monkeypatch.setenv("MILVUS_TOKEN", text)

    become(ROOT)
    return become


WRONG = {
    "password": ("root:nope", {}, 6, "Refused", "did not accept the credentials; set MILVUS_TOKEN"),
    "no password": ("", {}, 6, "Refused", "did not accept the credentials; set MILVUS_TOKEN"),
    "authority": (ROOT, {"ca": "other.pem"}, 6, "Refused", "name the authority that signed it with tls_ca=FILE"),
    "file": (ROOT, {"ca": "nowhere.pem"}, 2, "BadAddress", "there is no such file: tls_ca="),
    "collection": (ROOT, {"collection": "nope"}, 2, "UnfitCollection", "no collection nope; collections here: docs"),
    "database": (ROOT, {"collection": "nope/docs"}, 6, "Refused", "nope"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_server_that_does_not_let_us_in_says_why(wrong, guarded, token, nudge_vdb):
    credentials, options, expected, error, words = WRONG[wrong]
    token(credentials)
    status, told = nudge_vdb("status", guarded.address(**options))
    assert (status, told["error"]) == (expected, error)
    assert words in told["message"]
    assert "nope:" not in told["message"]


def test_an_address_without_tls_for_a_server_with_it_says_so(guarded, token, nudge_vdb):
    status, told = nudge_vdb("status", guarded.server.address("docs", timeout="1"))
    assert (status, told["error"]) == (6, "Unreachable")
    assert "does it speak TLS or not, as the address says" in told["message"]


def test_a_collection_is_tuned_and_undone_over_tls_with_a_password(guarded, token, nudge_vdb):
    before = live(guarded.client, "docs", *ALL)
    address = guarded.address(timeout=30)
    assert nudge_vdb("tune", address, "--judgements", guarded.judgements)[0] == 0
    assert (live(guarded.client, "docs", *ALL) != before).any()
    assert nudge_vdb("rollback", address, "--to", 0)[0] == 0
    assert (live(guarded.client, "docs", *ALL) == before).all()


@pytest.fixture(scope="module")
def reader(guarded):
    """A user who may read rows of docs and write none."""
    client = guarded.client
    client.create_user(*READER.split(":"))
    client.create_role("readers")
    for privilege in ("Query", "IndexDetail"):
        client.grant_privilege("readers", "Collection", privilege, "docs")
    client.grant_privilege("readers", "Global", "DescribeCollection", "*")
    client.grant_role("reader", "readers")
    return READER


def test_who_may_read_but_not_write_can_plan_and_is_told_which_privilege_to_ask_for(guarded, reader, token, nudge_vdb):
    token(reader)
    before, address = live(guarded.client, "docs", *ALL), guarded.address(timeout=30)
    assert nudge_vdb("plan", address, "--judgements", guarded.judgements)[0] == 0
    status, told = nudge_vdb("apply", address)
    assert (status, told["error"]) == (6, "Refused")
    assert "may read but not write; grant the privilege Upsert" in told["message"]
    assert (live(guarded.client, "docs", *ALL) == before).all()


def test_a_diagnosis_tells_who_may_write_and_who_may_not(guarded, reader, token):
    weights = {}
    for credentials in (ROOT, reader):
        token(credentials)
        with closing(open_collection(parse_address(guarded.address(timeout=30)))) as collection:
            weights[credentials] = {remark.topic: remark.weight for remark in collection.diagnose()}["permissions"]
    assert weights == {ROOT: Weight.FINE, reader: Weight.OBSTACLE}


def test_who_may_not_alter_the_collection_leaves_no_note_there(guarded, reader, token):
    token(reader)
    with closing(open_collection(parse_address(guarded.address(timeout=30)))) as collection:
        assert collection.leave_note("nudge_vdb/a", "text") is False
        assert dict(collection.notes()) == {}


# A server that is slow to answer, or does not


def test_a_server_that_hangs_while_connecting_is_given_up_after_the_timeout(guarded, token, nudge_vdb):
    with paused(guarded.server):
        status, told = nudge_vdb("status", guarded.address(timeout=1))
    assert (status, told["error"]) == (6, "Unreachable")
    assert nudge_vdb("status", guarded.address(timeout=30))[0] == 0


def test_a_server_that_hangs_while_it_is_read_is_given_up_after_the_timeout(guarded, token, nudge_vdb, monkeypatch):
    with paused(guarded.server) as _, monkeypatch.context() as patch:
        os.kill(guarded.server.process, signal.SIGCONT)
        query = Wire.query

        def hanging(wire, where, fields, *more):
            if "vector" in fields:
                os.kill(guarded.server.process, signal.SIGSTOP)
            return query(wire, where, fields, *more)

        patch.setattr(Wire, "query", hanging)
        status, told = nudge_vdb("evaluate", guarded.address(timeout=1), "--judgements", guarded.judgements)
    assert (status, told["error"]) == (6, "Unreachable")
    assert "DEADLINE_EXCEEDED" in told["message"]


def test_a_rate_that_is_too_low_is_given_up_with_its_reason_and_a_low_one_is_waited_for(
    guarded, token, nudge_vdb, monkeypatch
):
    address = guarded.address(timeout=30)
    with limited(guarded.client, "0.01"):
        status, told = nudge_vdb("evaluate", address, "--judgements", guarded.judgements)
    assert (status, told["error"]) == (6, "Busy")
    assert "rate limit" in told["message"]
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "60")
    with limited(guarded.client, "2"):
        assert nudge_vdb("evaluate", address, "--judgements", guarded.judgements)[0] == 0


@contextmanager
def limited(client, rate):
    """Allow *rate* queries a second to docs; return when the limit is felt."""
    client.alter_collection_properties("docs", {"collection.queryRate.max.qps": rate})
    try:
        wait_until(client, is_limited=True)
        yield
    finally:
        client.alter_collection_properties("docs", {"collection.queryRate.max.qps": "1000"})
        wait_until(client, is_limited=False)


def wait_until(client, is_limited):
    """Ask many times in a row until that is refused, or no longer is."""
    deadline = time.monotonic() + PATIENCE
    while _feels_limited(client) is not is_limited:
        assert time.monotonic() < deadline, "the server never took notice of the limit"
        time.sleep(BETWEEN_LOOKS)


def _feels_limited(client):
    try:
        for _ in range(20):
            client.query("docs", "id == 0", retry_on_rate_limit=False, consistency_level="Eventually")
    except MilvusException:
        return True
    return False
