"""Measure a log of a million sequences: opening it, and appending while it is compacted.

These are compared with unpickling a dictionary of the same content, and with syncing one page.
"""

import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import MEMORY
from benchmarks.load import peak_memory, record
from bigfib.sequences import SHARED
from bigfib.state.log import Durability, Log

pytestmark = pytest.mark.full

SEQUENCES = 1_000_000

Result = TypeVar("Result")


def bench_large_log(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = tmp_path / "state.log"
    in_a_process(build, path)
    loaded, peak_loaded = in_a_process(unpickle, path)
    opened, peak_opened, appends, sync = benchmark.pedantic(in_a_process, (open_and_append, path))
    what = f"a log of {SEQUENCES:,} sequences"
    record(benchmark, f"to open {what}", {"yardstick unpickling": [loaded], "log": [opened]})
    record(
        benchmark,
        f"{MEMORY} of {what}",
        {"yardstick unpickling": [peak_loaded], "log": [peak_opened]},
    )
    record(
        benchmark,
        f"the longest append while rewriting {what}",
        {"yardstick one sync": [sync], "append": [max(appends)]},
    )


def in_a_process(measure: Callable[[Path], Result], path: Path) -> Result:
    """Measure in a new process, whose peak memory is that of the measurement."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, path).result()


def build(path: Path) -> None:
    """Write the longest log for its sequences: with more records, opening would compact it."""
    with Log(path, Durability.OS, rewrite_bytes=1 << 40) as log:
        for position in (1000, 1001, 1002):
            for number in range(SEQUENCES):
                log.note(number.to_bytes(16, "big"), position)
            log.commit()
        path.with_name("pickle").write_bytes(pickle.dumps(log.latest))


def unpickle(path: Path) -> tuple[float, int]:
    """Unpickle the dictionary; return the seconds that this takes, and the peak memory."""
    with path.with_name("pickle").open("rb") as file:
        begin = time.perf_counter()
        latest = pickle.load(file)
        seconds = time.perf_counter() - begin
    assert len(latest) == SEQUENCES
    return seconds, peak_memory("self")


def open_and_append(path: Path) -> tuple[float, int, list[float], float]:
    """Return the seconds of opening, the peak memory, the seconds of each append, and of a sync."""
    begin = time.perf_counter()
    log = Log(path, Durability.OS, rewrite_bytes=path.stat().st_size)
    opened = time.perf_counter() - begin
    peak = peak_memory("self")
    assert len(log.latest) == SEQUENCES
    inode = path.stat().st_ino
    appends: list[float] = []
    while path.stat().st_ino == inode:
        begin = time.perf_counter()
        log.note(SHARED, len(appends))
        log.commit()
        appends.append(time.perf_counter() - begin)
    log.close()
    return opened, peak, appends, one_sync(path.with_name("page"))


def one_sync(path: Path) -> float:
    """Return the median time of a sync, in seconds."""
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(21):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return median(times)
