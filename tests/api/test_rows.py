"""Rows of terms: lines, links to more, and streams to slow clients."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from bigfib.api.ranges import MAX_LINES, MAX_STREAMS
from tests.api.answers import LIMIT, LINES, TEXT, Get, expected, expected_text, refused
from tests.service import Serve, Service, memory, seconds_of_work, until


class TestRow:
    def test_row_as_b_file_equals_that_of_oeis(self, get: Get) -> None:
        """Compare with OEIS A000045, from n = 0 to 300."""
        reply, body = get("?from=0&count=301&format=bfile")
        assert reply.headers["Content-Type"] == "text/plain"
        lines, this, following = [], 0, 1
        for n in range(301):
            lines.append(f"{n} {this}\n")
            this, following = following, this + following
        assert body.decode() == "".join(lines)
        assert lines[100] == "100 354224848179261915075\n"

    def test_row_as_text_and_ndjson_has_a_line_a_term(self, get: Get) -> None:
        assert get("?from=-6&count=9", TEXT)[1].split() == b"-8 5 -3 2 -1 1 0 1 1".split()
        reply, body = get("?from=-2&count=3", LINES)
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        assert body.splitlines() == [
            b'{"n":"-2","digits":"1","value":"-1"}',
            b'{"n":"-1","digits":"1","value":"1"}',
            b'{"n":"0","digits":"1","value":"0"}',
        ]

    def test_row_up_to_the_limit_is_exact(self, get: Get) -> None:
        first = LIMIT - 5
        lines = get(f"?from={first}&count=6", TEXT)[1].splitlines()
        assert lines == [expected_text(n) for n in range(first, LIMIT + 1)]
        lines = get(f"?from={-LIMIT}&count=3", TEXT)[1].splitlines()
        assert lines == [expected_text(n) for n in range(-LIMIT, -LIMIT + 3)]

    def test_row_by_its_links_has_as_many_as_are_asked_for(self, get: Get) -> None:
        path, lines = "?from=-9999&count=20001&format=bfile", []
        replies = 0
        while path:
            reply, body = get(path)
            assert reply.status == 200
            lines += body.splitlines()
            replies += 1
            link = reply.headers["Link"]
            assert body.count(b"\n") == (MAX_LINES if link else 1)
            path = link.partition(">")[0].removeprefix("</api1/terms") if link else ""
            assert link is None or link.endswith("; rel=next")
        assert replies == 3
        assert [int(line.split()[0]) for line in lines] == list(range(-9999, 10_002))
        for n in (-9999, 0, 1, 2, 10_001):
            assert lines[n + 9999] == b"%d %b" % (n, expected_text(n))

    def test_row_without_a_count_links_to_more(self, get: Get) -> None:
        reply, body = get("")
        assert body.count(b"\n") == MAX_LINES
        assert body.startswith(b"0\n1\n1\n2\n3\n")
        assert reply.headers["Link"] == f"</api1/terms?from={MAX_LINES}>; rel=next"
        reply, body = get(f"?from={LIMIT}")
        assert body == expected_text(LIMIT) + b"\n"
        assert reply.headers["Link"] is None

    @pytest.mark.parametrize("count", [MAX_LINES, MAX_LINES + 1])
    def test_row_of_more_than_the_limit_links_to_the_rest(self, get: Get, count: int) -> None:
        reply, body = get(f"?count={count}")
        assert body.count(b"\n") == MAX_LINES
        link = f"</api1/terms?count=1&from={MAX_LINES}>; rel=next" if count > MAX_LINES else None
        assert reply.headers["Link"] == link

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("?from=1000001", "F(-1000000) to F(1000000)"),
            ("?from=-1000001", "F(-1000000) to F(1000000)"),
            ("?from=1000000&count=2", "F(-1000000) to F(1000000)"),
            ("?count=0", "at least 1"),
            ("?count=-1", "at least 1"),
            ("?count=x", "The parameter count is not a number: 'x'"),
            ("?from=", "The parameter from is not a number: ''"),
            ("?format=afile", "The format 'afile' is unknown; the only one is bfile"),
        ],
    )
    def test_row_with_a_wrong_parameter_is_422(self, get: Get, query: str, says: str) -> None:
        refused(get(query), 422, says)

    def test_row_in_an_unknown_form_is_406(self, get: Get) -> None:
        refused(get("", {"Accept": "application/json"}), 406, "text/plain or application/x-ndjson")
        refused(get("?format=bfile", LINES), 406, "text/plain")


def far_stream(service: Service) -> socket.socket:
    """Ask for 10,000 terms of 188 thousand digits each."""
    client = socket.create_connection((service.host, service.port), timeout=20)
    client.sendall(b"GET /api1/terms?from=900000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


@pytest.fixture
def streams() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class TestStreaming:
    def test_row_is_sent_in_small_chunks(self, service: Service) -> None:
        with closing(socket.create_connection((service.host, service.port), timeout=20)) as client:
            client.sendall(
                b"GET /api1/terms?from=100&count=9900 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += client.recv(1 << 20)
        head, _, rest = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        sizes, lines = [], b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            sizes.append(int(size, 16))
            lines += rest[: sizes[-1]]
            rest = rest[sizes[-1] + 2 :]
        assert sizes[-1] == 0
        # A chunk has as many lines as fill 16 KiB; the longest line has 2,090 bytes.
        assert max(sizes) < (1 << 14) + 2090
        assert len(sizes) > 500
        assert lines.split() == [expected_text(n) for n in range(100, 10_000)]

    def test_others_are_served_while_rows_are_sent(
        self, service: Service, streams: ExitStack
    ) -> None:
        received = [0] * 4
        done = threading.Event()

        def read(number: int, client: socket.socket) -> None:
            while not done.is_set() and (piece := client.recv(1 << 20)):
                received[number] += len(piece)

        clients = [streams.enter_context(closing(far_stream(service))) for _ in received]
        readers = [
            threading.Thread(target=read, args=(number, client))
            for number, client in enumerate(clients)
        ]
        for reader in readers:
            reader.start()
        before = received.copy()
        for value in range(1, 101):
            service.ask("/api0/next")
            if value % 25 == 0:
                # All of them have progressed.
                until(lambda: all(map(int.__gt__, received, before)))
                before[:] = received
        assert service.value("current") == int(expected(100))
        # None has ended, which would make it easy.
        assert max(received) < 10_000 * 188_000
        done.set()
        for reader in readers:
            reader.join()

    def test_client_that_leaves_frees_its_place_and_costs_nothing(self, service: Service) -> None:
        for _ in range(3):
            with ExitStack() as clients:
                for _ in range(MAX_STREAMS):
                    clients.enter_context(closing(far_stream(service)))
                answer = service.ask("/api1/terms?count=1")
                refused(answer, 503, f"to {MAX_STREAMS} clients")
                assert answer[0].headers["Retry-After"] == "1"
                # A single term is not a row.
                assert service.ask("/api1/terms/5")[0].status == 200
            # A client that has left does not occupy its place.
            until(lambda: service.ask("/api1/terms?count=1")[0].status != 503)
        # Terms that no client waits for are not computed.
        worked = seconds_of_work(service.process.pid)
        time.sleep(0.5)
        assert seconds_of_work(service.process.pid) - worked <= 0.05

    def test_client_that_does_not_read_costs_little(self, serve: Serve, streams: ExitStack) -> None:
        service = serve()
        before = memory(service)
        for _ in range(MAX_STREAMS):
            streams.enter_context(closing(far_stream(service)))
        time.sleep(0.5)
        worked = seconds_of_work(service.process.pid)
        time.sleep(0.5)
        assert seconds_of_work(service.process.pid) - worked <= 0.05
        assert memory(service) - before < MAX_STREAMS * 2_000_000

    def test_row_at_its_end_frees_its_place(self, service: Service) -> None:
        with service.connect() as connection:
            for _ in range(2 * MAX_STREAMS):
                connection.request("GET", "/api1/terms?count=2")
                assert connection.getresponse().read() == b"0\n1\n"
