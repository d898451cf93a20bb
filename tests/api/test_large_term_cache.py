"""Services use the digit cache, even if its files are harmed."""

import base64
import hashlib
import json
import os
import random
import re
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.digit_cache import DigitCache
from tests.api.large_terms import (
    JSON,
    NEAR,
    TEXT,
    accepted,
    awaited,
    cached,
    document,
    expected,
    files,
    names,
    workers,
)
from tests.service import Serve, Service, until


def digest(content: bytes) -> str:
    """Return the value of Repr-Digest for a representation, by RFC 9530 and RFC 8941."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


class TestDigest:
    @pytest.mark.parametrize("n", [NEAR, NEAR + 1, -NEAR, -NEAR - 1])
    def test_large_term_has_the_digest_of_the_whole_representation(
        self, service: Service, n: int
    ) -> None:
        awaited(service, n)
        json_with_base = document(n)[:-1] + b',"base":"10"}'
        for query, headers, whole in (
            ("", TEXT, expected(n)),
            ("?base=10", TEXT, expected(n)),
            ("", JSON, document(n)),
            ("?base=10", JSON, json_with_base),
        ):
            for method, more, status, body in (
                ("GET", {}, 200, whole),
                ("HEAD", {}, 200, b""),
                ("GET", {"Range": "bytes=100-119"}, 206, whole[100:120]),
                ("GET", {"Range": "bytes=-1"}, 206, whole[-1:]),
            ):
                reply, content = service.ask(
                    f"/api1/terms/{n}{query}", method, headers=headers | more
                )
                assert (reply.status, content) == (status, body)
                assert reply.headers["Repr-Digest"] == digest(whole)
            known = {"If-None-Match": reply.headers["ETag"]}
            reply, _ = service.ask(f"/api1/terms/{n}{query}", headers=headers | known)
            assert (reply.status, reply.headers["Repr-Digest"]) == (304, None)

    def test_digest_is_there_when_the_term_is_also_after_a_restart(self, serve: Serve) -> None:
        for _ in range(2):
            service = serve()
            path = f"/api1/terms/{NEAR}"
            assert service.ask(path, "HEAD", TEXT)[0].headers["Repr-Digest"] is None
            reply, body = service.ask(path, headers=TEXT)
            accepted((reply, body), NEAR)
            assert reply.headers["Repr-Digest"] is None
            reply, body = awaited(service, NEAR, TEXT)
            assert body == expected(NEAR)
            assert reply.headers["Repr-Digest"] == digest(body)
            service.stop(signal.SIGTERM)

    def test_terms_that_are_sent_at_once_have_no_digest(self, service: Service) -> None:
        for n in ("7", "1000000"):
            assert service.ask(f"/api1/terms/{n}")[0].headers["Repr-Digest"] is None


class TestCache:
    def test_term_is_still_there_after_a_restart(self, serve: Serve) -> None:
        service = serve()
        awaited(service, NEAR)
        written = cached(service, NEAR).stat()
        service.stop(signal.SIGTERM)
        service = serve()
        # The file is checked first, by a process of its own.
        accepted(service.ask(f"/api1/terms/{NEAR}"), NEAR)
        assert awaited(service, NEAR)[1] == document(NEAR)
        assert cached(service, NEAR).stat().st_ino == written.st_ino
        # Reading must not change the file.
        assert service.ask(f"/api1/terms/{NEAR}")[0].status == 200

    @pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.campaign)])
    @pytest.mark.parametrize(
        "harm",
        [
            lambda digits: digits[:-1],
            lambda digits: digits + b"0",
            lambda digits: digits[:1000] + bytes([digits[1000] ^ 1]) + digits[1001:],
            lambda digits: digits[:-1] + bytes([digits[-1] ^ 1]),
            lambda digits: b"_" + digits[1:],
            lambda digits: digits[:5000] + b"\0" * 1000 + digits[6000:],
            lambda _: expected(NEAR + 1),
            lambda _: b"",
        ],
    )
    def test_damaged_file_is_replaced(
        self, serve: Serve, running: bool, harm: Callable[[bytes], bytes]
    ) -> None:
        service = serve()
        awaited(service, NEAR)
        if not running:
            service.stop(signal.SIGTERM)
        path = cached(service, NEAR)
        digits = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(harm(digits))
        if not running:
            service = serve()
        assert awaited(service, NEAR, TEXT)[1] == digits == expected(NEAR)
        assert path.read_bytes() == digits

    def test_pipe_in_place_of_a_file_is_replaced(self, serve: Serve) -> None:
        service = serve()
        path = cached(service, NEAR)
        path.parent.mkdir()
        os.mkfifo(path)
        assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)

    def test_file_removed_while_it_is_sent_is_sent_whole(self, serve: Serve) -> None:
        service = serve()
        awaited(service, NEAR)
        with service.connect() as connection:
            connection.request("GET", f"/api1/terms/{NEAR}")
            reply = connection.getresponse()
            begun = reply.read(10)
            cached(service, NEAR).unlink()
            assert begun + reply.read() == document(NEAR)
        assert awaited(service, NEAR)[1] == document(NEAR)

    def test_full_cache_drops_the_least_recently_used_term(self, serve: Serve) -> None:
        # Room for three terms.
        service = serve("--disk-cache-bytes", str(3 * len(expected(NEAR)) + 100))
        one, two, three, four = range(NEAR, NEAR + 4)
        foreign = service.file.with_name("cache") / "notes.txt"
        foreign.parent.mkdir()
        foreign.write_text("not a term")
        for n in (one, two, three):
            awaited(service, n)
        service.ask(f"/api1/terms/{one}")
        awaited(service, four)
        assert files(service) == sorted([f"{n}.digits" for n in (one, three, four)] + ["notes.txt"])
        assert awaited(service, two)[1] == document(two)
        assert foreign.read_text() == "not a term"

    def test_unfinished_file_of_a_killed_process_is_removed(self, serve: Serve) -> None:
        service = serve()
        directory = service.file.with_name("cache")
        directory.mkdir()
        fresh, old = directory / "9000000.11.part", directory / "9000000.12.part"
        fresh.write_text("1")
        old.write_text("1")
        os.utime(old, (0, 0))
        awaited(service, NEAR)
        assert files(service) == [f"{NEAR}.digits", fresh.name]

    def test_term_that_cannot_be_stored_is_503_until_there_is_room(self, serve: Serve) -> None:
        service = serve()
        pid = service.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, hard))
        reply, body = awaited(service, NEAR)
        assert reply.status == 503
        detail = json.loads(body)["detail"]
        assert "cannot be stored" in detail
        assert str(service.file.parent) not in detail
        assert files(service) == []
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        service.ask(f"/api1/terms/{NEAR}/job", "DELETE")
        assert awaited(service, NEAR)[1] == document(NEAR)
        service.stop(signal.SIGTERM)
        assert "File too large" in service.said[-1]

    @pytest.mark.parametrize("other", ["fifo", "directory", "socket", "link"])
    def test_a_lock_that_is_no_file_is_named_and_stops_nothing(
        self, serve: Serve, other: str
    ) -> None:
        service = serve()
        lock = service.file.with_name("cache") / "lock"
        lock.parent.mkdir()
        if other == "fifo":
            os.mkfifo(lock)
        elif other == "directory":
            lock.mkdir()
        elif other == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(lock))
        else:
            lock.symlink_to(service.file.with_name("elsewhere"))
        accepted(service.ask(f"/api1/terms/{NEAR}"), NEAR)
        assert service.value("next") == 1
        reply, body = awaited(service, NEAR)
        assert reply.status == 503
        assert "cannot be stored" in json.loads(body)["detail"]
        service.stop(signal.SIGTERM)
        assert f"not a regular file; remove it: '{lock}'" in service.said[-1]
        assert not service.file.with_name("elsewhere").exists()

    def test_directory_that_cannot_be_made_is_503(self, serve: Serve) -> None:
        service = serve("--cache-dir", "/proc/none")
        reply, body = awaited(service, NEAR)
        assert reply.status == 503
        assert "cannot be stored" in json.loads(body)["detail"]

    def test_term_that_another_service_computes_is_not_computed_twice(self, serve: Serve) -> None:
        service = serve()
        another = DigitCache(service.file.with_name("cache"), 1 << 20)
        with another.lock(NEAR):
            accepted(service.ask(f"/api1/terms/{NEAR}"), NEAR)
            (pid,) = workers(service)
            # The kernel marks processes that wait for a lock.
            until(lambda: re.search(rf"-> .* {pid} ", Path("/proc/locks").read_text()))
            assert files(service) == []
            written = another.store(NEAR, expected(NEAR).decode())
        assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)
        assert cached(service, NEAR).stat().st_ino == written.seal.inode

    @pytest.mark.campaign
    def test_two_services_on_one_cache_both_give_exact_digits(
        self, serve: Serve, path: Path
    ) -> None:
        shared = str(path.with_name("shared"))
        services = [serve("--cache-dir", shared)]
        path.rename(path.with_name("first.log"))
        services.append(serve("--cache-dir", shared, "-f", str(path.with_name("second.log"))))
        failures = []

        def ask(service: Service, seed: int) -> None:
            randomness = random.Random(seed)
            for _ in range(8):
                n = NEAR + randomness.randrange(4)
                if awaited(service, n, TEXT)[1] != expected(n):
                    failures.append(n)

        threads = [
            threading.Thread(target=ask, args=(service, seed))
            for seed, service in enumerate(services * 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert names(Path(shared)) == [f"{n}.digits" for n in range(NEAR, NEAR + 4)]
