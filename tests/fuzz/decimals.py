"""Pairs in decimal, packed or by the C kernel, against Python's integers."""

from bigfib.numbers.decimals import DecimalPair

# Few, for Python takes long to write numbers of thousands of digits.
_LENGTHS = (1, 2, 7, 8, 9, 40, 600, 1_999, 2_000, 2_100)


def check(data: bytes) -> None:
    """Any two numbers a <= b <= 2 a step as Fibonacci's do."""
    if len(data) < 3:
        return
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
