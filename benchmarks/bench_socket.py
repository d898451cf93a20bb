"""What a whole request costs over a socket: the server on one core, wrk on another, taking turns.

Read against the limit, a bjoern application that sends a constant body of the same length; at ten
digits that is a bare bjoern application.
"""

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import CURRENT, HOW_FAR, PEAK_MEMORY, STEP, STEP_OF_MANY, STEP_OF_ONE
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
from benchmarks.yardsticks import IN_PIECES_FROM
from bigfib.numbers.fibonacci import digit_count
from bigfib.sequences import SHARED
from bigfib.state.log import Log

pytestmark = pytest.mark.usefixtures("load_generator")

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
    with (
        yardstick("constant", digits) as constant,
        yardstick("constant_in_one_piece", digits) as in_one_piece,
    ):
        turns = {
            "yardstick constant body": loaded(constant, digits, *STEPS),
            "fsync": loaded(fsync, digits, *STEPS),
            "os": loaded(os_, digits, *STEPS),
        }
        if digits >= IN_PIECES_FROM:
            turns["alternative constant body in one piece"] = loaded(in_one_piece, digits, *STEPS)
        take_turns(benchmark, STEP, 3 if quick else 5, turns)
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
            STEP_OF_MANY,
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
            STEP_OF_ONE,
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
    group = f"{HOW_FAR}, {seconds} s"
    services = {way: start(0, "--durability", way) for way in ("fsync", "os")}
    with yardstick("plain") as plain:
        urls = {"yardstick mpz without a log": f"{plain.url}/"}
        urls |= {way: f"{service.url}/api0/next" for way, service in services.items()}
        measurements = {
            way: partial(seconds_per_request, url, seconds, connections=1)
            for way, url in urls.items()
        }
        take_turns(benchmark, group, 1, measurements)
    benchmark.extra_info["seconds"] = seconds
    benchmark.extra_info["digits"] = {
        way: int(digit_count(round(seconds / cost)))
        for way, (cost,) in benchmark.extra_info["turns"][group].items()
    }


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
