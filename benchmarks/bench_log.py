"""Measure the state log, compared with bare system calls; `bench_large_log` measures opening."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import APPEND
from bigfib.sequences import SHARED
from bigfib.state.log import Durability, Log

RECORD_SIZE = 20
BATCH = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.log"


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.mark.benchmark(group=APPEND)
def bench_append(benchmark: BenchmarkFixture, path: Path) -> None:
    with Log(path, Durability.OS) as log:
        positions = itertools.count(10**6)

        def append() -> None:
            log.note(SHARED, next(positions))
            log.commit()

        benchmark(append)


@pytest.mark.benchmark(group=APPEND)
def bench_yardstick_pwrite(benchmark: BenchmarkFixture, descriptor: int) -> None:
    offsets = itertools.count(step=RECORD_SIZE)
    record = bytes(RECORD_SIZE)
    benchmark(lambda: os.pwrite(descriptor, record, next(offsets)))


@pytest.mark.benchmark(group="append and commit")
@pytest.mark.parametrize("appends", [1, BATCH])
def bench_append_and_commit(benchmark: BenchmarkFixture, path: Path, appends: int) -> None:
    with Log(path) as log:
        positions = itertools.count(10**6)

        def batch() -> None:
            for _ in range(appends):
                log.note(SHARED, next(positions))
            log.commit()

        benchmark(batch)


@pytest.mark.benchmark(group="append and commit")
@pytest.mark.parametrize("appends", [1, BATCH])
def bench_yardstick_pwrite_and_fdatasync(
    benchmark: BenchmarkFixture, descriptor: int, appends: int
) -> None:
    offsets = itertools.count(step=RECORD_SIZE)
    record = bytes(RECORD_SIZE)

    def batch() -> None:
        for _ in range(appends):
            os.pwrite(descriptor, record, next(offsets))
        os.fdatasync(descriptor)

    benchmark(batch)
