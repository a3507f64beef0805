"""The proxy itself, against a server that sends back what it is sent."""

import socket
import threading
from contextlib import closing, suppress

import pytest

from integration.proxy import Answers, Fault, Kind, Way, proxy_to


@pytest.fixture
def echo():
    """A port that sends back what it is sent, and all that arrived there."""
    arrived = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection):
            with connection:
                while content := received(connection):
                    arrived.extend(content)
                    sent(connection, content)

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], arrived
        listener.shutdown(socket.SHUT_RDWR)


def received(connection, count=1 << 16):
    try:
        return connection.recv(count)
    except ConnectionError:
        return b""


def sent(connection, content):
    with suppress(ConnectionError):
        connection.sendall(content)


def all_received(connection):
    return b"".join(iter(lambda: received(connection), b""))


@pytest.fixture
def proxy(echo):
    with proxy_to(echo[0]) as proxy:
        yield proxy


@pytest.fixture
def dial(proxy):
    """Connect through the proxy."""

    def dialled():
        connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        connections.append(connection)
        return connection

    connections: list[socket.socket] = []
    yield dialled
    for each in connections:
        each.close()


def exchanged(connection, content):
    sent(connection, content)
    back = b""
    while len(back) < len(content):
        piece = received(connection)
        if not piece:
            break
        back += piece
    return back


def test_without_a_fault_everything_passes(dial, proxy):
    content = bytes(range(256)) * 1000
    assert exchanged(dial(), content) == content
    assert proxy.counted == {Way.REQUEST: len(content), Way.RESPONSE: len(content)}


@pytest.mark.parametrize("after", [0, 1, 70_000])
def test_a_request_is_cut_at_the_very_byte(dial, proxy, echo, after):
    proxy.plan(Fault(Kind.CUT, Way.REQUEST, after))
    connection = dial()
    sent(connection, b"x" * 100_000)
    all_received(connection)
    assert len(echo[1]) <= after
    assert proxy.counted[Way.REQUEST] == after
    assert exchanged(dial(), b"again") == b"again"
    assert proxy.faults == {Kind.CUT: 1}


def test_a_response_is_cut_at_the_very_byte_and_the_request_has_arrived(dial, proxy, echo):
    proxy.plan(Fault(Kind.CUT, Way.RESPONSE, 3))
    assert len(exchanged(dial(), b"12345")) <= 3
    assert bytes(echo[1]) == b"12345"
    assert proxy.counted[Way.RESPONSE] == 3


def test_bytes_are_counted_over_all_connections_and_from_when_faults_are_planned(dial, proxy):
    assert exchanged(dial(), b"before") == b"before"
    proxy.plan(Fault(Kind.CUT, Way.REQUEST, 8))
    assert exchanged(dial(), b"12345") == b"12345"
    assert len(exchanged(dial(), b"67890")) < 5


def test_new_connections_are_refused_until_it_is_healed(dial, proxy):
    proxy.plan(Fault(Kind.REFUSE))
    assert exchanged(dial(), b"first") == b""
    with pytest.raises(ConnectionRefusedError):
        dial()
    proxy.heal()
    assert exchanged(dial(), b"again") == b"again"


def test_what_is_swallowed_never_arrives_and_the_connection_stays_broken(dial, proxy, echo):
    proxy.plan(Fault(Kind.SWALLOW, Way.REQUEST, 2))
    connection = dial()
    connection.sendall(b"12345")
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        all_received(connection)
    assert bytes(echo[1]) == b"12"
    proxy.heal()
    connection.settimeout(10)
    assert received(connection) == b""
    assert exchanged(dial(), b"again") == b"again"


def test_an_outage_ends_by_itself(dial, proxy):
    proxy.plan(Fault(Kind.REFUSE, lasting=0.2))
    assert exchanged(dial(), b"first") == b""
    for _ in range(1000):
        try:
            connection = dial()
            break
        except ConnectionRefusedError:
            threading.Event().wait(0.01)
    assert exchanged(connection, b"again") == b"again"


def test_what_was_asked_is_done_and_its_answer_lost(dial, proxy, echo):
    proxy.plan(Fault(Kind.LOSE_ANSWER))
    connection = dial()
    answer = b"HTTP/1.1 200 OK"
    assert exchanged(connection, answer) == b""
    assert bytes(echo[1]) == answer
    assert exchanged(dial(), answer) == answer


@pytest.mark.parametrize(("kind", "pace"), [(Kind.DELAY, 0.01), (Kind.THROTTLE, 1_000_000)])
def test_what_is_slow_arrives_whole(dial, proxy, kind, pace):
    proxy.plan(Fault(kind, pace=pace))
    content = bytes(range(256)) * 300
    assert exchanged(dial(), content) == content
    assert proxy.faults == {kind: 1}


def test_a_server_that_is_not_there_resets(dial):
    with proxy_to(1) as proxy, closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=10)) as connection:
        assert received(connection) == b""


def frame(kind, content):
    return len(content).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + content


@pytest.mark.parametrize("piece", [1, 4, 9, 1000])
def test_answers_are_told_from_small_talk_however_the_bytes_come(piece):
    settings, ping, headers = frame(4, b"123456"), frame(6, b"12345678"), frame(1, b"ok")
    content = settings + ping + settings
    seen = Answers()
    assert not any(seen.in_(content[at : at + piece]) for at in range(0, len(content), piece))
    assert True in [seen.in_(headers[at : at + piece]) for at in range(0, len(headers), piece)]
    assert not any(seen.in_(ping[at : at + piece]) for at in range(0, len(ping), piece))


@pytest.mark.parametrize("piece", [1, 4, 9, 1000])
def test_all_of_a_plain_answer_is_one_however_the_bytes_come(piece):
    content, seen = b"HTTP/1.1 200 OK", Answers()
    assert not seen.in_(b"")
    assert all(seen.in_(content[at : at + piece]) for at in range(0, len(content), piece))
