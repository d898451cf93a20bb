"""Measure requests over a socket, alternately: the server on one core, wrk on another.

The limit is a bjoern application that sends a constant body of the same length; at ten digits that
is a bare bjoern application. There are 64 connections, unless something else is said.
"""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import (
    CURRENT,
    DURING_LARGE_TERM,
    LARGE_TERM,
    NEARLY_ALL,
    PEAK_MEMORY,
    STEP,
    STEP_OF_MANY,
    STEP_OF_ONE,
)
from benchmarks.load import (
    STEPS,
    Server,
    compute,
    peak_memory,
    record,
    seconds_of_nearly_all,
    seconds_per_request,
    server,
    take_turns,
    yardstick,
)
from benchmarks.sizes import POSITIONS, by_digits, label
from benchmarks.yardsticks import IN_PIECES_FROM
from bigfib.sequences import SHARED
from bigfib.settings import Settings
from bigfib.state.log import Log

pytestmark = pytest.mark.usefixtures("load_generator")

LONG = 1_000_000
"""Digits from which on there are fewer connections, and more time.

Requests under way when the load ends do not count. At 2.1 million digits, with 64 connections and
0.7 seconds, a step therefore seemed to take 1.8 times as long as with 4 seconds.
"""

Start = Callable[..., Server]
Loaded = Callable[..., Callable[[], float]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a service with its own log, at a position."""
    with ExitStack() as stack:

        def start(position: int, *arguments: str) -> Server:
            file = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            with Log(file) as log:
                log.note(SHARED, position)
            command = ("-m", "bigfib", "serve", "-p", "0", "-f", str(file))
            cache = ("--cache-dir", str(tmp_path / "cache"))
            service = stack.enter_context(server(*command, *cache, *arguments))
            wait_for_term(service)
            return service

        yield start


def wait_for_term(service: Server) -> None:
    """Wait until the service has computed the term at its position."""
    while True:
        try:
            urllib.request.urlopen(f"{service.url}/api0/current")
        except urllib.error.HTTPError as error:
            assert error.code == 503  # noqa: PT017 - any other status is an error
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def rounds(digits: int, quick: bool) -> int:
    return (3 if digits < LONG else 2) if quick else (5 if digits < LONG else 3)


@pytest.fixture
def loaded(digits: int, quick: bool) -> Loaded:
    """Return a function that returns a measurement: load a server, return seconds per request."""
    seconds, usual = (1.2, 16) if digits >= LONG else (0.4, 64)
    if quick:
        seconds /= 2

    def loaded(
        server: Server, *arguments: str, path: str = "/api0/current", connections: int = usual
    ) -> Callable[[], float]:
        url = server.url + ("/api0" if STEPS[1] in arguments else path)
        return partial(seconds_per_request, url, seconds, arguments, connections=connections)

    return loaded


@by_digits()
@pytest.mark.benchmark(group=STEP)
def bench_steps(
    benchmark: BenchmarkFixture, start: Start, loaded: Loaded, digits: int, rounds: int
) -> None:
    fsync, os_ = (start(POSITIONS[digits], "--durability", way) for way in ("fsync", "os"))
    with (
        yardstick("constant", digits) as constant,
        yardstick("constant_in_one_piece", digits) as in_one_piece,
        yardstick("grouped") as grouped,
    ):
        turns = {
            "yardstick constant body": loaded(constant, *STEPS),
            "fsync": loaded(fsync, *STEPS),
            "os": loaded(os_, *STEPS),
        }
        if digits >= IN_PIECES_FROM:
            turns["alternative constant body in one piece"] = loaded(in_one_piece, *STEPS)
        if digits == 10:
            turns["alternative a record and a sync for all"] = loaded(grouped, *STEPS)
        take_turns(benchmark, rounds, turns)
        for each in (constant, fsync):
            loaded(each, *STEPS, connections=64)()
        peaks = {
            "yardstick constant body": [peak_memory(constant.pid)],
            "fsync": [peak_memory(fsync.pid)],
        }
    record(benchmark, PEAK_MEMORY, peaks)


@by_digits()
@pytest.mark.benchmark(group=CURRENT)
def bench_current(
    benchmark: BenchmarkFixture, start: Start, loaded: Loaded, digits: int, rounds: int
) -> None:
    service = start(POSITIONS[digits])
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            rounds,
            {
                "yardstick constant body": loaded(constant),
                "current": loaded(service),
            },
        )


@pytest.mark.parametrize("digits", [10])
@pytest.mark.benchmark(group=STEP_OF_MANY)
def bench_steps_of_many(
    benchmark: BenchmarkFixture, start: Start, loaded: Loaded, digits: int, rounds: int
) -> None:
    # So far from 0 that steps in another order do not get there.
    service = start(2000)
    with yardstick("constant", digits) as constant, yardstick("grouped") as grouped:
        take_turns(
            benchmark,
            rounds,
            {
                "yardstick constant body": loaded(constant, *STEPS, connections=1000),
                "alternative a record and a sync for all": loaded(
                    grouped, *STEPS, connections=1000
                ),
                "fsync": loaded(service, *STEPS, connections=1000),
            },
        )


@pytest.mark.parametrize("digits", [10])
@pytest.mark.benchmark(group=STEP_OF_ONE)
def bench_steps_of_one(
    benchmark: BenchmarkFixture, start: Start, loaded: Loaded, digits: int, rounds: int
) -> None:
    service = start(POSITIONS[digits])
    with yardstick("synced") as synced:
        take_turns(
            benchmark,
            rounds,
            {
                "yardstick one sync and a constant body": loaded(synced, *STEPS, connections=1),
                "fsync": loaded(service, *STEPS, connections=1),
            },
        )


@pytest.mark.full
@pytest.mark.parametrize("digits", [10, 208_988, 2_089_877], ids=label)
@pytest.mark.benchmark(group="one term over a socket")
def bench_term(
    benchmark: BenchmarkFixture, start: Start, loaded: Loaded, digits: int, rounds: int
) -> None:
    service, n = start(0), POSITIONS[digits]
    plain_text = ("-H", "Accept: text/plain")
    path = f"/api1/terms/{n}"
    compute(service.url, n)
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            rounds,
            {
                "yardstick constant body": loaded(constant, *plain_text),
                "term": loaded(service, *plain_text, path=path),
            },
        )


@pytest.mark.full
@pytest.mark.benchmark(group=DURING_LARGE_TERM)
def bench_current_during_a_large_term(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Let service, load and computation share all cores, as on a machine with two."""
    # Computing this term takes longer than the load.
    n = 10 * Settings.max_term
    command = ("-m", "bigfib", "serve", "-p", "0", "-f", str(tmp_path / "log"))
    large_terms = ("--cache-dir", str(tmp_path / "cache"), "--max-term", str(n))
    with server(*command, *large_terms, cores=os.sched_getaffinity(0)) as service:
        term = f"{service.url}/api1/terms/{n}"

        def disturbing(measure: Callable[[], float]) -> float:
            assert urllib.request.urlopen(term).status == 202
            measured = measure()
            cancel = urllib.request.Request(f"{term}/job", method="DELETE")
            assert urllib.request.urlopen(cancel).status == 204
            return measured

        for group, measure in (
            (DURING_LARGE_TERM, seconds_per_request),
            (NEARLY_ALL, seconds_of_nearly_all),
        ):
            current = partial(measure, f"{service.url}/api0/current", 1.0, connections=16)
            alone, disturbed = [], []
            for _ in range(5):
                alone.append(current())
                disturbed.append(disturbing(current))
            costs = {"yardstick nothing else is computed": alone, "current": disturbed}
            record(benchmark, group, costs)
        # The measurements are done; the fixture only demands to be used.
        benchmark.pedantic(current, rounds=1)


@pytest.mark.full
@pytest.mark.benchmark(group=LARGE_TERM)
def bench_large_term(benchmark: BenchmarkFixture, start: Start, tmp_path: Path) -> None:
    service = start(0)
    term = f"{service.url}/api1/terms/{Settings.max_term}"
    compute(service.url, Settings.max_term)
    plain_text = ("-H", "Accept: text/plain")
    with yardstick("file", tmp_path / "cache" / f"{Settings.max_term}.digits") as file:
        measurements = {
            "yardstick a file": partial(seconds_per_request, file.url, 1, connections=2),
            "digits": partial(seconds_per_request, term, 1, plain_text, connections=2),
        }
        take_turns(benchmark, 3, measurements)
