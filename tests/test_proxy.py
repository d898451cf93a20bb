"""Behind nginx with ``deploy/nginx.conf``, the attacks of an open network are bearable."""

import contextlib
import gzip
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path

import psycopg
import pytest
from flint import fmpz

from tests.api.large_terms import NEAR, awaited
from tests.hostile import CASES, REFUSED, answer, outcome
from tests.postgres import Cluster, free_port
from tests.proxies import UNLIMITED, Address, Start, haproxy, nginx
from tests.service import Serve, Service, memory


def peak_memory(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def speed(wrk: str, address: Address) -> float:
    """Return how many steps a second other clients get."""
    done = subprocess.run(
        [wrk, "-t1", "-c16", "-d1", f"http://{address[0]}:{address[1]}/api0/next"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Non-2xx" not in done.stdout
    found = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


# --- Attacks, until they are stopped -----------------------------------------------------------


def slow_headers(address: Address, stop: threading.Event) -> None:
    """500 clients send their requests byte by byte."""
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(address)) for _ in range(500)]
        sent = 0
        while not stop.wait(0.5):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"GET /api0/next HTTP/1.1\r\n"[sent : sent + 1])
            sent += 1


def slow_readers(address: Address, stop: threading.Event) -> None:
    """40 clients request 209 thousand digits, and read none of them."""
    with ExitStack() as opened:
        for _ in range(40):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(address)
            client.sendall(b"GET /api1/terms/1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stop.wait()


def long_bodies(address: Address, stop: threading.Event) -> None:
    """One client after the other sends 1 GB, with a Content-Length or in chunks."""
    piece = bytes(1 << 16)
    for length in (
        b"Content-Length: %d\r\n\r\n" % (1 << 30),
        b"Transfer-Encoding: chunked\r\n\r\n",
    ):
        while not stop.wait(0.02):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(address, timeout=5) as client,
            ):
                client.sendall(b"POST /api1/sequences HTTP/1.1\r\nHost: localhost\r\n" + length)
                for _ in range(1 << 14):
                    client.sendall(
                        b"10000\r\n" + piece + b"\r\n" if b"chunked" in length else piece
                    )
                client.recv(1 << 16)  # a client that leaves before the answer has sent in vain
            if random.random() < 0.5:  # the other kind
                break


def idle_connections(address: Address, stop: threading.Event) -> None:
    """10,000 connections are opened, and nothing is sent."""
    with ExitStack() as opened:
        for _ in range(10_000):
            if stop.is_set():
                return
            opened.enter_context(socket.create_connection(address))
        stop.wait()


def pipelined_requests(address: Address, stop: threading.Event) -> None:
    """One client after the other sends 100 requests without waiting, and is answered each."""
    request = b"GET /api1/terms/7 HTTP/1.1\r\nHost: localhost\r\n"
    while not stop.wait(0.05):
        with socket.create_connection(address, timeout=5) as client:
            client.sendall((request + b"\r\n") * 99 + request + b"Connection: close\r\n\r\n")
            received = b""
            while piece := client.recv(1 << 16):
                received += piece
        assert received.count(b'"value":"13"') == 100


def garbage(address: Address, stop: threading.Event) -> None:
    """One client after the other sends random bytes."""
    randomness = random.Random(3)
    while not stop.wait(0.01):
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=5) as client:
            client.sendall(randomness.randbytes(10_000) + b"\r\n\r\n")
            client.recv(1 << 16)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "others",
    [slow_headers, slow_readers, long_bodies, idle_connections, pipelined_requests, garbage],
)
def test_disturbed_service_behind_nginx_goes_on_serving(
    serve: Serve,
    proxy: Callable[..., Address],
    require: Callable[[str], str],
    path: Path,
    others: Callable[[Address, threading.Event], None],
) -> None:
    wrk = require("wrk")
    service = serve("--durability", "os")
    address = proxy(service, UNLIMITED)
    # The attack costs this machine as much if it does not reach the service.
    elsewhere = proxy(serve("--file", str(path.with_name("elsewhere.log"))), UNLIMITED)
    assert speed(wrk, address) > 0  # from now on the service has the memory that it needs
    before = peak_memory(service)
    failures = []

    def disturb(where: Address, stop: threading.Event) -> None:
        try:
            others(where, stop)
        except (AssertionError, OSError) as failure:
            failures.append(failure)

    def disturbed_speed(where: Address) -> float:
        stop = threading.Event()
        disturbing = threading.Thread(target=disturb, args=(where, stop))
        disturbing.start()
        try:
            return speed(wrk, address)
        finally:
            stop.set()
            disturbing.join()

    # The terms grow meanwhile, and this machine may be busy.
    assert any(disturbed_speed(address) >= disturbed_speed(elsewhere) / 2 for _ in range(3))
    assert failures == []
    assert peak_memory(service) - before < 16 << 20
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)


def test_hostile_requests_behind_nginx_are_answered_as_documented(
    serve: Serve, proxy: Callable[..., Address]
) -> None:
    service = serve()
    address = proxy(service, UNLIMITED)
    found = {case.name: outcome(service, address, case) for case in CASES}
    assert found == {case.name: case.proxy for case in CASES}
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)


def test_requests_that_bjoern_refuses_are_answered_behind_nginx(
    serve: Serve, proxy: Callable[..., Address]
) -> None:
    service = serve()
    address = proxy(service, UNLIMITED)
    assert {case.name: answer(service, address, case) for case in REFUSED} == {
        case.name: case.proxy for case in REFUSED
    }
    assert service.stop(signal.SIGTERM) == 0


def test_requests_that_bjoern_refuses_are_answered_behind_haproxy(
    serve: Serve, haproxy: Callable[..., Address]
) -> None:
    service = serve()
    address = haproxy(service)
    assert {case.name: answer(service, address, case) for case in REFUSED} == {
        case.name: case.proxy for case in REFUSED
    }
    assert service.stop(signal.SIGTERM) == 0


def test_condition_in_disguise_behind_haproxy_is_refused(
    service: Service, haproxy: Callable[..., Address]
) -> None:
    address = haproxy(service)
    assert {
        case.name: outcome(service, address, case) for case in CASES if "If-Match" in case.name
    } == {
        "`If-Match` twice, one of them right": "412",
        '`If-Match: "99"` as a trailer': "411",
        '`If-Match: "99"` after a line without a colon': "400",
    }


@pytest.mark.parametrize("front", [nginx, haproxy], ids=["nginx", "haproxy"])
def test_pipelined_requests_behind_a_proxy_leak_nothing(
    serve: Serve, front: Callable[[Path], AbstractContextManager[Start]], tmp_path: Path
) -> None:
    service = serve("--durability", "os")
    requests = b"GET /api1/terms/7 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
    with front(tmp_path) as start:
        changes = UNLIMITED if front is nginx else None
        with socket.create_connection(start(service, changes), timeout=20) as client:

            def send(times: int) -> None:
                for _ in range(times):
                    client.sendall(requests)
                    answered = 0
                    while answered < 100:
                        answered += client.recv(1 << 16).count(b'"value":')

            send(10)
            before = memory(service)
            send(100)
            # bjoern leaks more than 550 bytes for each request it reads at once, except the last.
            assert memory(service) - before < 2 << 20


class TestLimits:
    def test_requests_of_one_client_beyond_the_rate_are_429(
        self, serve: Serve, proxy: Callable[..., Address]
    ) -> None:
        address = proxy(serve("--durability", "os"))
        statuses = []
        with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
            for _ in range(400):
                connection.request("GET", "/api0/current")
                reply = connection.getresponse()
                reply.read()
                statuses.append(reply.status)
        assert set(statuses) == {200, 429}
        assert statuses.index(429) > 200

    def test_body_beyond_the_limit_is_413(
        self, service: Service, proxy: Callable[..., Address]
    ) -> None:
        address = proxy(service)
        for size, status in ((1 << 20, 422), ((1 << 20) + 1, 413)):
            with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
                connection.request(
                    "PUT",
                    "/api1/sequences/shared",
                    b'{"x":"%b"}' % (b"9" * (size - 8)),
                    {"Content-Type": "application/json"},
                )
                assert connection.getresponse().status == status

    def test_paths_of_operators_behind_nginx_are_404(
        self, serve: Serve, proxy: Callable[..., Address]
    ) -> None:
        service = serve()
        address = proxy(service)
        for path in ("/livez", "/readyz", "/metrics", "/test/stats"):
            with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
                connection.request("GET", path)
                assert connection.getresponse().status == 404
            assert service.ask(path)[0].status == 200


def test_page_behind_nginx_is_as_it_was_sent(
    service: Service, proxy: Callable[..., Address]
) -> None:
    address = proxy(service)
    page = service.ask("/")[1].decode()
    with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
        for path in ("/", *re.findall(r'(?:href|src)="(/page/[^"]+)"', page)):
            direct, content = service.ask(path, headers={"X-Forwarded-Host": "fib.example"})
            connection.request("GET", path, headers={"Host": "fib.example"})
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, content)
            for name in ("Content-Type", "Content-Security-Policy", "ETag", "Cache-Control"):
                assert reply.headers[name] == direct.headers[name]


class TestCompression:
    """Of terms, in nginx; `Range`, tags and digests stay right."""

    N = 1_000_000

    def ask(
        self, address: Address, path: str, method: str = "GET", **headers: str
    ) -> tuple[HTTPMessage, int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
            connection.request(method, path, headers={"Accept-Encoding": "gzip", **named})
            reply = connection.getresponse()
            return reply.headers, reply.status, reply.read()

    def test_digits_and_documents_are_compressed_to_half_for_clients_that_take_it(
        self, service: Service, proxy: Callable[..., Address]
    ) -> None:
        address, path = proxy(service), f"/api1/terms/{self.N}"
        for asked, accept in (
            (path, "text/plain"),
            (path, "application/json"),
            ("/api1/terms?from=1000&count=100", "application/x-ndjson"),
            ("/openapi.json", "*/*"),
        ):
            plain = service.ask(asked, headers={"Accept": accept})[1]
            headers, status, content = self.ask(address, asked, Accept=accept)
            assert (status, headers["Content-Encoding"]) == (200, "gzip")
            assert "Accept-Encoding" in str(headers.get_all("Vary"))
            assert gzip.decompress(content) == plain
            assert len(content) < 0.52 * len(plain)
            headers, status, content = self.ask(
                address, asked, Accept=accept, Accept_Encoding="identity"
            )
            assert (status, headers["Content-Encoding"], content) == (200, None, plain)

    def test_parts_are_not_compressed_and_tags_of_compressed_terms_are_known(
        self, service: Service, proxy: Callable[..., Address]
    ) -> None:
        address, path = proxy(service), f"/api1/terms/{self.N}"
        digits = service.ask(path, headers={"Accept": "text/plain"})[1]
        headers, _, _ = self.ask(address, path, Accept="text/plain")
        weak = headers["ETag"]
        assert weak.startswith("W/")
        known = {"Accept": "text/plain", "If_None_Match": weak}
        assert self.ask(address, path, **known)[1] == 304
        part = {"Accept": "text/plain", "Range": "bytes=1000-199999"}
        headers, status, content = self.ask(address, path, **part)
        assert (status, content) == (206, digits[1000:200_000])
        assert headers["Content-Encoding"] is None
        strong = headers["ETag"]
        assert weak == f"W/{strong}"
        assert self.ask(address, path, **part, If_Range=strong)[1] == 206
        # Part and whole would not fit together.
        headers, status, content = self.ask(address, path, **part, If_Range=weak)
        assert (status, gzip.decompress(content)) == (200, digits)

    def test_digest_is_only_with_the_bytes_that_it_is_of(
        self, service: Service, proxy: Callable[..., Address]
    ) -> None:
        address, path = proxy(service), f"/api1/terms/{NEAR}"
        awaited(service, NEAR)
        digest = service.ask(path)[0].headers["Repr-Digest"]
        assert digest
        found = {
            (part, encoding): self.ask(
                address, path, Accept_Encoding=encoding, **({"Range": part} if part else {})
            )
            for part in ("", "bytes=5-90000")
            for encoding in ("gzip", "identity", "br, GZIP;q=0.5")
        }
        for (part, encoding), (headers, status, _) in found.items():
            assert status == (206 if part else 200)
            is_compressed = not part and encoding != "identity"
            assert headers["Content-Encoding"] == ("gzip" if is_compressed else None)
            assert headers.get_all("Repr-Digest") == (None if is_compressed else [digest])

    def test_sequence_keeps_its_strong_tag(
        self, service: Service, proxy: Callable[..., Address]
    ) -> None:
        address = proxy(service)
        assert self.ask(address, "/api1/sequences/shared/next?by=10000", "POST")[1] == 200
        headers, _, content = self.ask(address, "/api1/sequences/shared")
        assert len(content) > 2000
        assert headers["ETag"].startswith('"')
        assert headers["Content-Encoding"] is None


LIMITS = "max_conns=500 max_fails=1 fail_timeout=10s;"


class TestSharedStore:
    def test_server_that_is_down_fails_only_one_request(
        self, serve: Serve, proxy: Callable[..., Address], database: str
    ) -> None:
        service = serve("--store", database)
        line = f"server 127.0.0.1:{free_port()} {LIMITS}"
        address = proxy(service, {"upstream bigfib {": f"upstream bigfib {{\n{line}\n"})
        statuses: Counter[int] = Counter()
        with contextlib.closing(HTTPConnection(*address, timeout=20)) as connection:
            # Longer than a second, after which nginx would ask again.
            for _ in range(40):
                connection.request("GET", "/api0/next")
                reply = connection.getresponse()
                reply.read()
                statuses[reply.status] += 1
                time.sleep(0.08)
        assert statuses == {200: 39, 502: 1}
        assert service.value("current") == int(fmpz.fib_ui(fmpz(39))), "none is made twice"

    def test_a_step_whose_answer_is_lost_is_not_made_by_the_next_server(
        self, serve: Serve, proxy: Callable[..., Address], cluster: Cluster
    ) -> None:
        cluster.sql(r"INSERT INTO bigfib_sequences VALUES ('\x736861726564', 0, 0)")
        # The database must not end the wait for the row, however busy this machine is.
        patient = "options=-c%20lock_timeout%3D20000%20-c%20statement_timeout%3D20000"
        first, second = (serve("--store", f"{cluster.url()}?{patient}") for _ in range(2))
        line = f"server {first.host}:{first.port} {LIMITS}"
        address = proxy(second, {"upstream bigfib {": f"upstream bigfib {{\n{line}\n"})
        with (
            contextlib.closing(psycopg.connect(cluster.url())) as other,
            contextlib.closing(HTTPConnection(*address, timeout=20)) as connection,
        ):
            other.execute("SELECT * FROM bigfib_sequences FOR UPDATE")
            connection.request("GET", "/api0/next")
            cluster.await_lock()
            # The database makes the step, although its client has gone.
            first.process.kill()
            other.rollback()
            assert connection.getresponse().status == 502
        while second.value("current") == 0:
            pass
        assert second.stop(signal.SIGTERM) == 0
        assert cluster.sql("SELECT position FROM bigfib_sequences") == [(1,)]
