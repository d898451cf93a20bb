"""Pairs in packed decimal, compared with Python's integers."""

from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import quick_digit_count

# Few digits, because Python writes long numbers slowly. All of these stay packed; `kernel` fuzzes
# the sums of longer ones.
_LENGTHS = (1, 2, 7, 8, 9, 40, 600, 1_900)
_POSITIONS = {
    (quick_digit_count(n), quick_digit_count(n + 1)): n for n in range(2, 5 * max(_LENGTHS))
}


def check(data: bytes) -> None:
    """Any two numbers a <= b <= 2 a with the lengths of neighbours step as terms do."""
    if len(data) < 3:
        return
    digits = "".join(str(octet % 10) for octet in data[2:])
    digits = (digits * 300)[: _LENGTHS[(data[0] >> 3) % len(_LENGTHS)]]
    this = int(digits)
    following = this + this * (data[1] & 0x7F) // 127
    start = _POSITIONS.get((len(str(this)), len(str(following))))
    if start is None:
        return
    pair = DecimalPair.of_digits(start, b"%d" % this, b"%d" % following)
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
    assert pair.position == start + taken
    assert pair.digits() == b"%d" % this
    assert pair.digit_count == len(b"%d" % this)
