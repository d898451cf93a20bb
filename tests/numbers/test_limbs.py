"""The bytes of long integers against Python's own integers."""

import random
import subprocess
import sys

import pytest
from gmpy2 import mpz

from bigfib.numbers import limbs

RANDOMNESS = random.Random(6)


# About where whole limbs begin and end, where they are asked for, and where the kept buffer ends.
@pytest.mark.parametrize(
    "size",
    [1, 2, 7, 8, 9, *range(2_490, 2_520), 40_000, *range(65_510, 65_545), 1_000_003],
)
def test_last_bytes(size: int) -> None:
    octets = RANDOMNESS.randbytes(size).replace(b"\0", b"\1")
    number = mpz(int.from_bytes(octets, "big"))
    for left_out in {0, 1, 7, 8, 9, size - 1} & set(range(size)):
        for closing in (b"", b'"}', b'","status":"200"}'):
            found = limbs.last_bytes(number, size, size - left_out, closing)
            assert found == octets[left_out:] + closing
    assert int(number) == int.from_bytes(octets, "big")


def test_what_was_returned_stays() -> None:
    numbers = [mpz(int.from_bytes(bytes([digit]) * 10_000, "big")) for digit in (1, 2)]
    first, second = (limbs.last_bytes(number, 10_000, 10_000) for number in numbers)
    assert (first, second) == (b"\1" * 10_000, b"\2" * 10_000)


@pytest.mark.parametrize("size", [100, 2_500, 2_504, 5_000, 200_000])
def test_a_longer_number_is_refused(size: int) -> None:
    with pytest.raises(OverflowError):
        limbs.last_bytes(mpz(1) << 8 * size, size, 8)


def test_a_shorter_number_is_refused() -> None:
    with pytest.raises(OverflowError):
        limbs.last_bytes(mpz(1) << 8 * 9_000, 10_000, 8)


def test_zeros_count() -> None:
    number = mpz(1) << 8 * 6_000
    assert limbs.last_bytes(number, 6_001, 6_001) == b"\1" + bytes(6_000)
    assert limbs.last_bytes(number, 6_001, 6_000) == bytes(6_000)


def test_gmp_is_asked() -> None:
    """Else all of this would be true, and slow."""
    assert limbs._export() is not None


def test_a_short_term_waits_for_no_more_imports() -> None:
    script = "import sys, bigfib.sequences; sys.exit('ctypes' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
