"""Measure a step and its digits as the numbers grow, compared with simpler programs."""

import decimal
import itertools
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal

import gmpy2
import pytest
from flint import fmpz
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import STEP_ALONE, STEP_AND_DIGITS
from benchmarks.sizes import POSITIONS, by_digits
from bigfib.numbers import kernel
from bigfib.numbers.decimals import DecimalPair

# The time of ``str`` of an int grows with the square of its length: half a second at 209 thousand
# digits, most of a minute at two million (CPython 3.11).
LONGEST_INT = 100_000


def measure_step(benchmark: BenchmarkFixture, digits: int) -> None:
    pair = DecimalPair(POSITIONS[digits])
    steps = to_and_fro(pair)

    def step() -> bytes:
        next(steps)
        return pair.digits()

    assert benchmark(step).isdigit()


def to_and_fro(pair: DecimalPair) -> Iterator[None]:
    """Step forward and back alternately, so that the numbers do not grow with the rounds."""
    for step in itertools.cycle([pair.forward, pair.back]):
        yield step()


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "load", lambda: None)


@by_digits()
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_step(benchmark: BenchmarkFixture, digits: int) -> None:
    """Step as the service does: by the kernel, if there is one and the terms are long."""
    measure_step(benchmark, digits)


@by_digits()
@pytest.mark.usefixtures("without_kernel")
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_step_without_kernel(benchmark: BenchmarkFixture, digits: int) -> None:
    measure_step(benchmark, digits)


@by_digits()
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_yardstick_gmpy2(benchmark: BenchmarkFixture, digits: int) -> None:
    this, previous = gmpy2.fib2(POSITIONS[digits])
    measure_sum(benchmark, lambda: (this + previous).digits())


@by_digits()
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_alternative_flint(benchmark: BenchmarkFixture, digits: int) -> None:
    this, following = (fmpz.fib_ui(fmpz(POSITIONS[digits] + more)) for more in (0, 1))
    measure_sum(benchmark, lambda: (this + following).str(base=10))


@by_digits()
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_alternative_decimal(benchmark: BenchmarkFixture, digits: int) -> None:
    exact = decimal.Context(
        prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact]
    )
    this, previous = (Decimal(number.digits()) for number in gmpy2.fib2(POSITIONS[digits]))
    measure_sum(benchmark, lambda: str(exact.add(this, previous)))


@by_digits(LONGEST_INT)
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_alternative_int(benchmark: BenchmarkFixture, digits: int) -> None:
    this, previous = map(int, gmpy2.fib2(POSITIONS[digits]))
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        measure_sum(benchmark, lambda: str(this + previous))
    finally:
        sys.set_int_max_str_digits(limit)


@by_digits()
@pytest.mark.benchmark(group=STEP_AND_DIGITS)
def bench_alternative_copy_of_the_digits(benchmark: BenchmarkFixture, digits: int) -> None:
    text = bytearray(DecimalPair(POSITIONS[digits]).digits())
    assert benchmark(bytes, text).isdigit()


def measure_sum(benchmark: BenchmarkFixture, add: Callable[[], str]) -> None:
    assert benchmark(add).isdigit()


@by_digits()
@pytest.mark.benchmark(group=STEP_ALONE)
def bench_step_alone(benchmark: BenchmarkFixture, digits: int) -> None:
    benchmark(next, to_and_fro(DecimalPair(POSITIONS[digits])))


@pytest.mark.full
@by_digits()
@pytest.mark.usefixtures("without_kernel")
@pytest.mark.benchmark(group=STEP_ALONE)
def bench_step_alone_without_kernel(benchmark: BenchmarkFixture, digits: int) -> None:
    benchmark(next, to_and_fro(DecimalPair(POSITIONS[digits])))


@by_digits()
@pytest.mark.benchmark(group=STEP_ALONE)
def bench_yardstick_gmpy2_alone(benchmark: BenchmarkFixture, digits: int) -> None:
    this, previous = gmpy2.fib2(POSITIONS[digits])
    assert benchmark(lambda: this + previous) > this
