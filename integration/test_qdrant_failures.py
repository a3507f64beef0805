"""Everything that can go wrong between the command line and a Qdrant server: exit status, message, and what is left."""

import os
import signal
import socket
import threading
from contextlib import ExitStack, closing, contextmanager

import pytest
from qdrant_client import QdrantClient, models

from integration.elsewhere import nobody, paused, silent, web_server
from integration.engines import for_tests, free_ports, qdrant_server
from integration.judged import beside, judged, vectors_of
from nudge_vdb_qdrant.fixture import QdrantFixture


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "2")


@contextmanager
def slow(port, delay):
    """A way to *port* on which every answer takes *delay* seconds longer."""
    stopped, threads = threading.Event(), []

    def passed_on(source, sink, wait):
        try:
            while (content := source.recv(65536)) and not stopped.wait(wait):
                sink.sendall(content)
        except OSError:
            pass
        sink.close()

    def accepted():
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for pair in ((near, far, 0), (far, near, delay)):
                threads.append(threading.Thread(target=passed_on, args=pair))
                threads[-1].start()
            ends.extend((near, far))

    ends = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accepted)
        accepting.start()
        yield listening.getsockname()[1]
        stopped.set()
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for end in ends:
        end.close()
    for thread in threads:
        thread.join()


PLACES = {
    "nobody": (nobody, "Unreachable", "Connection refused); is it running at this address?"),
    "silent": (silent, "Unreachable", "timed out); is it running at this address?"),
    "a page": (lambda: web_server(200, b"<html>hello</html>"), "Refused", "what answers is no Qdrant"),
    "a page that is not found": (lambda: web_server(404, b"<html>no</html>"), "Refused", "what answers is no Qdrant"),
    "other json": (lambda: web_server(200, b'{"hello": 1}'), "Refused", "what answers is no Qdrant"),
    "other json, not found": (lambda: web_server(404, b'{"hello": 1}'), "Refused", "answers 404"),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_address_where_no_qdrant_is_says_what_is_there(place, nudge_vdb):
    opened, error, words = PLACES[place]
    with opened() as port:
        status, told = nudge_vdb("status", f"qdrant://127.0.0.1:{port}/rows?grpc_port={port}&timeout=1")
    assert (status, told["error"]) == (6, error)
    assert f"qdrant:localhost:{port}/rows: " in told["message"]
    assert words in told["message"]


def test_a_host_that_does_not_exist_is_unreachable(nudge_vdb):
    status, told = nudge_vdb("status", "qdrant://no-such-host.invalid/rows?timeout=1")
    assert (status, told["error"]) == (6, "Unreachable")
    assert "no-such-host.invalid:6333/rows: no answer" in told["message"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with for_tests(qdrant_server(tmp_path_factory.mktemp("own"))) as server:
        yield server


@pytest.fixture
def rows(server, tmp_path, request):
    """A judged collection: its address, the file of its judgements and its back door."""
    name = "".join(filter(str.isalnum, request.node.name))
    fixture, file = judged(server.address(name, vector="v"), tmp_path)
    yield server.address(name, vector="v", timeout=1), file, fixture
    fixture.close()


def test_ports_that_were_mistaken_for_each_other_are_told_apart(server, rows, nudge_vdb, caplog):
    address = rows[0].replace(f"grpc_port={server.grpc_port}", f"grpc_port={server.port}")
    assert nudge_vdb("status", address)[0] == 0
    assert f"gRPC port {server.port} of 127.0.0.1 does not answer" in caplog.text
    status, told = nudge_vdb("status", address.replace(f":{server.port}/", f":{server.grpc_port}/"))
    assert (status, told["error"]) == (6, "Refused")
    assert "check host and port: Qdrant has REST at 6333 and gRPC at 6334" in told["message"]


def test_a_server_without_tls_is_told_apart_from_one_that_is_down(rows, nudge_vdb):
    status, told = nudge_vdb("status", rows[0].replace("qdrant://", "qdrant+https://"))
    assert (status, told["error"]) == (6, "Refused")
    assert "write qdrant:// instead" in told["message"]


def test_a_server_that_hangs_is_given_up_after_the_timeout(server, rows, nudge_vdb):
    with paused(server):
        status, told = nudge_vdb("status", rows[0])
    assert (status, told["error"]) == (6, "Unreachable")
    assert "timed out" in told["message"]
    assert nudge_vdb("status", rows[0])[0] == 0


def test_a_slow_server_is_waited_for_as_long_as_the_timeout_says(server, rows, nudge_vdb):
    with slow(server.port, 1.2) as port:
        address = f"{rows[0].replace(f':{server.port}/', f':{port}/')}&grpc_port=1".replace(
            f"grpc_port={server.grpc_port}&", ""
        )
        status, told = nudge_vdb("status", address)
        assert (status, told["error"]) == (6, "Unreachable")
        assert nudge_vdb("status", address.replace("timeout=1", "timeout=30"))[0] == 0


def finished(nudge_vdb, address, fixture, before, payloads):
    """Check that an interrupted run says so, can be finished, and can be undone bit for bit."""
    status, told = nudge_vdb("status", address)
    assert (status, told["unfinished"], told["live"]) == (0, 1, 0)
    assert "was interrupted with 20 of 60 rows done; go on with 'nudge-vdb resume ADDRESS'" in told["message"]
    status, told = nudge_vdb("resume", address)
    assert (status, told["status"]) == (0, "applied")
    assert nudge_vdb("verify", address)[0] == 0
    assert vectors_of(fixture) != before
    assert nudge_vdb("rollback", address, "--to", "0")[0] == 0
    assert vectors_of(fixture) == before
    assert beside(fixture) == payloads


def test_a_server_that_hangs_in_the_middle_of_a_write_leaves_a_run_that_can_be_finished(
    server, rows, nudge_vdb, at_write
):
    address, file, fixture = rows
    before, payloads = vectors_of(fixture), beside(fixture)
    with ExitStack() as stack:
        at_write(lambda: stack.enter_context(paused(server)))
        status, told = nudge_vdb("tune", address, "--judgements", file)
        assert (status, told["error"]) == (6, "Unreachable")
    assert nudge_vdb("status", address)[1]["unfinished"] == 1
    finished(nudge_vdb, address, fixture, before, payloads)


@pytest.mark.parametrize("options", [{}, {"grpc_port": 1}], ids=["grpc", "rest"])
def test_a_server_killed_in_the_middle_of_a_write_leaves_a_run_that_can_be_finished(
    tmp_path, nudge_vdb, at_write, options
):
    ports = free_ports(2)
    with for_tests(qdrant_server(tmp_path / "server", ports=ports)) as server:
        fixture, file = judged(server.address("rows", vector="v", **options), tmp_path)
        before, payloads = vectors_of(fixture), beside(fixture)
        address = server.address("rows", vector="v", timeout=1, **options)
        at_write(lambda: os.kill(server.process, signal.SIGKILL))
        status, told = nudge_vdb("tune", address, "--judgements", file)
        assert (status, told["error"]) == (6, "Unreachable")
        assert nudge_vdb("status", address)[0] == 6
        fixture.close()
    with (
        for_tests(qdrant_server(tmp_path / "server", ports=ports)) as server,
        closing(QdrantClient(url=server.url, check_compatibility=False)) as client,
    ):
        finished(nudge_vdb, address, QdrantFixture(client, "rows", "v"), before, payloads)


def test_a_server_that_is_restarted_in_the_middle_of_a_write_is_waited_for(tmp_path, nudge_vdb, at_write, monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "60")
    ports = free_ports(2)
    with ExitStack() as stack:
        first = stack.enter_context(for_tests(qdrant_server(tmp_path / "server", ports=ports)))
        fixture, file = judged(first.address("rows", vector="v"), tmp_path)
        address = first.address("rows", vector="v", timeout=5)

        def restarted():
            os.kill(first.process, signal.SIGKILL)
            os.waitpid(first.process, 0)
            stack.enter_context(qdrant_server(tmp_path / "server", ports=ports))

        at_write(restarted)
        status, told = nudge_vdb("tune", address, "--judgements", file)
        assert (status, told["status"], told["skipped"]) == (0, "applied", {})
        assert nudge_vdb("verify", address)[0] == 0
        fixture.close()


def test_a_collection_that_allows_too_few_requests_is_given_up_with_its_reason(rows, nudge_vdb):
    address, file, fixture = rows
    strict = models.StrictModeConfig(enabled=True, read_rate_limit=4)
    fixture._client.update_collection(fixture._name, strict_mode_config=strict)
    status, told = nudge_vdb("plan", address, "--judgements", file)
    assert (status, told["error"]) == (6, "Busy")
    assert "rate" in told["message"]
    assert not fixture._client.get_collection(fixture._name).config.metadata
