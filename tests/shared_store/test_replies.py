"""Replies wait for a transaction."""

import re
import socket
from contextlib import ExitStack

import psycopg
import pytest
from flint import fmpz

from tests.postgres import Cluster
from tests.service import Serve, exchange
from tests.shared_store.asking import PATIENT, position, transactions


class TestReplies:
    def test_reply_of_unknown_length_comes_in_chunks(self, serve: Serve, database: str) -> None:
        service = serve("--store", database)
        for expected in (1, 1, 2):
            assert service.value("next") == expected
        with socket.create_connection((service.host, service.port), timeout=20) as client:
            client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += client.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert body == b'1\r\n{\r\n1b\r\n"value":"3","status":"200"}\r\n0\r\n\r\n'

    @pytest.mark.parametrize(
        "request_line", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"]
    )
    def test_reply_on_a_connection_that_closes_has_a_length(
        self, serve: Serve, database: str, request_line: bytes
    ) -> None:
        service = serve("--store", database)
        service.value("next")
        for name, value in ((b"next", 1), (b"current", 1), (b"next", 2)):
            received = exchange(service, b"GET /api0/%b %b\r\n" % (name, request_line))
            head, _, body = received.partition(b"\r\n\r\n")
            assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
            assert body == b'{"value":"%d","status":"200"}' % value

    def test_steps_that_wait_at_the_same_moment_share_a_transaction(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        assert service.value("next") == 1
        with ExitStack() as opened:
            address = (service.host, service.port)
            clients = [opened.enter_context(socket.create_connection(address)) for _ in range(20)]
            before = transactions(cluster.url())
            with psycopg.connect(cluster.url()) as other:
                # The first batch waits for the row; by then all others have sent their requests.
                other.execute("SELECT * FROM bigfib_sequences FOR UPDATE")
                for client in clients:
                    client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
                cluster.await_lock()
            bodies = []
            for client in clients:
                received = b""
                while not received.endswith(b"0\r\n\r\n"):
                    piece = client.recv(65536)
                    assert piece, "it was cut off"
                    received += piece
                bodies.append(re.findall(rb"(\d+)\",\"status", received)[0])
        assert sorted(map(int, bodies)) == [int(fmpz.fib_ui(fmpz(n))) for n in range(2, 22)]
        # Ours, and the one that held the row.
        assert transactions(cluster.url()) - before - 2 <= 3
        assert position(cluster.url()) == 21
