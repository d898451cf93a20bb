"""Compute the decimal digits of a large term by doubling in decimal arithmetic.

Converting a long binary number to decimal takes six times as long as computing it. Both functions
here multiply decimal numbers, so that nothing has to be converted: `digits_by_kernel` in C, and
without the kernel `digits` with Python's ``decimal``, which multiplies by exact number-theoretic
transforms and writes text in linear time.

Compared with ``gmpy2.fib(n).digits()`` on one core, ``decimal`` is 0.8 times as fast at 10^6, 1.4
times at 10^7, 1.5 to 1.8 times at 10^8 (from run to run), with a sixth more memory. Its transforms
grow in steps by a factor of 4/3 or 3/2; it gains least just after a step (3.0, 6.0, 12 million).

Two formulas compared in one run at 10^8, in the same unit: F and L (Lucas) by a product and a
square, 1.43; F(n) and F(n-1) by two squares, as here, 1.55.
"""

import decimal
import os
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import gmpy2
from gmpy2 import mpz

from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import MAX_INDEX, term
from bigfib.numbers.kernel import EVEN, LIMB_DIGITS, ODD, Kernel, Number, Products

DOUBLING_FROM: Final = 6_500_000
"""Index from which ``decimal`` is faster than GMP: 0.93 times as fast just below, 1.1 above."""

_EXACT: Final = decimal.Context(
    prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact]
)

# Bits of the index up to which GMP is faster for the first terms.
_START_BITS: Final = 13


def digits(n: int, report: Callable[[float], None] = lambda _: None) -> str:
    """Return the decimal digits of F(n), n >= 0, computed by ``decimal`` or GMP.

    F(2k-1) = F(k)^2 + F(k-1)^2 and F(2k+1) = 4 F(k)^2 - F(k-1)^2 + 2 (-1)^k, and F(2k) is their
    difference, as in GMP (The GNU MP manual, "Fibonacci Numbers Algorithm").

    ``report`` is called with the share of the work that is done, from 0 to 1.

    Raises:
        IndexTooLarge: As `fibonacci.term`.
        MemoryError: There is not enough memory; below `DOUBLING_FROM` GMP aborts the process.
    """
    if not DOUBLING_FROM <= n <= MAX_INDEX:
        number = term(n)
        # The conversion takes six times as long.
        report(1 / 7)
        text: str = number.digits()
        return text
    rounds = n.bit_length() - _START_BITS
    k = n >> rounds
    this, before = (Decimal(int(number)) for number in gmpy2.fib2(k))
    while rounds:
        rounds -= 1
        bit = n >> rounds & 1
        twice = Decimal(-2 if k % 2 else 2)
        if rounds:
            squares = _EXACT.multiply(this, this), _EXACT.multiply(before, before)
            this, before = _doubled(*squares, bit, twice)
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


# Bits of the index up to which GMP is faster than the kernel.
_KERNEL_START_BITS: Final = 17

# Terms grow by log10(phi) digits with each index.
_DIGITS_AN_INDEX: Final = 0.20898764024997874

_CHECK_BITS: Final = 61

# Measured at 10^7 .. 10^9: the share of the work that the products take; the check and writing the
# digits take the rest.
_PRODUCTS: Final = 0.94


class WrongResult(Exception):
    """A result contradicts the recurrence, because the hardware is at fault."""


def digits_by_kernel(
    kernel: Kernel, n: int, threads: int = 1, report: Callable[[float], None] = lambda _: None
) -> memoryview:
    """Return the decimal digits of F(n) in ASCII, for n >= 0, computed by the C kernel.

    F(2k) = F(k) (F(k) + 2 F(k-1)), F(2k-1) = F(k)^2 + F(k-1)^2, F(2k+1) = F(2k) + F(2k-1).
    The result is compared with the recurrence modulo two random primes. At most three threads have
    work to do. ``report`` is called as by `digits`.

    Raises:
        IndexTooLarge: As `fibonacci.term`.
        MemoryError: There is not enough memory.
        WrongResult: The processor or the memory is at fault.
    """
    fibonacci.require_computable(n)
    rounds = n.bit_length() - _KERNEL_START_BITS
    if rounds <= 0:
        return memoryview(term(n).digits().encode())
    this, before = (number.digits().encode() for number in gmpy2.fib2(n >> rounds))
    # For each round: the limbs of its result, or up to three more, and how many rounds follow.
    steps = [
        (2 * (int((n >> left + 1) * _DIGITS_AN_INDEX) // LIMB_DIGITS) + 3, left)
        for left in range(rounds - 1, -1, -1)
    ]
    # The last product takes three transforms, each one before it four.
    work = [(4 if left else 3) * kernel.points(limbs) for limbs, left in steps]
    room = max(Products.size(kernel, limbs, left > 0, threads) for limbs, left in steps)
    a = Number(kernel, steps[-1][0])
    b = Number(kernel, max((limbs for limbs, left in steps if left), default=len(before)))
    a.read(this)
    b.read(before)
    products = Products(kernel, room, threads)
    for done, (_, left) in enumerate(steps):

        def report_part(part: float, done: int = done) -> None:
            report(_PRODUCTS * (sum(work[:done]) + part * work[done]) / sum(work))

        kind = ODD if n >> left & 1 else EVEN
        products.compute(kind, a, b, 2 * a.limbs + 1, [a, b] if left else [a], report_part)
    for prime in (random_prime(), random_prime()):
        if a.residue(int(prime)) != fibonacci.residue(n, prime):
            raise WrongResult(
                f"F({n}) was computed and is wrong: the memory or the processor of this machine is "
                "at fault; check them"
            )
    text = products.text(a)
    report(1)
    return text


def random_prime() -> mpz:
    """Return a random prime of 61 bits, modulo which results are checked."""
    start = 1 << _CHECK_BITS - 1 | int.from_bytes(os.urandom(_CHECK_BITS // 8), "big")
    return gmpy2.next_prime(mpz(start))
