"""Measure one request to the application, without a socket.

The body is taken piece by piece, as bjoern does, and each piece is copied once, as the operating
system does. The limit is an application that sends a constant body of the same length in the same
way. Except for a durable step, the log is not synced; see `bench_log`.
"""

import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import yardsticks
from benchmarks.groups import DURABLE_STEP, WITHOUT_SOCKET
from benchmarks.sizes import POSITIONS, by_digits
from bigfib import terms
from bigfib.api.app import create_app
from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs
from bigfib.sequences import SHARED, Sequences
from bigfib.state.log import Durability, Log
from bigfib.terms import INLINE_LIMIT

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

LONGEST_INLINE = 208_988
"""Digits of the longest term that is computed inline without the C kernel."""

ROW = 20
"""Terms in a row."""


class Exchange:
    """One request, which is sent to an application repeatedly.

    Attributes:
        status: The status of the last reply.
        sent: The length of the last body in bytes.
    """

    def __init__(self, app: WSGI, path: str, method: str = "GET", **headers: str) -> None:
        self._app = app
        path, _, query = path.partition("?")
        # The environment that bjoern gives.
        self._environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1:8080",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
        }
        self._kernel = memoryview(bytearray(ROW * max(POSITIONS)))
        self.status = ""
        self.sent = 0

    def __call__(self) -> None:
        body = self._app(self._environ.copy(), self._start)
        sent, kernel = 0, self._kernel
        for piece in body:
            end = sent + len(piece)
            kernel[sent:end] = piece
            sent = end
        self.sent = sent
        if hasattr(body, "close"):
            body.close()

    def _start(self, status: str, _headers: list[tuple[str, str]]) -> None:
        self.status = status


@pytest.fixture
def position(digits: int) -> int:
    return POSITIONS[digits]


@pytest.fixture
def app(tmp_path: Path, position: int) -> Iterator[WSGI]:
    jobs = Jobs(DigitCache(tmp_path / "cache", 0), INLINE_LIMIT)
    with Log(tmp_path / "state.log", Durability.OS) as log, closing(jobs):
        log.note(SHARED, position)
        yield create_app(log, Sequences(log), jobs, per_client=False)


def measure(
    benchmark: BenchmarkFixture,
    exchange: Exchange,
    digits: int,
    before: Callable[[], object] | None = None,
) -> None:
    """Measure the exchange; call ``before`` before each one, without measuring it."""
    if before:
        rounds = max(20, min(1000, 10**7 // digits))
        benchmark.pedantic(exchange, setup=before, rounds=rounds, warmup_rounds=5)
    else:
        benchmark(exchange)
    assert exchange.status.startswith("20"), exchange.status


def in_turn(benchmark: BenchmarkFixture, *exchanges: Exchange) -> None:
    turns = itertools.cycle(exchanges)
    benchmark(lambda: next(turns)())
    assert {exchange.status for exchange in exchanges} == {"200 OK"}


@by_digits()
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_yardstick_constant_body(benchmark: BenchmarkFixture, digits: int) -> None:
    measure(benchmark, Exchange(yardsticks.application(yardsticks.constant(digits)), "/"), digits)


@by_digits()
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_current(benchmark: BenchmarkFixture, app: WSGI, digits: int) -> None:
    measure(benchmark, Exchange(app, "/api0/current"), digits)


@by_digits()
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_next_and_previous_in_turn(benchmark: BenchmarkFixture, app: WSGI) -> None:
    in_turn(benchmark, Exchange(app, "/api0/next"), Exchange(app, "/api0/previous"))


@by_digits()
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_next_and_previous_of_a_sequence(benchmark: BenchmarkFixture, app: WSGI) -> None:
    shared = "/api1/sequences/shared"
    in_turn(benchmark, *(Exchange(app, f"{shared}/{way}", "POST") for way in ("next", "previous")))


@by_digits(LONGEST_INLINE)
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_term(benchmark: BenchmarkFixture, app: WSGI, digits: int, position: int) -> None:
    measure(
        benchmark,
        Exchange(app, f"/api1/terms/{position}"),
        digits,
        before=terms.text.cache_clear,
    )


@pytest.mark.full
@by_digits(LONGEST_INLINE)
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_term_asked_for_again(
    benchmark: BenchmarkFixture, app: WSGI, digits: int, position: int
) -> None:
    measure(benchmark, Exchange(app, f"/api1/terms/{position}"), digits)


@pytest.mark.full
@by_digits(LONGEST_INLINE)
@pytest.mark.benchmark(group=WITHOUT_SOCKET)
def bench_range_of_a_term(
    benchmark: BenchmarkFixture, app: WSGI, digits: int, position: int
) -> None:
    ten_digits = Exchange(app, f"/api1/terms/{position}", accept="text/plain", range="bytes=0-9")
    measure(benchmark, ten_digits, digits)
    assert (ten_digits.status[:3], ten_digits.sent) == ("206", 10)


@pytest.mark.full
@by_digits(LONGEST_INLINE)
@pytest.mark.benchmark(group=f"one request for {ROW} terms in a row")
def bench_row(benchmark: BenchmarkFixture, app: WSGI, digits: int, position: int) -> None:
    row = Exchange(app, f"/api1/terms?from={position - ROW}&count={ROW}")
    measure(benchmark, row, digits)


@pytest.mark.full
@by_digits(LONGEST_INLINE)
@pytest.mark.benchmark(group=f"one request for {ROW} terms in a row")
def bench_yardstick_row_of_constant_lines(benchmark: BenchmarkFixture, digits: int) -> None:
    lines = [b"1" * digits + b"\n"] * ROW
    measure(benchmark, Exchange(yardsticks.application(lambda: lines), "/"), digits)


@pytest.mark.benchmark(group=DURABLE_STEP)
def bench_durable_next(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, steps, synced = os.fdatasync, 200, []

    def counted(fd: int) -> None:
        synced.append(fd)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    jobs = Jobs(DigitCache(tmp_path / "cache", 0), INLINE_LIMIT)
    with Log(tmp_path / "state.log") as log, closing(jobs):
        step = Exchange(create_app(log, Sequences(log), jobs, per_client=False), "/api0/next")
        step()
        synced.clear()
        benchmark.pedantic(step, rounds=steps)
        benchmark.extra_info["syncs a step"] = len(synced) / steps


@pytest.mark.benchmark(group=DURABLE_STEP)
def bench_yardstick_one_sync_and_a_constant_body(benchmark: BenchmarkFixture) -> None:
    app = yardsticks.application(yardsticks.synced())
    benchmark.pedantic(Exchange(app, "/"), rounds=200, warmup_rounds=1)
