"""Large terms over HTTP, complete and in parts, from real services."""

import contextlib
import json
import random
import socket
import time
from pathlib import Path

import pytest

from tests.api.large_terms import (
    JSON,
    NEAR,
    TEXT,
    accepted,
    awaited,
    document,
    done,
    expected,
    files,
    workers,
)
from tests.service import Serve, Service, until


class TestShown:
    @pytest.mark.parametrize("n", [1_000_000, NEAR - 1, 1 - NEAR])
    def test_term_up_to_the_limit_is_shown_at_once(self, serve: Serve, n: int) -> None:
        service = serve()
        assert service.ask(f"/api1/terms/{n}", headers=TEXT)[1] == expected(n)
        assert files(service) == []

    @pytest.mark.parametrize("n", [NEAR, -NEAR - 1, -NEAR, 6_499_999, 6_500_000])
    def test_digits_of_either_sign_are_exact(self, serve: Serve, n: int) -> None:
        service = serve()
        state = accepted(service.ask(f"/api1/terms/{n}"), n)
        assert state["state"] in {"queued", "running"}
        reply, body = awaited(service, n)
        assert body == document(n)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
        assert "immutable" in reply.headers["Cache-Control"]
        reply, body = service.ask(f"/api1/terms/{n}", headers=TEXT)
        assert body == expected(n)
        assert reply.headers["Content-Length"] == str(len(body))
        assert done(service, n)
        assert files(service) == [f"{abs(n)}.digits"]

    def test_large_term_until_it_is_there_shows_rising_progress(self, serve: Serve) -> None:
        # Computing it takes a dozen times as long as asking for its progress.
        n = 30_000_000
        service = serve()
        seen = []
        while (answer := service.ask(f"/api1/terms/{n}", headers=TEXT))[0].status == 202:
            seen.append(float(accepted(answer, n)["progress"]))
            time.sleep(0.005)
        assert answer[1] == expected(n)
        assert seen == sorted(seen)
        assert seen[0] == 0
        assert any(0 < progress < 1 for progress in seen)

    @pytest.mark.usefixtures("torture")
    def test_term_a_hundred_million_is_exact(self, serve: Serve) -> None:
        n = 100_000_000
        assert awaited(serve(), n, TEXT)[1] == expected(n)

    def test_replies_without_content_of_a_large_term_compute_nothing(self, serve: Serve) -> None:
        service = serve()
        for headers, length in ((TEXT, len(expected(NEAR))), (JSON, len(document(NEAR)))):
            reply, body = service.ask(f"/api1/terms/{NEAR}", "HEAD", headers)
            assert (reply.status, body) == (200, b"")
            assert reply.headers["Content-Length"] == str(length)
            known = {"If-None-Match": reply.headers["ETag"]}
            assert service.ask(f"/api1/terms/{NEAR}", headers=headers | known)[0].status == 304
            other = {"If-Match": '"x"'}
            assert service.ask(f"/api1/terms/{NEAR}", headers=headers | other)[0].status == 412
            beyond = {"Range": f"bytes={length}-"}
            assert service.ask(f"/api1/terms/{NEAR}", headers=headers | beyond)[0].status == 416
        assert not workers(service)

    def test_beyond_each_limit_is_422(self, serve: Serve) -> None:
        service = serve("--max-term", "6000000", "--disk-cache-bytes", "1200000")
        for path, headers, says in (
            ("6000001", TEXT, "F(-6000000) to F(6000000)"),
            ("-6000001", JSON, "F(-6000000) to F(6000000)"),
            ("6000000", TEXT, "1253926 digits, and the service keeps 1200000"),
            (f"{NEAR}?base=16", TEXT, "in decimal only"),
            (f"{NEAR}", {"Accept": "application/octet-stream"}, "would wait for the conversion"),
        ):
            reply, body = service.ask(f"/api1/terms/{path}", headers=headers)
            assert reply.status == 422
            assert says in json.loads(body)["detail"]
        assert not workers(service)
        assert awaited(service, NEAR)[0].status == 200


class TestParts:
    @pytest.mark.parametrize("n", [NEAR, -NEAR - 1])
    def test_range_of_a_large_term_equals_the_slice(
        self, service: Service, n: int, times: int
    ) -> None:
        awaited(service, n)
        randomness = random.Random(n)
        for headers, whole in ((TEXT, expected(n)), (JSON, document(n))):
            ends = [0, 1, 2, 45, 46, 47, 65_535, 65_536, len(whole) - 3, len(whole) - 1]
            for _ in range(60 * times):
                first, last = sorted(
                    randomness.choice([randomness.choice(ends), randomness.randrange(len(whole))])
                    for _ in range(2)
                )
                asked = randomness.choice(
                    [f"{first}-{last}", f"{first}-", f"-{len(whole) - first}"]
                )
                if not asked.endswith(f"-{last}"):
                    last = len(whole) - 1
                reply, body = service.ask(
                    f"/api1/terms/{n}", headers=headers | {"Range": f"bytes={asked}"}
                )
                assert reply.status == 206
                assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
                assert body == whole[first : last + 1], asked

    def test_a_resumed_download_is_the_whole(self, service: Service) -> None:
        awaited(service, NEAR)
        received = b""
        with service.connect() as connection:
            connection.request("GET", f"/api1/terms/{NEAR}", headers=TEXT)
            reply = connection.getresponse()
            tag = reply.headers["ETag"]
            received += reply.read(100_001)
        headers = TEXT | {"Range": f"bytes={len(received)}-", "If-Range": tag}
        reply, rest = service.ask(f"/api1/terms/{NEAR}", headers=headers)
        assert reply.status == 206
        assert received + rest == expected(NEAR)

    def test_client_that_leaves_leaves_no_file_open(self, serve: Serve) -> None:
        """No file stays open, in any format."""
        service = serve()
        awaited(service, NEAR)
        opened = Path(f"/proc/{service.process.pid}/fd")
        for accept in ("text/plain", "application/json"):
            for _ in range(5):
                with socket.create_connection((service.host, service.port)) as client:
                    request = (
                        f"GET /api1/terms/{NEAR} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}"
                    )
                    client.sendall(f"{request}\r\n\r\n".encode())
                    assert client.recv(100)

        def none_is_open() -> bool:
            # Some descriptors are closed before they are inspected.
            with contextlib.suppress(FileNotFoundError):
                return "digits" not in str([fd.readlink() for fd in opened.iterdir()])
            return False

        until(none_is_open)
