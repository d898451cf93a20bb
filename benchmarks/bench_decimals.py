"""What a step and its digits cost as the numbers grow, beside adding and converting by GMP."""

import itertools

import gmpy2
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bigfib.numbers.decimals import DecimalPair

# By the digits of their terms.
POSITIONS = {"10": 48, "1k": 4785, "209k": 10**6, "1M": 4_784_972}

by_digits = pytest.mark.parametrize(
    ("digits", "position"), POSITIONS.items(), ids=[f"{digits} digits" for digits in POSITIONS]
)


@by_digits
def bench_packed_decimal(benchmark: BenchmarkFixture, digits: str, position: int) -> None:
    benchmark.group = f"one step and its digits, at {digits} digits"
    pair = DecimalPair(position)
    # To and fro, so that the numbers do not grow with the rounds.
    steps = itertools.cycle([pair.forward, pair.back])

    def step() -> bytes:
        next(steps)()
        return pair.digits()

    assert benchmark(step).isdigit()


@by_digits
def bench_yardstick_gmp(benchmark: BenchmarkFixture, digits: str, position: int) -> None:
    benchmark.group = f"one step and its digits, at {digits} digits"
    this, previous = gmpy2.fib2(position)

    def step() -> str:
        text: str = (this + previous).digits()
        return text

    assert benchmark(step).isdigit()
