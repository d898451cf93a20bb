"""What a far term costs: to compute, to convert and to keep. For sending it, see `bench_socket`.

Read against GMP's term and its conversion.
"""

import io
from pathlib import Path

import gmpy2
import pytest
from flint import fmpz
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import FAR_DIGITS
from bigfib.digit_cache import DigitCache, holds_term
from bigfib.numbers import doubling, kernel

KEPT = 10**7

by_index = pytest.mark.parametrize(
    "n",
    [
        doubling.DOUBLING_FROM,
        10**7,
        pytest.param(3 * 10**7, marks=pytest.mark.full),
        pytest.param(10**8, marks=pytest.mark.full),
    ],
)


def rounds(n: int) -> int:
    """Return how often to measure; what takes seconds is steady enough."""
    return 3 if n < 10**8 else 1


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_doubling(benchmark: BenchmarkFixture, n: int) -> None:
    assert benchmark.pedantic(doubling.digits, (n,), rounds=rounds(n)).isdigit()


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_kernel(benchmark: BenchmarkFixture, n: int) -> None:
    benchmark.pedantic(by_kernel, (n, 1), rounds=rounds(n))


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_kernel_on_two_cores(benchmark: BenchmarkFixture, n: int) -> None:
    benchmark.pedantic(by_kernel, (n, 2), rounds=rounds(n))


def by_kernel(n: int, threads: int) -> int:
    found = kernel.load()
    if found is None:
        pytest.skip(kernel.description())
    return len(doubling.digits_by_kernel(found, n, threads))


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_alternative_flint(benchmark: BenchmarkFixture, n: int) -> None:
    digits = benchmark.pedantic(lambda: fmpz.fib_ui(fmpz(n)).str(base=10), rounds=rounds(n))
    assert digits.isdigit()


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_yardstick_mpz(benchmark: BenchmarkFixture, n: int) -> None:
    assert benchmark.pedantic(lambda: gmpy2.fib(n).digits(), rounds=rounds(n)).isdigit()


@by_index
@pytest.mark.benchmark(group=FAR_DIGITS)
def bench_alternative_mpz_without_digits(benchmark: BenchmarkFixture, n: int) -> None:
    assert benchmark.pedantic(gmpy2.fib, (n,), rounds=rounds(n)) > 0


@pytest.fixture(scope="module")
def digits() -> str:
    return doubling.digits(KEPT)


@pytest.mark.full
@pytest.mark.benchmark(group=f"to keep the digits of F({KEPT:,})")
def bench_store(benchmark: BenchmarkFixture, tmp_path: Path, digits: str) -> None:
    cache = DigitCache(tmp_path / "cache", 1 << 30)
    benchmark.pedantic(cache.store, (KEPT, digits), rounds=5)


@pytest.mark.full
@pytest.mark.benchmark(group=f"to keep the digits of F({KEPT:,})")
def bench_check(benchmark: BenchmarkFixture, digits: str, tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_text(digits)
    with path.open("rb") as file:

        def check() -> bool:
            file.seek(0, io.SEEK_SET)
            return holds_term(file, KEPT)

        assert benchmark.pedantic(check, rounds=5)


@pytest.mark.full
@pytest.mark.benchmark(group=f"to keep the digits of F({KEPT:,})")
def bench_yardstick_reading_as_mpz(benchmark: BenchmarkFixture, digits: str) -> None:
    assert benchmark.pedantic(gmpy2.mpz, (digits,), rounds=5) > 0
