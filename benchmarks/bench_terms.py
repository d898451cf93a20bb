"""Measure the most expensive requests that the limits allow: none may take much over 20 ms.

They are compared with a term at the inline limit and its digits.
"""

from collections.abc import Callable

import pytest
from gmpy2 import mpz
from pytest_benchmark.fixture import BenchmarkFixture

from bigfib import terms
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import MAX_INDEX_DIGITS
from bigfib.terms import INLINE_LIMIT, MAX_ENDS, MAX_MODULUS_DIGITS, MAX_RESIDUE_WORK

pytestmark = pytest.mark.full

LONGEST = mpz("7" * MAX_INDEX_DIGITS)
"""The longest index."""

SQUARE = mpz("7" * (MAX_RESIDUE_WORK // MAX_MODULUS_DIGITS))
"""The longest index that is allowed with the longest modulus."""

# Computed by another function than the measured one, whose cache must not have it.
VALUE = fibonacci.term(INLINE_LIMIT).digits()

DEAREST: dict[str, Callable[[], object]] = {
    "term, base 3": lambda: fibonacci.term(INLINE_LIMIT).digits(3),
    "term, base 62": lambda: fibonacci.term(INLINE_LIMIT).digits(62),
    "term, octets": lambda: terms.octets(mpz(INLINE_LIMIT)),
    "its length": lambda: terms.length(mpz(INLINE_LIMIT), 3, (b"", b"")),
    "index of its value": lambda: terms.indices(VALUE, lambda n: terms.text.__wrapped__(mpz(n))),
    "pair to step from": lambda: DecimalPair(INLINE_LIMIT),
    "summary of the longest index, not the first": lambda: terms.summary(LONGEST, MAX_ENDS),
    "residue of the longest index": lambda: fibonacci.residue(
        LONGEST, mpz("9" * (MAX_RESIDUE_WORK // MAX_INDEX_DIGITS))
    ),
    "residue by the longest modulus": lambda: fibonacci.residue(
        SQUARE, mpz("9" * MAX_MODULUS_DIGITS)
    ),
}


@pytest.mark.benchmark(group="the dearest requests")
@pytest.mark.parametrize("what", DEAREST)
def bench_at_the_limit(benchmark: BenchmarkFixture, what: str) -> None:
    benchmark(DEAREST[what])


@pytest.mark.benchmark(group="the dearest requests")
def bench_yardstick_term_in_base_10(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: fibonacci.term(INLINE_LIMIT).digits())
