"""A ``304`` on the wire: headers that describe no content, and a connection that stays usable."""

import re
import socket

import pytest

from tests.service import Service

LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target",
    [
        *("/api1/sequences/shared", "/api1/terms/1000", "/api1/terms/5?modulo=7"),
        *("/api1/terms/5/summary", "/", "/page/page.css"),
    ],
)
def test_304_has_no_length_and_keeps_its_connection(
    service: Service, method: str, target: str
) -> None:
    asked = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\r\n".encode()
    with socket.create_connection((service.host, service.port), timeout=20) as client:
        received = b""
        for request, end in ((asked, b"\r\n\r\n"), (asked, b"\r\n\r\n"), (LIVE, b"live")):
            client.sendall(request)
            before = len(received)
            while not received[before:].endswith(end):
                piece = client.recv(65536)
                assert piece, f"the connection was closed after {received!r}"
                received += piece
    first, second, live, rest = received.split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 304 ")
        names = re.findall(rb"\r\n([^:]+):", head.lower())
        assert {b"etag", b"cache-control", b"date"} < set(names)
        assert not {b"content-length", b"content-type", b"transfer-encoding"} & set(names)
    assert live.startswith(b"HTTP/1.1 200 ")
    assert rest == b"live"
