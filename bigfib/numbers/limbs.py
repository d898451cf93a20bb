"""The bytes of a long integer, by GMP a limb at a time.

``mpz.to_bytes`` lets GMP write single bytes, which costs more than to add two such numbers. The
same function of GMP, ``mpz_export``, is many times faster with whole limbs (The GNU MP manual,
"Integer Import and Export"), but gmpy2 has no way to ask for that. So it is called where gmpy2 has
linked it. Measured, beside ``to_bytes``: 0.3 times as fast at 1,000 bytes, 1 at 4 thousand, 2.4 at
10 thousand, 5 at 209 thousand and at 2 million; of a step and its digits that was more than half.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import gmpy2
from gmpy2 import mpz

_EXPORTED_FROM: Final = 5_000
"""Bytes from which on the call pays."""

_LIMB: Final = 8

# mpz_export's order and endian.
_MOST_SIGNIFICANT_FIRST: Final = 1


# Behind the head that all objects have, gmpy2's ``mpz`` has GMP's struct (in <gmp.h> two int and a
# pointer) and a hash.
_HEAD: Final = object.__basicsize__
_WHOLE: Final = _HEAD + struct.calcsize("iiP") + struct.calcsize("n")


def last_bytes(number: mpz, size: int, count: int, closing: bytes = b"") -> bytes:
    """Return the last ``count`` bytes, big-endian, of ``number`` > 0, which has ``size`` of them.

    ``closing`` stands behind them, where that costs no further copy.

    Raises:
        OverflowError: ``number`` has more bytes.
    """
    export = _export() if size >= _EXPORTED_FROM else None
    if export is None:
        octets: bytes = number.to_bytes(size, "big")
        return octets[size - count :] + closing
    if number.bit_length() > 8 * size:
        # GMP would write beyond the buffer.
        raise OverflowError(f"a number of {number.bit_length()} bits has more than {size} bytes")
    size = (size + _LIMB - 1) // _LIMB * _LIMB
    buffer = bytearray(size + len(closing))
    buffer[size:] = closing
    export(buffer, number)
    return bytes(memoryview(buffer)[size - count :])


@lru_cache(maxsize=1)
def _export() -> Callable[[bytearray, mpz], None] | None:
    """Return what fills a buffer with a number in whole limbs, if that can be had.

    Loaded when first needed, for a command that shows a short term need not wait for it.
    """
    import ctypes

    if mpz.__basicsize__ != _WHOLE:
        return None
    try:
        # Found wherever the extension module was linked to.
        function: Any = ctypes.PyDLL(gmpy2.gmpy2.__file__).__gmpz_export
    except (AttributeError, OSError):
        return None
    pointer, number, words = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    function.argtypes = [pointer, pointer, number, words, number, words, pointer]
    function.restype = pointer

    def export(buffer: bytearray, integer: mpz) -> None:
        function(
            ctypes.addressof(ctypes.c_char.from_buffer(buffer)),
            None,
            *(_MOST_SIGNIFICANT_FIRST, _LIMB, _MOST_SIGNIFICANT_FIRST, 0),
            # CPython's address of an object.
            id(integer) + _HEAD,
        )

    # A gmpy2 that holds its numbers in another way is told by what comes out.
    sample = mpz((1 << 8 * _LIMB * 3) // 7)
    found = bytearray(3 * _LIMB)
    export(found, sample)
    return export if found == sample.to_bytes(3 * _LIMB, "big") else None
