"""The access log has a line for every request, if it is turned on."""

import json
import re
import signal
import socket
import struct
import time
from contextlib import closing
from http.client import HTTPConnection

import pytest

from bigfib.api.access_log import shown
from tests.service import Serve, Service, exchange

# The Common Log Format, milliseconds, and the ids of the request.
LINE = re.compile(
    r'^(\S+) - - \[([^]]+)\] "([^"\n]*)" (\d{3}) (\d+) (\d+\.\d{3}) [0-9a-f]{16} -$', re.MULTILINE
)


def lines(service: Service) -> list[tuple[str, ...]]:
    """Stop the service, and return request, status and bytes of each line."""
    assert service.stop(signal.SIGTERM) == 0
    found: list[tuple[str, ...]] = [
        match.group(1, 3, 4, 5) for match in LINE.finditer("".join(service.said))
    ]
    return found


def test_access_log_unless_asked_for_is_empty(serve: Serve) -> None:
    service = serve()
    service.value("next")
    assert lines(service) == []
    assert "/api0/next" not in "".join(service.said)


def test_access_log_has_a_line_for_every_kind_of_reply(serve: Serve) -> None:
    service = serve("--access-log")
    expected = []

    def ask(method: str, path: str, status: str, written: str | None = None) -> bytes:
        body = service.ask(path, method)[1]
        request = f"{method} {written or path} HTTP/1.1"
        expected.append(("127.0.0.1", request, status, str(len(body))))
        return body

    ask("GET", "/api0/next", "200")
    ask("GET", "/api0/current", "200")
    ask("HEAD", "/api0/current", "200")
    ask("POST", "/api0/next", "405")
    # In pieces, without a length.
    ask("GET", "/api1/terms?count=3000", "200", "/api1/terms")
    ask("GET", "/nothing", "404")
    one = json.loads(ask("POST", "/api1/sequences", "201"))["id"]
    shortened = f"/api1/sequences/{one[:6]}..."
    ask("POST", f"/api1/sequences/{one}/next", "200", f"{shortened}/next")
    ask("DELETE", f"/api1/sequences/{one}", "204", shortened)
    while service.ask("/api1/terms/1500000")[0].status == 202:
        time.sleep(0.05)  # Nobody reads the messages meanwhile.
    found = lines(service)
    assert one not in "".join(service.said)
    assert [line for line in found if "1500000" not in line[1]] == expected
    far = [line[2] for line in found if "1500000" in line[1]]
    assert far == ["202"] * (len(far) - 1) + ["200"]
    # A file, sent in pieces; as JSON it is longer than its digits.
    assert int(found[-1][3]) > 313_482


def test_logged_time_includes_the_wait_for_the_commit(serve: Serve) -> None:
    service = serve("--access-log")
    for _ in range(20):
        service.ask("/api0/next")
    metrics = service.ask("/metrics")[1].decode()
    committing = re.search(r"^bigfib_commit_seconds_sum (\S+)$", metrics, re.MULTILINE)
    assert committing
    assert service.stop(signal.SIGTERM) == 0
    steps = [match for match in LINE.finditer("".join(service.said)) if "next" in match[3]]
    assert len(steps) == 20
    # Milliseconds are rounded.
    assert sum(float(step[6]) + 0.0005 for step in steps) / 1000 >= float(committing[1])


def test_control_characters_of_a_client_write_no_lines(serve: Serve) -> None:
    service = serve("--access-log")
    exchange(service, b'GET /%0a%22%1b[31m%ff" HTTP/1.1\r\nConnection: close\r\n\r\n')
    assert [line[1] for line in lines(service)] == ["GET /%0A%22%1B%5B31m%FF%22 HTTP/1.1"]


@pytest.mark.parametrize(
    ("host", "address", "client"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("::1", "::1", "::1"),
        ("::", "::1", "::1"),
        ("::", "127.0.0.1", "127.0.0.2"),
    ],
)
@pytest.mark.parametrize("written_as", ["text", "json"])
def test_line_has_the_address_of_the_client(
    serve: Serve, host: str, address: str, client: str, written_as: str
) -> None:
    service = serve("--host", host, "--access-log", "--log-format", written_as)
    connection = HTTPConnection(address, service.port, timeout=20, source_address=(client, 0))
    with closing(connection):
        for _ in range(2):  # The second request is on the same connection.
            connection.request("GET", "/api0/next")
            connection.getresponse().read()
    assert service.stop(signal.SIGTERM) == 0
    said = "".join(service.said)
    if written_as == "text":
        shown = [line[1] for line in LINE.finditer(said)]
    else:
        entries = [json.loads(line) for line in said.splitlines()]
        shown = [entry["client"] for entry in entries if "client" in entry]
    assert shown == [client, client]


@pytest.mark.parametrize(
    ("host", "address", "client"), [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "-")]
)
def test_line_of_a_client_that_has_reset_its_connection(
    serve: Serve, host: str, address: str, client: str
) -> None:
    service = serve("--host", host, "--access-log")
    service.process.send_signal(signal.SIGSTOP)
    with socket.create_connection((address, service.port)) as connection:
        connection.sendall(b"GET /api0/current HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    service.process.send_signal(signal.SIGCONT)
    # This request comes later, and so is answered later.
    service.ask("/livez")
    assert service.stop(signal.SIGTERM) == 0
    found = {line[3]: line[1] for line in LINE.finditer("".join(service.said))}
    assert found["GET /api0/current HTTP/1.1"] == client


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/api1/sequences/shared/next", "/api1/sequences/shared/next"),
        (f"/api1/sequences/{'ab' * 16}", "/api1/sequences/ababab..."),
        # A mistyped path.
        (f"/api1/sequences/{'AB' * 15}x/nxt", "/api1/sequences/ABABAB...x/nxt"),
        ("/api1/terms/1234567", "/api1/terms/1234567"),
        (f"/{'/x' * 5000}", f"/{'/x' * 99}/"),
    ],
)
def test_no_more_of_a_path_than_may_be_read(path: str, written: str) -> None:
    assert shown(path) == written
