"""The process of the service: its address, its messages, and how it stops."""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.digit_cache import DigitCache
from bigfib.numbers import doubling
from bigfib.state import reader
from bigfib.state.log import Log
from tests.service import Serve, Service, exchange, until

STOPPING = [signal.SIGTERM, signal.SIGINT]


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a service that cannot start."""
    return subprocess.run(
        [sys.executable, "-m", "bigfib", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


class TestListening:
    def test_start_line_names_address_store_and_durability(self, serve: Serve, path: Path) -> None:
        service = serve()
        assert len(service.said) == 1
        line = service.said[0]
        assert line.startswith("bigfib: bigfib ")
        assert f"listens on http://127.0.0.1:{service.port};" in line
        assert f"state log {path} at position 0, durability fsync" in line

    def test_ipv6_address_serves(self, serve: Serve) -> None:
        service = serve("--host", "::1")
        assert service.url == f"http://[::1]:{service.port}"
        assert service.value("next") == 1

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_all_addresses_serve_with_a_warning(self, serve: Serve, host: str) -> None:
        service = serve("--host", host)
        for address in ("127.0.0.1", "::1") if host == "::" else ("127.0.0.1",):
            service.host = address
            assert service.ask("/api0/current")[0].status == 200
        service.stop(signal.SIGTERM)
        assert "open to the network" in "".join(service.said)

    def test_port_of_another_service_is_refused(self, serve: Serve, path: Path) -> None:
        service = serve()
        second = run("-p", str(service.port), "-f", path.with_name("other.log"))
        assert second.returncode == 1
        assert second.stderr == (
            f"bigfib: cannot listen on 127.0.0.1 port {service.port}: Address already in use; "
            "choose another with --host or --port\n"
        )
        assert not path.with_name("other.log").exists()

    def test_log_of_another_service_is_refused(self, serve: Serve, path: Path) -> None:
        service = serve()
        second = run("-p", "0", "-f", path)
        assert second.returncode == 1
        assert f"in use by process {service.process.pid}" in second.stderr
        assert service.value("next") == 1

    def test_port_of_a_stopped_service_is_free_at_once(self, serve: Serve) -> None:
        service = serve()
        service.value("next")
        service.stop(signal.SIGTERM)
        again = serve("-p", str(service.port))
        assert again.port == service.port
        assert again.value("current") == 1

    @pytest.mark.parametrize("host", ["nowhere.invalid", "300.1.1.1", "a" * 300, "192.0.2.1"])
    def test_address_that_cannot_be_bound_is_refused(self, path: Path, host: str) -> None:
        refused = run("--host", host, "-p", "0", "-f", path)
        assert refused.returncode == 1
        assert refused.stderr.startswith("bigfib: ")
        assert refused.stderr.count("\n") == 1
        assert "--host" in refused.stderr
        assert not path.exists()

    def test_flag_t_binds_the_service_to_one_cpu(self, serve: Serve) -> None:
        service = serve("-t")
        assert len(os.sched_getaffinity(service.process.pid)) == 1

    def test_debug_logs_requests_without_control_characters(self, serve: Serve) -> None:
        service = serve("-d")
        service.ask("/api0/next")
        exchange(service, b"GET /%1b[31m HTTP/1.1\r\nConnection: close\r\n\r\n")
        service.stop(signal.SIGTERM)
        said = "".join(service.said)
        assert '"GET /api0/next HTTP/1.1" 200 28 ' in said
        assert '"GET /%1B%5B31m HTTP/1.1" 404 ' in said
        assert "\x1b" not in said


LARGE = 30_000_000
"""The index of a term whose 6 MB do not fit into the buffers of the sockets."""


@pytest.fixture(scope="module")
def large_terms() -> dict[int, str]:
    """The digits of that large term and the next, so that the service need not compute them."""
    return {n: doubling.digits(n) for n in (LARGE, LARGE + 1)}


@pytest.fixture
def serve_large_term(
    serve: Serve, path: Path, large_terms: dict[int, str]
) -> Callable[[], Service]:
    """Start a service at the large term."""

    def start() -> Service:
        cache = DigitCache(path.with_name("cache"), 1 << 30)
        for n, digits in large_terms.items():
            cache.store(n, digits)
        with Log(path) as log:
            log.note(b"shared", LARGE)
        service = serve()
        # The file is being checked.
        until(lambda: service.ask("/api0/current")[0].status == 200)
        return service

    return start


def slow_client(service: Service) -> socket.socket:
    """Return a connection with a small receive buffer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect((service.host, service.port))
    return client


class TestStopping:
    @pytest.mark.parametrize("number", STOPPING)
    def test_signal_with_idle_clients_exits_0_and_keeps_the_steps(
        self, serve: Serve, number: int
    ) -> None:
        service = serve()
        with contextlib.ExitStack() as connections:
            for _ in range(20):
                connection = connections.enter_context(service.connect())
                connection.request("GET", "/api0/next")
                connection.getresponse().read()
            silent = socket.create_connection((service.host, service.port))
            connections.enter_context(silent)
            assert service.stop(number) == 0
        assert "stopped" in service.said[-1]
        assert serve().start_position == 20

    @pytest.mark.parametrize("number", STOPPING)
    def test_signal_without_any_client_exits_0(self, serve: Serve, number: int) -> None:
        assert serve().stop(number) == 0

    def test_both_signals_many_times_exit_0(self, serve: Serve) -> None:
        service = serve()
        for number in STOPPING * 5:
            service.process.send_signal(number)
        assert service.wait() == 0

    @pytest.mark.parametrize("workers", [1, 2])
    def test_sigint_ignored_since_the_start_does_not_stop(
        self, serve: Serve, database: str, workers: int
    ) -> None:
        # A shell without job control starts a command in the background like this.
        ignoring = ["bash", "-c", 'trap \'\' INT; exec "$0" "$@"']
        service = serve("--store", database, "--workers", str(workers), before=ignoring)
        for _ in range(3):
            service.process.send_signal(signal.SIGINT)
        # Longer than the service takes to notice a signal and to refuse connections.
        time.sleep(1)
        assert service.value("next") == 1
        assert service.stop(signal.SIGTERM) == 0

    def test_sigint_of_a_shared_store_closes_idle_connections(
        self, serve: Serve, database: str
    ) -> None:
        for _ in range(3):
            service = serve("--store", database)
            with service.connect() as idle:
                idle.request("GET", "/api0/next")
                idle.getresponse().read()
                service.process.send_signal(signal.SIGINT)
                assert service.process.wait(20) == 0

    def test_signal_while_out_of_descriptors_exits_0(self, serve: Serve) -> None:
        service = serve(before=["bash", "-c", 'ulimit -n 64; exec "$0" "$@"'])
        with contextlib.ExitStack() as connections:
            for _ in range(100):
                address = (service.host, service.port)
                connections.enter_context(socket.create_connection(address))
            assert service.stop(signal.SIGTERM) == 0
        assert "Traceback" not in "".join(service.said)

    @pytest.mark.parametrize("first", STOPPING)
    @pytest.mark.parametrize("second", STOPPING)
    def test_second_signal_at_the_very_end_still_exits_0(
        self, serve: Serve, first: int, second: int
    ) -> None:
        for _ in range(5):
            service = serve()
            service.process.send_signal(first)
            assert service.process.stderr is not None
            while "stopped" not in service.process.stderr.readline():
                pass
            service.process.send_signal(second)
            assert service.wait() == 0

    @pytest.mark.parametrize("number", STOPPING)
    def test_signal_lets_a_reply_under_way_finish(
        self, serve_large_term: Callable[[], Service], number: int
    ) -> None:
        service = serve_large_term()
        with slow_client(service) as client:
            client.sendall(b"GET /api0/current HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = client.recv(1000)
            service.process.send_signal(number)
            assert service.process.stderr is not None
            while "stopping" not in service.process.stderr.readline():
                pass
            while piece := client.recv(1 << 20):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head
        assert len(body) == 6_269_629 + len('{"value":"","status":"200"}')
        assert service.wait() == 0

    def test_signal_does_not_wait_for_ever_for_a_client_that_reads_nothing(
        self, serve_large_term: Callable[[], Service]
    ) -> None:
        service = serve_large_term()
        with slow_client(service) as client:
            client.sendall(b"GET /api0/current HTTP/1.1\r\nHost: localhost\r\n\r\n")
            select.select([client], [], [])
            # The reply is never read: the deadline of 5 seconds ends it.
            assert service.stop(signal.SIGTERM) == 0

    def test_stopped_service_refuses_new_clients(self, serve: Serve) -> None:
        service = serve()
        service.stop(signal.SIGTERM)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((service.host, service.port))


class TestGarbage:
    @pytest.mark.parametrize(
        "garbage",
        [
            b"\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /api0/next SMTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
            bytes(range(256)) * 10,
            b"G" * 100_000,
            b"GET /api0/next HTTP/1.1\r\nX: " + b"x" * 200_000,
            b"POST /api0/next HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"CONNECT x:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ],
    )
    def test_garbage_is_refused_and_the_service_goes_on(self, serve: Serve, garbage: bytes) -> None:
        service = serve()
        with socket.create_connection((service.host, service.port), timeout=20) as client:
            try:
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(65536)
            except OSError as closed:
                # The service has closed first, with unread bytes.
                if closed.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                    raise
                answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        assert service.value("current") == 0
        assert service.stop(signal.SIGTERM) == 0
        assert "Traceback" not in "".join(service.said)

    def test_clients_gone_before_the_reply_do_no_harm(self, serve: Serve) -> None:
        service = serve()
        for _ in range(50):
            with socket.create_connection((service.host, service.port)) as client:
                client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        # F(50) is the last term that can have been requested.
        assert service.value("current") <= 12_586_269_025
        assert service.stop(signal.SIGTERM) == 0
        assert reader.read(service.file).position(b"shared") <= 50
        assert "Traceback" not in "".join(service.said)


def test_position_beyond_computing_is_refused_at_start(path: Path) -> None:
    with Log(path) as log:
        log.note(b"shared", 10**12)
    refused = run("-p", "0", "-f", path)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"state log {path}" in refused.stderr
