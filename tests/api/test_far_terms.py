"""Far terms over HTTP: computed by real processes, kept in real files; both harmed."""

import contextlib
import json
import os
import random
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPResponse
from itertools import cycle
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.digit_cache import DigitCache
from bigfib.jobs import FAILURE_SECONDS, MAX_QUEUED, MAX_RUNNING
from bigfib.state.log import Log
from tests.service import Serve, Service, until

TEXT = {"Accept": "text/plain"}
JSON = {"Accept": "application/json"}
PUT = {"Content-Type": "application/json"}

# Just beyond what is computed at once, and a term that takes its time.
NEAR = 1_000_001
LONG = 900_000_000


def expected(n: int) -> bytes:
    sign = b"-" if n < 0 and n % 2 == 0 else b""
    return sign + fmpz.fib_ui(fmpz(abs(n))).str(base=10).encode()


def document(n: int) -> bytes:
    value = expected(n)
    return b'{"n":"%d","digits":"%d","value":"%b"}' % (n, len(value.lstrip(b"-")), value)


def accepted(answer: tuple[HTTPResponse, bytes], n: int) -> dict[str, str]:
    """Return the document of a 202 for F(n)."""
    reply, body = answer
    assert reply.status == 202, body[:300]
    assert reply.headers["Location"] == f"/api1/terms/{n}/job"
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["ETag"] is None
    job: dict[str, str] = json.loads(body)
    assert job["n"] == str(n)
    return job


def awaited(
    service: Service, n: int, headers: dict[str, str] | None = None
) -> tuple[HTTPResponse, bytes]:
    """Ask for F(n) until the answer is no 202."""
    deadline = time.monotonic() + 120
    while True:
        reply, body = service.ask(f"/api1/terms/{n}", headers=headers)
        if reply.status != 202:
            return reply, body
        accepted((reply, body), n)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def job(service: Service, n: int) -> dict[str, str] | None:
    reply, body = service.ask(f"/api1/terms/{n}/job")
    if reply.status == 404:
        assert reply.headers["Content-Type"] == "application/problem+json"
        return None
    assert reply.status == 200
    found: dict[str, str] = json.loads(body)
    return found


def done(service: Service, n: int) -> bool:
    return job(service, n) == {"n": str(n), "state": "done", "progress": 1}


def workers(service: Service) -> dict[int, list[int]]:
    """Return the processes of the service, and theirs."""

    def children(pid: int) -> list[int]:
        try:
            return [
                int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ]
        except FileNotFoundError:
            return []

    return {pid: children(pid) for pid in children(service.process.pid)}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def cached(service: Service, n: int) -> Path:
    return service.file.with_name("cache") / f"{n}.digits"


def files(service: Service) -> list[str]:
    directory = service.file.with_name("cache")
    return names(directory) if directory.exists() else []


def names(directory: Path) -> list[str]:
    """Return what is there, but for the lock."""
    return sorted(entry.name for entry in directory.iterdir() if entry.name != "lock")


class TestShown:
    @pytest.mark.parametrize("n", [NEAR, -NEAR - 1, -NEAR, 6_499_999, 6_500_000])
    def test_digits(self, serve: Serve, n: int) -> None:
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
        assert job(service, n) == {"n": str(n), "state": "done", "progress": 1}
        assert files(service) == [f"{abs(n)}.digits"]

    def test_ten_million_with_its_progress(self, serve: Serve) -> None:
        n = 10_000_000
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
    def test_a_hundred_million(self, serve: Serve) -> None:
        n = 100_000_000
        service = serve()
        assert awaited(service, n, TEXT)[1] == expected(n)

    def test_what_is_known_is_not_computed(self, serve: Serve) -> None:
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

    def test_limits(self, serve: Serve) -> None:
        service = serve("--max-term", "2000000", "--disk-cache-bytes", "400000")
        for path, headers, says in (
            ("2000001", TEXT, "F(-2000000) to F(2000000)"),
            ("-2000001", JSON, "F(-2000000) to F(2000000)"),
            ("2000000", TEXT, "417975 digits, and the service keeps 400000"),
            (f"{NEAR}?base=16", TEXT, "in decimal only"),
            (f"{NEAR}", {"Accept": "application/octet-stream"}, "in decimal only"),
        ):
            reply, body = service.ask(f"/api1/terms/{path}", headers=headers)
            assert reply.status == 422
            assert says in json.loads(body)["detail"]
        assert not workers(service)
        assert awaited(service, NEAR)[0].status == 200


class TestParts:
    @pytest.mark.parametrize("n", [NEAR, -NEAR - 1])
    def test_at_random_equal_the_slice(self, serve: Serve, n: int, times: int) -> None:
        service = serve()
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

    def test_a_resumed_download_is_the_whole(self, serve: Serve) -> None:
        service = serve()
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

    def test_a_client_that_leaves(self, serve: Serve) -> None:
        """Leaves no open file behind, in any form."""
        service = serve()
        awaited(service, NEAR)
        opened = Path(f"/proc/{service.process.pid}/fd")
        for accept in ("text/plain", "application/json"):
            for _ in range(5):
                with socket.create_connection((service.host, service.port)) as client:
                    request = f"GET /api1/terms/{NEAR} HTTP/1.1\r\nHost: x\r\nAccept: {accept}"
                    client.sendall(f"{request}\r\n\r\n".encode())
                    assert client.recv(100)

        def none_is_open() -> bool:
            # Some are gone before they are looked at.
            with contextlib.suppress(FileNotFoundError):
                return "digits" not in str([fd.readlink() for fd in opened.iterdir()])
            return False

        until(none_is_open)


class TestProcesses:
    def test_one_for_all_who_ask(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        answers: list[tuple[HTTPResponse, bytes]] = []

        def ask() -> None:
            answers.append(service.ask(f"/api1/terms/{LONG}"))

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in (*answers, service.ask(f"/api1/terms/{LONG}", headers=TEXT)):
            accepted(answer, LONG)
        accepted(service.ask(f"/api1/terms/{-LONG}"), -LONG)
        assert len(workers(service)) == 1

    def test_few_at_a_time_and_a_queue(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        many = [LONG + i for i in range(MAX_RUNNING + MAX_QUEUED)]
        states = [accepted(service.ask(f"/api1/terms/{n}"), n)["state"] for n in many]
        assert states == ["running"] * MAX_RUNNING + ["queued"] * MAX_QUEUED
        assert len(workers(service)) == MAX_RUNNING
        reply, body = service.ask(f"/api1/terms/{LONG - 1}")
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert f"{MAX_QUEUED} other terms wait" in json.loads(body)["detail"]
        # What is known already does not wait.
        assert service.value("next") == 1
        for n in many:
            assert service.ask(f"/api1/terms/{n}/job", "DELETE")[0].status == 204
            assert job(service, n) is None
        assert not workers(service)

    def test_cancelled(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)
        until(lambda: float((job(service, LONG) or {}).get("progress", 0)) > 0)
        # Without the kernel it may have a second process.
        ((pid, others),) = workers(service).items()
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        assert job(service, LONG) is None
        until(lambda: all(map(gone, [pid, *others])))
        assert files(service) == []
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 404
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    def test_the_queue_moves_when_nobody_asks(self, serve: Serve) -> None:
        service = serve()
        many = range(NEAR, NEAR + MAX_RUNNING + 2)
        for n in many:
            service.ask(f"/api1/terms/{n}")
        until(lambda: files(service) == [f"{n}.digits" for n in many])

    @pytest.mark.parametrize(
        ("number", "says"),
        [(signal.SIGKILL, r"killed \(SIGKILL\)"), (signal.SIGABRT, "not enough memory")],
    )
    def test_killed(self, serve: Serve, number: int, says: str) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)
        (pid,) = workers(service)
        os.kill(pid, number)
        until(lambda: not workers(service))
        reply, body = service.ask(f"/api1/terms/{LONG}")
        assert reply.status == 503
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert 0 < int(reply.headers["Retry-After"]) <= FAILURE_SECONDS + 1
        assert re.search(says, json.loads(body)["detail"])
        failed = job(service, LONG)
        assert failed is not None
        assert failed["state"] == "failed"
        assert re.search(says, failed["failure"])
        assert service.value("next") == 1
        # Whoever does not want to wait says so.
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    def test_failed_ones_are_tried_again_after_a_while(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)
        os.kill(pid, signal.SIGKILL)
        until(lambda: service.ask(f"/api1/terms/{LONG}")[0].status == 503)
        wait = int(service.ask(f"/api1/terms/{LONG}")[0].headers["Retry-After"])
        time.sleep(wait)
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    def test_out_of_memory(self, serve: Serve) -> None:
        service = serve()
        # What its children may have, they have from it.
        limit = 50 << 20
        pid = service.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, hard))
        reply, body = awaited(service, 100_000_000)
        assert reply.status == 503
        assert "not enough memory" in json.loads(body)["detail"]
        assert service.value("next") == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_they_end_with_the_service(self, serve: Serve, number: int) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        until(lambda: float((job(service, LONG) or {}).get("progress", 0)) > 0)
        ((pid, others),) = workers(service).items()
        for process in (pid, *others):
            # So that neither notices by itself that nobody reads any more.
            os.kill(process, signal.SIGSTOP)
        service.process.send_signal(number)
        try:
            for process in (pid, *others):
                until(partial(gone, process))
        finally:
            for process in (pid, *others):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


class TestCache:
    def test_is_there_after_a_restart(self, serve: Serve) -> None:
        service = serve()
        awaited(service, NEAR)
        written = cached(service, NEAR).stat()
        service.stop(signal.SIGTERM)
        service = serve()
        # It is checked first, beside the service.
        accepted(service.ask(f"/api1/terms/{NEAR}"), NEAR)
        assert awaited(service, NEAR)[1] == document(NEAR)
        assert cached(service, NEAR).stat().st_ino == written.st_ino
        # To be read is not to be changed.
        assert service.ask(f"/api1/terms/{NEAR}")[0].status == 200

    @pytest.mark.parametrize("running", [True, False])
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
    def test_damage_is_computed_anew(
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

    def test_what_is_no_file(self, serve: Serve) -> None:
        service = serve()
        path = cached(service, NEAR)
        path.parent.mkdir()
        os.mkfifo(path)
        assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)

    def test_removed_while_it_is_sent(self, serve: Serve) -> None:
        service = serve()
        awaited(service, NEAR)
        with service.connect() as connection:
            connection.request("GET", f"/api1/terms/{NEAR}")
            reply = connection.getresponse()
            begun = reply.read(10)
            cached(service, NEAR).unlink()
            assert begun + reply.read() == document(NEAR)
        assert awaited(service, NEAR)[1] == document(NEAR)

    def test_least_recently_used_go_first(self, serve: Serve) -> None:
        # Room for three.
        service = serve("--disk-cache-bytes", "700000")
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

    def test_what_a_killed_one_left_is_removed(self, serve: Serve) -> None:
        service = serve()
        directory = service.file.with_name("cache")
        directory.mkdir()
        fresh, old = directory / "5000000.11.part", directory / "5000000.12.part"
        fresh.write_text("1")
        old.write_text("1")
        os.utime(old, (0, 0))
        awaited(service, NEAR)
        assert files(service) == [f"{NEAR}.digits", fresh.name]

    def test_without_room(self, serve: Serve) -> None:
        service = serve()
        pid = service.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, hard))
        reply, body = awaited(service, NEAR)
        assert reply.status == 503
        detail = json.loads(body)["detail"]
        assert "cannot be kept" in detail
        assert str(service.file.parent) not in detail
        assert files(service) == []
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        service.ask(f"/api1/terms/{NEAR}/job", "DELETE")
        assert awaited(service, NEAR)[1] == document(NEAR)
        service.stop(signal.SIGTERM)
        assert "File too large" in service.said[-1]

    def test_no_directory(self, serve: Serve) -> None:
        service = serve("--cache-dir", "/proc/none")
        reply, body = awaited(service, NEAR)
        assert reply.status == 503
        assert "cannot be kept" in json.loads(body)["detail"]

    def test_a_term_that_another_service_computes_is_waited_for(self, serve: Serve) -> None:
        service = serve()
        another = DigitCache(service.file.with_name("cache"), 1 << 20)
        with another.lock(NEAR):
            accepted(service.ask(f"/api1/terms/{NEAR}"), NEAR)
            (pid,) = workers(service)
            # The kernel marks those who wait for a lock.
            until(lambda: re.search(rf"-> .* {pid} ", Path("/proc/locks").read_text()))
            assert files(service) == []
            written = another.store(NEAR, expected(NEAR).decode())
        assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)
        assert cached(service, NEAR).stat().st_ino == written.inode

    def test_two_services_share_it(self, serve: Serve, path: Path) -> None:
        shared = str(path.with_name("shared"))
        services = [serve("--cache-dir", shared)]
        path.rename(path.with_name("first.log"))
        services.append(serve("--cache-dir", shared, "-f", str(path.with_name("second.log"))))
        failures = []

        def ask(service: Service, seed: int) -> None:
            randomness = random.Random(seed)
            for _ in range(20):
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


class TestLooks:
    """At a computation, whichever server has told of it."""

    def test_in_turn_at_servers_that_know_nothing_of_it(self, serve: Serve, path: Path) -> None:
        """Two that share a digit cache, and one on another machine."""
        shared = str(path.with_name("shared"))
        services = [
            serve("-f", str(path.with_name(f"{number}.log")), "--cache-dir", cache)
            for number, cache in enumerate((shared, shared, str(path.with_name("other"))))
        ]
        accepted(services[0].ask(f"/api1/terms/{-NEAR}"), -NEAR)
        deadline = time.monotonic() + 60
        # Each request comes to another of them, as behind a proxy.
        in_turn = cycle(services)
        states: list[str] = []
        while states[-3:] != ["done"] * 3:
            assert time.monotonic() < deadline
            reply, body = next(in_turn).ask(f"/api1/terms/{-NEAR}/job")
            assert reply.status == 200, body
            states.append(json.loads(body)["state"])
        for service in services:
            assert service.ask(f"/api1/terms/{-NEAR}", headers=TEXT)[1] == expected(-NEAR)

    def test_at_what_another_computes_takes_no_place(self, serve: Serve) -> None:
        service = serve()
        another = DigitCache(service.file.with_name("cache"), 1 << 20)
        others = [NEAR + 1 + number for number in range(MAX_RUNNING)]
        with contextlib.ExitStack() as locked:
            for n in others:
                locked.enter_context(another.lock(n))
            for n in others:
                assert service.ask(f"/api1/terms/{n}/job", "HEAD")[0].status == 200
                assert job(service, n) == {"n": str(n), "state": "queued", "progress": 0.0}
            assert not workers(service)
            # Were they waited for, there would be no place left to compute this one.
            assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)
        # What the other one has not brought to an end is begun here.
        for n in others:
            until(partial(done, service, n))

    def test_what_is_no_far_term_has_none(self, serve: Serve) -> None:
        service = serve("--max-term", "2000000")
        for n, status in ((5, 404), (1_000_000, 404), (2_000_001, 422), (-2_000_001, 422)):
            reply, _ = service.ask(f"/api1/terms/{n}/job")
            assert reply.status == status
            assert reply.headers["Content-Type"] == "application/problem+json"
        assert not workers(service)

    def test_with_a_full_queue_one_looks_again(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        for i in range(MAX_RUNNING + MAX_QUEUED):
            service.ask(f"/api1/terms/{LONG + i}/job")
        waiting = {"n": str(NEAR), "state": "queued", "progress": 0.0}
        assert job(service, NEAR) == waiting
        for i in range(MAX_QUEUED + 1):
            service.ask(f"/api1/terms/{LONG + i}/job", "DELETE")
        until(partial(done, service, NEAR))

    def test_what_was_cancelled_is_not_begun_again_by_a_look(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        assert job(service, LONG) is None
        assert not workers(service)
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)
        assert job(service, LONG) is not None


class TestSequences:
    @staticmethod
    def put(service: Service, position: int) -> tuple[HTTPResponse, bytes]:
        body = json.dumps({"position": str(position)}).encode()
        return service.ask("/api1/sequences/shared", "PUT", PUT, body)

    def put_at_last(self, service: Service, position: int) -> bytes:
        while (answer := self.put(service, position))[0].status == 503:
            time.sleep(0.02)
        assert answer[0].status == 200
        return answer[1]

    def test_put_where_terms_are_at_hand(self, serve: Serve) -> None:
        service = serve()
        n = 1_234_567
        reply, body = self.put(service, n)
        assert reply.status == 503
        assert "Nothing has changed" in json.loads(body)["detail"]
        assert reply.headers["Link"] == f'</api1/terms/{n}/job>; rel="monitor"'
        assert service.ask("/api1/sequences/shared")[0].headers["ETag"] == '"0"'
        document = json.loads(self.put_at_last(service, n))
        assert (document["position"], document["value"].encode()) == (str(n), expected(n))
        # And from there by steps.
        value = b'{"value":"%b","status":"200"}'
        assert service.ask("/api0/next")[1] == value % expected(n + 1)
        assert service.ask("/api0/next")[1] == value % expected(n + 2)
        for back in (1, 0, -1):
            assert service.ask("/api0/previous")[1] == value % expected(n + back)
        assert len(files(service)) == 2

    def test_beyond_the_largest_term(self, serve: Serve) -> None:
        service = serve("--max-term", "1500000")
        reply, body = self.put(service, 1_500_001)
        assert reply.status == 422
        assert "position 1500000 at most" in json.loads(body)["detail"]
        assert self.put_at_last(service, 1_500_000)
        service.ask("/api0/next")
        service.stop(signal.SIGTERM)
        assert serve("--max-term", "1500000").start_position == 1_500_001

    def test_a_term_that_there_is_no_room_for_at_all(self, serve: Serve, path: Path) -> None:
        """It was stepped to, and is no longer in memory."""
        with Log(path) as log:
            log.append(b"shared", NEAR - 1)
        service = serve("--cache-bytes", "1", "--disk-cache-bytes", "400000")
        assert service.ask("/api0/next")[0].status == 200
        service.ask("/api1/sequences", "POST")
        reply, body = service.ask("/api0/current")
        assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
        reply, body = service.ask("/api1/sequences/shared")
        assert reply.status == 422
        assert "the service keeps 400000 at most" in json.loads(body)["detail"]
        # It is not lost for whoever wants to go elsewhere.
        assert self.put(service, 7)[1] == (
            b'{"id":"shared","position":"7","digits":"2","value":"13"}'
        )

    def test_a_service_with_no_room_for_it_does_not_start(self, path: Path) -> None:
        with Log(path) as log:
            log.append(b"shared", NEAR)
        command = ["serve", "-p", "0", "-f", str(path), "--disk-cache-bytes", "400000"]
        done = subprocess.run(
            [sys.executable, "-m", "bigfib", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "417976 digits, and the service keeps 400000 at most" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_it_takes_no_more_memory_than_all_are_meant_to(self, serve: Serve) -> None:
        # For 1,250,000 digits six numbers.
        service = serve("--cache-bytes", "7500000")
        limit = 5_981_214
        reply, body = self.put(service, limit + 1)
        assert reply.status == 422
        assert f"position {limit} at most" in json.loads(body)["detail"]
        document = json.loads(self.put_at_last(service, limit))
        assert document["digits"] == "1250000"

    def test_far_away_from_the_start(self, serve: Serve, path: Path) -> None:
        """It listens at once, and the term is begun before anyone asks."""
        with Log(path) as log:
            log.append(b"shared", LONG)
        service = serve()
        assert service.start_position == LONG
        assert len(workers(service)) == 2
        assert service.ask("/api0/current")[1] == b'{"value":"-3","status":"503"}'

    def test_to_leave_a_far_position_needs_no_term(self, serve: Serve, path: Path) -> None:
        left, deleted = secrets.token_bytes(16), secrets.token_bytes(16)
        with Log(path) as log:
            log.append(left, LONG)
            log.append(deleted, LONG)
        service = serve()
        address = f"/api1/sequences/{left.hex()}"
        stale, right = {"If-Match": '"7"'}, {"If-Match": f'"{LONG}"'}
        body = b'{"position":"7"}'
        assert service.ask(address, "PUT", PUT | stale, body)[0].status == 412
        assert service.ask(address, "PUT", PUT | right, body)[0].status == 200
        address = f"/api1/sequences/{deleted.hex()}"
        assert service.ask(address, "DELETE", stale)[0].status == 412
        assert service.ask(address, "DELETE", right)[0].status == 204
        assert service.ask(address)[0].status == 404
        assert not workers(service)

    def test_a_term_that_memory_had_no_room_for(self, serve: Serve, path: Path) -> None:
        """While it is computed again /api0 says so, and nobody waits."""
        with Log(path) as log:
            log.append(b"shared", NEAR)
        service = serve("--cache-bytes", "1")
        until(lambda: service.ask("/api0/current")[0].status == 200)
        service.ask("/api1/sequences", "POST")
        for name in files(service):
            service.file.with_name("cache").joinpath(name).unlink()
        for name in ("current", "next", "previous"):
            reply, body = service.ask(f"/api0/{name}")
            assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
            assert int(reply.headers["Retry-After"]) >= 1
        until(lambda: service.ask("/api0/current")[0].status == 200)
        assert service.ask("/api0/current")[1] == (
            b'{"value":"%b","status":"200"}' % expected(NEAR)
        )
