"""Send hostile bytes to bigfib itself; test_proxy.py sends them to nginx."""

import contextlib
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bigfib.server.bjoern.idle import TIMEOUT
from tests.hostile import CASES, REFUSED, answer, outcome, refused_table, table
from tests.service import Serve, Service

ANOTHER = b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n"
EXPECTING = ANOTHER[:-2] + b"Expect: 100-continue\r\n\r\n"

IN_PARTS = [ANOTHER[:30], ANOTHER[30:]]

TOP = Path(__file__).parent.parent
TABLES = TOP / "docs" / "hostile-requests.md"
FENCE = TOP / "bigfib" / "server" / "bjoern" / "README.md"


def test_hostile_requests_are_answered_as_documented(serve: Serve) -> None:
    service = serve()
    address = (service.host, service.port)
    found = {case.name: outcome(service, address, case) for case in CASES}
    assert found == {case.name: case.bigfib for case in CASES}
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)


def test_document_has_the_table_of_hostile_requests() -> None:
    assert table() in TABLES.read_text()


def test_valid_requests_that_bjoern_refuses_are_those_documented(serve: Serve) -> None:
    service = serve()
    address = (service.host, service.port)
    assert {case.name: answer(service, address, case) for case in REFUSED} == {
        case.name: case.bigfib for case in REFUSED
    }
    assert refused_table() in FENCE.read_text()
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)


def test_a_client_that_sends_no_more_is_answered(service: Service) -> None:
    with socket.create_connection((service.host, service.port), timeout=20) as client:
        client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(1000):
            received += piece
    assert received.endswith(b'\r\n\r\n{"value":"1","status":"200"}')


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Raise the limit of descriptors for this process, and for those that it starts."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def read_on(client: socket.socket) -> None:
    while client.recv(1 << 20):
        pass


def idle_connections(service: Service, count: int) -> ExitStack:
    with ExitStack() as opened:
        for _ in range(count):
            address = (service.host, service.port)
            opened.enter_context(socket.create_connection(address, timeout=20))
        return opened.pop_all()


@pytest.mark.campaign
def test_steps_next_to_10_000_idle_connections_are_made(
    serve: Serve, many_descriptors: int
) -> None:
    if many_descriptors < 10_100:
        pytest.skip(f"there may be {many_descriptors} descriptors (ulimit -Hn), fewer than 10,100")
    service = serve()
    with idle_connections(service, 10_000), service.connect() as connection:
        for _ in range(1000):
            connection.request("GET", "/api0/next")
            assert connection.getresponse().read().endswith(b'"status":"200"}')
    assert service.stop(signal.SIGTERM) == 0


@pytest.mark.usefixtures("torture")
def test_client_that_does_nothing_is_closed_after_75_seconds(service: Service) -> None:
    """A silent client, one that sends a byte now and then, and one that does not read its reply."""
    address = (service.host, service.port)
    with (
        socket.create_connection(address) as silent,
        socket.create_connection(address) as trickling,
        socket.socket() as deaf,
        service.connect() as busy,
    ):
        silent.settimeout(10)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(address)
        deaf.sendall(b"GET /api1/terms?from=900000&count=100 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        cut_off = None
        request = iter(b"GET /" + b"x" * 1000)
        while time.monotonic() < began + TIMEOUT + 10:
            try:
                trickling.send(bytes([next(request)]))
            except OSError:
                cut_off = cut_off or time.monotonic() - began
            busy.request("GET", "/api0/current")
            reply = busy.getresponse()
            assert reply.read() == b'{"value":"0","status":"200"}'
            time.sleep(1)
        assert silent.recv(1) == b""
        assert cut_off is not None
        assert cut_off > TIMEOUT
        deaf.settimeout(10)
        with pytest.raises(ConnectionResetError):
            read_on(deaf)


# bjoern by itself takes its own reply for the `100 Continue`, and reads on in a request that is no
# more.
@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(EXPECTING, IN_PARTS, id="without a body"),
        pytest.param(EXPECTING + ANOTHER, IN_PARTS, id="and another at once"),
        pytest.param(ANOTHER + EXPECTING, IN_PARTS, id="behind another"),
        pytest.param(
            ANOTHER + EXPECTING[:-2] + b"Content-Length: 3\r\n\r\n", [b"abc"], id="without waiting"
        ),
    ],
)
def test_expect_100_continue_is_survived(serve: Serve, first: bytes, rest: list[bytes]) -> None:
    service = serve()
    with socket.create_connection((service.host, service.port), timeout=20) as client:
        client.sendall(first)
        assert client.recv(1000).startswith(b"HTTP/1.1 ")
        with contextlib.suppress(OSError):
            for part in rest:
                client.sendall(part)
                time.sleep(0.1)
    assert service.ask("/livez")[0].status == 200
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)
