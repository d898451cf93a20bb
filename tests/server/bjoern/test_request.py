"""Send requests that bjoern's parser gets wrong to a real service, over raw sockets."""

import signal
import socket
import struct
import time
import tracemalloc

import _bjoern
import pytest

from bigfib.server.bjoern.request import PartOfRequest, guarded
from tests.service import Serve, Service, seconds_of_work, until

NEXT = b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n"
CHUNKS = b"2\r\nab\r\n0\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


def replies(service: Service, *segments: bytes) -> bytes:
    """Send the segments separately, and return all bytes until the service closes."""
    with socket.create_connection((service.host, service.port), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for segment in segments:
                client.sendall(segment)
                # Nothing shows that bjoern has read a segment, unless it replies.
                client.settimeout(0.1)
                try:
                    received += client.recv(1 << 20)
                except TimeoutError:
                    client.settimeout(20)
            client.settimeout(20)
            while piece := client.recv(1 << 20):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(UPGRADE, id="Upgrade"),
        pytest.param(b"Foo\r\n" + UPGRADE, id="Upgrade after a line without a colon"),
        pytest.param(UPGRADE + b"X: " + b"x" * 70_000 + b"\r\n", id="Upgrade in two reads"),
        pytest.param(UPGRADE + b"Content-Length: 3\r\n", id="Upgrade with a body"),
    ],
)
def test_upgrade_is_answered_once_and_the_connection_is_closed(serve: Serve, fields: bytes) -> None:
    service = serve()
    request = NEXT + fields + b"\r\n"
    received = replies(service, request[:70], request[70:], NEXT + b"\r\n", NEXT + b"\r\n")
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert received.endswith(b'\r\nConnection: close\r\n\r\n{"value":"1","status":"200"}')
    assert service.value("current") == 1
    assert service.stop(signal.SIGTERM) == 0


def test_connect_is_refused_and_the_connection_is_closed(serve: Serve) -> None:
    service = serve()
    request = b"CONNECT x:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n"
    received = replies(service, request[:20], request[20:], NEXT + b"\r\n", NEXT + b"\r\n")
    assert received.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert service.value("current") == 0
    assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(NEXT + b"Transfer-Encoding: chunked\r\n\r\n", id="a step"),
        pytest.param(NEXT + b"Foo\r\nTransfer-Encoding: chunked\r\n\r\n", id="a hidden header"),
        pytest.param(
            b"POST /api1/sequences/shared/next HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="a step of /api1",
        ),
        pytest.param(
            b"POST /api1/sequences/shared/next HTTP/1.1\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: CHUNKED\r\n\r\n",
            id="a length, too",
        ),
    ],
)
@pytest.mark.parametrize("trailer", [b"", b'If-Match: "99"\r\n', b'If-Match: "0"\r\n'])
def test_body_in_chunks_is_refused_whatever_its_trailer(
    service: Service, request_: bytes, trailer: bytes
) -> None:
    close = b"GET /api0/current HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = replies(service, request_ + CHUNKS + trailer + b"\r\n", close)
    assert received.startswith(b"HTTP/1.1 411 Length Required\r\n")
    assert b"Content-Length, not in chunks" in received
    # The connection is kept: the parser has read the chunks completely.
    assert received.endswith(b'\r\n\r\n{"value":"0","status":"200"}')


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity", b"xchunked", b"chunked;q=1"])
def test_unknown_transfer_coding_is_refused_and_its_body_is_no_request(
    service: Service, coding: bytes
) -> None:
    request = b"POST /api1/sequences/shared/next HTTP/1.1\r\nTransfer-Encoding: " + coding
    received = replies(service, request + b"\r\n\r\n", NEXT + b"\r\n")
    assert received.startswith(b"HTTP/1.1 411 Length Required\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert service.value("current") == 0


@pytest.mark.parametrize("unread", [False, True], ids=["reset", "closed with a reply unread"])
def test_reset_before_a_large_term_is_sent_harms_no_other_reply(serve: Serve, unread: bool) -> None:
    service = serve()
    as_text = {"Accept": "text/plain"}
    until(lambda: service.ask("/api1/terms/6000000", headers=as_text)[0].status == 200)
    _, expected = service.ask("/api1/terms/6000000", headers=as_text)
    current = b"GET /api0/current HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = b"GET /api1/terms/6000000 HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"
    for trial in range(60):
        with socket.create_connection((service.host, service.port), timeout=20) as client:
            if unread:
                client.sendall(current)
                client.recv(1, socket.MSG_PEEK)
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request)
            # Wait until the service has read it, or is about to write its reply.
            time.sleep(trial % 6 * 0.0002)
        # This reuses freed memory.
        assert service.ask("/api1/terms/6000000", headers=as_text)[1] == expected
    before = seconds_of_work(service.process.pid)
    time.sleep(0.5)
    assert seconds_of_work(service.process.pid) - before < 0.2
    assert service.stop(signal.SIGTERM) == 0
    assert "".join(service.said).count("hit errno") <= 60


class _StartResponse:
    """An object with a pointer after its head, like bjoern's ``start_response``."""

    __slots__ = ("request",)

    def __init__(self) -> None:
        self.request = bytes(256)


def test_memory_of_requests_at_ever_new_addresses_is_bounded() -> None:
    app = guarded(lambda _environ, _start_response: [])
    requests = [_StartResponse() for _ in range(20_000)]
    tracemalloc.start()
    try:
        for request in requests:
            app({"wsgi.errors": None}, request)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A view takes some hundred bytes: two for each request would be ten times as much.
    assert kept < 1 << 20


@pytest.mark.parametrize("version", [(3, 2, 2), (3, 2, 3)], ids=["known", "unknown"])
def test_part_of_a_request_does_not_reach_the_application(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bjoern, "version", version)
    reached: list[str] = []

    def record(environ: dict[str, str], _start_response: object) -> list[bytes]:
        reached.append(environ["PATH_INFO"])
        return []

    app = guarded(record)
    with pytest.raises(PartOfRequest):
        app({"PATH_INFO": "/api0/next"}, _StartResponse())
    assert reached == []
    app({"PATH_INFO": "/api0/current", "wsgi.errors": ""}, _StartResponse())
    assert reached == ["/api0/current"]
