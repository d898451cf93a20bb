"""Measure large terms: computing, converting and storing; `bench_socket` measures sending.

They are compared with GMP's term and its conversion.
"""

import io
from collections.abc import Callable
from pathlib import Path

import gmpy2
import pytest
from flint import fmpz
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import LARGE_DIGITS
from bigfib.digit_cache import DigitCache, holds_term
from bigfib.numbers import doubling, kernel

KEPT = 10**7
TO_KEEP = f"to keep the digits of F({KEPT:,})"

by_index = pytest.mark.parametrize(
    "n",
    [
        pytest.param(doubling.DOUBLING_FROM, marks=pytest.mark.full),
        10**7,
        pytest.param(3 * 10**7, marks=pytest.mark.full),
        pytest.param(10**8, marks=pytest.mark.full),
    ],
)


def measure(benchmark: BenchmarkFixture, n: int, compute: Callable[[], object]) -> None:
    # A measurement that takes seconds needs few rounds.
    assert benchmark.pedantic(compute, rounds=3 if n < 10**8 else 1)


def measure_kernel(benchmark: BenchmarkFixture, n: int, threads: int) -> None:
    found = kernel.load()
    if found is None:
        pytest.skip(kernel.description())
    measure(benchmark, n, lambda: len(doubling.digits_by_kernel(found, n, threads)))


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_kernel(benchmark: BenchmarkFixture, n: int) -> None:
    measure_kernel(benchmark, n, 1)


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_kernel_on_two_cores(benchmark: BenchmarkFixture, n: int) -> None:
    measure_kernel(benchmark, n, 2)


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_without_kernel(benchmark: BenchmarkFixture, n: int) -> None:
    """Compute by `decimal`."""
    measure(benchmark, n, lambda: doubling.digits(n))


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_alternative_flint(benchmark: BenchmarkFixture, n: int) -> None:
    measure(benchmark, n, lambda: fmpz.fib_ui(fmpz(n)).str(base=10))


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_yardstick_gmpy2(benchmark: BenchmarkFixture, n: int) -> None:
    measure(benchmark, n, lambda: gmpy2.fib(n).digits())


@by_index
@pytest.mark.benchmark(group=LARGE_DIGITS)
def bench_alternative_gmpy2_without_digits(benchmark: BenchmarkFixture, n: int) -> None:
    measure(benchmark, n, lambda: gmpy2.fib(n))


@pytest.fixture(scope="module")
def digits() -> str:
    return doubling.digits(KEPT)


@pytest.mark.full
@pytest.mark.benchmark(group=TO_KEEP)
def bench_store(benchmark: BenchmarkFixture, tmp_path: Path, digits: str) -> None:
    cache = DigitCache(tmp_path / "cache", 1 << 30)
    benchmark.pedantic(cache.store, (KEPT, digits), rounds=5)


@pytest.mark.full
@pytest.mark.benchmark(group=TO_KEEP)
def bench_check(benchmark: BenchmarkFixture, digits: str, tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_text(digits)
    with path.open("rb") as file:

        def check() -> bool:
            file.seek(0, io.SEEK_SET)
            return holds_term(file, KEPT)

        assert benchmark.pedantic(check, rounds=5)


@pytest.mark.full
@pytest.mark.benchmark(group=TO_KEEP)
def bench_yardstick_reading_as_mpz(benchmark: BenchmarkFixture, digits: str) -> None:
    assert benchmark.pedantic(gmpy2.mpz, (digits,), rounds=5) > 0
