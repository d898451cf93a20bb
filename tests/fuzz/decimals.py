"""Packed decimals, of which some arithmetic is GMP's own by ctypes, against Python's integers."""

from gmpy2 import mpz

from bigfib.numbers import limbs
from bigfib.numbers.decimals import DecimalPair

# Few, for Python takes long to write numbers of thousands of digits.
_LENGTHS = (1, 2, 7, 8, 9, 16, 40, 150, 600)


def check(data: bytes) -> None:
    if len(data) < 3:
        return
    if data[0] & 7:
        _steps(data)
    else:
        _bytes(data)


def _steps(data: bytes) -> None:
    """Any two numbers a <= b <= 2 a step as Fibonacci's do."""
    digits = "".join(str(octet % 10) for octet in data[2:])
    digits = (digits * 300)[: _LENGTHS[(data[0] >> 3) % len(_LENGTHS)]]
    this = int(digits)
    following = this + this * (data[1] & 0x7F) // 127
    pair = DecimalPair.of_digits(5, b"%d" % this, b"%d" % following)
    taken = 0
    for octet in data[1:40]:
        if octet & 1:
            this, following = following, this + following
            pair.forward()
            taken += 1
        elif taken:
            this, following = following - this, this
            pair.back()
            taken -= 1
        if octet & 6:
            closing = b"}" * (octet >> 5)
            assert pair.digits(closing) == b"%d%b" % (this, closing)
    assert pair.position == 5 + taken
    assert pair.digits() == b"%d" % this
    assert pair.digit_count == len(b"%d" % this)


def _bytes(data: bytes) -> None:
    octets = data[2:]
    # Whole limbs are for long numbers.
    octets = b"\1" + octets * (6_000 // len(octets) if data[0] >= 0xC0 else 1)
    number = mpz(int.from_bytes(octets, "big"))
    count = min(data[1] * len(octets) // 255, len(octets))
    closing = data[: data[0] >> 3 & 3]
    found = limbs.last_bytes(number, len(octets), count, closing)
    assert found == octets[len(octets) - count :] + closing
    try:
        limbs.last_bytes(number, len(octets) - 1, 1)
    except OverflowError:
        return
    raise AssertionError("a number longer than it says")
