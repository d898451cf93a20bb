"""What a whole request costs over a socket: the server on one core, wrk on another, taking turns.

Read against the limit, the same server with an application that sends a constant body of the same
length; with one digit, that is a bare bjoern application.
"""

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load import (
    STEPS,
    Server,
    peak_memory,
    record,
    seconds_per_request,
    server,
    take_turns,
    yardstick,
)
from benchmarks.sizes import POSITIONS, by_digits
from bigfib.sequences import SHARED
from bigfib.state.log import Log

pytestmark = pytest.mark.usefixtures("load_generator")

STEP = "one step over a socket, 64 connections"
CURRENT = "current over a socket, 64 connections"
HOW_FAR = "one connection from 0"
PEAK_MEMORY = "peak memory, 64 connections"

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start services, each with a log of its own that stands at a position."""
    with ExitStack() as stack:

        def start(position: int, *arguments: str) -> Server:
            file = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            with Log(file) as log:
                log.append(SHARED, position)
            command = ("-m", "bigfib", "serve", "-p", "0", "-f", str(file))
            cache = ("--cache-dir", str(tmp_path / "cache"))
            return stack.enter_context(server(*command, *cache, *arguments))

        yield start


@by_digits()
def bench_steps(benchmark: BenchmarkFixture, start: Start, digits: int, quick: bool) -> None:
    fsync, os_ = (start(POSITIONS[digits], "--durability", way) for way in ("fsync", "os"))
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            STEP,
            3 if quick else 5,
            {
                "yardstick constant body": loaded(constant, digits, *STEPS),
                "fsync": loaded(fsync, digits, *STEPS),
                "os": loaded(os_, digits, *STEPS),
            },
        )
        peaks = {
            "yardstick constant body": [peak_memory(constant.pid)],
            "fsync": [peak_memory(fsync.pid)],
        }
    record(benchmark, PEAK_MEMORY, peaks)


@by_digits()
def bench_current(benchmark: BenchmarkFixture, start: Start, digits: int, quick: bool) -> None:
    service = start(POSITIONS[digits])
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            CURRENT,
            3 if quick else 5,
            {
                "yardstick constant body": loaded(constant, digits),
                "current": loaded(service, digits),
            },
        )


@pytest.mark.parametrize("digits", [10])
def bench_steps_of_many(
    benchmark: BenchmarkFixture, start: Start, digits: int, quick: bool
) -> None:
    # So far from 0 that those who come out of turn do not get there.
    service = start(2000)
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            "one step over a socket, 1000 connections",
            3 if quick else 5,
            {
                "yardstick constant body": loaded(constant, digits, *STEPS, connections=1000),
                "fsync": loaded(service, digits, *STEPS, connections=1000),
            },
        )


@pytest.mark.parametrize("digits", [10])
def bench_steps_of_one(benchmark: BenchmarkFixture, start: Start, digits: int, quick: bool) -> None:
    service = start(POSITIONS[digits])
    with yardstick("synced") as synced:
        take_turns(
            benchmark,
            "one step over a socket, 1 connection",
            3 if quick else 5,
            {
                "yardstick one sync and a constant body": loaded(
                    synced, digits, *STEPS, connections=1
                ),
                "fsync": loaded(service, digits, *STEPS, connections=1),
            },
        )


@by_digits()
def bench_term(benchmark: BenchmarkFixture, start: Start, digits: int) -> None:
    service, n = start(0), POSITIONS[digits]
    plain_text = ("-H", "Accept: text/plain")
    url = f"{service.url}/api1/terms/{n}"
    while urllib.request.urlopen(url).status == 202:
        time.sleep(0.05)
    with yardstick("constant", digits) as constant:
        take_turns(
            benchmark,
            "one term over a socket, 64 connections",
            3,
            {
                "yardstick constant body": loaded(constant, digits, *plain_text),
                "term": partial(seconds_per_request, url, duration(digits), *plain_text),
            },
        )


def bench_how_far(benchmark: BenchmarkFixture, start: Start, quick: bool) -> None:
    seconds = 2 if quick else 10
    services = {way: start(0, "--durability", way) for way in ("fsync", "os")}
    with yardstick("plain") as plain:
        urls = {"yardstick mpz without a log": plain.url}
        urls |= {way: f"{service.url}/api0/next" for way, service in services.items()}
        take_turns(
            benchmark,
            f"{HOW_FAR} in {seconds} s",
            1,
            {
                way: partial(seconds_per_request, url, seconds, connections=1)
                for way, url in urls.items()
            },
        )


def duration(digits: int) -> float:
    """Return how many seconds to load a server; of long bodies there are few a second."""
    return 0.4 if digits < 1_000_000 else 1


def loaded(
    server: Server, digits: int, *arguments: str, connections: int = 64
) -> Callable[[], float]:
    """Return what loads the server and returns the seconds that one request takes."""
    return partial(
        seconds_per_request,
        f"{server.url}/api0/current",
        duration(digits),
        *arguments,
        connections=connections,
    )
