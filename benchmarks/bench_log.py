"""What a record in the state log costs, beside the bare system calls."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bigfib.state.log import Durability, Log

SHARED = b"shared"
RECORD_SIZE = 20


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.mark.benchmark(group="append")
def bench_append(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with Log(tmp_path / "state.log", Durability.OS) as log:
        positions = itertools.count(10**6)
        benchmark(lambda: log.append(SHARED, next(positions)))


@pytest.mark.benchmark(group="append")
def bench_yardstick_pwrite(benchmark: BenchmarkFixture, descriptor: int) -> None:
    offsets = itertools.count(step=RECORD_SIZE)
    record = bytes(RECORD_SIZE)
    benchmark(lambda: os.pwrite(descriptor, record, next(offsets)))


@pytest.mark.benchmark(group="append and commit")
def bench_append_and_commit(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with Log(tmp_path / "state.log") as log:
        positions = itertools.count(10**6)
        benchmark(lambda: log.commit(log.append(SHARED, next(positions))))


@pytest.mark.benchmark(group="append and commit")
def bench_yardstick_pwrite_and_fdatasync(benchmark: BenchmarkFixture, descriptor: int) -> None:
    offsets = itertools.count(step=RECORD_SIZE)
    record = bytes(RECORD_SIZE)

    def write_and_sync() -> None:
        os.pwrite(descriptor, record, next(offsets))
        os.fdatasync(descriptor)

    benchmark(write_and_sync)
