"""A pair of consecutive Fibonacci terms in decimal, stepping in linear time.

Converting a binary integer to decimal costs far more than adding two of them, so the pair is kept
in decimal, in one of two ways.

**ASCII digits**, added and subtracted by the C kernel: for terms of `_KERNEL_FROM` digits or more,
where there is a kernel. The sum is already the text, made in one pass.

**Packed decimal**, for all others: integers whose *bytes* are decimal digits; 144 is
``0x01_04_04``. Whole-number arithmetic then works on all digits at once. With the masks ``0xF6``,
``0x0F``, ``0x30`` repeated for each byte:

*Forward.* In ``t = a + 0xF6.. + b`` a byte overflows just when its digits add up to ten or more
(0xF6 = 256 - 10), so the carry between bytes is the decimal carry. A byte that overflowed holds
its digit, 0x00 .. 0x09. Any other byte holds 0xF6 .. 0xFF: its low half is 6 too large, and its
high half is all ones, two of which, shifted right by 3, are the 6 to subtract::

    a + b   = (t & 0x0F..) - ((t & 0x30..) >> 3)

*Back.* In ``t = b - a`` a byte that borrowed got 256 where a decimal digit gets ten: it lies in
0xF6 .. 0xFF, and the same subtraction corrects it.

*Text.* ``a | 0x30..``, read big-endian, is ASCII.
"""

from typing import TYPE_CHECKING, Final

from gmpy2 import mpz

from bigfib.numbers import fibonacci

if TYPE_CHECKING:
    from bigfib.numbers.kernel import Kernel

_CARRY_BIAS: Final = 0xF6
_LOW_HALF: Final = 0x0F
_ASCII_ZERO: Final = 0x30

# Making masks takes several passes over memory, so they are made with room for longer terms: a 64th
# to a 16th more bytes than digits, and at least this many more. Results have zeros there.
_LEAST_ROOM: Final = 8

_KERNEL_FROM: Final = 2_000
"""Digits from which the kernel is faster: a step and its digits take 2.5 us, packed 2.7.

At 209 thousand digits they take 12 us, packed 166.
"""

# Shorter terms are packed again; the gap avoids repeated conversions around one length.
_PACKED_BELOW: Final = 1_900

# 1 / log10(phi): indices after which a term is longer by one digit.
_INDICES_A_DIGIT: Final = 4.784971966781666


class StartOfSequence(ValueError):
    """A step would lead below F(0) from ``position``; nothing has changed."""

    def __init__(self, position: int) -> None:
        super().__init__("there is no term before F(0)")
        self.position = position


class DecimalPair:
    """The terms F(position) and F(position + 1), position >= 0, in decimal.

    ``length`` is the number of decimal digits of F(position + 1), ``memory`` the bytes of all
    numbers held.
    """

    __slots__ = ("_terms", "length", "memory", "position")

    def __init__(self, position: int = 0) -> None:
        """Compute the pair at ``position`` with GMP.

        Raises:
            IndexTooLarge: ``position`` is not below `fibonacci.MAX_INDEX`. Stepping has no limit.
        """
        this, following = fibonacci.pair(position)
        self._set(position, this.digits().encode(), following.digits().encode())

    @classmethod
    def of_digits(cls, position: int, this: bytes, following: bytes) -> "DecimalPair":
        """Return the pair whose terms are ``this`` and ``following``, in ASCII digits.

        Raises:
            ValueError: Their lengths show that they are other numbers.
        """
        lengths = fibonacci.quick_digit_count(position), fibonacci.quick_digit_count(position + 1)
        if (len(this), len(following)) != lengths:
            raise ValueError(
                f"F({position}) and the next term have {lengths[0]} and {lengths[1]} digits, "
                f"not {len(this)} and {len(following)}"
            )
        pair = cls.__new__(cls)
        pair._set(position, this, following)
        return pair

    def _set(self, position: int, this: bytes, following: bytes) -> None:
        self.position = position
        self.length = len(following)
        found = _kernel() if self.length >= _KERNEL_FROM else None
        self._terms: _Packed | _Ascii = (
            _Ascii(found, position, this, following) if found else _Packed(this, following)
        )
        self.memory = self._terms.NUMBERS * self.length

    @property
    def uses_kernel(self) -> bool:
        """Whether the C kernel steps this pair."""
        return type(self._terms) is _Ascii

    @property
    def digit_count(self) -> int:
        """Decimal digits of F(position)."""
        return self._terms.digit_count

    def digits(self, closing: bytes = b"") -> bytes:
        """Return F(position) as ASCII digits, then ``closing``; repeating the call is cheap."""
        return self._terms.digits(closing)

    def forward(self) -> None:
        """Step to position + 1."""
        length = self._terms.forward()
        self.position += 1
        if length != self.length:
            self._note_length(length)

    def back(self) -> None:
        """Step to position - 1, or raise `StartOfSequence`."""
        if self.position == 0:
            raise StartOfSequence(0)
        length = self._terms.back()
        self.position -= 1
        if length != self.length:
            self._note_length(length)

    def _note_length(self, length: int) -> None:
        self.length = length
        terms = self._terms
        self.memory = terms.NUMBERS * length
        if type(terms) is _Ascii:
            fits = length >= _PACKED_BELOW
        else:
            fits = length < _KERNEL_FROM or not _kernel()
        if not fits:
            self._set(self.position, *terms.both())


def farthest_within(memory: int) -> int:
    """Return the farthest position whose pair takes so many bytes, at most."""
    return int(memory / (_Ascii if _kernel() else _Packed).NUMBERS * _INDICES_A_DIGIT)


def _kernel() -> "Kernel | None":
    # Imported when first needed: a command that shows a short term does not wait for ctypes.
    from bigfib.numbers import kernel

    return kernel.load()


class _Ascii:
    """Two terms as ASCII digits, each followed by the closing in use when it was made.

    The length of a result is computed from its index: at 20 thousand digits a step and its digits
    then take 3.0 us, and 3.6 if the length is found from the leading digits.
    """

    __slots__ = (
        "_closing",
        "_following",
        "_following_closing",
        "_kernel",
        "_length",
        "_position",
        "_this",
        "_this_closing",
        "digit_count",
    )

    # The terms. While a step adds them there is a third number.
    NUMBERS: Final = 2

    def __init__(self, kernel: "Kernel", position: int, this: bytes, following: bytes) -> None:
        self._kernel = kernel
        self._position = position
        self._this, self._following = this, following
        self.digit_count, self._length = len(this), len(following)
        self._closing = self._this_closing = self._following_closing = b""

    def digits(self, closing: bytes) -> bytes:
        """Return the first term, then ``closing``."""
        if self._this_closing != closing:
            self._this = self._this[: self.digit_count] + closing
            self._closing = self._this_closing = closing
        return self._this

    def forward(self) -> int:
        """Step forward, and return the length of the second term."""
        self._position += 1
        made = self._kernel.step(
            False,
            fibonacci.quick_digit_count(self._position + 1),
            self._following,
            self._length,
            self._this,
            self.digit_count,
            self._closing,
        )
        self._this, self._this_closing = self._following, self._following_closing
        self._following, self._following_closing = made, self._closing
        self.digit_count, self._length = self._length, len(made) - len(self._closing)
        return self._length

    def back(self) -> int:
        """Step back, and return the length of the second term."""
        self._position -= 1
        made = self._kernel.step(
            True,
            fibonacci.quick_digit_count(self._position),
            self._following,
            self._length,
            self._this,
            self.digit_count,
            self._closing,
        )
        self._following, self._following_closing = self._this, self._this_closing
        self._this, self._this_closing = made, self._closing
        self._length, self.digit_count = self.digit_count, len(made) - len(self._closing)
        return self._length

    def both(self) -> tuple[bytes, bytes]:
        """Return the digits of both terms."""
        return self._this[: self.digit_count], self._following[: self._length]


class _Packed:
    """Two terms as integers whose bytes are decimal digits, and masks for arithmetic on them.

    The methods are those of `_Ascii`.
    """

    __slots__ = (
        "_ascii",
        "_biases",
        "_closing",
        "_following",
        "_length",
        "_low_halves",
        "_room",
        "_text",
        "_this",
    )

    # The terms, three masks and a text; while a step adds, there are eight. Masks are a little
    # longer: measured at 20 thousand to a million digits, all six take 6.2 bytes a digit.
    NUMBERS: Final = 6

    def __init__(self, this: bytes, following: bytes) -> None:
        self._length = len(following)
        self._make_masks()
        self._this = self._ascii ^ mpz.from_bytes(this.rjust(self._room, b"0"), "big")
        self._following = self._ascii ^ mpz.from_bytes(following.rjust(self._room, b"0"), "big")
        self._text: bytes | None = None
        self._closing = b""

    def _make_masks(self) -> None:
        notch = _notch(self._length)
        self._room = (self._length // notch + 2) * notch
        ones = mpz.from_bytes(b"\1" * self._room, "big")
        self._biases = ones * _CARRY_BIAS
        self._ascii = ones * _ASCII_ZERO
        self._low_halves = ones * _LOW_HALF

    @property
    def digit_count(self) -> int:
        return (self._this.bit_length() + 7) // 8 or 1

    def digits(self, closing: bytes) -> bytes:
        if self._text is None or self._closing != closing:
            room, this = self._room, self._this
            text: bytes = (this | self._ascii).to_bytes(room, "big")
            # `digit_count` inlined: for short terms the call is a tenth of the time.
            self._text = text[room - ((this.bit_length() + 7) // 8 or 1) :] + closing
            self._closing = closing
        return self._text

    def forward(self) -> int:
        raw = self._this + self._biases + self._following
        self._this = self._following
        surplus = (raw & self._ascii) >> 3
        # Reuse the name, so that the processor's cache holds one number less.
        raw &= self._low_halves
        self._following = following = raw - surplus
        self._text = None
        if following.bit_length() > 8 * self._length:
            self._length += 1
            if self._length >= self._room:
                self._make_masks()
        return self._length

    def back(self) -> int:
        raw = self._following - self._this
        self._following = self._this
        surplus = (raw & self._ascii) >> 3
        raw &= self._low_halves
        self._this = raw - surplus
        self._text = None
        if self._following.bit_length() <= 8 * (self._length - 1):
            self._length -= 1
            # Shrink late: the next steps may lead forward again.
            if self._length < self._room - 4 * _notch(self._length):
                self._make_masks()
        return self._length

    def both(self) -> tuple[bytes, bytes]:
        this, following = (
            bytes((number | self._ascii).to_bytes(self._room, "big"))
            for number in (self._this, self._following)
        )
        return this[self._room - self.digit_count :], following[self._room - self._length :]


def _notch(length: int) -> int:
    """Return by how many bytes the masks for ``length`` digits grow and shrink."""
    return max(_LEAST_ROOM, 1 << max(length.bit_length() - 6, 0))
