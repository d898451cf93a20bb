"""The decimal digits of far terms by doubling in decimal, beside GMP's term and conversion."""

import gmpy2
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bigfib import computation
from bigfib.numbers import doubling

# The longest takes seconds.
pytestmark = pytest.mark.benchmark(min_rounds=3, max_time=0.1)

by_index = pytest.mark.parametrize("n", [doubling.DOUBLING_FROM, 10**7, 3 * 10**7, 10**8])


@by_index
def bench_doubling(benchmark: BenchmarkFixture, n: int) -> None:
    benchmark.group = f"the digits of F({n:,})"
    assert benchmark(doubling.digits, n).isdigit()


@by_index
def bench_on_two_cores(benchmark: BenchmarkFixture, n: int) -> None:
    benchmark.group = f"the digits of F({n:,})"
    assert benchmark(computation.digits, n, lambda _: None).isdigit()


@by_index
def bench_yardstick_gmp(benchmark: BenchmarkFixture, n: int) -> None:
    benchmark.group = f"the digits of F({n:,})"
    assert benchmark(lambda: gmpy2.fib(n).digits()).isdigit()
