"""Read whole numbers as people write them: 1,000,000, 1_000_000, 1 000 000, 1e6, 1.5e6, 10^6.

The page reads the same (`bigfib/page/numbers.js`); a test holds the two together. HTTP takes the
canonical form only, `0|-?[1-9][0-9]*`, and names it in its refusal.
"""

import re
from typing import Final

from gmpy2 import mpz

_LONGEST: Final = 10_000
"""Maximum digits of a number written as 1e6 or 10^6; a longer index would be refused anyway."""

_WRITTEN: Final = re.compile(
    r"(-?)(?:(\d+)|(\d+)(?:\.(\d*))?e\+?(\d{1,5})|(\d+)\^(\d{1,5}))", re.ASCII | re.IGNORECASE
)


def read(written: str) -> str | None:
    """Return the canonical form of a number, or None if it is not a whole number."""
    found = _WRITTEN.fullmatch(re.sub(r"[\s,_]", "", written).replace("\N{MINUS SIGN}", "-"))
    if not found:
        return None
    sign, digits, mantissa, fraction, exponent, base, power = found.groups()
    if mantissa:
        digits = _shifted(mantissa, fraction or "", int(exponent))
    elif base:
        digits = _raised(base, int(power))
    if digits is None:
        return None
    digits = digits.lstrip("0") or "0"
    return digits if digits == "0" else f"{sign}{digits}"


def suggestion(written: str, otherwise: str) -> str:
    """Return how to write the number: its canonical form, or ``otherwise`` if it has none."""
    # A long text is no mistaken notation.
    canonical = read(written) if len(written) <= 60 else None
    is_other = canonical and canonical != written and len(canonical) <= 60
    return f"write {canonical if is_other else otherwise}"


def _shifted(mantissa: str, fraction: str, exponent: int) -> str | None:
    zeros = exponent - len(fraction.rstrip("0"))
    if zeros < 0 or len(mantissa) + exponent > _LONGEST:
        return None
    return mantissa + fraction.ljust(exponent, "0")[:exponent]


def _raised(base: str, power: int) -> str | None:
    # The product is up to 3.3 times the length, for base 2. So allow four times the length here,
    # and check the result.
    if len(base) * power > 4 * _LONGEST:
        return None
    digits: str = (mpz(base) ** power).digits()
    return None if len(digits) > _LONGEST else digits
