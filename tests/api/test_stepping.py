"""``/api0``, as clients use it: byte by byte, over real sockets."""

import json
import re
import resource
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import falcon.testing
import pytest
from flint import fmpz

from bigfib.api.app import create_app
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences
from bigfib.state.log import Log
from tests.service import Serve, Service, exchange, jobs, seconds_of_work

JSON_HEADERS = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Cache-Control: no-store\r\n"
    b"Date: "
)


def request(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def test_session_of_the_contract_gives_its_values(service: Service) -> None:
    steps = ["current", "next", "next", "next", "previous"]
    assert [service.value(name) for name in steps] == [0, 1, 1, 2, 1]


@pytest.mark.parametrize("name", ["current", "next"])
def test_reply_is_as_the_contract_has_it_to_the_byte(service: Service, name: str) -> None:
    value = b"0" if name == "current" else b"1"
    head, _, body = exchange(service, request("GET", f"/api0/{name}")).partition(b"\r\n\r\n")
    assert head.startswith(JSON_HEADERS % 28)
    date = re.search(r"Date: (.* GMT)", head.decode())
    assert date
    parsedate_to_datetime(date[1])
    assert body == b'{"value":"%b","status":"200"}' % value


def test_previous_at_the_start_changes_nothing(service: Service) -> None:
    for _ in range(2):
        reply, body = service.ask("/api0/previous")
        assert (reply.status, reply.reason) == (409, "Conflict")
        assert body == b'{"value":"-1","status":"409"}'
        assert reply.headers["Content-Type"] == "application/json"
        assert service.value("current") == 0
    assert service.value("next") == 1


def test_3000_steps_forward_and_back_give_exact_terms(serve: Serve) -> None:
    service = serve("--durability", "os")
    terms = [0, 1]
    while len(terms) <= 3000:
        terms.append(terms[-1] + terms[-2])
    with service.connect() as connection:

        def ask(name: str) -> bytes:
            connection.request("GET", f"/api0/{name}")
            return connection.getresponse().read()

        for term in terms[1:]:
            assert ask("next") == b'{"value":"%d","status":"200"}' % term
        for term in reversed(terms[:-1]):
            assert ask("previous") == b'{"value":"%d","status":"200"}' % term
        assert ask("previous") == b'{"value":"-1","status":"409"}'


def test_terms_of_a_million_and_beyond_are_exact_in_one_piece(serve: Serve) -> None:
    """At 209 thousand digits the body comes in one piece, as it does at one digit."""
    service = serve()
    service.stop(15)
    with Log(service.file) as log:
        log.note(b"shared", 10**6)
    service = serve()
    for name, n in (
        ("current", 10**6),
        ("next", 10**6 + 1),
        ("next", 10**6 + 2),
        ("previous", 10**6 + 1),
    ):
        reply, body = service.ask(f"/api0/{name}")
        assert body == b'{"value":"%b","status":"200"}' % str(fmpz.fib_ui(fmpz(n))).encode()
        assert reply.headers["Content-Length"] == str(len(body))


class TestMethods:
    def test_head_of_current_has_the_headers_alone(self, service: Service) -> None:
        received = exchange(service, request("HEAD", "/api0/current"))
        assert received.startswith(JSON_HEADERS % 28)
        assert received.endswith(b"\r\n\r\n")
        assert received.count(b"\r\n\r\n") == 1

    @pytest.mark.parametrize(
        ("method", "target", "allowed"),
        [
            ("HEAD", "/api0/next", {"GET"}),
            ("HEAD", "/api0/previous", {"GET"}),
            ("POST", "/api0/next", {"GET"}),
            ("PUT", "/api0/current", {"GET", "HEAD"}),
            ("DELETE", "/api0/previous", {"GET"}),
            ("OPTIONS", "/api0/current", {"GET", "HEAD"}),
            ("POST", "/test/stats", {"GET", "HEAD", "OPTIONS"}),
        ],
    )
    def test_other_methods_are_405_and_change_nothing(
        self, service: Service, method: str, target: str, allowed: set[str]
    ) -> None:
        reply, body = service.ask(target, method)
        assert reply.status == 405
        assert set(reply.headers["Allow"].split(", ")) == allowed
        assert reply.headers["Date"]
        if method != "HEAD":
            assert json.loads(body)["status"] == 405
        assert service.value("current") == 0

    @pytest.mark.parametrize("target", ["/api0/next", "/test/stats", "/nothing"])
    def test_head_never_has_a_body(self, service: Service, target: str) -> None:
        received = exchange(service, request("HEAD", target))
        assert received.startswith(b"HTTP/1.1 ")
        assert received.index(b"\r\n\r\n") == len(received) - 4


@pytest.mark.parametrize(
    "target",
    [
        "/page",
        "/api0",
        "/api0/current/",
        "/api0/nex",
        "/api0/next%00",
        "/api0/next%0a",
        "/" + "a" * 5000,
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/png"])
def test_an_unknown_path_is_a_problem_document(service: Service, target: str, accept: str) -> None:
    reply, body = service.ask(target, headers={"Accept": accept})
    assert reply.status == 404
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["type"] == "about:blank"
    assert (problem["title"], problem["status"]) == ("Not Found", 404)
    assert "/openapi.json" in problem["detail"]
    assert reply.headers["Cache-Control"] == "no-store"
    assert len(body) < 1000


def test_unexpected_error_is_a_problem_document(path: Path) -> None:
    def fail(_: int) -> DecimalPair:
        raise ZeroDivisionError

    with Log(path) as log:
        sequences = Sequences(log)
        sequences.pair_at = fail
        app = create_app(log, sequences, jobs(path), per_client=False)
        reply = falcon.testing.simulate_get(app, "/api0/current")
        sequences.pair_at = DecimalPair
        following = falcon.testing.simulate_get(app, "/api0/next")
    assert reply.status_code == 500
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["status"] == 500
    # Every reply has it, including problem documents.
    assert parsedate_to_datetime(reply.headers["Date"])
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"
    assert following.content == b'{"value":"1","status":"200"}'


def test_position_beyond_computing_is_503_without_retry(serve: Serve, path: Path) -> None:
    client = "0" * 32
    with Log(path) as log:
        log.note(bytes(16), 10**12)
    service = serve("--per-client")
    reply, body = service.ask("/api0/current", headers={"Cookie": f"bigfib={client}"})
    assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
    # Retrying would not help.
    assert reply.headers["Retry-After"] is None
    assert service.ask("/api0/next")[1] == b'{"value":"1","status":"200"}'
    head = f"HEAD /api0/current HTTP/1.1\r\nCookie: bigfib={client}\r\nConnection: close\r\n\r\n"
    received = exchange(service, head.encode())
    assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert received.endswith(b"\r\n\r\n")


def test_503_gives_a_new_client_no_sequence(path: Path) -> None:
    def fail(_: int) -> DecimalPair:
        raise IndexTooLarge

    with Log(path) as log:
        sequences = Sequences(log)
        sequences.pair_at = fail
        app = create_app(log, sequences, jobs(path), per_client=True)
        for name in ("current", "next"):
            reply = falcon.testing.simulate_get(app, f"/api0/{name}")
            assert "Set-Cookie" not in reply.headers
            assert reply.content == b'{"value":"-3","status":"503"}'
        sequences.pair_at = DecimalPair
        assert "Set-Cookie" in falcon.testing.simulate_get(app, "/api0/previous").headers


class TestWithoutRoom:
    def test_step_on_a_full_disk_is_507_until_there_is_room(self, serve: Serve) -> None:
        service = serve()
        assert service.value("next") == 1
        assert service.value("next") == 1
        size = service.file.stat().st_size
        # The kernel itself refuses, with EFBIG: the process may write no file beyond this size.
        resource.prlimit(
            service.process.pid, resource.RLIMIT_FSIZE, (size + 5, resource.RLIM_INFINITY)
        )
        for name in ("next", "previous", "next"):
            reply, body = service.ask(f"/api0/{name}")
            assert (reply.status, reply.reason) == (507, "Insufficient Storage")
            assert body == b'{"value":"-2","status":"507"}'
            assert service.value("current") == 1
        assert service.file.stat().st_size == size
        resource.prlimit(
            service.process.pid,
            resource.RLIMIT_FSIZE,
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        )
        assert service.value("next") == 2
        assert service.value("previous") == 1
        assert service.stop(15) == 0
        assert "File too large; the sequence stays where it is" in "".join(service.said)


class TestWhereLoopIterationsAreNotFollowed:
    """No reply shows a position before it is committed; the log is a real one."""

    def test_409_leaves_after_the_commit_of_the_step_to_the_start(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            sequences.forward(SHARED)
            log.commit()
            # A step of another client, whose reply has not been sent yet.
            sequences.back(SHARED)
            assert log.committed < log.changes
            pieces = self._pieces(app, "GET", "/api0/previous")
            assert log.committed == log.changes
        assert b"".join(pieces) == b'{"value":"-1","status":"409"}'

    def test_head_leaves_after_the_commit_of_a_step_under_way(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            sequences.forward(SHARED)
            assert log.committed < log.changes
            # The headers are sent when the server has the body, which is empty.
            body = self._pieces(app, "HEAD", "/api0/current")
            assert log.committed == log.changes
            assert list(body) == []

    @staticmethod
    def _pieces(app: Any, method: str, path: str) -> Iterable[bytes]:
        environ = falcon.testing.create_environ(path, method=method)
        pieces: Iterable[bytes] = app(environ, lambda _status, _headers: None)
        return pieces


class TestPerClient:
    def test_each_client_has_its_own_sequence(self, serve: Serve) -> None:
        service = serve("--per-client")
        cookies = []
        for _ in range(3):
            reply, body = service.ask("/api0/next")
            assert body == b'{"value":"1","status":"200"}'
            cookie, *attributes = reply.headers["Set-Cookie"].split("; ")
            assert re.fullmatch(r"bigfib=[0-9a-f]{32}", cookie)
            assert {"HttpOnly", "SameSite=Lax", "Path=/api0"} < set(attributes)
            cookies.append(cookie)
        assert len(set(cookies)) == 3
        for steps, cookie in enumerate(cookies, 1):
            for _ in range(steps):
                reply, _ = service.ask("/api0/next", headers={"Cookie": f"a=b; {cookie}; c=d"})
                assert reply.headers["Set-Cookie"] is None
        shown = [service.ask("/api0/current", headers={"Cookie": cookie})[1] for cookie in cookies]
        assert shown == [b'{"value":"%d","status":"200"}' % value for value in (1, 2, 3)]

    def test_sequence_of_a_client_survives_a_kill(self, serve: Serve) -> None:
        service = serve("--per-client")
        cookie = service.ask("/api0/next")[0].headers["Set-Cookie"].split("; ")[0]
        for _ in range(5):
            service.ask("/api0/next", headers={"Cookie": cookie})
        service.process.kill()
        service.wait()
        service = serve("--per-client")
        assert (
            service.ask("/api0/current", headers={"Cookie": cookie})[1]
            == b'{"value":"8","status":"200"}'
        )

    @pytest.mark.parametrize(
        "cookie",
        [
            *("bigfib=", "bigfib=zz", "bigfib=" + "0" * 31, "xbigfib=" + "0" * 32),
            *("bigfib=" + "0" * 33, "a; xbigfib=" + "0" * 32),
        ],
    )
    def test_a_cookie_of_no_sequence_gets_a_new_one(self, serve: Serve, cookie: str) -> None:
        service = serve("--per-client")
        reply, body = service.ask("/api0/next", headers={"Cookie": cookie})
        assert body == b'{"value":"1","status":"200"}'
        assert re.match(r"bigfib=[0-9a-f]{32};", reply.headers["Set-Cookie"])

    @pytest.mark.parametrize(
        "lines",
        [
            ["a=b", "{}"],
            ["{}", "a=b"],
            ["{}", "abc=d; e=f"],
            ["a=b; c=d", "{}; e=f", "g=h"],
            ["a=b; c=", "{}"],
            ["{}", "{}"],
        ],
        ids=str,
    )
    def test_lines_of_cookies_are_read_as_one(self, serve: Serve, lines: list[str]) -> None:
        service = serve("--per-client")
        cookie = service.ask("/api0/next")[0].headers["Set-Cookie"].split("; ")[0]
        fields = "".join(f"Cookie: {line.format(cookie)}\r\n" for line in lines)
        received = exchange(
            service, f"GET /api0/next HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode()
        )
        assert b"Set-Cookie" not in received
        assert service.ask("/api0/next", headers={"Cookie": cookie})[1] == (
            b'{"value":"2","status":"200"}'
        )

    @pytest.mark.parametrize("repeated", ["=", "a=", ";", "bigfib=", "; a=bigfib=0", "a"])
    def test_a_long_cookie_is_read_in_no_time(self, serve: Serve, repeated: str) -> None:
        service = serve("--per-client")
        cookie = repeated * (70_000 // len(repeated))
        before = seconds_of_work(service.process.pid)
        assert service.ask("/api0/current", headers={"Cookie": cookie})[0].status == 200
        assert seconds_of_work(service.process.pid) - before < 0.1

    def test_look_without_a_cookie_leaves_the_log_as_it_was(self, serve: Serve) -> None:
        service = serve("--per-client")
        size = service.file.stat().st_size
        for _ in range(10):
            service.ask("/api0/current")
        assert service.file.stat().st_size == size

    def test_clients_beyond_those_in_memory_keep_their_positions(self, serve: Serve) -> None:
        service = serve("--per-client", "--durability", "os", "--cache-bytes", "100000")
        cookies = [
            service.ask("/api0/next")[0].headers["Set-Cookie"].split("; ")[0] for _ in range(300)
        ]
        for value in (b"1", b"2"):
            for cookie in cookies:
                _, body = service.ask("/api0/next", headers={"Cookie": cookie})
                assert body == b'{"value":"%b","status":"200"}' % value

    def test_client_beyond_the_limit_of_sequences_is_507(self, serve: Serve) -> None:
        service = serve("--per-client", "--max-sequences", "2")
        cookies = [service.ask("/api0/next")[0].headers["Set-Cookie"] for _ in range(2)]
        reply, body = service.ask("/api0/next")
        assert (reply.status, body) == (507, b'{"value":"-2","status":"507"}')
        assert service.ask("/api0/current")[1] == b'{"value":"0","status":"200"}'
        for cookie in cookies:
            reply, body = service.ask("/api0/next", headers={"Cookie": cookie.split("; ")[0]})
            assert body == b'{"value":"1","status":"200"}'


def test_stats_show_plausible_memory(serve: Serve) -> None:
    service = serve()
    reply, body = service.ask("/test/stats")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain")
    found = re.fullmatch(
        rb"Total system memory used: (\d+) bytes\. Allocated on heap: (\d+) bytes\.", body
    )
    assert found
    total, heap = map(int, found.groups())
    assert 10_000_000 < heap < total < 100_000_000
    reply, body = service.ask("/test/stats", "HEAD")
    assert (reply.status, body) == (200, b"")
