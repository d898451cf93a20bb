"""What a reply says about its time, where it is asked to."""

import re
import time

import pytest

from tests.service import Serve, Service

STEP = "/api1/sequences/shared/next"


def timing(
    service: Service, path: str, method: str = "GET", prefer: str = "timing"
) -> dict[str, float]:
    """Return the milliseconds of each phase."""
    headers = {"Prefer": prefer, "Accept": "text/plain, */*;q=0.1"}
    reply, _ = service.ask(path, method, headers)
    phases = re.findall(r"(\w+);dur=([0-9.]+)", reply.headers.get("Server-Timing", ""))
    return {name: float(ms) for name, ms in phases}


def commits(service: Service) -> tuple[int, float]:
    """Return the number of commits, and their seconds."""
    metrics = service.ask("/metrics")[1].decode()
    count, seconds = (
        re.findall(rf"^bigfib_commit_seconds_{name} (\S+)$", metrics, re.MULTILINE)[0]
        for name in ("count", "sum")
    )
    return int(float(count)), float(seconds)


def test_step_reports_its_own_commit(serve: Serve) -> None:
    service = serve()
    began = time.perf_counter()
    phases = timing(service, STEP, "POST")
    waited = 1000 * (time.perf_counter() - began)
    assert {*phases} == {"compute", "commit", "text"}
    count, seconds = commits(service)
    assert count == 1
    assert phases["commit"] == pytest.approx(1000 * seconds, abs=0.001)
    assert sum(phases.values()) < waited
    # Requests go on sharing their commits after it.
    for _ in range(3):
        service.value("next")
    assert commits(service)[0] == 4


def test_step_in_a_shared_store_reports_its_transaction(serve: Serve, database: str) -> None:
    service = serve("--store", database)
    phases = timing(service, STEP, "POST")
    assert phases["commit"] == pytest.approx(1000 * commits(service)[1], abs=0.001)
    assert phases["commit"] > 0


def test_conversion_of_a_term_is_reported_where_it_is_made(service: Service) -> None:
    # In a base that no other test has had it in: a term that is kept is not converted again.
    target = "/api1/terms/290001?base=7"
    first, again = timing(service, target), timing(service, target)
    assert first["text"] > 0 == again["text"]
    assert first["compute"] > 0 == first["commit"]


def test_refusals_report_their_time_too(service: Service) -> None:
    assert timing(service, "/api1/terms/x")["compute"] > 0
    assert timing(service, "/api1/sequences/shared/previous", "POST")["compute"] > 0
    assert timing(service, "/nothing")["text"] == 0


@pytest.mark.parametrize("prefer", ["TIMING", "respond-async, timing", "timing; x=1", "a timing"])
def test_preference_is_found_among_others(service: Service, prefer: str) -> None:
    assert timing(service, "/api1/terms/10", prefer=prefer)


@pytest.mark.parametrize("prefer", ["", "respond-async", "timings", "no-timing", "timing=1"])
def test_nothing_is_reported_unless_it_is_asked_for(service: Service, prefer: str) -> None:
    assert timing(service, "/api1/terms/10", prefer=prefer) == {}


def test_stepping_api_stays_as_it_was(service: Service) -> None:
    assert timing(service, "/api0/next") == {}
