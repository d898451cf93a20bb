"""Compute F(n), its residues and summaries for any n, within bounds checked before the work.

Two parts of the HTTP representations of a term are here, too: the bytes around the digits
(`Frame`), because the digit cache computes digests of the representations; and the time of the
conversion (`Stopwatch`), which a request may ask for, because the conversion is made here.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from time import perf_counter
from typing import Final

from gmpy2 import mpz

from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex
from bigfib.numbers.notation import suggestion

INLINE_LIMIT: Final = 1_000_000
"""Largest |n| whose term is computed inline, while other requests wait: 208,988 digits.

With the C kernel the limit for decimal digits is higher; see `decimal_limit`. Without it, F(10^6)
and its digits take 10 ms, 11 ms in the slowest base (3), and a pair to step from takes 20 ms; at
2 * 10^6 these take 23, 30 and 48 ms.
"""

# A term takes 11 to 16 ms at this limit, 3.3 ms at 10^6, 5.2 at 2 * 10^6.
_KERNEL_INLINE_LIMIT: Final = 5_000_000

BASES: Final = range(2, 63)
"""Bases that terms may be written in. Digits are 0-9a-z; above base 36, 0-9A-Za-z."""

DEFAULT_ENDS: Final = 20
"""Default number of leading and of trailing digits in a summary."""

MAX_ENDS: Final = 500
"""Maximum of both numbers; a summary at an index of 10,000 digits then takes 20 ms."""

MAX_MODULUS_DIGITS: Final = 1_000
"""Maximum number of digits of a modulus."""

MAX_RESIDUE_WORK: Final = 1_000_000
"""Maximum of index digits times modulus digits; a residue then takes 13 to 23 ms."""

# From this index on the C kernel is faster than GMP, by half at 10^6.
_KERNEL_FROM: Final = 300_000

# Cached, so that a long term that is downloaded in parts is computed once.
_TEXTS_KEPT: Final = 8


class Stopwatch:
    """Sum the seconds of its ``with`` blocks.

    Attributes:
        seconds: The sum; while it is None, nothing is measured.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._began = 0.0

    def __enter__(self) -> None:
        if self.seconds is not None:
            self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.seconds is not None:
            self.seconds += perf_counter() - self._began


CONVERSION: Final = Stopwatch()
"""Measures the conversion of terms into text or octets for the request that is answered now."""


class InvalidModulus(ValueError):
    """The text is not a modulus, which is a whole number of at least 1."""


def decimal_limit() -> int:
    """Return the largest |n| whose decimal digits are computed inline: more with the C kernel."""
    from bigfib.numbers import kernel

    return _KERNEL_INLINE_LIMIT if kernel.load() else INLINE_LIMIT


def require_inline(n: int | mpz) -> None:
    """Raise `IndexTooLarge` if F(n) may not be computed inline as one of several terms."""
    if abs(n) > INLINE_LIMIT:
        raise IndexTooLarge(f"terms in a row go from F(-{INLINE_LIMIT}) to F({INLINE_LIMIT})")


@lru_cache(maxsize=_TEXTS_KEPT)
def text(n: mpz, base: int = 10) -> bytes:
    """Return F(n) in ``base`` as ASCII; raise `IndexTooLarge` as `fibonacci.term`."""
    if base == 10 and abs(n) >= _KERNEL_FROM:
        # Imported when first needed: a command that shows a short term does not wait for it.
        from bigfib.numbers import doubling, kernel

        if found := kernel.load():
            digits = bytes(doubling.digits_by_kernel(found, int(abs(n))))
            return b"-" + digits if fibonacci.is_negative(n) else digits
    term = fibonacci.term(n)
    with CONVERSION:
        text: str = term.digits(base)
        return text.encode()


Frame = tuple[bytes, bytes]
"""The bytes before and after the digits of a term in one of its representations."""


def text_frame(n: mpz) -> Frame:
    """Return what is around the digits of F(n) in its text: perhaps a minus sign."""
    return b"-" if fibonacci.is_negative(n) else b"", b""


def document_frame(n: mpz, base: int = 10, *, names_base: bool = False) -> Frame:
    """Return what is around the digits of F(n) in its JSON document, which may name the base."""
    facts = (n, fibonacci.digit_count(n, base), *text_frame(n)[:1])
    opening = b'{"n":"%d","digits":"%d","value":"%b' % facts
    return opening, b'","base":"%d"}' % base if names_base else b'"}'


def length(n: mpz, base: int, frame: Frame) -> int:
    """Return the length of F(n) in ``base`` and ``frame`` without computing it."""
    opening, closing = frame
    return len(opening) + int(fibonacci.digit_count(n, base)) + len(closing)


def decimal_frames(n: int) -> list[Frame]:
    """Return the frames of all representations of F(n) and F(-n) in decimal.

    Their digests are kept in this order, without the frames: for thousands of terms, the frames
    would take some 10 MB more.
    """
    return [
        frame
        for index in (mpz(n), mpz(-n))
        for frame in (
            text_frame(index),
            document_frame(index),
            document_frame(index, names_base=True),
        )
    ]


def octets(n: mpz) -> bytes:
    """Return F(n) in big-endian two's complement, in the fewest bytes that hold it."""
    term = fibonacci.term(n)
    with CONVERSION:
        octets: bytes = term.to_bytes(octets_length(n), "big", signed=True)
        return octets


def octets_length(n: mpz) -> int:
    """Return the length of `octets` without computing it."""
    # Only -2^(8k-1) needs a byte less; the negative powers of two among terms are -1 and -8.
    return int(fibonacci.digit_count(n, base=2)) // 8 + 1


def walk(first: int, count: int, pair: DecimalPair | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield ``count`` consecutive indices from ``first`` with their terms, one linear step each.

    ``pair`` has the terms at |first|, and is stepped here; if it is None, they are computed.
    """
    pair = pair or DecimalPair(abs(first))
    for n in range(first, first + count):
        digits = pair.digits()
        yield n, b"-" + digits if fibonacci.is_negative(n) else digits
        if n < 0:
            pair.back()
        else:
            pair.forward()


def summary(n: mpz, ends: int = DEFAULT_ENDS) -> dict[str, str]:
    """Return a document that describes F(n) for any ``n``.

    Its members are ``n``, ``digits`` (their number), ``leading`` and ``trailing`` (the first and
    last ``ends`` digits) and ``bytes`` (the length of `octets`).

    Raises:
        InvalidIndex: ``ends`` is not in 1 .. `MAX_ENDS`.
    """
    if not 1 <= ends <= MAX_ENDS:
        raise InvalidIndex(f"the number of digits to show at either end is 1 to {MAX_ENDS}")
    sign = "-" if fibonacci.is_negative(n) else ""
    return {
        "n": str(n),
        "digits": str(fibonacci.digit_count(n)),
        "leading": sign + fibonacci.leading_digits(n, ends),
        "trailing": fibonacci.trailing_digits(n, ends),
        "bytes": str(mpz(octets_length(n))),
    }


class NotATerm(LookupError):
    """No term has this value; ``neighbours`` are the indices of the terms below and above it."""

    def __init__(self, below: int, above: int) -> None:
        super().__init__(f"it is not a Fibonacci number: it is between F({below}) and F({above})")
        self.neighbours = below, above


def indices(value: str, digits: Callable[[int], bytes]) -> list[int]:
    """Return the indices of the terms with this value: 1 and 2 for 1, a single one for others.

    The index is negative only if ``value``, from `fibonacci.parse_value`, is negative. It is found
    by the logarithm, and checked by the ``digits`` of that term. Both stay text, so that this takes
    only the time that computing the term takes.

    Raises:
        NotATerm: There is none.
    """
    if value == "0":
        return [0]
    sign = -1 if value[0] == "-" else 1
    # Below F(0) every other term is positive.
    step = 1 if sign > 0 else 2
    magnitude = value.lstrip("-")
    n = fibonacci.nearest(magnitude, step)
    found = digits(n).decode()
    if magnitude == found:
        return [1, 2] if value == "1" else [sign * n]
    is_above = (len(magnitude), magnitude) > (len(found), found)
    low, high = (n, n + step) if is_above else (n - step, n)
    raise NotATerm(*sorted((sign * low, sign * high)))


def parse_modulus(text: str) -> mpz:
    """Parse a modulus in ASCII decimal; raise `InvalidModulus`, or `IndexTooLarge` if too long."""
    try:
        modulus = fibonacci.parse_index(text)
    except InvalidIndex:
        modulus = mpz(0)
    if modulus < 1:
        raise InvalidModulus(
            f"{text!r:.60} is not a modulus; "
            f"{suggestion(text, 'a whole number of at least 1 in digits')}"
        )
    return modulus


def require_cheap_residue(n: mpz, modulus: mpz) -> None:
    """Raise `IndexTooLarge` if F(n) mod ``modulus`` takes too long to be computed inline."""
    index_digits, modulus_digits = len(str(abs(n))), len(str(modulus))
    if modulus_digits > MAX_MODULUS_DIGITS:
        raise IndexTooLarge(
            f"a modulus has at most {MAX_MODULUS_DIGITS} digits, not {modulus_digits}"
        )
    if index_digits * modulus_digits > MAX_RESIDUE_WORK:
        raise IndexTooLarge(
            f"an index of {index_digits} digits allows a modulus of at most "
            f"{MAX_RESIDUE_WORK // index_digits} digits, not {modulus_digits}"
        )
