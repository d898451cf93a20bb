"""What the state log costs, beside the bare system calls, and beside Python's own format."""

import itertools
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import APPEND
from bigfib.sequences import SHARED
from bigfib.state.log import Durability, Log
from bigfib.state.rewrite import REWRITE_BYTES

RECORD_SIZE = 20
BATCH = 64
SEQUENCES = 50_000


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
            log.append(SHARED, next(positions))
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
                log.append(SHARED, next(positions))
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


@pytest.mark.full
@pytest.mark.benchmark(group="replay of a log that is about to be rewritten")
def bench_replay(benchmark: BenchmarkFixture, path: Path) -> None:
    with Log(path, Durability.OS) as log:
        for position in range(10**6, 10**6 + REWRITE_BYTES // RECORD_SIZE - 1000):
            log.append(SHARED, position)
            log.commit()
    benchmark(lambda: Log(path).close())


@pytest.mark.full
@pytest.mark.benchmark(group="replay of a log that is about to be rewritten")
def bench_yardstick_unpickling(benchmark: BenchmarkFixture) -> None:
    records = [(SHARED, position, 20_000) for position in range(REWRITE_BYTES // RECORD_SIZE)]
    content = pickle.dumps(records)
    benchmark(lambda: dict(record[:2] for record in pickle.loads(content)))


@pytest.mark.full
@pytest.mark.benchmark(group=f"rewriting a log of {SEQUENCES:,} sequences")
def bench_rewrite(benchmark: BenchmarkFixture, path: Path) -> None:
    with Log(path, Durability.OS) as log:
        for number in range(SEQUENCES):
            log.append(number.to_bytes(16, "big"), 1000)
        benchmark(log.rewrite)


@pytest.mark.full
@pytest.mark.benchmark(group=f"rewriting a log of {SEQUENCES:,} sequences")
def bench_yardstick_pickling(benchmark: BenchmarkFixture, path: Path) -> None:
    latest = {number.to_bytes(16, "big"): 1000 for number in range(SEQUENCES)}

    def write() -> None:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            pickle.dump(latest, file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)

    benchmark(write)
