"""The decimal digits of a far term, by doubling in decimal arithmetic.

To convert a long binary number to decimal costs six times as much as the term itself. Python's
``decimal`` (libmpdec) multiplies long decimal numbers by exact number-theoretic transforms, and
writes them out in linear time, so that no conversion is needed. Beside ``gmpy2.fib(n).digits()``,
measured on one core: 0.8 times as fast at 10^6, 1.4 times at 10^7, 1.55 times at 10^8, 1.7 times at
2 * 10^8, with a sixth more memory. Its transforms grow in steps, of a factor of 4/3 and 3/2: behind
each (3.0, 6.0, 12 million) it gains least.

Compared, at 10^8 against GMP: F and L (Lucas) by a product and a square, 1.43; F(n) and F(n-1) by
two squares, as here, 1.55; with the squares in two processes, 1.87.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import gmpy2

from bigfib.numbers.fibonacci import MAX_INDEX, term

DOUBLING_FROM: Final = 6_500_000
"""From this index on doubling is faster than GMP: 0.93 times as fast just below, 1.1 above."""

_EXACT: Final = decimal.Context(
    prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact]
)

# As far as this GMP is faster, whatever follows.
_START_BITS: Final = 13

SQUARES_APART_FROM: Final = 12_000_000
"""From this index on two squares gain by being computed at the same time in two processes.

Measured with the last two doublings apart: nothing gained or lost at 2 * 10^7, a tenth at 5 * 10^7.
"""

Squares = Callable[[Decimal, Decimal], tuple[Decimal, Decimal]]
"""What computes the squares of two numbers."""


def square(number: Decimal) -> Decimal:
    """Return the square, exactly."""
    return _EXACT.multiply(number, number)


def digits(
    n: int, report: Callable[[float], None] = lambda _: None, apart: Squares | None = None
) -> str:
    """Return the decimal digits of F(n), for n >= 0.

    F(2k-1) = F(k)^2 + F(k-1)^2 and F(2k+1) = 4 F(k)^2 - F(k-1)^2 + 2 (-1)^k, and F(2k) is their
    difference; so does GMP (The GNU MP manual, "Fibonacci Numbers Algorithm").

    Args:
        n: The index.
        report: Is told how much of the work is done, from 0 to 1.
        apart: What computes the squares of long numbers, if there is a second core for it.

    Raises:
        IndexTooLarge: as `fibonacci.term`.
        MemoryError: there is not enough memory; where GMP is faster, the process is aborted.
    """
    if not DOUBLING_FROM <= n <= MAX_INDEX:
        text: str = term(n).digits()
        return text
    rounds = n.bit_length() - _START_BITS
    k = n >> rounds
    this, before = (Decimal(int(number)) for number in gmpy2.fib2(k))
    while rounds:
        rounds -= 1
        bit = n >> rounds & 1
        twice = Decimal(-2 if k % 2 else 2)
        if apart and k >= SQUARES_APART_FROM:
            this, before = _doubled(*apart(this, before), bit, twice)
        elif rounds:
            this, before = _doubled(square(this), square(before), bit, twice)
        else:
            this = _last(this, before, bit, twice)
        k = 2 * k + bit
        # Each doubling costs about as much as all before it.
        report(k / n)
    return str(this)


def _doubled(this: Decimal, before: Decimal, bit: int, twice: Decimal) -> tuple[Decimal, Decimal]:
    """Return F(2k + bit) and the term before it, from F(k)^2, F(k-1)^2 and 2 (-1)^k."""
    double = _EXACT.add(this, this)
    above = _EXACT.add(_EXACT.subtract(_EXACT.add(double, double), before), twice)
    below = _EXACT.add(this, before)
    even = _EXACT.subtract(above, below)
    return (above, even) if bit else (even, below)


def _last(this: Decimal, before: Decimal, bit: int, twice: Decimal) -> Decimal:
    """Return F(2k + bit) alone by one product, which takes 3/4 of the time of two squares."""
    if bit:
        double = _EXACT.add(this, this)
        product = _EXACT.multiply(_EXACT.add(double, before), _EXACT.subtract(double, before))
        return _EXACT.add(product, twice)
    return _EXACT.multiply(this, _EXACT.add(this, _EXACT.add(before, before)))
