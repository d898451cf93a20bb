"""The mathematics of the Fibonacci sequence: F(0) = 0, F(1) = 1, F(n) = F(n-1) + F(n-2).

The recurrence runs both ways, so an index may be negative: F(-n) = (-1)^(n+1) F(n).

Exact terms cost memory in proportion to the index, and GMP answers a failed allocation by aborting
the process. They are therefore bounded by `MAX_INDEX` before GMP is called. Residues, digit counts
and leading digits need no term and take indices of up to `MAX_INDEX_DIGITS` decimal digits.
"""

import re
from functools import lru_cache
from math import log10, sqrt
from typing import Final

import gmpy2
from gmpy2 import mpz

from bigfib.numbers.notation import suggestion

MAX_INDEX: Final = 1_000_000_000
"""Largest |n| whose exact term is computed: 208,987,640 digits.

Measured with gmpy2 2.3: F(10^9) peaks at 400 MB, the most that fits a machine of 512 MB; with its
decimal digits at 850 MB.
"""

MAX_INDEX_DIGITS: Final = 10_000
"""Maximum decimal digits of an index; a residue by a short modulus then takes 10 ms."""

_INDEX = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)

_LOG10_PHI: Final = log10((1 + sqrt(5)) / 2)
_HALF_LOG10_5: Final = log10(5) / 2

# Below this index the term itself is cheap (2,090 digits, microseconds). From this index on,
# Binet's formula without its vanishing part has a relative error of phi^(-2n), less than 10^-4179:
# far below every rounding that `_log_term` allows for.
_BINET_FROM: Final = 10_000


class InvalidIndex(ValueError):
    """The text is not an index."""


class InvalidValue(ValueError):
    """The text is not a value that a term might have."""


class IndexTooLarge(ValueError):
    """The index is beyond what can be computed; the message names the limit."""


def parse_index(text: str) -> mpz:
    """Parse an index in ASCII decimal: ``0|-?[1-9][0-9]*``.

    Raises:
        InvalidIndex: ``text`` is anything else (``+5``, ``007``, ``1_000``, ``1e9``).
        IndexTooLarge: It has more than `MAX_INDEX_DIGITS` digits.
    """
    # Check the length first: the pattern would read a megabyte only to refuse it.
    if len(text) > MAX_INDEX_DIGITS + text.startswith("-"):
        raise IndexTooLarge(f"an index has at most {MAX_INDEX_DIGITS} digits, not {len(text)}")
    if not _INDEX.fullmatch(text):
        raise InvalidIndex(
            f"{text!r:.60} is not an index; "
            f"{suggestion(text, 'a whole number in digits, such as 0, 1000 or -6')}"
        )
    return mpz(text)


def require_steps(steps: mpz) -> mpz:
    """Return ``steps``, or raise `InvalidIndex` if it is less than 1."""
    if steps < 1:
        raise InvalidIndex("the number of steps must be at least 1")
    return steps


def parse_value(text: str) -> str:
    """Return ``text``, a value in ASCII decimal: ``0|-?[1-9][0-9]*``; raise `InvalidValue`."""
    if not _INDEX.fullmatch(text):
        raise InvalidValue(
            f"{text!r:.60} is not a value; "
            f"{suggestion(text, 'a whole number in digits, such as 55 or -8')}"
        )
    return text


def nearest(value: str, step: int = 1) -> int:
    """Return the multiple of ``step`` whose term is nearest to a value, on a logarithmic scale.

    ``value`` > 0 is in decimal. By Binet's formula F(n) = phi^n / sqrt(5), so that n is the
    logarithm to base phi of ``value`` times sqrt(5): at F(2) 1.67, at F(3) 3.11, and closer from
    there on. Double precision gives it to within 10^-6 even at `MAX_INDEX`.
    """
    mantissa = float(f"{value[0]}.{value[1:17]}")
    n = (len(value) - 1 + log10(mantissa * sqrt(5))) / _LOG10_PHI
    return step * round(n / step)


def require_computable(n: int | mpz) -> None:
    """Raise `IndexTooLarge` if |n| exceeds `MAX_INDEX`."""
    if abs(n) > MAX_INDEX:
        raise IndexTooLarge(
            f"the largest term computed in full is F({MAX_INDEX}); summaries and residues go "
            "further"
        )


def pair(n: int) -> tuple[mpz, mpz]:
    """Return F(n) and F(n+1), n >= 0; raise as `require_computable` for both."""
    require_computable(n + 1)
    following, this = gmpy2.fib2(n + 1)
    return this, following


def term(n: int | mpz) -> mpz:
    """Return F(n), for negative ``n`` too; raise as `require_computable`."""
    require_computable(n)
    magnitude = gmpy2.fib(int(abs(n)))
    return -magnitude if is_negative(n) else magnitude


def is_negative(n: int | mpz) -> bool:
    """Return whether F(n) < 0."""
    return n < 0 and n % 2 == 0


def residue(n: int | mpz, modulus: int | mpz) -> mpz:
    """Return F(n) mod ``modulus`` >= 1, in 0 .. ``modulus`` - 1, without computing F(n).

    Fast doubling: F(2k) = F(k) (2 F(k+1) - F(k)) and F(2k+1) = F(k)^2 + F(k+1)^2, one doubling a
    bit of ``n``.
    """
    modulus = mpz(modulus)
    this, following = mpz(0), mpz(1) % modulus
    for bit in mpz(abs(n)).digits(2):
        doubled = this * (2 * following - this) % modulus
        doubled_following = (this * this + following * following) % modulus
        if bit == "1":
            this, following = doubled_following, (doubled + doubled_following) % modulus
        else:
            this, following = doubled, doubled_following
    return -this % modulus if is_negative(n) else this


def digit_count(n: int | mpz, base: int = 10) -> mpz:
    """Return the exact number of digits of |F(n)| in ``base`` (2 to 62), without computing F(n).

    By Binet's formula log F(n) = n log(phi) - log(5)/2, at a precision that grows until the
    rounding can no longer change the answer. This ends because no term this large is a power of
    ``base``: F(n) has a prime factor of at least n - 1 (Carmichael 1913).
    """
    n = abs(n)
    if n < _BINET_FROM:
        return mpz(len(gmpy2.fib(int(n)).digits(base)))
    guard = 64
    while True:
        scaled = _log_term(n, base, guard)
        if (scaled - 1) >> guard == (scaled + 2) >> guard:
            return (scaled >> guard) + 1
        guard *= 2


def quick_digit_count(n: int) -> int:
    """Return the exact number of decimal digits of F(n), 0 <= n < 2^53, faster than `digit_count`.

    Compute log10 F(n) by Binet's formula in floating point. Below 2^53 the rounding of constants,
    product and difference adds up to a relative error of less than 2^-50; if that could change the
    answer, use `digit_count`. F(n) is the integer nearest to the formula without its vanishing
    part, and no power of ten is between the two.
    """
    logarithm = n * _LOG10_PHI - _HALF_LOG10_5
    error = logarithm * 2**-50
    digits = int(logarithm + error) + 1
    return digits if digits == int(logarithm - error) + 1 else int(digit_count(n))


def leading_digits(n: int | mpz, count: int) -> str:
    """Return the first ``count`` decimal digits of |F(n)|, or all if it has fewer.

    They are those of 10 to the power of the fraction of log10 F(n), at a precision that grows until
    the rounding can no longer change a digit. ``count`` is 1 to 1000: the part of Binet's formula
    that is left out is then still thousands of digits further right.
    """
    n = abs(n)
    digits: str
    if n < _BINET_FROM:
        digits = gmpy2.fib(int(n)).digits()
        return digits[:count]
    guard = 4 * count + 64
    while True:
        scaled = _log_term(n, 10, guard)
        # One unit more on either side covers the rounding of `_power_of_ten` itself.
        low, high = _power_of_ten(scaled - 2, guard, count), _power_of_ten(scaled + 3, guard, count)
        if low == high:
            digits = low.digits()
            return digits
        guard *= 2


def trailing_digits(n: int | mpz, count: int) -> str:
    """Return the last ``count`` decimal digits of |F(n)|, or all if it has fewer.

    The last k digits of the sequence repeat after 15 * 10^(k-1) terms, for k >= 3 (Wall 1960), so
    that the cost does not depend on the length of ``n``.
    """
    n = abs(n)
    digits: str
    if n < _BINET_FROM:
        digits = gmpy2.fib(int(n)).digits()
        return digits[-count:]
    period = 15 * mpz(10) ** (max(count, 3) - 1)
    digits = residue(n % period, mpz(10) ** count).digits()
    return digits.zfill(count)


def _log_term(n: int | mpz, base: int, guard: int) -> mpz:
    """Return log_base F(n) * 2^guard to within 1, as an integer, for n >= _BINET_FROM."""
    # Four roundings, each by half a unit in the last place of a number below 2^bits(n), together
    # change the result by less than 2^-13.
    precision = mpz(n).bit_length() + guard + 16
    log_phi, half_log_5 = _binet_logarithms(-precision // 4096 * -4096)
    with gmpy2.context(precision=precision):
        log_term = gmpy2.mpfr(n) * log_phi - half_log_5
        return mpz(gmpy2.floor(gmpy2.mul_2exp(log_term / gmpy2.log(gmpy2.mpfr(base)), guard)))


# They are most of the cost of a large summary, which needs them for base 2 and twice for base 10.
@lru_cache(maxsize=4)
def _binet_logarithms(precision: int) -> tuple[gmpy2.mpfr, gmpy2.mpfr]:
    """Return log(phi) and log(5)/2 to ``precision`` bits."""
    with gmpy2.context(precision=precision):
        log_phi = gmpy2.log((1 + gmpy2.sqrt(gmpy2.mpfr(5))) / 2)
        return log_phi, gmpy2.log(gmpy2.mpfr(5)) / 2


def _power_of_ten(scaled: mpz, guard: int, digits: int) -> mpz:
    """Return the first ``digits`` digits of 10^(scaled / 2^guard) as an integer."""
    with gmpy2.context(precision=guard + 16):
        fraction = gmpy2.div_2exp(gmpy2.mpfr(gmpy2.f_mod_2exp(scaled, guard)), guard)
        return mpz(gmpy2.floor(gmpy2.exp10(fraction + (digits - 1))))
