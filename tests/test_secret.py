"""Keys, tokens and passwords: taken as they were meant, and never told."""

import logging
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from qdrant_client import QdrantClient

from nudge_vdb import secret
from nudge_vdb.address import secret_in
from nudge_vdb.backends import connect
from nudge_vdb.errors import BadOption, Busy, NudgeError, Refused
from nudge_vdb.secret import hidden, remember, scrub
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_qdrant import QdrantCollection

KEY = "sk-Se/cr+et 0123456789"

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(secret, "_spellings", set())
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "0")


@contextmanager
def echo():
    """A port whose every answer is a refusal that repeats the key that it was sent; and the keys it was sent."""
    sent = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            sent.append(self.headers["api-key"])
            text = f'{{"status":{{"error":"Wrong key {sent[-1]}"}},"time":0}}'.encode()
            self.send_response(400, f"Wrong key {sent[-1]}")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, sent
        server.shutdown()
        thread.join()


def told_by(failure: BaseException) -> str:
    return "".join(traceback.format_exception(failure)) + repr(failure) + repr(failure.__cause__)


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", " {}\t\n"])
def test_a_key_is_sent_without_the_line_end_of_a_mounted_secret_and_no_answer_tells_it(monkeypatch, around):
    monkeypatch.setenv("QDRANT_API_KEY", around.format(KEY))
    with echo() as (port, sent), pytest.raises(Refused, match="Wrong key") as refused:
        connect(f"qdrant://127.0.0.1:{port}/docs?grpc_port=9&timeout=2")
    assert set(sent) == {KEY}
    assert KEY not in told_by(refused.value)
    assert "Wrong key (hidden)" in str(refused.value)


def test_the_key_of_a_client_of_ones_own_is_not_told_either():
    with echo() as (port, sent):
        client = QdrantClient(host="127.0.0.1", port=port, api_key=KEY, https=False, check_compatibility=False)
        with pytest.raises(Refused, match="Wrong key") as refused:
            QdrantCollection(client, "docs")
        client.close()
    assert KEY in sent
    assert KEY not in told_by(refused.value)


@pytest.mark.parametrize("wrong", ["\n", "\r", "\x01", "\x7f", "中", "\udc80"])
def test_a_key_that_cannot_be_sent_is_refused_in_words_that_do_not_repeat_it(monkeypatch, wrong):
    monkeypatch.setattr("os.environ", {"QDRANT_API_KEY": f"sk-Secret{wrong}-123"})  # as bytes, it may be no text at all
    with pytest.raises(BadOption, match="QDRANT_API_KEY holds a character that cannot be sent, at place 10") as refused:
        connect("qdrant://127.0.0.1:9/docs?timeout=1")
    assert "Secret" not in told_by(refused.value)


def test_a_client_whose_key_cannot_be_sent_is_refused_in_words_that_do_not_repeat_it():
    client = QdrantClient(host="127.0.0.1", port=9, api_key="sk-Secret\n", https=False, check_compatibility=False)
    with pytest.raises(BadOption, match="the api_key of the client holds") as refused:
        QdrantCollection(client, "docs")
    client.close()
    assert "Secret" not in told_by(refused.value)


@pytest.mark.parametrize(
    ("token", "taken"), [("root:Milvus\n", "root:Milvus"), ("Ünïcode:pässword1", "Ünïcode:pässword1"), ("\n", None)]
)
def test_a_token_is_trimmed_and_may_be_of_any_alphabet(monkeypatch, token, taken):
    monkeypatch.setenv("MILVUS_TOKEN", token)
    assert secret_in("MILVUS_TOKEN") == taken


@pytest.mark.parametrize("wrong", ["\n", "\x00", "\udc80"])
def test_a_token_with_control_characters_is_refused_in_words_that_do_not_repeat_it(monkeypatch, wrong):
    monkeypatch.setattr("os.environ", {"MILVUS_TOKEN": f"root:Secret{wrong}123"})
    with pytest.raises(BadOption, match="MILVUS_TOKEN holds a character that cannot be sent") as refused:
        connect("milvus://127.0.0.1:9/docs?timeout=1")
    assert "Secret" not in told_by(refused.value)


SPELLINGS = {
    "as it is": f"the header {KEY} is wrong",
    "of bytes": f"Illegal header value {KEY.encode()!r}",
    "in a URL": "GET /?key=sk-Se%2Fcr%2Bet%200123456789",
    "in base64": "authorization: c2stU2UvY3IrZXQgMDEyMzQ1Njc4OQ==",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_error_holds_a_secret_that_is_known_however_it_is_spelled(spelling):
    assert hidden(SPELLINGS[spelling]) == SPELLINGS[spelling]
    remember(KEY)
    for error in (NudgeError, Busy):
        assert "(hidden)" in str(error(SPELLINGS[spelling]))
        assert not any(part in repr(error(SPELLINGS[spelling])) for part in ("Se/cr", "Se%2Fcr", "U2UvY3I"))


def test_a_password_is_hidden_without_its_user_and_a_short_one_takes_no_word_of_a_message_along():
    remember("admin:hunter2-hunter2")
    remember("root:Milvus")
    assert hidden("password hunter2-hunter2 of admin") == "password (hidden) of admin"
    assert hidden("Milvus refused root:Milvus") == "Milvus refused (hidden)"


def test_a_failure_and_all_it_was_raised_from_are_scrubbed_also_where_they_go_round_in_a_circle():
    remember(KEY)
    first, second = ValueError(f"bad {KEY}"), OSError(5, f"worse {KEY}")
    first.__cause__, second.__context__, first.content = second, first, KEY.encode()
    scrub(first)
    assert (first.args, second.args, first.content) == (("bad (hidden)",), (5, "worse (hidden)"), b"(hidden)")


def test_an_endpoint_shows_no_token_and_keeps_it_out_of_messages():
    endpoint = Endpoint("h:19530", token="user:pass-word-12")
    assert "pass-word-12" not in repr(endpoint)
    assert "pass-word-12" not in str(Refused("it said pass-word-12"))


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        ("qdrant://db.invalid:1/docs?grpc_port=1&timeout=1", "QDRANT_API_KEY"),
        ("milvus://db.invalid:1/docs?timeout=1", "MILVUS_TOKEN"),
    ],
)
def test_a_secret_that_leaves_the_machine_unencrypted_is_warned_of(monkeypatch, caplog, address, variable):
    for host, warned in (("db.invalid", True), ("127.0.0.1", False)):
        monkeypatch.setenv(variable, KEY)
        caplog.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(NudgeError):
            connect(address.replace("db.invalid", host))
        assert (
            f"the {'key' if 'Q' in variable else 'token'} in {variable} is sent to {host} unencrypted" in caplog.text
        ) == warned
        assert KEY not in caplog.text
