"""Metrics of a real service after a known number of requests."""

import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import falcon.testing
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bigfib.api.app import create_app
from bigfib.metrics import STATUSES, Histogram, SharedMemory
from bigfib.sequences import SHARED, Sequences
from bigfib.state import reader
from bigfib.state.log import Durability, Log
from tests.service import Serve, Service, jobs, until

Labels = dict[str, str]

SEQUENCE = "/api1/sequences/{sequence_id}"


class Scraped:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def __getitem__(self, name: str) -> float:
        """Return the value of a sample that has no labels."""
        return self.get(name)

    def get(self, name: str, **labels: str) -> float:
        """Return the value of the one sample of this name with these labels."""
        (value,) = [
            sample.value
            for sample in self._samples
            if sample.name == name and sample.labels.items() == labels.items()
        ]
        return value

    def all(self, name: str) -> list[tuple[Labels, float]]:
        return [(sample.labels, sample.value) for sample in self._samples if sample.name == name]

    def requests(self) -> dict[tuple[str, str, str], int]:
        return {
            (labels["method"], labels["route"], labels["status"]): int(value)
            for labels, value in self.all("bigfib_http_requests_total")
            if value
        }


def scrape(service: Service) -> Scraped:
    reply, body = service.ask("/metrics")
    assert reply.status == 200
    return Scraped(body.decode())


class TestRequests:
    def test_each_is_counted_by_route_method_and_status(self, serve: Serve) -> None:
        service = serve()
        one = json.loads(service.ask("/api1/sequences", "POST")[1])["id"]
        for method, path, times in (
            ("GET", "/api0/next", 5),
            ("GET", "/api0/previous", 6),
            ("GET", "/api0/current", 3),
            ("HEAD", "/api0/current", 2),
            ("POST", "/api0/next", 4),
            ("POST", f"/api1/sequences/{one}/next", 3),
            ("POST", f"/api1/sequences/{one}/previous?by=9", 2),
            ("GET", f"/api1/sequences/{one}", 2),
            ("GET", f"/api1/sequences/{'0' * 32}", 2),
            ("DELETE", f"/api1/sequences/{one}", 2),
            ("PATCH", f"/api1/sequences/{one}", 2),
            ("GET", "/api1/terms/30", 2),
            ("GET", "/api1/terms/31?base=99", 1),
            ("GET", "/api1/terms?count=5000", 2),
            ("GET", "/nothing/here", 7),
        ):
            for _ in range(times):
                service.ask(path, method)
        for method, path in (
            ("GET", "/api0/next"),
            ("GET", "/api0/previous"),
            ("POST", f"/api1/sequences/{one}/next"),
            ("DELETE", f"/api1/sequences/{one}"),
            ("POST", "/nothing/here"),
        ):
            service.ask(path, method, {"Sec-Fetch-Site": "cross-site"})
        scrape(service)
        assert scrape(service).requests() == {
            ("POST", "/api1/sequences", "201"): 1,
            ("GET", "/api0/next", "200"): 5,
            ("GET", "/api0/previous", "200"): 5,
            ("GET", "/api0/previous", "409"): 1,
            ("GET", "/api0/current", "200"): 3,
            ("HEAD", "/api0/current", "200"): 2,
            ("POST", "/api0/next", "405"): 4,
            ("POST", f"{SEQUENCE}/next", "200"): 3,
            ("POST", f"{SEQUENCE}/previous", "409"): 2,
            ("GET", SEQUENCE, "200"): 2,
            ("GET", SEQUENCE, "404"): 2,
            ("DELETE", SEQUENCE, "204"): 1,
            ("DELETE", SEQUENCE, "404"): 1,
            ("other", SEQUENCE, "405"): 2,
            ("GET", "/api1/terms/{n}", "200"): 2,
            ("GET", "/api1/terms/{n}", "422"): 1,
            ("GET", "/api1/terms", "200"): 2,
            ("GET", "unmatched", "404"): 7,
            ("GET", "/api0/next", "403"): 1,
            ("GET", "/api0/previous", "403"): 1,
            ("POST", f"{SEQUENCE}/next", "403"): 1,
            ("DELETE", SEQUENCE, "403"): 1,
            ("POST", "unmatched", "404"): 1,
            ("GET", "/metrics", "200"): 1,
        }

    def test_every_documented_status_is_exported(self, serve: Serve) -> None:
        document = json.loads(serve().ask("/openapi.json")[1])
        documented = {
            status
            for item in document["paths"].values()
            for method, operation in item.items()
            if method != "parameters"
            for status in operation["responses"]
        }
        assert len(documented) > 10
        assert documented <= set(STATUSES)

    def test_failure_counters_before_any_failure_are_exported(self, serve: Serve) -> None:
        """Prometheus sees no change in a counter that begins with one."""
        service = serve()
        document = json.loads(service.ask("/openapi.json")[1])
        documented = {
            (method.upper(), route, status)
            for route, item in document["paths"].items()
            for method in item
            if method != "parameters"
            for status in ("500", "507")
        }
        told = scrape(service).all("bigfib_http_requests_total")
        assert len(documented) > 40
        assert documented == {
            (labels["method"], labels["route"], labels["status"])
            for labels, value in told
            if value == 0 and labels["method"] != "HEAD"
        }

    def test_a_thousand_paths_at_random_are_one_series(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            for number in range(1000):
                path = secrets.token_urlsafe(number % 40)
                connection.request("GET", f"/{path}" if number % 2 else f"/api1/{path}/{number}")
                connection.getresponse().read()
        assert scrape(service).requests() == {("GET", "unmatched", "404"): 1000}

    def test_seconds_are_those_that_clients_wait(self, serve: Serve) -> None:
        """The times are at least that of a commit, and at most what a client measures."""
        service = serve()
        began = time.monotonic()
        for _ in range(20):
            service.ask("/api0/next")
        waited = time.monotonic() - began
        scraped = scrape(service)
        labels = {"route": "/api0/next", "method": "GET", "status": "200"}
        assert scraped.get("bigfib_http_request_seconds_count", **labels) == 20
        seconds = scraped.get("bigfib_http_request_seconds_sum", **labels)
        assert scraped["bigfib_commit_seconds_count"] == 20
        assert scraped["bigfib_commit_seconds_sum"] <= seconds <= waited

    def test_buckets_hold_what_is_at_or_below_their_bounds(self, serve: Serve) -> None:
        service = serve()
        service.ask("/api0/current")
        # 209 thousand digits, computed for the first time: more than a millisecond on any machine.
        service.ask("/api1/terms/1000000")
        scraped = scrape(service)

        def buckets(route: str) -> dict[float, float]:
            return {
                float(labels["le"]): value
                for labels, value in scraped.all("bigfib_http_request_seconds_bucket")
                if labels["route"] == route
            }

        assert buckets("/api1/terms/{n}")[0.001] == 0
        for route in ("/api1/terms/{n}", "/api0/current"):
            assert list(buckets(route).values()) == sorted(buckets(route).values())
            assert buckets(route)[float("inf")] == 1
            seconds = scraped.get(
                "bigfib_http_request_seconds_sum", route=route, method="GET", status="200"
            )
            for bound, count in buckets(route).items():
                assert count == (seconds <= bound)

    def test_a_client_that_has_gone_is_counted(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            connection.request("GET", "/api1/terms?from=900000")
            connection.getresponse()
        until(lambda: ("GET", "/api1/terms", "200") in scrape(service).requests())


class TestState:
    def test_steps_position_and_digits_after_steps_are_exported(self, serve: Serve) -> None:
        service = serve()
        service.ask("/api1/sequences/shared/next?by=150", "POST")
        service.ask("/api1/sequences/shared/previous?by=7", "POST")
        for name, times in (("next", 5), ("previous", 3)):
            for _ in range(times):
                service.value(name)
        service.ask("/api1/sequences/shared/previous?by=1000", "POST")
        scraped = scrape(service)
        assert scraped.get("bigfib_steps_total", direction="forward") == 155
        assert scraped.get("bigfib_steps_total", direction="back") == 10
        assert scraped["bigfib_shared_position"] == 145
        # F(145) = 898923707008479989274290850145
        assert scraped["bigfib_shared_digits"] == len("898923707008479989274290850145")
        assert scraped["bigfib_store_up"] == 1

    def test_log_metrics_equal_the_file_and_its_commits(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            for _ in range(30):
                connection.request("GET", "/api0/next")
                connection.getresponse().read()
        scraped = scrape(service)
        assert scraped["bigfib_log_bytes"] == service.file.stat().st_size
        assert scraped["bigfib_log_records"] == 30
        assert scraped["bigfib_commit_seconds_count"] == 30
        assert scraped["bigfib_commit_replies_sum"] == 30
        assert scraped["bigfib_log_rewrites_total"] == 0

    def test_log_metrics_after_a_rewrite_count_all_commits(self, serve: Serve) -> None:
        service = serve("--rewrite-bytes", "500")
        with service.connect() as connection:
            for _ in range(200):
                connection.request("GET", "/api0/next")
                connection.getresponse().read()
        scraped = scrape(service)
        assert scraped["bigfib_log_rewrites_total"] >= 1
        assert scraped["bigfib_log_bytes"] == service.file.stat().st_size
        assert scraped["bigfib_log_records"] < 200
        # Changes that a compaction has made durable are among them.
        assert scraped["bigfib_commit_replies_sum"] == 200

    def test_without_syncs_there_are_no_commits(self, serve: Serve) -> None:
        service = serve("--durability", "os")
        service.value("next")
        assert scrape(service)["bigfib_commit_seconds_count"] == 0
        assert scrape(service)["bigfib_log_records"] == 1

    def test_jobs_and_cache_use_of_large_terms_are_counted(self, serve: Serve) -> None:
        service = serve("--max-term", "900000000")
        term = "/api1/terms/6000000"
        service.ask("/api1/terms/900000000")
        until(lambda: service.ask(term)[0].status == 200)
        scraped = scrape(service)
        assert scraped.get("bigfib_jobs", state="running") == 1
        assert scraped.get("bigfib_jobs_ended_total", state="done") == 1
        service.ask("/api1/terms/900000000/job", "DELETE")
        length = len(service.ask(term, headers={"Accept": "text/plain"})[1])
        scraped = scrape(service)
        assert scraped.get("bigfib_jobs", state="running") == 0
        assert scraped.get("bigfib_jobs_ended_total", state="cancelled") == 1
        # Both computations, however often their progress was asked for; and both replies.
        assert scraped["bigfib_digit_cache_misses_total"] == 2
        assert scraped["bigfib_digit_cache_hits_total"] == 2
        assert scraped["bigfib_digit_cache_bytes"] == length

    def test_term_on_disk_that_has_yet_to_be_checked_is_no_miss(self, serve: Serve) -> None:
        term = "/api1/terms/6000000"
        for misses in (1, 0):
            service = serve()
            while service.ask(term)[0].status == 202:
                pass
            scraped = scrape(service)
            assert scraped["bigfib_digit_cache_misses_total"] == misses
            assert scraped["bigfib_digit_cache_hits_total"] == 1
            service.stop(signal.SIGTERM)

    def test_process_memory_equals_that_of_proc(self, serve: Serve) -> None:
        service = serve()
        resident = scrape(service).get("process_resident_memory_bytes", worker="0")
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        now = int(status.split("VmRSS:")[1].split()[0]) * 1024
        assert now * 0.9 < resident < now * 1.1

    def test_exported_position_is_on_disk(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            for _ in range(20):
                sequences.forward(SHARED)  # not committed yet
            told = Scraped(falcon.testing.simulate_get(app, "/metrics").text)
            assert told["bigfib_shared_position"] == reader.read(path).position(SHARED) == 20

    def test_position_beyond_a_double_is_exported_as_infinity(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            app = create_app(log, Sequences(log), jobs(path), per_client=False)
            client = falcon.testing.TestClient(app)
            for position, shown, digits in (
                (10**30, 1e30, 2.0898764024997872e29),
                (10**400, float("inf"), float("inf")),
            ):
                log.note(SHARED, position)
                scraped = Scraped(client.simulate_get("/metrics").text)
                assert scraped["bigfib_shared_position"] == shown
                assert scraped["bigfib_shared_digits"] == pytest.approx(digits)

    def test_store_known_to_be_lost_is_not_queried_for_metrics(self, path: Path) -> None:
        class Lost(Log):
            def is_lost(self) -> bool:
                return True

            asked = False

            def check(self) -> None:
                self.asked = True

        log = Lost(path)
        with log:
            app = create_app(log, Sequences(log), jobs(path), per_client=False)
            reply = falcon.testing.simulate_get(app, "/metrics")
            assert not log.asked
        assert reply.status_code == 200
        assert Scraped(reply.text)["bigfib_store_up"] == 0


class TestFormat:
    def test_metrics_by_default_are_in_prometheus_format(self, serve: Serve) -> None:
        reply, _ = serve().ask("/metrics")
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_metrics_as_prometheus_asks_are_in_openmetrics_format(self, serve: Serve) -> None:
        service = serve()
        service.value("next")
        # The header that Prometheus sends.
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
        reply, body = service.ask("/metrics", headers={"Accept": accept})
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text; version=1")
        families = openmetrics.text_string_to_metric_families(body.decode())
        (steps,) = [family for family in families if family.name == "bigfib_steps"]
        assert steps.samples[0].value == 1

    def test_metrics_in_an_unknown_version_are_in_the_default_format(self, serve: Serve) -> None:
        service = serve()
        for media_type in ("application/openmetrics-text", "text/plain"):
            for version in ("zzz", "1.x", "\xe9", "9" * 5000):
                accept = f"{media_type};version={version};escaping=x"
                reply, _ = service.ask("/metrics", headers={"Accept": accept})
                assert reply.status == 200, accept
                content_type = reply.headers["Content-Type"]
                assert content_type == "text/plain; version=0.0.4; charset=utf-8", accept

    def test_promtool_finds_nothing_in_the_metrics(
        self, serve: Serve, require: Callable[[str], str]
    ) -> None:
        promtool = require("promtool")
        service = serve()
        for path in ("/api0/next", "/nothing"):
            service.ask(path)
        checked = subprocess.run(
            [promtool, "check", "metrics"],
            input=service.ask("/metrics")[1],
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def scrape_in_the_end(service: Service) -> Scraped:
    """Scrape; repeat it if the request reaches a worker that has been killed, or none is there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return scrape(service)
        except (OSError, HTTPException):
            assert time.monotonic() < deadline


def wait_for_replies(service: Service, count: int) -> None:
    """Wait until this many replies to ``next`` are counted; clients get each a moment before."""
    until(lambda: scrape(service).requests().get(("GET", "/api0/next", "200")) == count)


def wait_for_replacement(service: Service, victim: int) -> None:
    """Wait until there are two workers again, and the killed one is not among them."""
    until(lambda: victim not in children(service.process.pid))
    until(lambda: len(scrape_in_the_end(service).all("process_resident_memory_bytes")) == 2)


class Counted:
    """A client that sends requests until it is stopped; workers may end meanwhile."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ended = threading.Event()
        self.acknowledged = 0
        self.asked = 0
        self._thread = threading.Thread(target=self._step)

    def __enter__(self) -> "Counted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _step(self) -> None:
        while not self._ended.is_set():
            self.asked += 1
            try:
                reply, _ = self._service.ask("/api0/next")
            except (OSError, HTTPException):
                continue
            self.acknowledged += reply.status == 200


def test_shared_memory_has_room_for_more_than_a_worker_counts(path: Path) -> None:
    """A service of several workers starts even with more routes and statuses than it has now."""
    shared = SharedMemory(2)
    with Log(path) as log:
        create_app(log, Sequences(log), jobs(path), per_client=False, worker_memory=shared)
    shared.join(Histogram(range(1 << 16)))


class TestWorkers:
    @pytest.fixture
    def service(self, serve: Serve, database: str) -> Service:
        service = serve("--store", database, "--workers", "2")
        # The second worker is started when the first is ready.
        until(lambda: len(scrape(service).all("process_resident_memory_bytes")) == 2)
        return service

    def test_any_worker_exports_the_counts_of_all(self, service: Service) -> None:
        for _ in range(40):
            service.ask("/api0/next")
        wait_for_replies(service, 40)
        for scraped in [scrape(service) for _ in range(10)]:
            assert scraped.requests()["GET", "/api0/next", "200"] == 40
            assert scraped.get("bigfib_steps_total", direction="forward") == 40
            assert scraped["bigfib_shared_position"] == 40
            assert scraped["bigfib_commit_replies_sum"] == 40
        memory = scrape(service).all("process_resident_memory_bytes")
        assert [labels for labels, _ in memory] == [{"worker": "0"}, {"worker": "1"}]
        for _, value in memory:
            assert 10e6 < value < 200e6

    def test_counts_of_a_killed_worker_are_kept(self, service: Service) -> None:
        for _ in range(40):
            assert service.ask("/api0/next")[0].status == 200
        wait_for_replies(service, 40)
        for victim in children(service.process.pid):
            os.kill(victim, signal.SIGKILL)
            wait_for_replacement(service, victim)
        assert scrape(service).get("bigfib_steps_total", direction="forward") == 40
        for _ in range(10):
            assert service.ask("/api0/next")[0].status == 200
        wait_for_replies(service, 50)
        scraped = scrape(service)
        assert scraped.get("bigfib_steps_total", direction="forward") == 50
        assert scraped.requests()["GET", "/api0/next", "200"] == 50

    def test_counters_while_workers_are_killed_never_decrease(self, service: Service) -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(Counted(service)) for _ in range(4)]
            before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
            for turn in range(30):
                scraped = scrape_in_the_end(service)
                now = {
                    (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                    for name, family in scraped.families.items()
                    if family.type in ("counter", "histogram") and name.startswith("bigfib_")
                    for sample in family.samples
                }
                assert [key for key, value in before.items() if now[key] < value] == []
                before = now
                if turn in (10, 20):
                    os.kill(children(service.process.pid)[0], signal.SIGKILL)
        steps = scrape_in_the_end(service).get("bigfib_steps_total", direction="forward")
        assert 0 < sum(client.acknowledged for client in clients) <= steps
        assert steps <= sum(client.asked for client in clients)
