"""Processes that compute large terms for a service, and their progress over HTTP."""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import threading
import time
from http.client import HTTPResponse
from itertools import cycle
from pathlib import Path

import pytest

from bigfib.digit_cache import DigitCache
from bigfib.jobs import FAILURE_SECONDS, MAX_QUEUED, MAX_RUNNING
from bigfib.numbers import kernel
from bigfib.state.log import Log
from tests.api.large_terms import (
    LONG,
    NEAR,
    TEXT,
    accepted,
    awaited,
    done,
    expected,
    files,
    gone,
    job,
    workers,
)
from tests.service import Serve, Service, until

# From <sys/ptrace.h> and <sys/wait.h>.
PTRACE_SEIZE = 0x4206
WALL = 0x40000000


def is_computing(service: Service) -> bool:
    """Return whether more of F(LONG) is done than the start of its process."""
    return float((job(service, LONG) or {})["progress"]) > 0.05


class TestProcesses:
    def test_term_that_many_ask_for_has_one_process(self, serve: Serve) -> None:
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

    def test_terms_beyond_those_running_are_queued_and_then_503(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        many = [LONG + i for i in range(MAX_RUNNING + MAX_QUEUED)]
        states = [accepted(service.ask(f"/api1/terms/{n}"), n)["state"] for n in many]
        assert states == ["running"] * MAX_RUNNING + ["queued"] * MAX_QUEUED
        assert len(workers(service)) == MAX_RUNNING
        reply, body = service.ask(f"/api1/terms/{LONG - 1}")
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert f"{MAX_QUEUED} other terms wait" in json.loads(body)["detail"]
        # A term that is known needs no wait.
        assert service.value("next") == 1
        for n in many:
            assert service.ask(f"/api1/terms/{n}/job", "DELETE")[0].status == 204
            assert job(service, n) is None
        until(lambda: not workers(service))

    def test_cancel_ends_the_processes_of_a_term(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)
        until(lambda: is_computing(service))
        (pid,) = workers(service)
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        assert job(service, LONG) is None
        until(lambda: gone(pid))
        assert files(service) == []
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 404
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    @pytest.mark.parametrize("way", ["cancelled", "killed", "stopped"])
    def test_a_killed_process_leaves_no_part(self, serve: Serve, way: str) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)
        directory = service.file.with_name("cache")
        until(directory.exists)
        # As if the process had begun to write, which it does only at its end.
        (directory / f"{LONG}.{pid}.part").write_text("1")
        if way == "cancelled":
            assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        elif way == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            service.stop(signal.SIGTERM)
        until(lambda: files(service) == [])
        assert gone(pid)

    def test_cancelled_process_that_ends_late_delays_no_request(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)
        # The parent does not learn of the end before the tracer does.
        assert ctypes.CDLL(None).ptrace(PTRACE_SEIZE, pid, None, None) == 0
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        assert service.value("next") == 1
        # It may still have its memory, so it keeps its place.
        states = [
            accepted(service.ask(f"/api1/terms/{n}"), n)["state"]
            for n in range(LONG + 1, LONG + 1 + MAX_RUNNING)
        ]
        assert states == ["running"] * (MAX_RUNNING - 1) + ["queued"]
        os.waitpid(pid, WALL)
        until(lambda: len(workers(service)) == MAX_RUNNING and gone(pid))

    def test_queue_advances_without_requests(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        many = range(NEAR, NEAR + MAX_RUNNING + 2)
        for n in many:
            service.ask(f"/api1/terms/{n}")
        until(lambda: files(service) == [f"{n}.digits" for n in many])

    @pytest.mark.parametrize(
        ("number", "says"),
        [(signal.SIGKILL, r"killed \(SIGKILL\)"), (signal.SIGABRT, "not enough memory")],
    )
    def test_process_that_is_killed_is_503_with_the_reason(
        self, serve: Serve, number: int, says: str
    ) -> None:
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
        # A client that does not want to wait cancels the job.
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    def test_failed_term_after_retry_after_is_tried_again(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)
        os.kill(pid, signal.SIGKILL)
        until(lambda: service.ask(f"/api1/terms/{LONG}")[0].status == 503)
        wait = int(service.ask(f"/api1/terms/{LONG}")[0].headers["Retry-After"])
        time.sleep(wait)
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)

    def test_term_without_memory_is_503(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        # Child processes inherit the limit.
        limit = 50 << 20
        pid = service.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, hard))
        reply, body = awaited(service, 100_000_000)
        assert reply.status == 503
        assert "not enough memory" in json.loads(body)["detail"]
        assert service.value("next") == 1

    def test_ctrl_c_while_a_process_starts_shows_no_traceback(
        self, serve: Serve, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        marker = tmp_path / "starting"
        (tmp_path / "sitecustomize.py").write_text(
            "import pathlib, sys, time\n"
            "if 'bigfib.computation' in sys.orig_argv:\n"
            f"    pathlib.Path({str(marker)!r}).touch(); time.sleep(30)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with Log(path) as log:
            log.note(b"shared", LONG)
        service = serve(before=["setsid"])
        until(marker.exists)
        # A terminal sends Ctrl-C to all processes of the group.
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.wait() == 0
        assert "Traceback" not in "".join(service.said)

    def test_the_memory_limit_counts_from_what_is_mapped_already(
        self, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some systems map the archive of all locales into each Python."""
        mapped = 1 << 30
        (tmp_path / "sitecustomize.py").write_text(
            f"import mmap; mapped = mmap.mmap(-1, {mapped}, prot=mmap.PROT_READ)"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)

        def limit() -> int:
            return resource.prlimit(pid, resource.RLIMIT_AS)[0]

        until(lambda: limit() != resource.RLIM_INFINITY)
        # A process maps 0.75 bytes for each index, and 23 MB for itself.
        assert 0.75 * LONG < limit() - mapped < LONG + 200_000_000
        assert awaited(service, NEAR)[0].status == 200

    def test_threads_of_a_process_leave_room_below_its_memory_limit(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG))
        service.ask(f"/api1/terms/{LONG}")
        (pid,) = workers(service)

        def threads() -> int:
            return len(list(Path(f"/proc/{pid}/task").iterdir()))

        if kernel.load() is None:
            pytest.skip(kernel.description())
        until(lambda: is_computing(service) and threads() > 1)
        peak = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert peak
        assert int(peak[1]) * 1024 < 0.75 * LONG + 100_000_000

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_process_ends_with_the_service(self, serve: Serve, number: int) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        until(lambda: is_computing(service))
        (pid,) = workers(service)
        # Stopped, so that it does not notice by itself that its pipe is closed.
        os.kill(pid, signal.SIGSTOP)
        service.process.send_signal(number)
        try:
            until(lambda: gone(pid))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class TestLooks:
    """The state of a computation, whichever server is asked."""

    def test_term_is_computed_by_every_server_that_is_asked(self, serve: Serve, path: Path) -> None:
        """Two servers share a digit cache, and one is on another machine."""
        shared = str(path.with_name("shared"))
        services = [
            serve("-f", str(path.with_name(f"{number}.log")), "--cache-dir", cache)
            for number, cache in enumerate((shared, shared, str(path.with_name("other"))))
        ]
        accepted(services[0].ask(f"/api1/terms/{-NEAR}"), -NEAR)
        deadline = time.monotonic() + 60
        # Each request goes to another server, as behind a proxy.
        in_turn = cycle(services)
        statuses: list[int] = []
        while statuses[-3:] != [200] * 3:
            assert time.monotonic() < deadline
            service = next(in_turn)
            looked_at, body = service.ask(f"/api1/terms/{-NEAR}/job")
            assert looked_at.status in (200, 404), body
            statuses.append(service.ask(f"/api1/terms/{-NEAR}", headers=TEXT)[0].status)
        for service in services:
            assert service.ask(f"/api1/terms/{-NEAR}", headers=TEXT)[1] == expected(-NEAR)

    def test_progress_of_a_term_that_another_service_computes_takes_no_place(
        self, serve: Serve
    ) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        another = DigitCache(service.file.with_name("cache"), 1 << 20)
        others = [NEAR + 1 + number for number in range(MAX_RUNNING)]
        with contextlib.ExitStack() as locked:
            for n in others:
                locked.enter_context(another.lock(n))
            for n in others:
                assert service.ask(f"/api1/terms/{n}/job", "HEAD")[0].status == 200
                found = job(service, n)
                assert found is not None
                assert found["state"] == "queued"
            assert not workers(service)
            # If these were waited for, there would be no place left to compute this term.
            assert awaited(service, NEAR, TEXT)[1] == expected(NEAR)
        for n in others:
            assert job(service, n) is None

    def test_small_term_has_no_job(self, serve: Serve) -> None:
        service = serve("--max-term", "6000000")
        for n, status in ((5, 404), (1_000_000, 404), (6_000_001, 422), (-6_000_001, 422)):
            reply, _ = service.ask(f"/api1/terms/{n}/job")
            assert reply.status == status
            assert reply.headers["Content-Type"] == "application/problem+json"
        assert not workers(service)

    def test_looking_at_the_job_of_an_unknown_term_starts_nothing(self, serve: Serve) -> None:
        service = serve()
        for _ in range(3):
            assert job(service, NEAR) is None
        assert not workers(service)
        assert files(service) == []
        awaited(service, NEAR)
        assert done(service, NEAR)

    def test_job_shows_the_seconds_left(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG))
        found = json.loads(service.ask(f"/api1/terms/{LONG}")[1])
        before = found["seconds_left"]
        assert before > 1
        until(lambda: (job(service, LONG) or {})["seconds_left"] < before)

    def test_cancelled_term_is_not_started_again_by_a_look(self, serve: Serve) -> None:
        service = serve("--max-term", str(LONG + 1_000))
        service.ask(f"/api1/terms/{LONG}")
        assert service.ask(f"/api1/terms/{LONG}/job", "DELETE")[0].status == 204
        assert job(service, LONG) is None
        until(lambda: not workers(service))
        accepted(service.ask(f"/api1/terms/{LONG}"), LONG)
        assert job(service, LONG) is not None
