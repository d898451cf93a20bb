"""The packed decimal pair against FLINT's terms and Python's own integers."""

import random

import pytest
from flint import fmpz

from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import MAX_INDEX, IndexTooLarge


def text_of(n: int) -> bytes:
    """F(n) in decimal, by FLINT."""
    return str(fmpz.fib_ui(fmpz(n))).encode()


# Where F(n) has one digit more than F(n - 1).
LENGTH_BOUNDARIES = [n for n in range(2, 3000) if len(text_of(n)) > len(text_of(n - 1))]


def test_begins_at_zero() -> None:
    pair = DecimalPair()
    assert (pair.position, pair.digits(), pair.digit_count) == (0, b"0", 1)


def test_every_step_forward_and_back_through_zero() -> None:
    pair = DecimalPair()
    this, following = 0, 1
    terms = [b"0"]
    for position in range(1, 2001):
        this, following = following, this + following
        terms.append(b"%d" % this)
        pair.forward()
        assert pair.position == position
        assert pair.digits() == terms[position]
        assert pair.digit_count == len(terms[position])
    for position in reversed(range(2000)):
        pair.back()
        assert pair.position == position
        assert pair.digits() == terms[position]
        assert pair.digit_count == len(terms[position])
    pair.forward()
    pair.forward()
    pair.forward()
    assert pair.digits() == b"2"


@pytest.mark.parametrize("boundary", random.Random(1).sample(LENGTH_BOUNDARIES, 40))
def test_to_and_fro_over_a_length_boundary(boundary: int) -> None:
    pair = DecimalPair(boundary - 2)
    path = [*["forward"] * 4, *["back"] * 5, "forward", "back", *["forward"] * 3]
    for step in path:
        getattr(pair, step)()
        assert pair.digits() == text_of(pair.position)
    assert pair.position == boundary


def test_built_at_every_length_boundary() -> None:
    for boundary in LENGTH_BOUNDARIES:
        for position in (boundary - 1, boundary):
            assert DecimalPair(position).digits() == text_of(position)


def test_carries_and_borrows_run_far() -> None:
    # A run of nines or zeros in a term is where a carry or a borrow has run through its neighbours.
    found = [n for n in range(3000) if b"9999" in text_of(n) or b"0000" in text_of(n)]
    assert len(found) > 50
    for n in found:
        pair = DecimalPair(n - 1)
        pair.forward()
        assert pair.digits() == text_of(n)
        pair.forward()
        pair.back()
        assert pair.digits() == text_of(n)


@pytest.mark.parametrize("n", random.Random(3).sample(range(50_000, 400_000), 6))
def test_far_away_in_both_directions(n: int) -> None:
    pair = DecimalPair(n)
    assert pair.digits() == text_of(n)
    for _ in range(30):
        pair.forward()
    assert pair.digits() == text_of(n + 30)
    for _ in range(60):
        pair.back()
    assert pair.digits() == text_of(n - 30)


def test_a_long_walk_ends_where_it_began() -> None:
    pair = DecimalPair(20_000)
    for _ in range(3000):
        pair.forward()
    assert pair.digits() == text_of(23_000)
    for _ in range(6000):
        pair.back()
    assert pair.digits() == text_of(17_000)


@pytest.mark.parametrize(("this", "following"), [(6150, 6000), (6000, 6002)])
def test_no_neighbours(this: int, following: int) -> None:
    with pytest.raises(ValueError, match="no neighbours"):
        DecimalPair.of_digits(10, b"7" * this, b"1" * following)


def test_there_is_nothing_before_zero() -> None:
    pair = DecimalPair()
    with pytest.raises(StartOfSequence):
        pair.back()
    assert (pair.position, pair.digits()) == (0, b"0")
    pair.forward()
    assert pair.digits() == b"1"


def test_digits_are_converted_once() -> None:
    pair = DecimalPair(1000)
    assert pair.digits() is pair.digits()


def test_cannot_be_built_beyond_what_is_computed() -> None:
    with pytest.raises(IndexTooLarge):
        DecimalPair(MAX_INDEX)
