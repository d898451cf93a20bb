"""What it costs a step that requests are counted; see `benchmarks.uncounted`."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import uncounted
from benchmarks.bench_requests import Exchange
from benchmarks.groups import COUNTED, COUNTED_WITHOUT_SOCKET
from benchmarks.load import STEPS, Server, record, seconds_per_request, server, take_turns
from bigfib.api.app import create_app
from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs
from bigfib.sequences import Sequences
from bigfib.state.log import Durability, Log
from bigfib.terms import INLINE_LIMIT

ROUNDS, STEPS_A_ROUND = 50, 500


def bench_next_counted(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """By two applications over one log, in turns."""
    jobs = Jobs(DigitCache(tmp_path / "cache", 0), INLINE_LIMIT)
    with Log(tmp_path / "state.log", Durability.OS) as log, closing(jobs):
        sequences = Sequences(log)
        apps = {
            "yardstick not counted": uncounted.create_app(log, sequences, jobs, per_client=False),
            "next": create_app(log, sequences, jobs, per_client=False),
        }
        costs: dict[str, list[float]] = {name: [] for name in apps}

        def one_round() -> None:
            for name, app in apps.items():
                step, back = Exchange(app, "/api0/next"), Exchange(app, "/api0/previous")
                began = perf_counter()
                for _ in range(STEPS_A_ROUND):
                    step()
                costs[name].append((perf_counter() - began) / STEPS_A_ROUND)
                # So that numbers keep their length.
                for _ in range(STEPS_A_ROUND):
                    back()

        benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    record(benchmark, COUNTED_WITHOUT_SOCKET, costs)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[dict[str, Server]]:
    """A service that counts, and one that does not."""
    with ExitStack() as stack:

        def start(name: str, *command: str | Path) -> Server:
            file = str(tmp_path / f"{name}.log")
            options = ("-p", "0", "-f", file, "--durability", "os")
            return stack.enter_context(server(*command, *options))

        yield {
            "yardstick not counted": start("uncounted", "-m", "benchmarks.uncounted"),
            "next": start("counted", "-m", "bigfib", "serve"),
        }


@pytest.mark.usefixtures("load_generator")
def bench_next_counted_over_a_socket(
    benchmark: BenchmarkFixture, services: dict[str, Server], quick: bool
) -> None:
    take_turns(
        benchmark,
        COUNTED,
        # It is to be told from 3 % more, and one round from the next differs by more than that.
        5 if quick else 31,
        {
            name: partial(seconds_per_request, service.url, 0.3, *STEPS)
            for name, service in services.items()
        },
    )
