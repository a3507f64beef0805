"""Opening an address takes the patience that every other request takes, where waiting can help."""

import logging
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nudge_vdb import retry
from nudge_vdb.backends import connect
from nudge_vdb.errors import Busy, NudgeError, Refused, UnfitCollection, Unknown, Unreachable
from nudge_vdb.retry import opened


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "20")
    monkeypatch.setattr(retry, "_backoff", lambda state: 0.0)


@contextmanager
def answering(code):
    """A port that answers the first request with *code*, all later ones with 403; and what it was asked."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            text = b'{"status":{"error":"no"},"time":0}'
            self.send_response(code if len(asked) == 1 else 403)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"qdrant://127.0.0.1:{server.server_port}/docs?grpc_port=9&timeout=2", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_or_away_while_an_address_is_opened_is_asked_again(code, caplog):
    with caplog.at_level(logging.WARNING), answering(code) as (address, asked), pytest.raises(Refused):
        connect(address)
    assert len(asked) == 2
    assert caplog.text.count("asked again for up to 20 s") == 1


@pytest.mark.parametrize("code", [400, 401, 403])
def test_a_server_that_refuses_is_asked_once(code):
    with answering(code) as (address, asked), pytest.raises(Refused):
        connect(address)
    assert len(asked) == 1


def test_a_server_that_is_silent_is_waited_for_once(caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="timed out"):
        connect(f"qdrant://127.0.0.1:{silent.getsockname()[1]}/docs?grpc_port=9&timeout=1")
    assert "asked again" not in caplog.text


@pytest.mark.parametrize("failure", [Busy("starting", 0.0), Unreachable("nobody there"), Unknown("no answer")])
def test_what_passes_by_itself_is_waited_for(failure):
    calls = iter([failure, failure, None])
    assert opened(lambda: raised(next(calls))) == "open"


@pytest.mark.parametrize(
    "failure", [Refused("wrong key"), UnfitCollection("there is none"), Unreachable("held by another", passes=False)]
)
def test_what_somebody_has_to_mend_is_not_waited_for(failure):
    calls = iter([failure, None])
    with pytest.raises(NudgeError) as stopped:
        opened(lambda: raised(next(calls)))
    assert stopped.value is failure


def test_where_nobody_answers_at_all_one_does_not_wait_for_two_minutes(monkeypatch, waits):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "120")
    monkeypatch.setattr(retry, "_backoff", lambda state: 4.0)
    for failure, most in ((Unreachable("nobody"), 20), (Busy("starting", 4.0), 120)):
        waits.clear()
        with pytest.raises(type(failure)):
            opened(lambda failure=failure: raised(failure))
        assert most - 4 <= sum(waits) <= most


def raised(failure):
    if failure is not None:
        raise failure
    return "open"
